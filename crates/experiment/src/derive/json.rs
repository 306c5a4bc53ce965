//! JSON as Python's `json` module reads and writes it, because that is what MLflow stores: `, ` and
//! `: ` as separators, floats as Python prints them, `NaN` and `Infinity` allowed.

use std::fmt::Write as _;

/// How deep a text may nest and still be read. MLflow's reader gives up a little earlier and then
/// refuses the request; here a deeper text is treated as text that is not JSON.
const MAX_DEPTH: usize = 1000;

/// A decoded JSON value. Objects keep their order; a key given twice keeps its first place and its
/// last value, as a Python `dict` does.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    Int(i128),
    /// Digits of a whole number beyond 128 bits.
    Big(String),
    Float(f64),
    Str(String),
    List(Vec<Json>),
    Dict(Vec<(String, Json)>),
}

impl Json {
    /// What Python's `if value` says.
    pub(super) fn truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(v) => *v,
            Self::Int(v) => *v != 0,
            Self::Big(_) => true,
            Self::Float(v) => *v != 0.0,
            Self::Str(v) => !v.is_empty(),
            Self::List(v) => !v.is_empty(),
            Self::Dict(v) => !v.is_empty(),
        }
    }

    /// The text, if this is a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(v) => Some(v),
            _ => None,
        }
    }

    /// The value under `key`, if this is an object that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        match self {
            Self::Dict(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The elements, if this is a list.
    pub(super) fn as_list(&self) -> Option<&[Json]> {
        match self {
            Self::List(v) => Some(v),
            _ => None,
        }
    }

    /// Sets `key` in the entries of an object.
    pub(super) fn put(entries: &mut Vec<(String, Json)>, key: String, value: Json) {
        match entries.iter_mut().find(|(k, _)| *k == key) {
            Some(entry) => entry.1 = value,
            None => entries.push((key, value)),
        }
    }

    /// `json.dumps(value)`; `ascii` writes everything beyond ASCII as `\u` escapes.
    pub(super) fn dumps(&self, ascii: bool) -> String {
        let mut out = String::new();
        self.write(&mut out, ascii);
        out
    }

    pub(super) fn write(&self, out: &mut String, ascii: bool) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(v) => out.push_str(if *v { "true" } else { "false" }),
            Self::Int(v) => push_display(out, v),
            Self::Big(v) => out.push_str(v),
            Self::Float(v) => push_float(out, *v),
            Self::Str(v) => push_quoted(out, v, ascii),
            Self::List(v) => {
                out.push('[');
                for (i, v) in v.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    v.write(out, ascii);
                }
                out.push(']');
            }
            Self::Dict(v) => {
                out.push('{');
                for (i, (k, v)) in v.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    push_quoted(out, k, ascii);
                    out.push_str(": ");
                    v.write(out, ascii);
                }
                out.push('}');
            }
        }
    }
}

/// `json.loads(text)`, `None` where Python raises. A lone surrogate, which UTF-8 cannot carry,
/// becomes U+FFFD.
pub(super) fn loads(text: &str) -> Option<Json> {
    let mut scan = Scan::new(text);
    let value = scan.value(0)?;
    scan.end().then_some(value)
}

/// Whether `text` is the JSON of an object, a list or a string.
pub(super) fn is_nested_json(text: &str) -> bool {
    let mut scan = Scan::new(text);
    scan.space();
    matches!(scan.peek(), Some(b'{' | b'[' | b'"')) && scan.skip().is_some() && scan.end()
}

/// The value under `key` at the top level of a JSON object, without decoding the rest.
pub(super) fn member(text: &str, key: &str) -> Option<Json> {
    let mut scan = Scan::new(text);
    scan.space();
    if scan.peek() != Some(b'{') {
        return None;
    }
    scan.at += 1;
    scan.space();
    let mut found = None;
    if scan.peek() == Some(b'}') {
        return None;
    }
    loop {
        let from = scan.at;
        scan.skip_string()?;
        let raw = &text[from + 1..scan.at - 1];
        let hit = if raw.contains('\\') {
            Scan::new(&text[from..scan.at]).string()? == key
        } else {
            raw == key
        };
        scan.space();
        scan.eat(b':')?;
        scan.space();
        let from = scan.at;
        scan.skip()?;
        if hit {
            found = Some(from..scan.at);
        }
        scan.space();
        match scan.next()? {
            b',' => scan.space(),
            b'}' => break,
            _ => return None,
        }
    }
    if scan.end() {
        loads(&text[found?])
    } else {
        None
    }
}

