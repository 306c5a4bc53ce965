//! The reference backend keeps every promise.

use trace_destination_conformance::{MemoryHarness, assert_conforms};

#[test]
fn memory_conforms() {
    assert_conforms(MemoryHarness::new());
}
