//! Attributes as VARIANT values.
//!
//! Source: `VariantEncoding.md` of Apache Parquet's format repository. A bag becomes an object whose
//! dictionary ([`Keys`]) is in byte order; numbers take as few bytes as they need, as Spark writes
//! them. Values stand in the order of the attributes, their offsets in that of the keys, as in what
//! Spark writes. Everything goes straight into the column's buffer: room for a header is left in
//! front of the values, and they move in the rare case that a guess of its size was wrong.

use super::column::Blobs;
use super::fault::Fault;
use super::keys::{KeyCache, width_of};
use trace_destination_core::{AnyValueRef, Attributes};

/// The largest VARIANT that Spark 4.0 reads (`VariantUtil.SIZE_LIMIT`): 16 MiB.
const MAX_BYTES: usize = 16 << 20;
/// What is in front of a long text: its type and its length.
const LONG_HEADER: usize = 5;

// Basic types, in the two lowest bits.
const SHORT_STRING: u8 = 1;
const OBJECT: u8 = 2;
const ARRAY: u8 = 3;
// Primitive types, above them.
const NULL: u8 = 0;
const TRUE: u8 = 1 << 2;
const FALSE: u8 = 2 << 2;
const INT8: u8 = 3 << 2;
const INT16: u8 = 4 << 2;
const INT32: u8 = 5 << 2;
const INT64: u8 = 6 << 2;
const DOUBLE: u8 = 7 << 2;
const BINARY: u8 = 15 << 2;
const STRING: u8 = 16 << 2;

/// A value inside of the object that is being written.
#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u32,
    start: u32,
    end: u32,
}

/// Writes bags; keeps what it learns of their keys, and its scratch space.
#[derive(Debug, Default)]
pub(super) struct VariantWriter {
    keys: KeyCache,
    /// Stacks of the containers that are being written, outermost first.
    offsets: Vec<u32>,
    entries: Vec<Entry>,
}

impl VariantWriter {
    /// Appends the value of a bag to `out` and gives the place of its metadata among `blobs`.
    ///
    /// `last` is the column's own, and says which keys its last bag had; 0 at first.
    ///
    /// Of a key that repeats the last value is kept, here and in nested maps.
    ///
    /// # Errors
    /// If readers could not read it. Nothing is appended then.
    pub(super) fn write(
        &mut self,
        bag: Attributes<'_>,
        last: &mut usize,
        blobs: &mut Blobs,
        out: &mut Vec<u8>,
    ) -> Result<i32, Fault> {
        let base = out.len();
        let (keys, place) = self.keys.find(bag, last, blobs)?;
        self.offsets.clear();
        self.entries.clear();
        let mut writer = Writer {
            out,
            offsets: &mut self.offsets,
            entries: &mut self.entries,
            ids: &keys.ids,
            id_width: width_of(keys.distinct.saturating_sub(1)),
        };
        if keys.is_plain() {
            keys.offset_width = writer.plain(bag, keys.offset_width);
        } else {
            writer.object(bag.iter());
        }
        let bytes = out.len() - base;
        if bytes > MAX_BYTES {
            out.truncate(base);
            return Err(Fault::size(bytes, MAX_BYTES));
        }
        Ok(place)
    }

    /// Appends a text that is no bag, as [`write`](Self::write) does a bag.
    ///
    /// # Errors
    /// If readers could not read it. Nothing is appended then.
    pub(super) fn write_text(
        &mut self,
        text: &str,
        blobs: &mut Blobs,
        out: &mut Vec<u8>,
    ) -> Result<i32, Fault> {
        if text.len() > MAX_BYTES - LONG_HEADER {
            return Err(Fault::size(text.len() + LONG_HEADER, MAX_BYTES));
        }
        // A text has no keys: its dictionary is empty.
        let (_, place) = self.keys.find(Attributes::record(&[]), &mut 0, blobs)?;
        let mut writer = Writer {
            out,
            offsets: &mut self.offsets,
            entries: &mut self.entries,
            ids: &[],
            id_width: 1,
        };
        writer.value(AnyValueRef::String(text));
        Ok(place)
    }

    /// Forgets the blobs.
    pub(super) fn next_batch(&mut self) {
        self.keys.next_batch();
    }

    /// Memory kept from batch to batch.
    pub(super) fn bytes(&self) -> usize {
        self.keys.bytes() + 4 * self.offsets.capacity() + 12 * self.entries.capacity()
    }
}

