//! Tables from outside: what they are made of, what becomes of batches that come twice, of writers
//! that die, of stores that fail, and of tables that are not ours.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "table/annotation_faults.rs"]
mod annotation_faults;
#[path = "table/annotations.rs"]
mod annotations;
#[path = "table/append.rs"]
mod append;
#[path = "table/cases.rs"]
mod cases;
#[path = "table/change.rs"]
mod change;
#[path = "table/configuration.rs"]
mod configuration;
#[path = "table/damaged.rs"]
mod damaged;
#[path = "table/faults.rs"]
mod faults;
#[path = "table/faulty_store.rs"]
mod faulty_store;
#[path = "table/features.rs"]
mod features;
#[path = "table/foreign_words.rs"]
mod foreign_words;
#[path = "table/help.rs"]
mod help;
#[path = "table/hooked_store.rs"]
mod hooked_store;
#[path = "table/identity.rs"]
mod identity;
mod lake;
#[path = "table/maintenance.rs"]
mod maintenance;
#[path = "table/many.rs"]
mod many;
#[path = "table/processes.rs"]
mod processes;
#[path = "table/stores.rs"]
mod stores;
