//! A destination: the location, or the set of locations, that applies to one trace.

use crate::contain::{caught, drop_here};
use crate::error::{Error, ErrorKind};
use crate::location::{Capabilities, Guarantee, TraceLocation, TraceSink};
use crate::sampling::note_ratio;
use crate::uri::LocationUri;
use async_trait::async_trait;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, LazyLock};

/// Where one trace goes: a set of locations, or one of two words that are no place at all.
///
/// A value: cheap to clone, equal and hashed by the set of URIs, so it may be the key of a map (what
/// `clippy::mutable_key_type` sees inside is no part of its identity). Make it once per tenant and
/// keep it, as a [`Template`](crate::Template) does; making it again is correct but costs a look-up
/// per trace.
#[derive(Clone)]
pub struct Destination(Repr);

#[derive(Clone)]
enum Repr {
    To(Arc<Legs>),
    Discard,
    Unset,
}

/// The locations of a destination.
pub(crate) struct Legs {
    /// Sorted by URI, without duplicates, never empty.
    locations: Vec<Arc<dyn TraceLocation>>,
    /// Their URIs, in the same order. They are asked for once: it is the backend's code, and a
    /// destination is compared and printed on the application's threads.
    uris: Vec<LocationUri>,
    /// The share of traces kept, where this destination has its own.
    sampling_ratio: Option<f64>,
    /// Which route the first pipeline that saw this destination gave it: `pipeline << 32 | route`.
    pub(crate) route: AtomicU64,
}

impl Destination {
    /// A destination with one location.
    ///
    /// A location whose `uri` panics is replaced by one with the URI `unnamed:location`, whose
    /// `open` fails with the text of the panic.
    pub fn new(location: impl TraceLocation) -> Self {
        Self::from_location(Arc::new(location))
    }

    /// A destination with one shared location.
    pub fn from_location(location: Arc<dyn TraceLocation>) -> Self {
        let (location, uri) = named(location);
        Self::of(vec![location], vec![uri])
    }

    fn of(locations: Vec<Arc<dyn TraceLocation>>, uris: Vec<LocationUri>) -> Self {
        Self(Repr::To(Arc::new(Legs {
            locations,
            uris,
            sampling_ratio: None,
            route: AtomicU64::new(0),
        })))
    }