struct Writer<'a> {
    out: &'a mut Vec<u8>,
    offsets: &'a mut Vec<u32>,
    entries: &'a mut Vec<Entry>,
    /// Numbers of the keys still to come.
    ids: &'a [u32],
    id_width: usize,
}

/// Where a container begins, and how wide its numbers are.
struct Frame {
    base: usize,
    count: usize,
    id_width: usize,
    offset_width: usize,
}

impl Frame {
    fn values(&self) -> usize {
        let count_width = if self.count > 255 { 4 } else { 1 };
        self.base
            + 1
            + count_width
            + self.count * self.id_width
            + (self.count + 1) * self.offset_width
    }
}

impl Writer<'_> {
    fn value(&mut self, value: AnyValueRef<'_>) {
        match value {
            AnyValueRef::Empty => self.out.push(NULL),
            AnyValueRef::Bool(true) => self.out.push(TRUE),
            AnyValueRef::Bool(false) => self.out.push(FALSE),
            AnyValueRef::Int(number) => self.int(number),
            AnyValueRef::Double(number) => {
                self.out.push(DOUBLE);
                self.out.extend_from_slice(&number.to_le_bytes());
            }
            AnyValueRef::String(text) => match text.len() {
                short @ 0..64 => {
                    self.out.push((short as u8) << 2 | SHORT_STRING);
                    self.out.extend_from_slice(text.as_bytes());
                }
                _ => self.long(STRING, text.as_bytes()),
            },
            AnyValueRef::Bytes(bytes) => self.long(BINARY, bytes),
            AnyValueRef::Array(list) => self.array(list.iter()),
            AnyValueRef::Map(map) => self.object(map.iter()),
        }
    }

    fn int(&mut self, number: i64) {
        if let Ok(small) = i8::try_from(number) {
            self.out.extend_from_slice(&[INT8, small.cast_unsigned()]);
        } else if let Ok(small) = i16::try_from(number) {
            self.out.push(INT16);
            self.out.extend_from_slice(&small.to_le_bytes());
        } else if let Ok(small) = i32::try_from(number) {
            self.out.push(INT32);
            self.out.extend_from_slice(&small.to_le_bytes());
        } else {
            self.out.push(INT64);
            self.out.extend_from_slice(&number.to_le_bytes());
        }
    }

    fn long(&mut self, primitive: u8, bytes: &[u8]) {
        self.out.push(primitive);
        // What is longer is refused for its size in the end.
        self.out
            .extend_from_slice(&(bytes.len() as u32).to_le_bytes());
        self.out.extend_from_slice(bytes);
    }

    fn array<'v>(&mut self, values: impl ExactSizeIterator<Item = AnyValueRef<'v>>) {
        let mut frame = Frame {
            base: self.out.len(),
            count: values.len(),
            id_width: 0,
            offset_width: 1,
        };
        let start = frame.values();
        self.out.resize(start, 0);
        let mark = self.offsets.len();
        for value in values {
            self.offsets.push((self.out.len() - start) as u32);
            self.value(value);
        }
        let count = frame.count;
        self.fit(&mut frame, count);
        let header = ARRAY | frame.offset_code() << 2 | u8::from(frame.count > 255) << 4;
        self.header(&frame, header);
        self.put_offsets(&frame, mark);
    }

    /// A bag that holds each key of the dictionary once: the numbers of its keys are all there are,
    /// and in order. Takes a guess at the width of its offsets and gives the width it was.
    fn plain(&mut self, bag: Attributes<'_>, guess: usize) -> usize {
        let mut frame = Frame {
            base: self.out.len(),
            count: bag.len(),
            id_width: self.id_width,
            offset_width: guess,
        };
        let start = frame.values();
        self.out.resize(start, 0);
        let ids = self.ids;
        self.offsets.resize(ids.len(), 0);
        for (id, (_, value)) in ids.iter().zip(bag.iter()) {
            self.offsets[*id as usize] = (self.out.len() - start) as u32;
            self.value(value);
        }
        let count = frame.count;
        self.fit(&mut frame, count);
        let at = self.object_header(&frame);
        let ids = &mut self.out[at..at + frame.count * frame.id_width];
        put(ids, frame.id_width, 0..frame.count as u32);
        self.put_offsets(&frame, 0);
        frame.offset_width
    }

    /// Any object: its keys may be some of those of the dictionary, and may repeat.
    fn object<'v>(&mut self, entries: impl ExactSizeIterator<Item = (&'v str, AnyValueRef<'v>)>) {
        let mut frame = Frame {
            base: self.out.len(),
            count: entries.len(),
            id_width: self.id_width,
            offset_width: 1,
        };
        let start = frame.values();
        self.out.resize(start, 0);
        let mark = self.entries.len();
        for (_, value) in entries {
            let id = self.ids.split_off_first().copied().unwrap_or_default();
            let at = (self.out.len() - start) as u32;
            self.value(value);
            self.entries.push(Entry {
                id,
                start: at,
                end: (self.out.len() - start) as u32,
            });
        }
        // Stable: of those with the same key, the last one stays last.
        self.entries[mark..].sort_by_key(|e| e.id);
        if self.entries[mark..].windows(2).any(|w| w[0].id == w[1].id) {
            self.drop_repeated(mark, start);
        }
        let count = self.entries.len() - mark;
        self.fit(&mut frame, count);
        let at = self.object_header(&frame);
        let ids = &mut self.out[at..at + count * frame.id_width];
        put(
            ids,
            frame.id_width,
            self.entries[mark..].iter().map(|e| e.id),
        );
        let offsets = self.offsets.len();
        self.offsets
            .extend(self.entries[mark..].iter().map(|e| e.start));
        self.entries.truncate(mark);
        self.put_offsets(&frame, offsets);
    }

    /// Takes out all but the last value of each key. Entries stand in the order of their keys.
    #[cold]
    fn drop_repeated(&mut self, mark: usize, start: usize) {
        let mut kept: Vec<Entry> = Vec::with_capacity(self.entries.len() - mark);
        for entry in self.entries.drain(mark..) {
            match kept.last_mut() {
                Some(last) if last.id == entry.id => *last = entry,
                _ => kept.push(entry),
            }
        }
        kept.sort_unstable_by_key(|e| e.start);
        let mut end = 0;
        for entry in &mut kept {
            let range = start + entry.start as usize..start + entry.end as usize;
            let len = range.len() as u32;
            self.out.copy_within(range, start + end as usize);
            (entry.start, entry.end) = (end, end + len);
            end += len;
        }
        self.out.truncate(start + end as usize);
        kept.sort_unstable_by_key(|e| e.id);
        self.entries.extend(kept);
    }

    /// Gives the header the room it needs, now that the values and their number are known.
    fn fit(&mut self, frame: &mut Frame, count: usize) {
        let guessed = frame.values();
        let bytes = self.out.len() - guessed;
        frame.count = count;
        frame.offset_width = width_of(bytes);
        let needed = frame.values();
        if needed > guessed {
            self.out.resize(needed + bytes, 0);
        }
        if needed != guessed {
            self.out.copy_within(guessed..guessed + bytes, needed);
            self.out.truncate(needed + bytes);
        }
    }

    /// Writes the header of an object, and gives the place of its ids.
    fn object_header(&mut self, frame: &Frame) -> usize {
        let ids = (frame.id_width - 1) as u8;
        let large = u8::from(frame.count > 255);
        self.header(
            frame,
            OBJECT | frame.offset_code() << 2 | ids << 4 | large << 6,
        )
    }

    fn header(&mut self, frame: &Frame, header: u8) -> usize {
        let out = &mut self.out[frame.base..];
        out[0] = header;
        match u8::try_from(frame.count) {
            Ok(count) => {
                out[1] = count;
                frame.base + 2
            }
            Err(_) => {
                out[1..5].copy_from_slice(&(frame.count as u32).to_le_bytes());
                frame.base + 5
            }
        }
    }

    /// Writes the offsets from `mark` on, and where the values end.
    fn put_offsets(&mut self, frame: &Frame, mark: usize) {
        let values = frame.values();
        let end = (self.out.len() - values) as u32;
        let at = values - (frame.count + 1) * frame.offset_width;
        let offsets = self.offsets[mark..].iter().copied().chain([end]);
        put(&mut self.out[at..values], frame.offset_width, offsets);
        self.offsets.truncate(mark);
    }
}

impl Frame {
    fn offset_code(&self) -> u8 {
        (self.offset_width - 1) as u8
    }
}

/// Little-endian numbers of `width` bytes.
fn put(out: &mut [u8], width: usize, numbers: impl Iterator<Item = u32>) {
    for (place, number) in out.chunks_exact_mut(width).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes()[..width]);
    }
}
