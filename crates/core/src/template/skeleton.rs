//! A location's URI with holes: decoded components, never text.

use super::hole::{Component, Hole};
use super::pattern::{Marker, Pattern, Piece};
use super::{FILL, PARSE};
use crate::error::{Error, ErrorKind};
use crate::registry::Registry;
use crate::uri::LocationUri;

/// The components of a URI, and the parts of them that hold names.
#[derive(Debug)]
pub(super) struct Skeleton {
    scheme: Box<str>,
    authority: Option<Pattern>,
    path: Pattern,
    query: Vec<(Box<str>, Pattern)>,
    parts: Vec<Part>,
    /// The URI as the template writes it.
    shown: Box<str>,
}

/// A part of a component, with one hole or more.
#[derive(Debug)]
struct Part {
    text: Pattern,
    hole: Hole,
    /// For each hole of `text`, the first character of the fixed text between it and the next one.
    /// No value may contain it; otherwise two sets of values could make the same text.
    stops: Vec<Option<char>>,
}

impl Skeleton {
    /// Checks that each marker in a URI is where the scheme allows a hole.
    pub(super) fn of(
        uri: &LocationUri,
        marker: &Marker,
        variables: &[Box<str>],
        registry: &Registry,
    ) -> Result<Self, Error> {
        let mut skeleton = Self {
            scheme: uri.scheme().into(),
            authority: uri.authority().map(|a| marker.pattern(a)),
            path: marker.pattern(uri.path()),
            query: uri
                .query_pairs()
                .map(|(key, value)| (key.into(), marker.pattern(value)))
                .collect(),
            parts: Vec::new(),
            shown: marker.shown(uri.as_str(), variables).into(),
        };
        let holes = registry.holes(uri.scheme());
        let fail = |cause: String| Err(misplaced(&cause, uri.scheme(), holes));
        if uri.query_pairs().any(|(key, _)| marker.is_in(key)) {
            return fail("a hole stands in the name of a parameter".into());
        }
        let mut parts = Vec::new();
        for (at, text) in skeleton.components(holes) {
            let separator = holes
                .iter()
                .filter(|hole| hole.is_in(at))
                .find_map(Hole::separator);
            for (number, text) in text.split(separator).into_iter().enumerate() {
                let Some(variable) = text.holes().next() else {
                    continue;
                };
                let named = || {
                    let name = variables.get(variable).map_or("?", |name| name);
                    format!("the hole `{{{name}}}`")
                };
                let Some(hole) = holes.iter().find(|hole| hole.is_at(at, number)) else {
                    return fail(format!("{} stands where no name may stand", named()));
                };
                if !text.tail().ends_with(hole.ending) {
                    return fail(format!("{} must have `{}` behind it", named(), hole.ending));
                }
                let Some(stops) = stops(&text) else {
                    return fail(format!(
                        "{} and the next one have no fixed text between them",
                        named()
                    ));
                };
                parts.push(Part {
                    text,
                    hole: hole.clone(),
                    stops,
                });
            }
        }
        skeleton.parts = parts;
        Ok(skeleton)
    }

    /// Each component in which the scheme may have holes.
    fn components(&self, holes: &[Hole]) -> Vec<(Component<'_>, Pattern)> {
        let named = holes.iter().any(|hole| hole.is_in(Component::Name));
        let mut all = Vec::new();
        let authority = self.authority.as_ref().filter(|a| !a.is_empty());
        all.extend(authority.map(|a| (Component::Name, a.clone())));
        match self.authority.is_none() && named {
            true => all.push((Component::Name, self.path.clone())),
            false => {
                let segments = self.path.split(Some('/'));
                let last = segments.len() - 1;
                all.extend(
                    segments
                        .into_iter()
                        .enumerate()
                        .map(|(i, segment)| match i == last {
                            true => (Component::File, segment),
                            false => (Component::Folder, segment),
                        }),
                );
            }
        }
        let query = self.query.iter();
        all.extend(query.map(|(key, value)| (Component::Query(key), value.clone())));
        all
    }

    /// The variables, as often as they occur, sorted.
    pub(super) fn holes(&self) -> Vec<usize> {
        let patterns = self.authority.iter().chain([&self.path]);
        let mut all: Vec<usize> = patterns
            .chain(self.query.iter().map(|(_, value)| value))
            .flat_map(Pattern::holes)
            .collect();
        all.sort_unstable();
        all
    }

    /// The URI as a template writes it.
    pub(super) fn shown(&self) -> &str {
        &self.shown
    }

