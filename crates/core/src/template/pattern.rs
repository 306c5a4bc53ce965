//! Decoded text with holes.

/// Fixed text and holes, in order. Two fixed texts are never adjacent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Text(Box<str>),
    /// The index of the variable.
    Hole(usize),
}

/// Replaces holes while a template is parsed as an ordinary URI: lower-case letters and digits that
/// occur nowhere in the template. Its first letter is not a hexadecimal digit and occurs in it
/// once, so that two markers cannot overlap.
pub(super) struct Marker(String);

impl Marker {
    /// A marker that occurs neither in the text nor in its decoded form.
    pub(super) fn absent_from(text: &str) -> Self {
        let decoded = percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        let text = format!("{text}\0{decoded}").to_ascii_lowercase();
        let mut number = 0_u32;
        loop {
            let marker = format!("zqx{number}q");
            if !text.contains(&marker) {
                return Self(marker);
            }
            number += 1;
        }
    }

    /// The text that replaces a variable.
    pub(super) fn of(&self, variable: usize) -> String {
        format!("{}{variable}q", self.0)
    }

    /// Whether the text contains a marker.
    pub(super) fn is_in(&self, text: &str) -> bool {
        text.contains(&self.0)
    }

    /// The text, with markers turned into holes.
    pub(super) fn pattern(&self, text: &str) -> Pattern {
        let mut pieces = Vec::new();
        let mut fixed = String::new();
        let mut parts = text.split(&self.0);
        fixed.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let Some((number, rest)) = part.split_once('q') else {
                fixed.push_str(part);
                continue;
            };
            let Ok(variable) = number.parse() else {
                fixed.push_str(part);
                continue;
            };
            if !fixed.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut fixed).into()));
            }
            pieces.push(Piece::Hole(variable));
            fixed.push_str(rest);
        }
        if !fixed.is_empty() {
            pieces.push(Piece::Text(fixed.into()));
        }
        Pattern(pieces)
    }

    /// The text, with markers turned back into `{variables}`.
    pub(super) fn shown(&self, text: &str, variables: &[Box<str>]) -> String {
        self.pattern(text)
            .fill(|v| format!("{{{}}}", variables.get(v).map_or("?", |name| name)))
    }
}

impl Pattern {
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.0
    }

    /// The variables, each as often as it occurs.
    pub(super) fn holes(&self) -> impl Iterator<Item = usize> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Hole(variable) => Some(*variable),
            Piece::Text(_) => None,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This pattern followed by the other.
    pub(super) fn followed_by(&self, other: &Self) -> Self {
        let mut pieces = self.0.clone();
        for piece in &other.0 {
            match (pieces.last_mut(), piece) {
                (Some(Piece::Text(a)), Piece::Text(b)) => *a = format!("{a}{b}").into(),
                _ => pieces.push(piece.clone()),
            }
        }
        Self(pieces)
    }

    pub(super) fn has_holes(&self) -> bool {
        self.holes().next().is_some()
    }

    /// The text with a value in each hole.
    pub(super) fn fill<T: AsRef<str>>(&self, value: impl Fn(usize) -> T) -> String {
        let mut text = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Text(fixed) => text.push_str(fixed),
                Piece::Hole(variable) => text.push_str(value(*variable).as_ref()),
            }
        }
        text
    }

    /// The parts between the separators in its fixed text.
    pub(super) fn split(&self, separator: Option<char>) -> Vec<Pattern> {
        let Some(separator) = separator else {
            return vec![self.clone()];
        };
        let mut parts = vec![Pattern::default()];
        let mut push = |piece: Option<Piece>, new: bool| {
            if new {
                parts.push(Pattern::default());
            }
            if let Some(last) = parts.last_mut() {
                last.0.extend(piece);
            }
        };
        for piece in &self.0 {
            match piece {
                Piece::Hole(_) => push(Some(piece.clone()), false),
                Piece::Text(text) => {
                    for (i, fixed) in text.split(separator).enumerate() {
                        let piece = (!fixed.is_empty()).then(|| Piece::Text(fixed.into()));
                        push(piece, i > 0);
                    }
                }
            }
        }
        parts
    }

    /// Fixed text at the beginning.
    fn head(&self) -> &str {
        match self.0.first() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// Fixed text at the end.
    pub(super) fn tail(&self) -> &str {
        match self.0.last() {
            Some(Piece::Text(text)) => text,
            _ => "",
        }
    }

    /// Whether some values could make both the same text, ignoring case. `true` if in doubt.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let same = |a: u8, b: u8| a.eq_ignore_ascii_case(&b);
        if !self.has_holes() && !other.has_holes() {
            return self.head().eq_ignore_ascii_case(other.head());
        }
        let heads = self.head().bytes().zip(other.head().bytes());
        let tails = self.tail().bytes().rev().zip(other.tail().bytes().rev());
        heads.into_iter().all(|(a, b)| same(a, b)) && tails.into_iter().all(|(a, b)| same(a, b))
    }
}
