//! Locations that are values only, with a scheme for each kind of hole.
use async_trait::async_trait;
use std::fmt;
use std::sync::Arc;
use trace_destination_core::{
    Capabilities, Error, ErrorKind, Guarantee, Hole, LocationUri, NameRule, Registry,
    TraceLocation, TraceSink,
};

#[derive(Debug)]
struct Place(LocationUri);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Place {
    fn uri(&self) -> &LocationUri {
        &self.0
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        Err(Error::new(ErrorKind::Unsupported, "open", "a value only"))
    }
}

pub fn registry() -> Registry {
    let holes = [
        ("exact", vec![Hole::name(NameRule::Exact)]),
        (
            "part",
            vec![Hole::name(NameRule::Identifier).in_parts('.', 1..=2)],
        ),
        (
            "file",
            vec![
                Hole::file(NameRule::Segment),
                Hole::folder(NameRule::Segment),
            ],
        ),
        ("http", vec![Hole::query("k", NameRule::Printable)]),
    ];
    holes
        .into_iter()
        .fold(Registry::new(), |registry, (scheme, holes)| {
            registry
                .with_scheme(scheme, |uri| {
                    Ok(Arc::new(Place(uri.clone())) as Arc<dyn TraceLocation>)
                })
                .with_holes(scheme, holes)
        })
}
