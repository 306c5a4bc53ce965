//! Columns being built: vectors that become Arrow's buffers without a copy.
//!
//! A column remembers how large it became, so that the next batch allocates once.

use arrow_array::builder::LargeStringBuilder;
use arrow_array::types::{ArrowPrimitiveType, Int32Type};
use arrow_array::{
    ArrayRef, BinaryArray, DictionaryArray, Int32Array, LargeBinaryArray, ListArray,
    PrimitiveArray, StructArray, TimestampMicrosecondArray,
};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, NullBuffer, OffsetBuffer};
use arrow_schema::DataType;
use std::sync::Arc;

use super::fault::Fault;

/// No value, in a column of places in a dictionary.
pub(super) const NONE: i32 = -1;

/// A column of numbers, or of places in a dictionary.
#[derive(Debug, Default)]
pub(super) struct Numbers<T> {
    values: Vec<T>,
    last: usize,
}

impl<T: ArrowNativeType> Numbers<T> {
    pub(super) fn push(&mut self, value: T) {
        if self.values.capacity() == 0 {
            self.values.reserve(self.last);
        }
        self.values.push(value);
    }

    pub(super) fn repeat(&mut self, value: T, times: usize) {
        if self.values.capacity() == 0 {
            self.values.reserve(self.last);
        }
        self.values.extend(std::iter::repeat_n(value, times));
    }

    pub(super) fn extend(&mut self, values: impl Iterator<Item = T>) {
        self.values.extend(values);
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.values.truncate(len);
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<T>()
    }

    fn take(&mut self) -> Vec<T> {
        self.last = self.values.len();
        std::mem::take(&mut self.values)
    }

    /// The column as numbers.
    pub(super) fn finish<P: ArrowPrimitiveType<Native = T>>(&mut self) -> ArrayRef {
        Arc::new(PrimitiveArray::<P>::new(self.take().into(), None))
    }
}

impl Numbers<i64> {
    /// The column as microseconds since 1970.
    pub(super) fn finish_utc(&mut self) -> ArrayRef {
        let times = TimestampMicrosecondArray::new(self.take().into(), None);
        Arc::new(times.with_timezone("UTC"))
    }
}

impl Numbers<i32> {
    /// The column as places in `dictionary`, where [`NONE`] is NULL.
    pub(super) fn finish_places(&mut self, dictionary: &ArrayRef) -> ArrayRef {
        let places = self.take();
        let nulls = places.contains(&NONE).then(|| {
            NullBuffer::new(BooleanBuffer::collect_bool(places.len(), |i| {
                places[i] != NONE
            }))
        });
        let places = Int32Array::new(places.into(), nulls);
        let array = DictionaryArray::<Int32Type>::try_new(places, Arc::clone(dictionary));
        Arc::new(array.expect("places are those that the dictionary gave"))
    }
}

/// A column of lists: how long each is.
#[derive(Debug, Default)]
pub(super) struct Lengths {
    values: Vec<usize>,
    last: usize,
}

impl Lengths {
    pub(super) fn push(&mut self, length: usize) {
        if self.values.capacity() == 0 {
            self.values.reserve(self.last);
        }
        self.values.push(length);
    }

    pub(super) fn bytes(&self) -> usize {
        self.values.capacity() * size_of::<usize>()
    }

    pub(super) fn finish(&mut self) -> OffsetBuffer<i32> {
        self.last = self.values.len();
        OffsetBuffer::from_lengths(std::mem::take(&mut self.values))
    }
}

/// A column of text that is different in every row.
#[derive(Debug)]
pub(super) struct Texts {
    builder: LargeStringBuilder,
    /// Rows and bytes of the last batch.
    last: (usize, usize),
}

impl Default for Texts {
    fn default() -> Self {
        Self {
            // The builder's own default is 9 KiB, much for a table that waits for its first span.
            builder: LargeStringBuilder::with_capacity(0, 0),
            last: (0, 0),
        }
    }
}

impl Texts {
    fn begin(&mut self) {
        // An empty builder is not told from one that has room, so that the room is made on use.
        if self.last != (0, 0) {
            self.builder = LargeStringBuilder::with_capacity(self.last.0, self.last.1);
            self.last = (0, 0);
        }
    }

