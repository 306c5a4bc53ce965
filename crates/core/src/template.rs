//! Templates make destinations from tenants' names.

mod hole;
mod parse;
mod pattern;
mod skeleton;
#[cfg(test)]
mod tests;

pub use hole::{Hole, NameRule};

use crate::destination::Destination;
use crate::error::{Error, ErrorKind};
use crate::location::TraceLocation;
use crate::registry::Registry;
use parse::Leg;
use quick_cache::sync::Cache;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

const PARSE: &str = "parse template";
const FILL: &str = "fill template";

/// Number of destinations that a template keeps unless [`Template::with_cache`] sets another: room
/// for 10,000 tenants in use at once. Each takes about 1 KiB.
const CACHE: usize = 20_000;
/// Longest value that is checked, in bytes. No hole accepts a longer one.
const MAX_VALUE: usize = 2048;
/// Largest number of variables of one template.
const MAX_VARIABLES: usize = 8;

/// One or more location URIs with holes for names, such as `uc://main.agents.{tenant}`. It makes
/// the destination of a tenant from the tenant's name.
///
/// A template is parsed once. A hole, `{variable}`, may stand only where the backend allows it,
/// which is never the scheme, the host, a root, a server or an option; any other template is an
/// error when it is made. Names are put into the parsed components of the URI, so that a name
/// cannot add a location, an option or a folder. A name that does not fit its hole is refused, and
/// never changed to fit. Two names never give the same location, also where a backend folds case.
///
/// ```
/// use trace_destination_core::{Hole, MemoryLocation, NameRule, Registry, TraceLocation};
/// use std::sync::Arc;
///
/// let registry = Registry::new()
///     .with_scheme("memory", |uri| {
///         Ok(Arc::new(MemoryLocation::from_uri(uri)?) as Arc<dyn TraceLocation>)
///     })
///     .with_holes("memory", MemoryLocation::holes());
/// let template = registry.template("memory:tenant-{tenant}")?;
///
/// let acme = template.destination([("tenant", "acme")])?;
/// assert_eq!(acme.to_string(), "memory:tenant-acme");
/// let hostile = template.destination([("tenant", "x,http://attacker")])?;
/// assert_eq!(hostile.to_string(), "memory:tenant-x%2Chttp://attacker");
/// assert!(template.destination([("tenant", "")]).is_err());
/// # Ok::<(), trace_destination_core::Error>(())
/// ```
///
/// Several locations are separated by commas; each gets every span. A location without a hole is
/// the same for every name. If locations of one template could become equal for some names, the
/// template is an error. A literal brace is written `%7B` or `%7D`.
///
/// Relative paths and settings from the environment are resolved when the template is made.
///
/// A template is cheap to clone. It keeps the destinations that were requested last, so that the
/// same name gives the same value and costs one hash look-up.
#[derive(Clone)]
pub struct Template {
    parsed: Arc<Parsed>,
    cache: Option<Arc<Cache<String, Destination>>>,
}

/// The parsed template.
#[derive(Clone, Debug)]
struct Parsed {
    variables: Box<[Box<str>]>,
    legs: Arc<[Leg]>,
    registry: Registry,
    sampling_ratio: Option<f64>,
}

impl Template {
    /// Parses a template; see [`Registry::template`].
    pub(crate) fn parse(text: &str, registry: &Registry) -> Result<Self, Error> {
        let (variables, legs) = parse::parse(text, registry)?;
        Ok(Self {
            parsed: Arc::new(Parsed {
                variables,
                legs,
                registry: registry.clone(),
                sampling_ratio: None,
            }),
            cache: None,
        }
        .with_cache(CACHE))
    }

    /// Sets how many destinations are kept; 20,000 by default, none if 0. Beyond it, the least used
    /// are forgotten and made again on request, which is correct but costs more than a look-up,
    /// here and when a trace starts.
    #[must_use]
    pub fn with_cache(mut self, destinations: usize) -> Self {
        self.cache = match destinations {
            0 => None,
            n => Some(Arc::new(Cache::new(n))),
        };
        self
    }