    /// A destination with several locations; each gets every span and has its own fate. Lists
    /// flatten, duplicates merge, order is irrelevant; of several sampling ratios the highest
    /// counts.
    ///
    /// # Errors
    /// `InvalidConfig` if the set is empty, mixes places with [`Destination::discard`] or
    /// [`Destination::unset`], or names two locations in one store in which a trace id can live
    /// only once.
    pub fn all(destinations: impl IntoIterator<Item = Destination>) -> Result<Self, Error> {
        let error = |cause: String, mend: &'static str| {
            Err(Error::new(ErrorKind::InvalidConfig, "combine destinations", cause).mend(mend))
        };
        let mut ratio = None;
        let mut locations: Vec<(Arc<dyn TraceLocation>, LocationUri)> = Vec::new();
        for destination in destinations {
            match destination.0 {
                Repr::To(legs) => {
                    // The highest, so that order is irrelevant and no leg misses a trace it asked for.
                    ratio = match (ratio, legs.sampling_ratio) {
                        (Some(a), Some(b)) => Some(f64::max(a, b)),
                        (a, b) => a.or(b),
                    };
                    let uris = legs.uris.iter().cloned();
                    locations.extend(legs.locations.iter().cloned().zip(uris));
                }
                Repr::Discard | Repr::Unset => {
                    return error(
                        format!("`{destination}` is not a place"),
                        "use it alone or leave it out",
                    );
                }
            }
        }
        locations.sort_by(|(_, a), (_, b)| a.cmp(b));
        locations.dedup_by(|(_, a), (_, b)| a == b);
        if locations.is_empty() {
            return error("the set is empty".into(), "name at least one location");
        }
        let mut stores: Vec<(String, &LocationUri)> = locations
            .iter()
            .filter_map(|(l, uri)| Some((capabilities(&**l).0.exclusive_store?, uri)))
            .collect();
        stores.sort();
        if let Some(pair) = stores.windows(2).find(|p| p[0].0 == p[1].0) {
            return error(
                format!(
                    "{} and {} are in one store, where a trace can be only once",
                    pair[0].1, pair[1].1
                ),
                "name one of them, or put the second into another store",
            );
        }
        let (locations, uris) = locations.into_iter().unzip();
        let mut all = Self::of(locations, uris);
        if let (Some(ratio), Repr::To(legs)) = (ratio, &mut all.0)
            && let Some(legs) = Arc::get_mut(legs)
        {
            legs.sampling_ratio = Some(ratio);
        }
        Ok(all)
    }

    /// Nowhere, on purpose: spans are counted as discarded.
    pub fn discard() -> Self {
        Self(Repr::Discard)
    }

    /// No decision at this level: the next one decides.
    pub fn unset() -> Self {
        Self(Repr::Unset)
    }

    /// This destination with its own share of traces kept, from 0 to 1, instead of the pipeline's.
    /// Decided by the trace id. Not part of its identity.
    ///
    /// # Errors
    /// `InvalidConfig` if the ratio is not between 0 and 1, or this is no place.
    pub fn with_sampling_ratio(self, ratio: f64) -> Result<Self, Error> {
        match &self.0 {
            Repr::To(legs) if (0.0..=1.0).contains(&ratio) => {
                note_ratio(ratio);
                Ok(Self(Repr::To(Arc::new(Legs {
                    locations: legs.locations.clone(),
                    uris: legs.uris.clone(),
                    sampling_ratio: Some(ratio),
                    route: AtomicU64::new(0),
                }))))
            }
            _ => Err(Error::new(
                ErrorKind::InvalidConfig,
                "set sampling ratio",
                format!("{ratio} for `{self}`"),
            )
            .mend("give a number from 0 to 1, for a destination that is a place")),
        }
    }

    /// The share of traces kept, where this destination has its own.
    pub fn sampling_ratio(&self) -> Option<f64> {
        self.legs().and_then(|l| l.sampling_ratio)
    }

    /// The locations, sorted by URI; empty for [`Destination::discard`] and
    /// [`Destination::unset`].
    pub fn locations(&self) -> &[Arc<dyn TraceLocation>] {
        self.legs().map_or(&[], |l| &l.locations)
    }

    /// Whether this is [`Destination::discard`].
    pub fn is_discard(&self) -> bool {
        matches!(self.0, Repr::Discard)
    }

    /// Whether this is [`Destination::unset`].
    pub fn is_unset(&self) -> bool {
        matches!(self.0, Repr::Unset)
    }

    pub(crate) fn legs(&self) -> Option<&Arc<Legs>> {
        match &self.0 {
            Repr::To(legs) => Some(legs),
            Repr::Discard | Repr::Unset => None,
        }
    }

    /// Whether both are the same value in memory: what a poll can afford to ask.
    pub(crate) fn same(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::To(a), Repr::To(b)) => Arc::ptr_eq(a, b),
            (Repr::Discard, Repr::Discard) | (Repr::Unset, Repr::Unset) => true,
            _ => false,
        }
    }
}

impl Legs {
    pub(crate) fn locations(&self) -> &[Arc<dyn TraceLocation>] {
        &self.locations
    }

    /// The URIs of the locations, in their order.
    pub(crate) fn uris(&self) -> &[LocationUri] {
        &self.uris
    }
}

impl Drop for Legs {
    fn drop(&mut self) {
        self.locations.drain(..).for_each(drop_here);
    }
}

/// What a location declares. Defaults and an error if it panics: its spans are stored all the same.
pub(crate) fn capabilities(location: &dyn TraceLocation) -> (Capabilities, Option<Error>) {
    match caught(|| location.capabilities()) {
        Ok(capabilities) => (capabilities, None),
        Err(panic) => {
            let cause = format!("the location panicked: {panic}; defaults apply");
            let error = Error::new(ErrorKind::Internal, "ask capabilities", cause)
                .mend("mend its `capabilities`");
            (Capabilities::new(Guarantee::AtLeastOnce), Some(error))
        }
    }
}

/// A location and its URI; where asking for that panics, one that cannot be opened.
fn named(location: Arc<dyn TraceLocation>) -> (Arc<dyn TraceLocation>, LocationUri) {
    match caught(|| location.uri().clone()) {
        Ok(uri) => (location, uri),
        Err(panic) => {
            drop_here(location);
            (Arc::new(Unnamed(panic)), UNNAMED.clone())
        }
    }
}

static UNNAMED: LazyLock<LocationUri> =
    LazyLock::new(
        || match LocationUri::from_parts("unnamed", None, "location", []) {
            Ok(uri) => uri,
            Err(error) => unreachable!("{error}"),
        },
    );

/// Stands for a location whose `uri` panicked, with the text of the panic.
#[derive(Debug)]
struct Unnamed(String);

