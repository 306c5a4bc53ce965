//! Ships OpenTelemetry traces to a server.

mod builder;
mod classify;
mod client;
mod config;
mod databricks;
mod encode;
mod environment;
mod error;
mod export;
mod generations;
mod host;
mod keys;
mod location;
mod mlflow;
mod otlp;
mod secret;
mod tls;
mod transport;
mod validate;

pub use builder::{MissingExperiment, ServerLocationBuilder};
pub use config::*;
pub use location::ServerLocation;
pub use transport::Compression;
