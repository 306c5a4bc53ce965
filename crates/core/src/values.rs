//! Values set on a trace as a whole, on their way to each of its locations.
//!
//! ```text
//!  trace.rs update_current_trace ──▶ pipeline/values.rs  for each lane of the trace:
//!                                    values/fit.rs       cut to what the place keeps
//!      the place has a home for them ├──▶ ingress ──▶ lane/open_batch.rs ──▶ TraceBatch::updates
//!      it has spans only             └──▶ values/waiting.rs  until the root is delivered
//!  delivery.rs, a batch is sealed ──────▶ values/on_root.rs  attributes of the root span
//! ```

mod fit;
mod on_root;
mod waiting;

pub(crate) use fit::OPERATION;
pub(crate) use on_root::write;
pub(crate) use waiting::{NotHeld, Waiting, WaitingValues};
