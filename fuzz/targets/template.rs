#![no_main]
//! A template and two names, one on each line: what is accepted is confined, exact, and never one
//! place for both.
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use trace_destination_core::Registry;

mod place;

static REGISTRY: LazyLock<Registry> = LazyLock::new(place::registry);

fuzz_target!(|input: &str| {
    let mut lines = input.splitn(3, '\n');
    let mut line = || lines.next().unwrap_or_default();
    let (text, one, other) = (line(), line(), line());
    let Ok(template) = REGISTRY.template(text) else {
        return;
    };
    let shown = template.to_string();
    let again = REGISTRY
        .template(&shown)
        .expect("a template is parsed as it prints");
    assert_eq!(again.to_string(), shown);
    let fill = |name: &str| {
        template
            .destination(template.variables().map(|v| (v, name)))
            .ok()
    };
    let Some(first) = fill(one) else { return };
    assert_eq!(first.locations().len(), text.split(',').count());
    let printed = REGISTRY.destination(&first.to_string());
    assert_eq!(
        printed.expect("a destination is parsed as it prints"),
        first
    );
    if let Some(second) = fill(other) {
        assert_eq!(first == second, one == other);
        let folded = first.to_string().to_lowercase() == second.to_string().to_lowercase();
        assert!(!folded || one == other || shown.contains("exact:"));
    }
});