    /// This template with a share of traces kept, from 0 to 1, for each of its destinations; see
    /// [`Destination::with_sampling_ratio`].
    ///
    /// # Errors
    /// `InvalidConfig` if the ratio is not between 0 and 1.
    pub fn with_sampling_ratio(mut self, ratio: f64) -> Result<Self, Error> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "set sampling ratio",
                format!("{ratio} for `{self}`"),
            )
            .mend("give a number from 0 to 1"));
        }
        let parsed = Arc::make_mut(&mut self.parsed);
        parsed.sampling_ratio = Some(ratio);
        let kept = self.cache.take();
        let room = kept.map_or(0, |c| usize::try_from(c.capacity()).unwrap_or(CACHE));
        Ok(self.with_cache(room))
    }

    /// The destination for these values. Every variable must be given exactly once.
    ///
    /// On the first request for a name, the location is made as by [`Registry::destination`], which
    /// may resolve a path in the file system. It is not opened.
    ///
    /// # Errors
    /// `InvalidName` for a value that does not fit its hole, naming the hole and the rule;
    /// `InvalidConfig` for a variable that is unknown, missing or given twice; and any error of the
    /// backend about the location.
    pub fn destination<K, V>(
        &self,
        values: impl IntoIterator<Item = (K, V)>,
    ) -> Result<Destination, Error>
    where
        K: AsRef<str>,
        V: AsRef<str>,
    {
        let given: arrayvec::ArrayVec<(K, V), { MAX_VARIABLES + 1 }> =
            values.into_iter().take(MAX_VARIABLES + 1).collect();
        let pairs = given.iter().map(|(k, v)| (k.as_ref(), v.as_ref()));
        let mut slots = [None; MAX_VARIABLES];
        self.parsed.assign(pairs, &mut slots)?;
        let mut values = [""; MAX_VARIABLES];
        for (value, slot) in values.iter_mut().zip(slots) {
            *value = slot.unwrap_or_default();
        }
        let values = &values[..self.parsed.variables.len()];
        self.parsed.check_lengths(values)?;
        let Some(cache) = &self.cache else {
            self.parsed.check(values)?;
            return self.parsed.fill(values);
        };
        // No value that fits contains a NUL, so two sets of values never have one key.
        let key = match values {
            [one] => Cow::Borrowed(*one),
            several => Cow::Owned(several.join("\0")),
        };
        if let Some(destination) = cache.get(&*key) {
            return Ok(destination);
        }
        // Checked first, so that names that do not fit never take the cache's lock.
        self.parsed.check(values)?;
        cache.get_or_insert_with(&*key, || self.parsed.fill(values))
    }

    /// The variables, in the order in which they first occur.
    pub fn variables(&self) -> impl Iterator<Item = &str> {
        self.parsed.variables.iter().map(|name| &**name)
    }
}

impl Parsed {
    /// Orders the values as the variables are ordered.
    fn assign<'a>(
        &self,
        given: impl Iterator<Item = (&'a str, &'a str)>,
        slots: &mut [Option<&'a str>; MAX_VARIABLES],
    ) -> Result<(), Error> {
        let wrong = |name: &str, what: &str| {
            let known: Vec<String> = self.variables.iter().map(|v| format!("`{v}`")).collect();
            let name: String = name.chars().take(40).collect();
            Error::new(
                ErrorKind::InvalidConfig,
                FILL,
                format!("the variable `{}` of `{self}` {what}", name.escape_debug()),
            )
            .mend(format!("give each of {} once", known.join(", ")))
        };
        for (name, value) in given {
            let Some(index) = self.variables.iter().position(|v| **v == *name) else {
                return Err(wrong(name, "is unknown"));
            };
            if slots[index].replace(value).is_some() {
                return Err(wrong(name, "is given twice"));
            }
        }
        match self
            .variables
            .iter()
            .zip(slots.iter())
            .find(|s| s.1.is_none())
        {
            Some((missing, _)) => Err(wrong(missing, "is missing")),
            None => Ok(()),
        }
    }

    fn check_lengths(&self, values: &[&str]) -> Result<(), Error> {
        match values.iter().position(|value| value.len() > MAX_VALUE) {
            Some(variable) => Err(self.unfit(
                values,
                variable,
                "it is longer than any place takes",
                "give a shorter name, such as the tenant's id",
            )),
            None => Ok(()),
        }
    }

    fn unfit(&self, values: &[&str], variable: usize, rule: &str, mend: &'static str) -> Error {
        let leg = self
            .legs
            .iter()
            .find(|leg| leg.skeleton.holes().contains(&variable));
        match leg {
            Some(leg) => leg
                .skeleton
                .unfit(&self.variables, values, variable, rule, mend),
            None => Error::new(ErrorKind::InvalidName, FILL, rule.to_owned()).mend(mend),
        }
    }

    fn check(&self, values: &[&str]) -> Result<(), Error> {
        let mut legs = self.legs.iter();
        legs.try_for_each(|leg| leg.skeleton.check(&self.variables, values))
    }

    /// Makes the destination of values that [fit](Self::check).
    fn fill(&self, values: &[&str]) -> Result<Destination, Error> {
        let legs: Vec<Destination> = self
            .legs
            .iter()
            .map(|leg| self.fill_leg(leg, values).map(Destination::from_location))
            .collect::<Result<_, _>>()?;
        let destination = match <[Destination; 1]>::try_from(legs) {
            Ok([one]) => one,
            Err(several) => Destination::all(several)?,
        };
        match self.sampling_ratio {
            Some(ratio) => destination.with_sampling_ratio(ratio),
            None => Ok(destination),
        }
    }

    fn fill_leg(&self, leg: &Leg, values: &[&str]) -> Result<Arc<dyn TraceLocation>, Error> {
        let Some(variable) = leg.skeleton.holes().first().copied() else {
            return Ok(leg.location.clone());
        };
        let uri = leg.skeleton.fill(&self.variables, values)?;
        let location = self.registry.location(&uri)?;
        match *location.uri() == uri {
            true => Ok(location),
            // A symbolic link, or a rule of the backend that the hole does not declare.
            false => Err(leg.skeleton.unfit(
                &self.variables,
                values,
                variable,
                "the place it names stands for another one",
                "remove the link that leads there, or give another name",
            )),
        }
    }
}

impl fmt::Display for Parsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, leg) in self.legs.iter().enumerate() {
            if i > 0 {
                f.write_str(",")?;
            }
            f.write_str(leg.skeleton.shown())?;
        }
        Ok(())
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parsed.fmt(f)
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({self})")
    }
}
