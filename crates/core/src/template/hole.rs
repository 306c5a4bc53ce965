//! Where a template of one scheme may have holes, and which names fit there.

use std::fmt;
use std::ops::RangeInclusive;

/// Longest part of a URI with a name in it, in characters, unless its [`Hole`] says otherwise. The
/// shortest limit of file systems and catalogs.
const MAX_LEN: usize = 255;

/// Which names a place can tell apart. A name is never changed to fit: it fits or it is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameRule {
    /// The place compares every character: any text without control characters, invisible
    /// characters, and white space at its ends.
    Exact,
    /// The place, or one of its kind, folds case, accents or width, or ignores blanks at the end:
    /// printable ASCII without upper-case letters, and no space at its ends.
    Printable,
    /// A file or folder: lower-case letters a to z, digits, `_`, `-` and `.`, and no `.` at its
    /// ends.
    Segment,
    /// A part of a name that folds case: lower-case letters a to z, digits, `_` and `-`.
    Identifier,
}

impl NameRule {
    /// # Errors
    /// The rule that the name breaks.
    pub(super) fn check(self, name: &str) -> Result<(), &'static str> {
        let ascii = |extra: &[u8]| {
            name.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || extra.contains(&b))
        };
        if name.is_empty() {
            return Err("it is empty");
        }
        if name.chars().any(char::is_control) {
            return Err("it has a control character");
        }
        if name.chars().any(is_invisible) {
            return Err("it has an invisible character");
        }
        if name.starts_with(char::is_whitespace) || name.ends_with(char::is_whitespace) {
            return Err("it begins or ends with white space");
        }
        match self {
            Self::Exact => Ok(()),
            Self::Printable => {
                let fits = |b: u8| (b' '..=b'~').contains(&b) && !b.is_ascii_uppercase();
                match name.bytes().all(fits) {
                    true => Ok(()),
                    false => Err(
                        "the place may take upper-case letters, and letters beyond ASCII, \
                        for others",
                    ),
                }
            }
            Self::Segment if !ascii(b"_-.") => {
                Err("a file name takes lower-case letters a to z, digits, `_`, `-` and `.` only")
            }
            Self::Segment if name.starts_with('.') || name.ends_with('.') => {
                Err("it begins or ends with `.`")
            }
            Self::Identifier if !ascii(b"_-") => {
                Err("the place takes lower-case letters a to z, digits, `_` and `-` only")
            }
            Self::Segment | Self::Identifier => Ok(()),
        }
    }

    pub(super) fn mend(self) -> &'static str {
        match self {
            Self::Exact => "give a name of visible characters",
            Self::Printable => "give a lower-case ASCII name, such as the tenant's id",
            Self::Segment | Self::Identifier => {
                "give a name of lower-case letters and digits, such as the tenant's id"
            }
        }
    }
}

/// Characters that are not seen, or that turn what is seen around (Unicode 16, general category
/// `Cf` and the separators of lines and paragraphs). Two names that look alike would be two tenants.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// A place in the URIs of one scheme where a template may have holes. A backend declares them in
/// [`Registry::with_holes`](crate::Registry::with_holes); everywhere else a hole is an error.
///
/// ```
/// use trace_destination_core::{Hole, NameRule};
///
/// let hole = Hole::query("experiment_name", NameRule::Exact).with_max_len(500);
/// assert_eq!(hole.to_string(), "the value of `experiment_name`");
/// ```
#[derive(Clone, Debug)]
pub struct Hole {
    at: Component<'static>,
    parts: Option<(char, RangeInclusive<usize>)>,
    pub(super) rule: NameRule,
    pub(super) ending: &'static str,
    pub(super) max_len: usize,
    pub(super) check: Option<Check>,
}

/// The rule that a whole part breaks.
type Check = fn(&str) -> Result<(), &'static str>;

/// A component of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Component<'a> {
    /// What stands behind the scheme, with `//` or without, where the URI is a name.
    Name,
    /// A folder of the path.
    Folder,
    /// The last segment of the path.
    File,
    /// The value of a query parameter.
    Query(&'a str),
}

impl Hole {
    fn new(at: Component<'static>, rule: NameRule) -> Self {
        Self {
            at,
            parts: None,
            rule,
            ending: "",
            max_len: MAX_LEN,
            check: None,
        }
    }

    /// The name itself, in a scheme whose URIs are `scheme:name` or `scheme://name`.
    pub fn name(rule: NameRule) -> Self {
        Self::new(Component::Name, rule)
    }

    /// One folder of the path.
    pub fn folder(rule: NameRule) -> Self {
        Self::new(Component::Folder, rule)
    }

    /// The last segment of the path.
    pub fn file(rule: NameRule) -> Self {
        Self::new(Component::File, rule)
    }

    /// The value of a query parameter.
    pub fn query(key: &'static str, rule: NameRule) -> Self {
        Self::new(Component::Query(key), rule)
    }

    /// Only these parts, counted from 0, of a name or value that `separator` divides. No name
    /// that contains the separator fits.
    #[must_use]
    pub fn in_parts(mut self, separator: char, parts: RangeInclusive<usize>) -> Self {
        self.parts = Some((separator, parts));
        self
    }

    /// The part must end with this fixed text.
    #[must_use]
    pub fn with_ending(mut self, ending: &'static str) -> Self {
        self.ending = ending;
        self
    }

    /// The longest part, fixed text included, in characters; 255 unless set.
    #[must_use]
    pub fn with_max_len(mut self, characters: usize) -> Self {
        self.max_len = characters;
        self
    }

    /// Refuses whole parts, fixed text included, that belong to something else: names that the
    /// place reserves or that stand for another place. The error says which rule was broken.
    #[must_use]
    pub fn with_check(mut self, check: fn(&str) -> Result<(), &'static str>) -> Self {
        self.check = Some(check);
        self
    }

    pub(super) fn separator(&self) -> Option<char> {
        match self.at {
            Component::Folder | Component::File => Some('/'),
            Component::Name | Component::Query(_) => self.parts.as_ref().map(|(c, _)| *c),
        }
    }

    /// Whether it is the part of this number in this component.
    pub(super) fn is_at(&self, at: Component<'_>, part: usize) -> bool {
        self.at == at && self.parts.as_ref().is_none_or(|(_, p)| p.contains(&part))
    }

    /// Whether it is somewhere in this component.
    pub(super) fn is_in(&self, at: Component<'_>) -> bool {
        self.at == at
    }
}

impl fmt::Display for Hole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((separator, parts)) = &self.parts {
            let (first, last) = (parts.start() + 1, parts.end() + 1);
            match first == last {
                true => write!(f, "part {first} (divided by `{separator}`) of ")?,
                false => write!(f, "part {first} to {last} (divided by `{separator}`) of ")?,
            }
        }
        match self.at {
            Component::Name => f.write_str("the name"),
            Component::Folder => f.write_str("a folder of the path"),
            Component::File => f.write_str("the file name"),
            Component::Query(key) => write!(f, "the value of `{key}`"),
        }
    }
}