struct Scan<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn eat(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// Nothing but white space is left.
    fn end(&mut self) -> bool {
        self.space();
        self.at == self.bytes.len()
    }

    fn word(&mut self, word: &str) -> Option<()> {
        self.bytes[self.at..].starts_with(word.as_bytes()).then(|| {
            self.at += word.len();
        })
    }

    /// A number; whether it is a whole one.
    fn number(&mut self) -> Option<bool> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        let mut whole = true;
        if self.peek() == Some(b'.') && matches!(self.bytes.get(self.at + 1), Some(b'0'..=b'9')) {
            self.at += 1;
            self.digits();
            whole = false;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.bytes.get(self.at + 1), Some(b'+' | b'-')));
            if matches!(self.bytes.get(self.at + 1 + sign), Some(b'0'..=b'9')) {
                self.at += 1 + sign;
                self.digits();
                whole = false;
            }
        }
        Some(whole)
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.eat(b'"')?;
        loop {
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        self.hex4()?;
                    }
                    _ => return None,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn hex4(&mut self) -> Option<u16> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        let mut value = 0;
        for digit in digits {
            value = value * 16 + char::from(*digit).to_digit(16)? as u16;
        }
        self.at += 4;
        Some(value)
    }

    /// Passes over one value.
    fn skip(&mut self) -> Option<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            match self.peek()? {
                b'"' => self.skip_string()?,
                bracket @ (b'{' | b'[') => {
                    if open.len() == MAX_DEPTH {
                        return None;
                    }
                    self.at += 1;
                    self.space();
                    // ASCII: the closing bracket is two code points after the opening one.
                    if self.peek()? == bracket + 2 {
                        self.at += 1;
                    } else {
                        open.push(bracket);
                        self.key(bracket)?;
                        continue;
                    }
                }
                b'n' => self.word("null")?,
                b't' => self.word("true")?,
                b'f' => self.word("false")?,
                b'N' => self.word("NaN")?,
                b'I' => self.word("Infinity")?,
                b'-' if self.bytes.get(self.at + 1) == Some(&b'I') => self.word("-Infinity")?,
                _ => {
                    self.number()?;
                }
            }
            loop {
                let Some(&bracket) = open.last() else {
                    return Some(());
                };
                self.space();
                match self.next()? {
                    b',' => {
                        self.space();
                        self.key(bracket)?;
                        break;
                    }
                    close if close == bracket + 2 => {
                        open.pop();
                    }
                    _ => return None,
                }
            }
        }
    }

    /// The key before a value, inside an object.
    fn key(&mut self, bracket: u8) -> Option<()> {
        if bracket == b'{' {
            self.skip_string()?;
            self.space();
            self.eat(b':')?;
            self.space();
        }
        Some(())
    }

    fn value(&mut self, depth: usize) -> Option<Json> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        Some(match self.peek()? {
            b'"' => Json::Str(self.string()?),
            b'{' => {
                self.at += 1;
                self.space();
                let mut entries = Vec::new();
                if self.peek()? == b'}' {
                    self.at += 1;
                    return Some(Json::Dict(entries));
                }
                loop {
                    self.space();
                    let key = self.string()?;
                    self.space();
                    self.eat(b':')?;
                    let value = self.value(depth + 1)?;
                    entries.push((key, value));
                    self.space();
                    match self.next()? {
                        b',' => {}
                        b'}' => break,
                        _ => return None,
                    }
                }
                Json::Dict(last_value_per_key(entries))
            }
            b'[' => {
                self.at += 1;
                self.space();
                let mut items = Vec::new();
                if self.peek()? == b']' {
                    self.at += 1;
                    return Some(Json::List(items));
                }
                loop {
                    items.push(self.value(depth + 1)?);
                    self.space();
                    match self.next()? {
                        b',' => {}
                        b']' => break,
                        _ => return None,
                    }
                }
                Json::List(items)
            }
            b'n' => self.word("null").map(|()| Json::Null)?,
            b't' => self.word("true").map(|()| Json::Bool(true))?,
            b'f' => self.word("false").map(|()| Json::Bool(false))?,
            b'N' => self.word("NaN").map(|()| Json::Float(f64::NAN))?,
            b'I' => self.word("Infinity").map(|()| Json::Float(f64::INFINITY))?,
            b'-' if self.bytes.get(self.at + 1) == Some(&b'I') => self
                .word("-Infinity")
                .map(|()| Json::Float(f64::NEG_INFINITY))?,
            _ => {
                let from = self.at;
                let whole = self.number()?;
                let digits = &self.text[from..self.at];
                match digits.parse() {
                    Ok(v) if whole => Json::Int(v),
                    _ if whole => Json::Big(digits.to_owned()),
                    _ => Json::Float(digits.parse().ok()?),
                }
            }
        })
    }

    fn string(&mut self) -> Option<String> {
        let from = self.at + 1;
        self.skip_string()?;
        let raw = &self.text[from..self.at - 1];
        if !raw.contains('\\') {
            return Some(raw.to_owned());
        }
        let mut out = String::with_capacity(raw.len());
        let mut rest = Scan::new(raw);
        while let Some(offset) = raw[rest.at..].find('\\') {
            out.push_str(&raw[rest.at..rest.at + offset]);
            rest.at += offset + 1;
            out.push(match rest.next()? {
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => rest.code_point()?,
                other => char::from(other),
            });
        }
        out.push_str(&raw[rest.at..]);
        Some(out)
    }

    /// What follows `\u`: one unit, or a surrogate pair.
    fn code_point(&mut self) -> Option<char> {
        let unit = self.hex4()?;
        if (0xd800..0xdc00).contains(&unit) && self.bytes[self.at..].starts_with(b"\\u") {
            let before = self.at;
            self.at += 2;
            let low = self.hex4()?;
            if let Some(Ok(c)) = char::decode_utf16([unit, low]).next() {
                return Some(c);
            }
            self.at = before;
        }
        Some(char::from_u32(u32::from(unit)).unwrap_or(char::REPLACEMENT_CHARACTER))
    }
}

