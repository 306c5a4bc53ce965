//! JSON text as a tree. Used only for what the quick decoder gave up on, because this one is
//! tolerant where that is not: text that is not Unicode becomes U+FFFD, a doubled key is no error,
//! numbers keep their digits, and what is nested too deep is cut out alone.

use crate::text::{join, lossy};
use std::borrow::Cow;
use std::fmt;

/// Levels of lists and objects that are read: more than the 100 levels of messages that are decoded
/// take in any spelling, and few enough for the smallest stack of a thread.
const MAX_DEPTH: usize = 200;

/// A JSON value.
#[derive(Debug)]
pub(crate) enum Node<'a> {
    Null,
    Bool(bool),
    /// As it is written; also `NaN`, `Infinity` and `-Infinity`, which Python writes bare.
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Node<'a>>),
    /// The members in the order of the text, doubled keys included.
    Object(Vec<(Cow<'a, str>, Node<'a>)>),
    /// A list or object that is nested too deep.
    TooDeep,
}

/// Why a text is not JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SyntaxError {
    /// Where, in bytes from the start of the text.
    pub(crate) at: usize,
    /// Whether the text ended before the value did.
    pub(crate) eof: bool,
    what: &'static str,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.what, self.at)
    }
}

impl std::error::Error for SyntaxError {}

impl SyntaxError {
    pub(crate) fn no_object() -> Self {
        let (at, eof, what) = (0, false, "expected an object");
        Self { at, eof, what }
    }

    pub(crate) fn trailing(at: usize) -> Self {
        let what = "there is something after the JSON value";
        let eof = false;
        Self { at, eof, what }
    }
}

