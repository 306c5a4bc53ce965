#![doc = include_str!("../README.md")]

mod case;
mod cases;
mod failure;
mod faulty;
mod harness;
mod memory;
mod on_root;
mod report;
mod suite;
mod world;
pub mod writer;

pub use case::{Case, Need, table};
pub use failure::Failure;
pub use faulty::{Act, Call, Control, Faulty, REFUSE, condemned, passing, permanent, throttled};
pub use harness::{
    Declares, HARNESS_PATIENCE, Harness, Misconfigured, RealFault, Scale, Stored, StoredSpan,
    Untouched,
};
pub use memory::MemoryHarness;
pub use on_root::values_on_root;
pub use report::{Outcome, Report, Row};
pub use suite::{BACKENDS_VAR, CASES_VAR, REPORT_VAR, Suite, assert_conforms};
