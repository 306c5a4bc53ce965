//! Lines of JSON, looked at before they are parsed. Parsers keep a token for every value, many times
//! the bytes it is written in, and some go one call deeper for every bracket.

use super::bounded::TooLarge;

/// Bytes of a line. One action is a few kilobytes, and the columns of the tables written here some
/// twenty.
const MAX_LINE: usize = 2 << 20;
/// Values in one object. A commit of the largest size has fewer: statistics are one text.
const MAX_VALUES: usize = 4 << 20;
/// How deep a line may be nested.
pub(super) const MAX_DEPTH: usize = 64;

/// The state between two pieces of an object.
#[derive(Debug, Default)]
pub(super) struct Scan {
    line: usize,
    values: usize,
    depth: usize,
    in_text: bool,
    escaped: bool,
}

impl Scan {
    /// Looks at the next piece.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Result<(), TooLarge> {
        for byte in bytes {
            if *byte == b'\n' {
                // No text has a line break in it: the next line starts anew, whatever this was.
                *self = Self {
                    values: self.values,
                    ..Self::default()
                };
                continue;
            }
            self.line += 1;
            if self.line > MAX_LINE {
                return Err(TooLarge::line(MAX_LINE));
            }
            match (self.in_text, byte) {
                (true, _) if self.escaped => self.escaped = false,
                (true, b'\\') => self.escaped = true,
                (true, b'"') => self.in_text = false,
                (true, _) => {}
                (false, b'"') => self.in_text = true,
                (false, b'{' | b'[') => {
                    (self.depth, self.values) = (self.depth + 1, self.values + 1);
                    if self.depth > MAX_DEPTH {
                        return Err(TooLarge::depth());
                    }
                }
                (false, b'}' | b']') => self.depth = self.depth.saturating_sub(1),
                (false, b',' | b':') => self.values += 1,
                (false, _) => {}
            }
            if self.values > MAX_VALUES {
                return Err(TooLarge::values(MAX_VALUES));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanned(pieces: &[&[u8]]) -> Result<(), TooLarge> {
        let mut scan = Scan::default();
        pieces.iter().try_for_each(|piece| scan.read(piece))
    }

    #[test]
    fn actions_of_a_table_pass() {
        let stats = r#"{"add":{"path":"a","stats":"{\"a\":[[[[[[\"\\\"]]]]]]}","size":1}}"#;
        let commit = format!("{stats}\n").repeat(10_000);
        assert!(scanned(&[commit.as_bytes()]).is_ok());
        // In pieces of any size.
        let pieces: Vec<&[u8]> = commit.as_bytes().chunks(7).collect();
        assert!(scanned(&pieces).is_ok());
    }

    #[test]
    fn what_costs_a_parser_more_than_its_bytes_does_not() {
        let deep = "[".repeat(MAX_DEPTH + 1);
        assert!(scanned(&[deep.as_bytes()]).is_err());
        let deep = format!(r#"{{"a":{deep}"#);
        let pieces: Vec<&[u8]> = deep.as_bytes().chunks(1).collect();
        assert!(scanned(&pieces).is_err());
        let long = vec![b' '; MAX_LINE + 1];
        assert!(scanned(&[&long]).is_err());
        let halves = vec![b'1'; MAX_LINE / 2 + 1];
        assert!(scanned(&[&halves, &halves]).is_err());
        let many = "[1,1,1,1]\n".repeat(MAX_VALUES / 4 + 1);
        assert!(scanned(&[many.as_bytes()]).is_err());
        // Brackets in texts are texts.
        let text = format!("\"{}\"", "[".repeat(1000));
        assert!(scanned(&[text.as_bytes()]).is_ok());
    }
}