fn last_value_per_key(entries: Vec<(String, Json)>) -> Vec<(String, Json)> {
    let mut places = std::collections::HashMap::with_capacity(entries.len());
    let mut unique: Vec<(String, Json)> = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        if let Some(&place) = places.get(&key) {
            let entry: &mut (String, Json) = &mut unique[place];
            entry.1 = value;
        } else {
            places.insert(key.clone(), unique.len());
            unique.push((key, value));
        }
    }
    unique
}

/// How text is escaped: once for a JSON string, twice for the JSON string of a JSON text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Level {
    Once,
    Twice,
}

impl Level {
    /// A quotation mark that stands at this level.
    pub(super) fn quote(self) -> &'static str {
        match self {
            Self::Once => "\"",
            Self::Twice => "\\\"",
        }
    }
}

/// A JSON string with its quotation marks.
pub(super) fn push_string(out: &mut String, text: &str, level: Level) {
    out.push_str(level.quote());
    push_escaped(out, text, level);
    out.push_str(level.quote());
}

/// The inside of a JSON string. Only what must be escaped is.
pub(super) fn push_escaped(out: &mut String, text: &str, level: Level) {
    let bytes = text.as_bytes();
    let mut from = 0;
    for (i, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.push_str(&text[from..i]);
        from = i + 1;
        let twice = level == Level::Twice;
        match byte {
            b'"' => out.push_str(if twice { "\\\\\\\"" } else { "\\\"" }),
            b'\\' => out.push_str(if twice { "\\\\\\\\" } else { "\\\\" }),
            control => {
                out.push_str(if twice { "\\\\" } else { "\\" });
                match control {
                    b'\n' => out.push('n'),
                    b'\r' => out.push('r'),
                    b'\t' => out.push('t'),
                    0x08 => out.push('b'),
                    0x0c => out.push('f'),
                    _ => push_unit(out, u16::from(control)),
                }
            }
        }
    }
    out.push_str(&text[from..]);
}

fn push_quoted(out: &mut String, text: &str, ascii: bool) {
    if !ascii || text.is_ascii() {
        // DEL is ASCII and printed as it is by both.
        push_string(out, text, Level::Once);
        return;
    }
    out.push('"');
    for c in text.chars() {
        if c.is_ascii() {
            push_escaped(out, c.encode_utf8(&mut [0; 4]), Level::Once);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push('\\');
                push_unit(out, *unit);
            }
        }
    }
    out.push('"');
}

fn push_unit(out: &mut String, unit: u16) {
    push_display(out, format_args!("u{unit:04x}"));
}

pub(super) fn push_display(out: &mut String, value: impl std::fmt::Display) {
    // Writing to a String does not fail.
    let _ = write!(out, "{value}");
}

/// A whole number; the common small case without the formatting machinery.
pub(super) fn push_int(out: &mut String, value: i64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push('-');
    }
    out.extend(digits[at..].iter().map(|d| char::from(*d)));
}

/// A float as Python's `repr` prints it, which is also what its JSON writer does.
pub(super) fn push_float(out: &mut String, value: f64) {
    let size = value.abs();
    if value.is_nan() {
        out.push_str("NaN");
    } else if value.is_infinite() {
        out.push_str(if value > 0.0 { "Infinity" } else { "-Infinity" });
    } else if size == 0.0 || (1e-4..1e16).contains(&size) {
        push_display(out, format_args!("{value:?}"));
    } else {
        let text = format!("{value:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        push_display(out, format_args!("{digits}e{sign}{exponent:0>2}"));
    }
}

/// The text of a float, see [`push_float`].
pub(super) fn float_text(value: f64) -> String {
    let mut out = String::new();
    push_float(&mut out, value);
    out
}

/// Bytes as Python's `repr` prints them.
pub(super) fn bytes_text(bytes: &[u8]) -> String {
    let quote = if bytes.contains(&b'\'') && !bytes.contains(&b'"') {
        '"'
    } else {
        '\''
    };
    let mut out = String::with_capacity(bytes.len() + 3);
    out.push('b');
    out.push(quote);
    for &byte in bytes {
        match byte {
            b'\\' => out.push_str("\\\\"),
            b'\t' => out.push_str("\\t"),
            b'\n' => out.push_str("\\n"),
            b'\r' => out.push_str("\\r"),
            b if char::from(b) == quote => {
                out.push('\\');
                out.push(quote);
            }
            0x20..0x7f => out.push(char::from(byte)),
            _ => push_display(&mut out, format_args!("\\x{byte:02x}")),
        }
    }
    out.push(quote);
    out
}