    /// Whether some names could make both the same location. `true` if in doubt: a parameter that
    /// only one of them has may not be part of a location's identity.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let name = |s: &Self| match &s.authority {
            Some(authority) => authority.followed_by(&s.path),
            None => s.path.clone(),
        };
        self.scheme == other.scheme
            && name(self).meets(&name(other))
            && self.query.iter().all(|(key, value)| {
                let there = other.query.iter().find(|(k, _)| k == key);
                there.is_none_or(|(_, v)| value.meets(v))
            })
    }

    /// Whether every value fits its hole.
    ///
    /// # Errors
    /// `InvalidName` for a value that does not fit its hole.
    pub(super) fn check(&self, variables: &[Box<str>], values: &[&str]) -> Result<(), Error> {
        for part in &self.parts {
            part.check(values).map_err(|(variable, rule)| {
                self.unfit(variables, values, variable, rule, part.hole.rule.mend())
            })?;
        }
        Ok(())
    }

    /// Whether any name fits beside the fixed text. Tried with the plainest name: if that does not
    /// fit, none does.
    ///
    /// # Errors
    /// `InvalidConfig` if it does not.
    pub(super) fn check_fixed(&self) -> Result<(), Error> {
        let plainest = |_| "a";
        let refused = self
            .parts
            .iter()
            .find_map(|part| part.check_whole(&part.text.fill(plainest)).err());
        match refused {
            None => Ok(()),
            Some(rule) => Err(Error::new(
                ErrorKind::InvalidConfig,
                PARSE,
                format!("no name fits `{}`: {rule}", self.shown),
            )
            .mend("change the fixed text beside the hole")),
        }
    }

    /// The URI with a value in each hole, each of which [fits](Self::check).
    ///
    /// # Errors
    /// `InvalidName` for a value that a URI cannot hold there.
    pub(super) fn fill(
        &self,
        variables: &[Box<str>],
        values: &[&str],
    ) -> Result<LocationUri, Error> {
        let value = |variable: usize| values.get(variable).copied().unwrap_or_default();
        let authority = self.authority.as_ref().map(|a| a.fill(value));
        let path = self.path.fill(value);
        let query: Vec<(&str, String)> = self
            .query
            .iter()
            .map(|(key, text)| (&**key, text.fill(value)))
            .collect();
        let pairs = query.iter().map(|(key, value)| (*key, &**value));
        let uri = LocationUri::from_parts(&self.scheme, authority.as_deref(), &path, pairs);
        let variable = self.parts.first().and_then(|p| p.text.holes().next());
        let unfit = |rule: &str| {
            let variable = variable.unwrap_or_default();
            let mend = "give a shorter name of letters and digits, such as the tenant's id";
            self.unfit(variables, values, variable, rule, mend)
        };
        let uri = uri.map_err(|e| unfit(e.cause()).caused_by(e))?;
        let kept = uri.authority() == authority.as_deref()
            && uri.path() == path
            && uri
                .query_pairs()
                .eq(query.iter().map(|(key, value)| (*key, &**value)));
        match kept {
            true => Ok(uri),
            false => Err(unfit("a URI does not keep it as it is")),
        }
    }

    /// The error for a value that does not fit.
    pub(super) fn unfit(
        &self,
        variables: &[Box<str>],
        values: &[&str],
        variable: usize,
        rule: &str,
        mend: &'static str,
    ) -> Error {
        let name = variables.get(variable).map_or("?", |name| name);
        let value = values.get(variable).copied().unwrap_or_default();
        Error::new(
            ErrorKind::InvalidName,
            FILL,
            format!(
                "`{}` does not fit the hole `{{{name}}}` of `{}`: {rule}",
                shortened(value),
                self.shown
            ),
        )
        .mend(mend)
    }
}

impl Part {
    /// # Errors
    /// The variable whose value does not fit, and the rule it breaks.
    fn check<'a>(&self, values: &[&'a str]) -> Result<(), (usize, &'static str)> {
        let value = |variable: usize| -> &'a str { values.get(variable).copied().unwrap_or("") };
        for (variable, stop) in self.text.holes().zip(&self.stops) {
            let name = value(variable);
            let divides = |separator: char| name.contains(separator);
            let verdict = self.hole.rule.check(name).and_then(|()| {
                if self.hole.separator().is_some_and(divides) {
                    return Err("it has the character that divides the parts of the place");
                }
                let stop = stop.map(|c| c.to_ascii_lowercase());
                match stop.is_some_and(|stop| name.to_ascii_lowercase().contains(stop)) {
                    true => Err("it has the character that stands behind it in the template"),
                    false => Ok(()),
                }
            });
            verdict.map_err(|rule| (variable, rule))?;
        }
        let last = self.text.holes().last().unwrap_or_default();
        let whole = self.check_whole(&self.text.fill(value));
        whole.map_err(|rule| (last, rule))
    }

    /// # Errors
    /// The rule that the part breaks, fixed text included.
    fn check_whole(&self, whole: &str) -> Result<(), &'static str> {
        if whole.chars().count() > self.hole.max_len {
            return Err("it is longer than the place takes");
        }
        if self.hole.separator() == Some('/') && matches!(whole, "." | "..") {
            return Err("it names another folder");
        }
        self.hole.check.map_or(Ok(()), |check| check(whole))
    }
}

/// For each hole, the first character of the fixed text between it and the next one. `None` if two
/// holes have no text between them.
fn stops(text: &Pattern) -> Option<Vec<Option<char>>> {
    let pieces = text.pieces();
    let mut stops = Vec::new();
    for (i, piece) in pieces.iter().enumerate() {
        if matches!(piece, Piece::Text(_)) {
            continue;
        }
        stops.push(match (pieces.get(i + 1), pieces.get(i + 2)) {
            (Some(Piece::Hole(_)), _) => return None,
            (Some(Piece::Text(between)), Some(_)) => between.chars().next(),
            _ => None,
        });
    }
    Some(stops)
}

/// The error for a hole where the scheme allows none.
pub(super) fn misplaced(cause: &str, scheme: &str, holes: &[Hole]) -> Error {
    let error = Error::new(ErrorKind::InvalidConfig, PARSE, cause.to_owned());
    match holes {
        [] => error.mend(format!(
            "a template of `{scheme}:` takes no names; write the location without a hole"
        )),
        holes => {
            let places: Vec<String> = holes.iter().map(Hole::to_string).collect();
            error.mend(format!(
                "in `{scheme}:` a name may be {}",
                places.join(", or ")
            ))
        }
    }
}

/// A name as an error shows it.
fn shortened(name: &str) -> String {
    const SHOWN: usize = 40;
    let mut text: String = name
        .chars()
        .take(SHOWN)
        .collect::<String>()
        .escape_debug()
        .collect();
    if name.chars().nth(SHOWN).is_some() {
        text.push('\u{2026}');
    }
    text
}