    pub(super) fn push(&mut self, text: &str) {
        self.begin();
        self.builder.append_value(text);
    }

    /// Empty text is what spans say where they have nothing to say: NULL.
    pub(super) fn push_non_empty(&mut self, text: &str) {
        self.begin();
        if text.is_empty() {
            self.builder.append_null();
        } else {
            self.builder.append_value(text);
        }
    }

    pub(super) fn push_null(&mut self) {
        self.begin();
        self.builder.append_null();
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.builder.values_slice().len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.builder.values_slice().len() + 9 * self.builder.offsets_slice().len()
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let rows = self.builder.offsets_slice().len() - 1;
        let bytes = self.builder.values_slice().len();
        let column = self.builder.finish();
        self.last = (rows, bytes);
        Arc::new(column)
    }
}

/// A column of bytes that are written in place.
#[derive(Debug)]
pub(super) struct ByteStrings {
    bytes: Vec<u8>,
    offsets: Vec<i64>,
    last: (usize, usize),
}

impl Default for ByteStrings {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            offsets: vec![0],
            last: (0, 0),
        }
    }
}

impl ByteStrings {
    /// Where the next value is appended; [`end`](Self::end) makes it one.
    pub(super) fn open(&mut self) -> &mut Vec<u8> {
        if self.bytes.capacity() == 0 {
            self.offsets.reserve(self.last.0);
            self.bytes.reserve(self.last.1);
        }
        &mut self.bytes
    }

    pub(super) fn end(&mut self) {
        self.offsets.push(self.bytes.len() as i64);
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.offsets.truncate(len + 1);
        let end = self.offsets.last().map_or(0, |end| *end as usize);
        self.bytes.truncate(end);
    }

    pub(super) fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity() + 8 * self.offsets.capacity()
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        self.last = (self.offsets.len(), self.bytes.len());
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        let bytes = std::mem::take(&mut self.bytes);
        Arc::new(LargeBinaryArray::new(
            OffsetBuffer::new(offsets.into()),
            bytes.into(),
            None,
        ))
    }
}

/// Bytes that rows refer to by their place: one dictionary for all columns of a batch.
#[derive(Debug)]
pub(super) struct Blobs {
    bytes: Vec<u8>,
    offsets: Vec<i32>,
}

impl Default for Blobs {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            offsets: vec![0],
        }
    }
}

impl Blobs {
    /// Adds a value and gives its place.
    ///
    /// # Errors
    /// If it does not fit any more.
    pub(super) fn push(&mut self, value: &[u8]) -> Result<i32, Fault> {
        let end = i32::try_from(self.bytes.len() + value.len()).map_err(|_| Fault::batch())?;
        let place = i32::try_from(self.offsets.len() - 1).map_err(|_| Fault::batch())?;
        self.bytes.extend_from_slice(value);
        self.offsets.push(end);
        Ok(place)
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.capacity() + 4 * self.offsets.capacity()
    }

    pub(super) fn finish(&mut self) -> ArrayRef {
        let done = std::mem::take(self);
        Arc::new(BinaryArray::new(
            OffsetBuffer::new(done.offsets.into()),
            done.bytes.into(),
            None,
        ))
    }
}

/// Columns side by side, as the fields of a column of the type `data_type`.
pub(super) fn structure(data_type: &DataType, columns: Vec<ArrayRef>) -> ArrayRef {
    let DataType::Struct(fields) = data_type else {
        unreachable!("{data_type} is no struct");
    };
    Arc::new(StructArray::new(fields.clone(), columns, None))
}

/// Elements cut into lists of the type `data_type`; `elements` makes the column of them from their
/// type.
pub(super) fn list(
    data_type: &DataType,
    lengths: &mut Lengths,
    elements: impl FnOnce(&DataType) -> ArrayRef,
) -> ArrayRef {
    let DataType::List(element) = data_type else {
        unreachable!("{data_type} is no list");
    };
    let values = elements(element.data_type());
    Arc::new(ListArray::new(
        Arc::clone(element),
        lengths.finish(),
        values,
        None,
    ))
}

/// The types of a struct's fields, in order.
pub(super) fn field_type(data_type: &DataType, index: usize) -> &DataType {
    match data_type {
        DataType::Struct(fields) => fields[index].data_type(),
        _ => unreachable!("{data_type} is no struct"),
    }
}
