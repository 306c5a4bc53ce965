//! Reading JSON text: decoding it, or only passing over it.

use super::Json;
use super::text::plain_len;

/// How deep a text may nest and still be read. MLflow's reader gives up a little later and then
/// refuses the request; here a deeper text is treated as text that is not JSON.
const MAX_DEPTH: usize = 950;

/// `json.loads(text)`, `None` where Python raises. A lone surrogate, which UTF-8 cannot carry,
/// becomes U+FFFD.
pub(in super::super) fn loads(text: &str) -> Option<Json> {
    let mut scan = Scan::new(text);
    let value = scan.value(0)?;
    scan.end().then_some(value)
}

/// Whether `text` is the JSON of an object, a list or a string.
pub(in super::super) fn is_nested_json(text: &str) -> bool {
    let mut scan = Scan::new(text);
    scan.space();
    matches!(scan.peek(), Some(b'{' | b'[' | b'"')) && scan.skip().is_some() && scan.end()
}

/// The value under `key` at the top level of a JSON object, without decoding the rest.
pub(in super::super) fn member(text: &str, key: &str) -> Option<Json> {
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
            self.at += plain_len(&self.bytes[self.at..]);
            match self.next()? {
                b'"' => return Some(()),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        self.hex4()?;
                    }
                    _ => return None,
                },
                _ => return None,
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

fn last_value_per_key(mut entries: Vec<(String, Json)>) -> Vec<(String, Json)> {
    if entries.len() <= 16 {
        // In small objects a look back is cheaper than a map.
        let mut at = 1;
        while at < entries.len() {
            match entries[..at].iter().position(|(k, _)| *k == entries[at].0) {
                Some(first) => {
                    let (_, value) = entries.remove(at);
                    entries[first].1 = value;
                }
                None => at += 1,
            }
        }
        return entries;
    }
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
