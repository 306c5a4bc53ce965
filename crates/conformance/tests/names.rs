//! The case of hostile names fails where two names meet in one place, and passes where they cannot.

use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use trace_destination_conformance::{Declares, Failure, Harness, MemoryHarness, Stored, Suite};
use trace_destination_core::{
    Capabilities, Error, Hole, LocationUri, MemoryLocation, NameRule, Registry, Template,
    TraceLocation, TraceSink,
};

/// A place that folds case, and tells nobody.
#[derive(Debug)]
struct Folding(LocationUri);

impl Folding {
    fn inner(uri: &LocationUri) -> Result<MemoryLocation, Error> {
        let name = format!("folding-{}", uri.path().to_lowercase());
        MemoryLocation::from_uri(&LocationUri::from_parts("memory", None, &name, [])?)
    }
}

impl fmt::Display for Folding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Folding {
    fn uri(&self) -> &LocationUri {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        MemoryLocation::new("any").capabilities()
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Self::inner(&self.0)?.open().await
    }
}

#[derive(Debug)]
struct FoldingHarness {
    memory: MemoryHarness,
    /// Which names the backend says it can tell apart.
    declared: NameRule,
    /// Keeps two harnesses apart.
    name: &'static str,
}

#[async_trait]
impl Harness for FoldingHarness {
    fn name(&self) -> &str {
        self.name
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        self.memory.fresh_location(hint).await
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        match location.uri().scheme() {
            "fold" => {
                self.memory
                    .read_back(&Folding::inner(location.uri())?)
                    .await
            }
            _ => self.memory.read_back(location).await,
        }
    }

    fn declares(&self) -> Declares {
        Declares::default().with_templates()
    }

    async fn template(&self) -> Result<Template, Failure> {
        let registry = Registry::new()
            .with_scheme("fold", |uri| {
                Ok(Arc::new(Folding(uri.clone())) as Arc<dyn TraceLocation>)
            })
            .with_holes("fold", [Hole::name(self.declared)]);
        Ok(registry.template(&format!("fold:{}-{{tenant}}", self.name))?)
    }
}

fn failures(declared: NameRule, name: &'static str) -> String {
    let harness = FoldingHarness {
        memory: MemoryHarness::new(),
        declared,
        name,
    };
    let report = Suite::new()
        .with_harness(Arc::new(harness))
        .with_filter("input::names_of_tenants")
        .run();
    match report.verdict() {
        Ok(()) => String::new(),
        Err(_) => report.to_string(),
    }
}

#[test]
fn a_place_that_folds_and_does_not_say_so_is_found() {
    let report = failures(NameRule::Exact, "silent");
    assert!(report.contains("foreign"), "{report}");
}

#[test]
fn a_place_that_says_so_passes() {
    for (rule, name) in [
        (NameRule::Identifier, "identifier"),
        (NameRule::Segment, "segment"),
        (NameRule::Printable, "printable"),
    ] {
        assert_eq!(failures(rule, name), "", "{name}");
    }
}
