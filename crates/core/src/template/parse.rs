//! Parses the text of a template.

use super::hole::Component;
use super::pattern::Marker;
use super::skeleton::{Skeleton, misplaced};
use super::{MAX_VARIABLES, PARSE};
use crate::destination::Destination;
use crate::error::{Error, ErrorKind};
use crate::location::TraceLocation;
use crate::registry::Registry;
use crate::uri::LocationUri;
use std::sync::Arc;

/// One location of a template.
#[derive(Debug)]
pub(super) struct Leg {
    pub(super) skeleton: Skeleton,
    /// The location, if there are no holes. Otherwise one with markers in place of names, which is
    /// never written.
    pub(super) location: Arc<dyn TraceLocation>,
}

type Variables = Box<[Box<str>]>;

/// The variables and locations of a template.
pub(super) fn parse(text: &str, registry: &Registry) -> Result<(Variables, Arc<[Leg]>), Error> {
    let marker = Marker::absent_from(text);
    let (marked, variables) = mark(text, &marker)?;
    if variables.is_empty() {
        return Err(malformed("it has no hole").mend(
            "write `{tenant}` where the tenant's name belongs, or use `destination` for a fixed place",
        ));
    }
    let legs: Vec<Leg> = marked
        .split(',')
        .map(|text| Leg::parse(text, &marker, &variables, registry))
        .collect::<Result<_, _>>()?;
    for (i, leg) in legs.iter().enumerate() {
        for other in &legs[..i] {
            if leg.skeleton.meets(&other.skeleton) {
                return Err(malformed(format!(
                    "`{}` and `{}` can become one place",
                    other.skeleton.shown(),
                    leg.skeleton.shown()
                ))
                .mend(
                    "give their names different fixed text in front, such as `tenant-{tenant}`",
                ));
            }
        }
    }
    let together = legs
        .iter()
        .map(|leg| Destination::from_location(leg.location.clone()));
    Destination::all(together).map_err(|e| in_template(e, &marker, &variables))?;
    Ok((variables, legs.into()))
}

/// The text with markers for holes, and the variables.
fn mark(text: &str, marker: &Marker) -> Result<(String, Variables), Error> {
    let mut variables: Vec<Box<str>> = Vec::new();
    let mut marked = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let braces = || {
            malformed("a `{` or `}` is not part of a hole")
                .mend("write a hole as `{tenant}`, and a brace itself as %7B or %7D")
        };
        marked.push_str(&rest[..at]);
        let Some((name, after)) = rest[at..].strip_prefix('{').and_then(|r| r.split_once('}'))
        else {
            return Err(braces());
        };
        let valid = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        if !valid {
            return Err(match name.contains(['{', '}', '/', '?', '&', ',']) {
                true => braces(),
                false => malformed("the name of a hole is not a name")
                    .mend("use lower-case letters, digits and `_`, as in `{tenant}`"),
            });
        }
        let index = match variables.iter().position(|known| **known == *name) {
            Some(index) => index,
            None => {
                variables.push(name.into());
                variables.len() - 1
            }
        };
        marked.push_str(&marker.of(index));
        rest = after;
    }
    marked.push_str(rest);
    match variables.len() > MAX_VARIABLES {
        true => Err(
            malformed(format!("it has more than {MAX_VARIABLES} variables"))
                .mend("put what belongs together into one name"),
        ),
        false => Ok((marked, variables.into())),
    }
}

impl Leg {
    /// Parses a location in which markers stand for holes.
    fn parse(
        text: &str,
        marker: &Marker,
        variables: &[Box<str>],
        registry: &Registry,
    ) -> Result<Self, Error> {
        let by_hole = |error: Error| in_template(error, marker, variables);
        let made = |uri: &LocationUri| registry.location(uri).map_err(by_hole);
        if !marker.is_in(text) {
            let location = registry.single_location(text).map_err(by_hole)?;
            let skeleton = Skeleton::of(location.uri(), marker, variables, registry)?;
            return Ok(Self { skeleton, location });
        }
        refuse_scheme_and_host(text, marker, registry)?;
        let uri: LocationUri = text.parse().map_err(by_hole)?;
        let given = Skeleton::of(&uri, marker, variables, registry)?;
        given.check_fixed()?;
        // The location's own URI is canonical: absolute, without symbolic links, completed from the
        // environment. Names are put into this one.
        let location = made(&uri)?;
        let skeleton = Skeleton::of(location.uri(), marker, variables, registry)?;
        let settled = skeleton.holes() == given.holes()
            && location.uri().scheme() == uri.scheme()
            && made(location.uri())?.uri() == location.uri();
        match settled {
            true => Ok(Self { skeleton, location }),
            false => Err(malformed(format!(
                "the names in `{}` cannot be confined: the location's own URI does not keep them",
                given.shown()
            ))
            .mend("declare holes only where the location's URI holds a name as it is")),
        }
    }
}

/// Refuses a hole in scheme or host, with which the URI could not be parsed or could name any
/// server.
fn refuse_scheme_and_host(text: &str, marker: &Marker, registry: &Registry) -> Result<(), Error> {
    let (scheme, rest) = text.trim().split_once(':').unwrap_or((text, ""));
    if marker.is_in(scheme) {
        return Err(malformed("a hole stands in the scheme")
            .mend("write the scheme out, as in `uc://main.agents.{tenant}`"));
    }
    let scheme = scheme.to_ascii_lowercase();
    registry.factory(&scheme)?;
    let holes = registry.holes(&scheme);
    let host = rest.strip_prefix("//").unwrap_or_default();
    let host = host.split(['/', '?']).next().unwrap_or_default();
    match marker.is_in(host) && !holes.iter().any(|hole| hole.is_in(Component::Name)) {
        true => Err(misplaced("a hole stands in the host", &scheme, holes)),
        false => Ok(()),
    }
}

/// Turns an error about a location with markers into one about the template.
fn in_template(error: Error, marker: &Marker, variables: &[Box<str>]) -> Error {
    let named = Error::new(error.kind(), PARSE, marker.shown(error.cause(), variables));
    match error.mend_hint() {
        Some(mend) => named.mend(marker.shown(mend, variables)),
        None => named,
    }
    .caused_by(error)
}

fn malformed(cause: impl Into<String>) -> Error {
    let cause: String = cause.into();
    Error::new(ErrorKind::InvalidConfig, PARSE, cause)
}
