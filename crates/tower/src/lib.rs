#![doc = include_str!("../README.md")]

mod body;
mod future;
mod layer;
mod service;
mod unresolved;

pub use body::ResponseBody;
pub use future::ResponseFuture;
pub use layer::{DestinationLayer, RequestDestination};
pub use service::DestinationService;
pub use unresolved::{OnUnresolved, RunUnset, Unresolved};
