//! Stores OpenTelemetry traces as Delta tables, named and governed by Unity Catalog or by the
//! folder they are in.

mod catalog;
mod error;
mod name;
mod rows;
mod schema;
mod storage;
