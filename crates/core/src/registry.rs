//! From text to destinations: which scheme is understood by which backend.

use crate::destination::Destination;
use crate::error::{Error, ErrorKind};
use crate::location::TraceLocation;
use crate::suggest;
use crate::template::{Hole, Template};
use crate::uri::LocationUri;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

pub(crate) type Factory =
    dyn Fn(&LocationUri) -> Result<Arc<dyn TraceLocation>, Error> + Send + Sync;

/// The schemes this program understands. The facade fills one with every backend that is compiled
/// in; a program with its own sink adds its scheme to it.
#[derive(Clone, Default)]
pub struct Registry {
    factories: BTreeMap<&'static str, Arc<Factory>>,
    absent: BTreeMap<&'static str, &'static str>,
    holes: BTreeMap<&'static str, Arc<[Hole]>>,
}

impl Registry {
    /// A registry that knows no scheme.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a scheme. A scheme that is already there is replaced, with its
    /// [holes](Registry::with_holes).
    #[must_use]
    pub fn with_scheme<F>(mut self, scheme: &'static str, factory: F) -> Self
    where
        F: Fn(&LocationUri) -> Result<Arc<dyn TraceLocation>, Error> + Send + Sync + 'static,
    {
        self.factories.insert(scheme, Arc::new(factory));
        self.holes.remove(scheme);
        self
    }

    /// Says where a [`Template`] of a scheme may have holes; nowhere unless it is said. Two names
    /// that fit a hole must never give one place.
    #[must_use]
    pub fn with_holes(
        mut self,
        scheme: &'static str,
        holes: impl IntoIterator<Item = Hole>,
    ) -> Self {
        self.holes.insert(scheme, holes.into_iter().collect());
        self
    }

    pub(crate) fn holes(&self, scheme: &str) -> &[Hole] {
        self.holes.get(scheme).map_or(&[], |holes| holes)
    }

    /// Names a scheme that exists but is not compiled in, and what the reader can do about it.
    #[must_use]
    pub fn with_absent_scheme(mut self, scheme: &'static str, mend: &'static str) -> Self {
        self.absent.insert(scheme, mend);
        self
    }

    /// The location a URI names.
    ///
    /// # Errors
    /// `InvalidConfig` for an unknown scheme (naming those that are known, or the feature that
    /// brings it), and whatever the backend has to say about the URI.
    pub fn location(&self, uri: &LocationUri) -> Result<Arc<dyn TraceLocation>, Error> {
        let factory = self.factory(uri.scheme());
        factory.map_err(|error| match suggest::of_uri(uri) {
            Some(mend) => error.mend(mend),
            None => error,
        })?(uri)
    }

    pub(crate) fn factory(&self, scheme: &str) -> Result<&Factory, Error> {
        if let Some(factory) = self.factories.get(scheme) {
            return Ok(&**factory);
        }
        let error = Error::new(
            ErrorKind::InvalidConfig,
            "parse location",
            format!("no backend understands `{}:`", scheme.escape_debug()),
        );
        if let Some(mend) = self.absent.get(scheme) {
            return Err(error.mend(*mend));
        }
        if let Some(mend) = suggest::of_scheme(scheme) {
            return Err(error.mend(mend));
        }
        let known: Vec<_> = self.factories.keys().map(|s| format!("{s}:")).collect();
        let known = format!("use one of {}", known.join(", "));
        let all = self.factories.keys().chain(self.absent.keys()).copied();
        Err(match suggest::nearest(scheme, all) {
            Some(near) => error.mend(format!("did you mean `{near}:`? {known}")),
            None => error.mend(known),
        })
    }

    /// The destination a list of URIs names, separated by commas; a comma inside a URI is written
    /// `%2C`. The words `discard` and `unset` stand alone.
    ///
    /// # Errors
    /// As for [`Registry::location`] and [`Destination::all`].
    pub fn destination(&self, list: &str) -> Result<Destination, Error> {
        match list.trim() {
            "discard" => return Ok(Destination::discard()),
            "unset" => return Ok(Destination::unset()),
            _ => {}
        }
        refuse_holes(list)?;
        let mut legs = Vec::new();
        for (i, text) in list.split(',').enumerate() {
            let uri: LocationUri = text.parse().map_err(|error: Error| {
                match (i > 0 && !text.contains(':'), error.mend_hint()) {
                    (true, Some(mend)) => {
                        let mend = format!("{mend}; for a comma inside a URI write %2C");
                        error.mend(mend)
                    }
                    _ => error,
                }
            })?;
            legs.push(Destination::from_location(self.location(&uri)?));
        }
        Destination::all(legs)
    }

    /// The destination one URI names, with exactly one location. For whatever is not configuration:
    /// a list, `discard` and `unset` are refused. Names from outside go through a [`Template`].
    ///
    /// # Errors
    /// `InvalidConfig` for anything but one URI, and as for [`Registry::location`].
    pub fn single(&self, uri: &str) -> Result<Destination, Error> {
        self.single_location(uri).map(Destination::from_location)
    }

    pub(crate) fn single_location(&self, uri: &str) -> Result<Arc<dyn TraceLocation>, Error> {
        let refused = |cause: &'static str, mend: &'static str| {
            Err(Error::new(ErrorKind::InvalidConfig, "parse location", cause).mend(mend))
        };
        match uri.trim() {
            "discard" | "unset" => {
                return refused("it is a word and no place", "name one location by its URI");
            }
            list if list.contains(',') => {
                return refused(
                    "it has a comma, which separates locations, and one is wanted",
                    "name one location; write %2C for a comma inside a URI",
                );
            }
            _ => {}
        }
        refuse_holes(uri)?;
        self.location(&uri.parse()?)
    }

    /// The template a text names: one or more URIs with holes, separated by commas.
    ///
    /// # Errors
    /// `InvalidConfig` if a hole stands where the scheme has none, if two of its locations could
    /// become one place, if it has no hole, and as for [`Registry::destination`].
    pub fn template(&self, text: &str) -> Result<Template, Error> {
        Template::parse(text, self)
    }

    /// The schemes that are understood, sorted.
    pub fn schemes(&self) -> impl Iterator<Item = &'static str> {
        self.factories.keys().copied()
    }
}

