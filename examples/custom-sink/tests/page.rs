//! The code in `docs/sinks.md` is this example's.

use std::path::Path;

#[test]
fn the_page_shows_this_example() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &str| std::fs::read_to_string(here.join(path)).expect(path);
    let code = read("src/lib.rs") + &read("tests/conformance.rs");
    let page = read("../../docs/sinks.md");
    let blocks: Vec<&str> = page
        .split("```rust,ignore\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(blocks.len() >= 6, "{} blocks were found", blocks.len());
    for block in blocks {
        assert!(code.contains(block), "not in the example:\n{block}");
    }
}