impl fmt::Display for Unnamed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        UNNAMED.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for Unnamed {
    fn uri(&self) -> &LocationUri {
        &UNNAMED
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        let cause = format!("the location panicked when asked for its URI: {}", self.0);
        Err(Error::new(ErrorKind::Internal, "open location", cause).mend("mend its `uri`"))
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
            || match (&self.0, &other.0) {
                (Repr::To(a), Repr::To(b)) => a.uris == b.uris,
                _ => false,
            }
    }
}

impl Eq for Destination {}

/// By what makes it equal: the set of URIs.
impl Hash for Destination {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Repr::To(legs) => legs.uris.hash(state),
            // No list of URIs is that short, nor are these two equal.
            Repr::Discard => state.write_u8(0),
            Repr::Unset => state.write_u8(1),
        }
    }
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::To(legs) => {
                for (i, uri) in legs.uris.iter().enumerate() {
                    if i > 0 {
                        f.write_str(",")?;
                    }
                    write!(f, "{uri}")?;
                }
                Ok(())
            }
            Repr::Discard => f.write_str("discard"),
            Repr::Unset => f.write_str("unset"),
        }
    }
}

impl fmt::Debug for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Destination({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::location::{Capabilities, Guarantee, TraceSink};
    use crate::memory::MemoryLocation;
    use async_trait::async_trait;

    fn to(name: &str) -> Destination {
        Destination::new(MemoryLocation::new(name))
    }

    /// A place in a store where a trace can be only once.
    #[derive(Debug)]
    struct Exclusive(LocationUri);

    impl fmt::Display for Exclusive {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.fmt(f)
        }
    }

    #[async_trait]
    impl TraceLocation for Exclusive {
        fn uri(&self) -> &LocationUri {
            &self.0
        }

        fn capabilities(&self) -> Capabilities {
            Capabilities::new(Guarantee::Idempotent).with_exclusive_store(self.0.path())
        }

        async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
            Err(Error::new(ErrorKind::Unsupported, "open", "a value only"))
        }
    }

    fn exclusive(uri: &str) -> Destination {
        Destination::new(Exclusive(uri.parse().unwrap()))
    }

    #[test]
    fn a_set_flattens_merges_and_has_no_order() {
        let [a, b, c] = ["set-a", "set-b", "set-c"].map(to);
        let nested = Destination::all([
            Destination::all([c.clone(), a.clone()]).unwrap(),
            b.clone(),
            a.clone(),
        ])
        .unwrap();
        let flat = Destination::all([a.clone(), b, c]).unwrap();
        assert_eq!(nested, flat);
        assert_eq!(nested.to_string(), "memory:set-a,memory:set-b,memory:set-c");
        assert_eq!(Destination::all([a.clone(), a.clone()]).unwrap(), a);
        assert_ne!(nested, a);
    }

    #[test]
    fn what_is_no_place_stands_alone() {
        assert!(Destination::all([]).is_err());
        for word in [Destination::discard(), Destination::unset()] {
            assert!(Destination::all([to("x"), word.clone()]).is_err());
            assert!(word.locations().is_empty());
            assert_eq!(word, word.clone());
        }
        assert_ne!(Destination::discard(), Destination::unset());
        assert_ne!(Destination::discard(), to("discard"));
    }

    #[test]
    fn two_places_in_one_exclusive_store_are_refused_naming_both() {
        let error = Destination::all([exclusive("x:/s?id=1"), to("m"), exclusive("x:/s?id=2")])
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("x:/s?id=1") && error.contains("x:/s?id=2"),
            "{error}"
        );
        assert!(Destination::all([exclusive("x:/s?id=1"), exclusive("x:/t?id=1")]).is_ok());
        assert!(Destination::all([exclusive("x:/s?id=1"), exclusive("x:/s?id=1")]).is_ok());
    }

    #[test]
    fn the_sampling_ratio_is_a_share_and_order_does_not_matter() {
        for bad in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(to("s").with_sampling_ratio(bad).is_err(), "{bad}");
        }
        assert!(Destination::discard().with_sampling_ratio(0.5).is_err());
        let a = to("ratio-a").with_sampling_ratio(0.1).unwrap();
        let b = to("ratio-b").with_sampling_ratio(0.5).unwrap();
        assert_eq!(a, to("ratio-a"), "not part of its identity");
        for set in [[a.clone(), b.clone()], [b, a]] {
            assert_eq!(Destination::all(set).unwrap().sampling_ratio(), Some(0.5));
        }
    }
}
