//! What the benches share: paired measurement against a baseline, the file of results, and a place
//! that stores nothing.
//!
//! A figure of this crate is a ratio. Both sides run in one process, alternately, in random order
//! within each pair, so that whatever else the machine does falls on both; the median of the pairs'
//! ratios is reported, and its bootstrapped 95 % bound decides whether the goal is met. Criterion
//! adds the absolute times, for the record.

mod null;
mod paired;
mod results;
mod run;

pub use null::{NullExporter, NullLocation};
pub use paired::{Comparison, Goal, Pair, Sample, Void};
pub use results::{Result, path, record};
pub use run::{Run, criterion};