/// The first value of a text, and where it ends.
pub(crate) fn parse(text: &[u8]) -> Result<(Node<'_>, usize), SyntaxError> {
    let mut parser = Parser { text, at: 0 };
    let node = parser.value(0)?;
    Ok((node, parser.at))
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    fn value(&mut self, depth: usize) -> Result<Node<'a>, SyntaxError> {
        match self.peek()? {
            b'{' | b'[' if depth == MAX_DEPTH => self.skip(),
            b'{' => self.object(depth + 1),
            b'[' => self.list(depth + 1),
            b'"' => Ok(Node::Text(self.string()?)),
            b'-' | b'0'..=b'9' | b'N' | b'I' => self.number(),
            b't' => self.word("true", Node::Bool(true)),
            b'f' => self.word("false", Node::Bool(false)),
            b'n' => self.word("null", Node::Null),
            _ => Err(self.error("expected a value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Node<'a>, SyntaxError> {
        let mut members = Vec::new();
        self.at += 1;
        if self.closes(b'}')? {
            return Ok(Node::Object(members));
        }
        loop {
            if self.peek()? != b'"' {
                return Err(self.error("expected a key"));
            }
            let key = self.string()?;
            if self.peek()? != b':' {
                return Err(self.error("expected `:`"));
            }
            self.at += 1;
            members.push((key, self.value(depth)?));
            if !self.continues(b'}')? {
                return Ok(Node::Object(members));
            }
        }
    }

    fn list(&mut self, depth: usize) -> Result<Node<'a>, SyntaxError> {
        let mut items = Vec::new();
        self.at += 1;
        if self.closes(b']')? {
            return Ok(Node::List(items));
        }
        loop {
            items.push(self.value(depth)?);
            if !self.continues(b']')? {
                return Ok(Node::List(items));
            }
        }
    }

    fn closes(&mut self, end: u8) -> Result<bool, SyntaxError> {
        let closes = self.peek()? == end;
        self.at += usize::from(closes);
        Ok(closes)
    }

    /// Whether a comma follows and not the end of the list or object.
    fn continues(&mut self, end: u8) -> Result<bool, SyntaxError> {
        let next = self.peek()?;
        if next != b',' && next != end {
            return Err(self.error("expected `,` or the end of a list or object"));
        }
        self.at += 1;
        Ok(next == b',')
    }

    /// Passes over a list or object of any depth. Only its brackets and texts are looked at.
    fn skip(&mut self) -> Result<Node<'a>, SyntaxError> {
        let mut open = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => open += 1,
                b'}' | b']' => open -= 1,
                _ => {}
            }
            self.at += 1;
            if open == 0 {
                return Ok(Node::TooDeep);
            }
        }
    }

    fn number(&mut self) -> Result<Node<'a>, SyntaxError> {
        let start = self.at;
        self.at += usize::from(self.text[start] == b'-');
        for word in ["NaN", "Infinity"] {
            if self.text[self.at..].starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(Node::Number(self.ascii(start)));
            }
        }
        while let Some(b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-') = self.text.get(self.at) {
            self.at += 1;
        }
        let number = self.ascii(start);
        // What `f64` reads but JSON does not write begins or ends with something else than a digit.
        if number.ends_with(|c: char| c.is_ascii_digit()) && number.parse::<f64>().is_ok() {
            return Ok(Node::Number(number));
        }
        if self.at == self.text.len() {
            return Err(self.end());
        }
        self.at = start;
        Err(self.error("expected a number"))
    }

    fn ascii(&self, start: usize) -> &'a str {
        str::from_utf8(&self.text[start..self.at]).unwrap_or_default()
    }

    fn word(&mut self, word: &str, node: Node<'a>) -> Result<Node<'a>, SyntaxError> {
        let rest = &self.text[self.at..];
        if rest.starts_with(word.as_bytes()) {
            self.at += word.len();
            return Ok(node);
        }
        if word.as_bytes().starts_with(rest) {
            return Err(self.end());
        }
        Err(self.error("expected a value"))
    }

    fn string(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        self.at += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let start = self.at;
            let special = |b: &u8| matches!(*b, b'"' | b'\\' | 0..=0x1f);
            let len = self.text[start..].iter().position(special);
            self.at = len.map_or(self.text.len(), |len| start + len);
            let run = lossy(&self.text[start..self.at]);
            if text.is_empty() {
                text = run;
            } else {
                text.to_mut().push_str(&run);
            }
            match self.text.get(self.at) {
                None => return Err(self.end()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(text);
                }
                Some(b'\\') => text.to_mut().push(self.escape()?),
                Some(_) => return Err(self.error("a control character in a text")),
            }
        }
    }

    fn escape(&mut self) -> Result<char, SyntaxError> {
        let Some(letter) = self.text.get(self.at + 1) else {
            return Err(self.end());
        };
        let character = match letter {
            b'"' | b'\\' | b'/' => char::from(*letter),
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode_escape(),
            _ => return Err(self.error("an unknown escape in a text")),
        };
        self.at += 2;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char, SyntaxError> {
        let first = self.unit()?;
        if let Some(character) = char::from_u32(first.into()) {
            return Ok(character);
        }
        if self.text[self.at..].starts_with(b"\\u") {
            let before = self.at;
            let second = self.unit()?;
            match join(first, second) {
                Some(character) => return Ok(character),
                // Not its other half: a character of its own, or the first half of another one.
                None => self.at = before,
            }
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    /// The code unit of a `\uXXXX`.
    fn unit(&mut self) -> Result<u16, SyntaxError> {
        let Some(digits) = self.text.get(self.at + 2..self.at + 6) else {
            return Err(self.end());
        };
        let value = digits.iter().try_fold(0, |value, digit| {
            Some(value << 4 | char::from(*digit).to_digit(16)?)
        });
        let Some(value) = value else {
            return Err(self.error("a \\u escape without four hex digits"));
        };
        self.at += 6;
        // Four hex digits never exceed 16 bits.
        Ok(value as u16)
    }

    /// The next byte that is not white space.
    fn peek(&mut self) -> Result<u8, SyntaxError> {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.text.get(self.at) {
            self.at += 1;
        }
        self.text.get(self.at).copied().ok_or_else(|| self.end())
    }

    fn end(&self) -> SyntaxError {
        SyntaxError {
            at: self.text.len(),
            eof: true,
            what: "the text ends in the middle of a value",
        }
    }

    fn error(&self, what: &'static str) -> SyntaxError {
        SyntaxError {
            at: self.at,
            eof: false,
            what,
        }
    }
}

#[cfg(test)]
mod tests;
