//! Unit tests of the pure rules; equality with MLflow's server is tested against its frozen answers.

use super::*;

#[test]
fn a_parent_speaks_for_its_subtree_in_any_order() {
    let usage = |n: i64| {
        Some(Usage::of(&json::loads(&format!("{{\"input_tokens\": {n}}}")).unwrap()).unwrap())
    };
    let spans = [
        ("01", None, None),
        ("02", Some("01"), usage(10)),
        ("03", Some("02"), None),
        ("04", Some("03"), usage(5)),
        ("05", Some("01"), usage(1)),
    ];
    for start in 0..spans.len() {
        let mut rollup = Rollup::default();
        for i in 0..spans.len() {
            let (id, parent, usage) = spans[(start + i) % spans.len()];
            rollup.insert(id, parent, usage, None);
        }
        assert_eq!(
            rollup.usage().unwrap().columns()[0],
            Some(11),
            "starting at {start}"
        );
        // The same again changes nothing; another value replaces the first.
        rollup.insert("02", Some("01"), usage(10), None);
        assert_eq!(rollup.usage().unwrap().columns()[0], Some(11));
        rollup.insert("02", Some("01"), None, None);
        assert_eq!(rollup.usage().unwrap().columns()[0], Some(6));
    }
}
