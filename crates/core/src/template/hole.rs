//! Where templates of a scheme may have holes, and which names fit into them.

use std::fmt;
use std::ops::RangeInclusive;

/// Longest part of a URI that contains a name, in characters, unless its [`Hole`] sets another
/// limit. The smallest limit of common file systems and catalogs.
const MAX_LEN: usize = 255;

/// Which names a location can distinguish. A name fits or is refused; it is never changed to fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NameRule {
    /// For locations that compare every character. Any text, without control characters, invisible
    /// characters, and white space at its ends.
    Exact,
    /// For locations that may fold case, accents or width, or ignore blanks at the end. Printable
    /// ASCII without upper-case letters, and without spaces at its ends.
    Printable,
    /// For files and folders. Lower-case letters a to z, digits, `_`, `-` and `.`, without `.` at
    /// its ends.
    Segment,
    /// For parts of names that fold case. Lower-case letters a to z, digits, `_` and `-`.
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

/// Invisible characters and those that change the direction of text (Unicode 16, general category
/// `Cf`, and the separators of lines and paragraphs). With them, two tenants could have names that
/// look the same.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
        | '\u{e0000}'..='\u{e007f}')
}

/// A component in the URIs of one scheme in which a template may have holes. A backend declares
/// them with [`Registry::with_holes`](crate::Registry::with_holes). A hole anywhere else is an
/// error.
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

/// Checks a whole part; `Err` has the rule that it breaks.
type Check = fn(&str) -> Result<(), &'static str>;

/// A component of a URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Component<'a> {
    /// The name after the scheme, with `//` or without, in a URI that is a name.
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

    /// Allows holes only in these parts, counted from 0, of a name or value that `separator`
    /// divides. A name that contains the separator is refused.
    #[must_use]
    pub fn in_parts(mut self, separator: char, parts: RangeInclusive<usize>) -> Self {
        self.parts = Some((separator, parts));
        self
    }

    /// Requires that the part ends with this fixed text.
    #[must_use]
    pub fn with_ending(mut self, ending: &'static str) -> Self {
        self.ending = ending;
        self
    }

    /// Sets the longest part, including fixed text, in characters; 255 by default.
    #[must_use]
    pub fn with_max_len(mut self, characters: usize) -> Self {
        self.max_len = characters;
        self
    }

    /// Adds a check of the whole part, including fixed text: for names that are reserved, or that
    /// name another location. Its error is the rule that was broken.
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

    /// Whether the hole may be in this part of this component.
    pub(super) fn is_at(&self, at: Component<'_>, part: usize) -> bool {
        self.at == at && self.parts.as_ref().is_none_or(|(_, p)| p.contains(&part))
    }

    /// Whether the hole may be in this component at all.
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
