//! What the tests of several crates share: a server that means harm, and a watch on memory.
//!
//! Not published, and used by tests only.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod hostile;
mod memory;
mod page;

pub use hostile::{Hostile, Malice, Reply, Seen};
pub use memory::{Watch, live_bytes};
pub use page::check_page;
pub use stats_alloc;
