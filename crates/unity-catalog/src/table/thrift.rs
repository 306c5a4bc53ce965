//! Thrift's compact protocol, as far as it takes to see how much a Parquet file claims before its
//! reader makes room for that.

/// Structs and lists within each other.
const DEPTH: usize = 32;
/// Elements of all lists. A footer of sixty columns and ten row groups has six thousand.
const ELEMENTS: usize = 100_000;

const STRUCT: u8 = 12;

/// Reads forward, and stops at the first thing that is not what it claims.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    elements: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            elements: ELEMENTS,
        }
    }

    /// Bytes that are not read yet.
    pub(super) fn left(&self) -> usize {
        self.rest.len()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn byte(&mut self) -> Option<u8> {
        self.take(1).map(|taken| taken[0])
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A number with a sign.
    pub(super) fn number(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// Goes through the fields of a struct. `field` reads a field and returns true, or leaves it and
    /// returns false; `None` is for what is wrong.
    pub(super) fn fields(
        &mut self,
        depth: usize,
        mut field: impl FnMut(&mut Self, i64) -> Option<bool>,
    ) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        let mut id = 0_i64;
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Some(());
            }
            id = match head >> 4 {
                0 => self.number()?,
                step => id.checked_add(i64::from(step))?,
            };
            if !field(self, id)? {
                self.skip(head & 0x0f, depth)?;
            }
        }
    }

    /// Goes over a value of a type.
    fn skip(&mut self, kind: u8, depth: usize) -> Option<()> {
        if depth > DEPTH {
            return None;
        }
        match kind {
            1 | 2 => Some(()),
            3 => self.byte().map(drop),
            4..=6 => self.varint().map(drop),
            7 => self.take(8).map(drop),
            8 => {
                let length = self.varint()?;
                self.take(usize::try_from(length).ok()?).map(drop)
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    count => u64::from(count),
                };
                self.repeat(count, |reader| reader.element(head & 0x0f, depth))
            }
            11 => {
                let count = self.varint()?;
                if count == 0 {
                    return Some(());
                }
                let kinds = self.byte()?;
                self.repeat(count, |reader| {
                    reader.element(kinds >> 4, depth)?;
                    reader.element(kinds & 0x0f, depth)
                })
            }
            STRUCT => self.fields(depth + 1, |_, _| Some(false)),
            _ => None,
        }
    }

    /// A truth value has a byte of its own in a list.
    fn element(&mut self, kind: u8, depth: usize) -> Option<()> {
        match kind {
            1 | 2 => self.byte().map(drop),
            kind => self.skip(kind, depth + 1),
        }
    }

    fn repeat(&mut self, count: u64, mut one: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        let count = usize::try_from(count).ok()?;
        self.elements = self.elements.checked_sub(count)?;
        // Every element has a byte at least.
        if count > self.rest.len() {
            return None;
        }
        (0..count).try_for_each(|_| one(self))
    }
}

/// Whether a struct is as long as it claims everywhere, and its lists are not too long.
pub(super) fn is_sound(bytes: &[u8]) -> bool {
    let mut reader = Reader::new(bytes);
    reader.skip(STRUCT, 0).is_some()
}

/// What a page of a column claims.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) decoded: u64,
    pub(super) values: u64,
    pub(super) encoding: i64,
    pub(super) is_dictionary: bool,
}

/// Reads the header of a page and goes over the page.
pub(super) fn page(reader: &mut Reader<'_>) -> Option<Page> {
    let mut page = Page::default();
    let (mut decoded, mut stored) = (None, None);
    reader.fields(0, |reader, id| {
        let encoding_at = match id {
            2 => {
                decoded = Some(reader.number()?);
                return Some(true);
            }
            3 => {
                stored = Some(reader.number()?);
                return Some(true);
            }
            5 | 7 => 2,
            8 => 4,
            _ => return Some(false),
        };
        page.is_dictionary = id == 7;
        reader.fields(1, |reader, inner| {
            if inner == 1 {
                page.values = u64::try_from(reader.number()?).ok()?;
            } else if inner == encoding_at {
                page.encoding = reader.number()?;
            } else {
                return Some(false);
            }
            Some(true)
        })?;
        Some(true)
    })?;
    page.decoded = u64::try_from(decoded?).ok()?;
    reader.take(usize::try_from(stored?).ok()?)?;
    Some(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_claims_more_than_it_has_is_not_sound() {
        // field 1: i32 1; field 2: list of two i32; stop.
        assert!(is_sound(&[0x15, 2, 0x19, 0x25, 2, 4, 0]));
        // A list of 2^31 structs, of 2^63 numbers, and more than there are bytes.
        assert!(!is_sound(&[0x19, 0xfc, 0xff, 0xff, 0xff, 0xff, 0x07, 0, 0]));
        assert!(!is_sound(&[
            0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f
        ]));
        assert!(!is_sound(&[0x19, 0x35, 2, 4, 0]));
        // A text of 2^40 bytes, a type that there is not, no end.
        assert!(!is_sound(&[0x18, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0]));
        assert!(!is_sound(&[0x1f, 0]));
        assert!(!is_sound(&[0x15, 2]));
        assert!(!is_sound(&[0x1c; 100_000]), "structs in structs");
        assert!(!is_sound(&[0x19; 100_000]), "lists in lists");
        let many = [&[0x19, 0xfc, 0xc0, 0x84, 0x3d][..], &[0; 1_000_001]].concat();
        assert!(!is_sound(&many), "a million empty structs");
    }

    #[test]
    fn pages_say_how_large_they_are() {
        // type 0, decoded 100, stored 3, {values 7, encoding 8}, then three bytes.
        let bytes = [
            0x15, 0, 0x15, 200, 1, 0x15, 6, 0x2c, 0x15, 14, 0x15, 16, 0, 0, 1, 2, 3,
        ];
        let mut reader = Reader::new(&bytes);
        let page = page(&mut reader).unwrap();
        assert_eq!((page.decoded, page.values, page.encoding), (100, 7, 8));
        assert!(!page.is_dictionary);
        assert_eq!(reader.left(), 0);
        assert!(
            super::page(&mut Reader::new(&bytes[..16])).is_none(),
            "cut off"
        );
    }
}