/// A template that is read as a location would be one place for everybody.
fn refuse_holes(text: &str) -> Result<(), Error> {
    match text.contains(['{', '}']) {
        true => Err(Error::new(
            ErrorKind::InvalidConfig,
            "parse location",
            "it has a brace, as a template has for names",
        )
        .mend("make it a `Template`, or write %7B and %7D for the braces themselves")),
        false => Ok(()),
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("schemes", &self.factories.keys())
            .field("absent", &self.absent.keys())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryLocation;

    fn registry() -> Registry {
        Registry::new()
            .with_scheme("memory", |uri| {
                Ok(Arc::new(MemoryLocation::from_uri(uri)?) as Arc<dyn TraceLocation>)
            })
            .with_absent_scheme("sqlite", "turn on the feature `experiment`")
    }

    #[test]
    fn a_list_is_a_set_and_a_comma_inside_is_escaped() {
        let registry = registry();
        let list = registry
            .destination(" memory:b , memory:a,memory:b")
            .unwrap();
        assert_eq!(list.to_string(), "memory:a,memory:b");
        assert_eq!(registry.destination(&list.to_string()).unwrap(), list);
        let one = registry.destination("memory:a%2Cb").unwrap();
        assert_eq!(one.locations().len(), 1);
        assert_eq!(one.locations()[0].uri().path(), "a,b");
        assert!(registry.destination("discard").unwrap().is_discard());
        assert!(registry.destination(" unset ").unwrap().is_unset());
    }

    #[test]
    fn a_single_location_is_one_uri_and_nothing_else() {
        let registry = registry();
        let one = registry.single(" memory:a%2Cb ").unwrap();
        assert_eq!(one.to_string(), "memory:a%2Cb");
        for (text, said) in [
            ("memory:a,memory:b", "a comma"),
            ("memory:a,", "a comma"),
            (",memory:a", "a comma"),
            ("memory:{tenant}", "Template"),
            ("discard", "no place"),
            (" unset ", "no place"),
            ("", "scheme"),
            ("ftp:x", "use one of memory:"),
        ] {
            let error = registry.single(text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(said), "{text}: {error}");
            assert!(error.mend_hint().is_some(), "{error}");
        }
    }

    #[test]
    fn errors_say_what_to_do() {
        let registry = registry();
        for (list, said) in [
            ("ftp://h", "use one of memory:"),
            ("memry:x", "did you mean `memory:`?"),
            ("sqlit:///x.db", "did you mean `sqlite:`?"),
            ("localhost:5000", "write http://localhost:5000"),
            (
                "tracking.example:5000",
                "write http://tracking.example:5000",
            ),
            ("127.0.0.1:5000", "write http://127.0.0.1:5000"),
            ("mlflow.db", "write sqlite:///mlflow.db"),
            (
                "/srv/traces/mlflow.db",
                "write sqlite:////srv/traces/mlflow.db",
            ),
            ("postgresql://db/mlflow", "tracking server"),
            ("file:///mlruns", "sqlite:///"),
            ("grpc://h:4317", "otlp+http://"),
            ("sqlite:///x.db", "turn on the feature `experiment`"),
            ("memory:", "memory:name"),
            ("memory:a,", "scheme"),
            ("", "scheme"),
            ("memory:a,discard", "scheme"),
            ("memory:{tenant}", "Template"),
        ] {
            let error = registry.destination(list).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(said), "{list}: {error}");
        }
        assert_eq!(registry.schemes().collect::<Vec<_>>(), ["memory"]);
    }
}
