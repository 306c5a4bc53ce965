//! What is read of a checkpoint in Parquet: its footer, and the columns that say what the table is
//! and who wrote it, or all of them. They are looked at before Delta's reader decodes them: it makes
//! room for whatever a file claims, and would end the process over a footer of a few bytes.

use super::thrift;
use crate::storage::TooLarge;
use bytes::{Buf as _, Bytes, buf::Reader};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, Result};
use parquet::basic::Type;
use parquet::column::page::{Page, PageReader as _};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::reader::{ChunkReader, Length, SerializedPageReader};
use std::ops::Range;
use std::sync::Arc;

/// Bytes of a footer. One of sixty columns and ten row groups has a hundred kilobytes.
const FOOTER: u64 = 4 << 20;
/// Bytes at the end of a file that are read in the hope that the footer is among them.
const TAIL: u64 = 64 << 10;
/// Bytes of a checkpoint that is read whole.
const SMALL: u64 = 256 << 10;
/// Bytes of the columns that say what the table is and who wrote it: a hundred thousand writers have
/// some megabytes.
const STATE: u64 = 16 << 20;
/// Bytes of a checkpoint that the next one is made from. With half a million files it has a
/// hundred.
const WHOLE: u64 = 128 << 20;
/// Bytes of a page, decoded. Writers begin a new one after one megabyte.
const PAGE: u64 = 32 << 20;
/// Bytes of the pages of all columns that are read, decoded.
const DECODED: u64 = 2 << 30;
/// Rows that are decoded at a time, and the bytes they may have in one column. Both a dictionary and
/// shared prefixes repeat a value in a few bits.
const ROWS: u64 = 1_000;
const COLUMN: u64 = 128 << 20;
/// Elements of the lists in all rows of a row group, beyond one each.
const LISTED: u64 = 4 << 20;
/// The encoding of texts by shared prefixes.
const DELTA_BYTE_ARRAY: i64 = 7;

/// Which columns are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Columns {
    /// Those that are not of files.
    State,
    All,
}

impl Columns {
    fn has(self, column: &ColumnChunkMetaData) -> bool {
        let root = column.column_path().parts().first();
        let files = root.is_some_and(|root| matches!(&**root, "add" | "remove" | "cdc"));
        self == Self::All || !files
    }
}

/// A part of an object.
#[derive(Clone, Debug)]
pub(super) struct Part {
    start: u64,
    pub(super) bytes: Bytes,
}

impl Part {
    pub(super) fn at(start: u64, bytes: Bytes) -> Self {
        Self { start, bytes }
    }

    /// A range of the object, if it is within the part.
    pub(super) fn slice(&self, range: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

/// The parts of a checkpoint that are asked for, checked.
pub(super) async fn fetch_checkpoint(
    store: &dyn ObjectStore,
    meta: &ObjectMeta,
    columns: Columns,
) -> Result<Vec<Part>> {
    let (location, size) = (&meta.location, meta.size);
    let get = async |range: Range<u64>| -> Result<Part> {
        let bytes = store.get_range(location, range.clone()).await?;
        Ok(Part::at(range.start, bytes))
    };
    if size < 12 {
        return Err(unsound().into());
    }
    if size <= SMALL || columns == Columns::All {
        if size > WHOLE {
            return Err(TooLarge::checkpoint("is too large").into());
        }
        let whole = get(0..size).await?;
        let footer = footer(&whole, size)?.ok_or_else(unsound)?;
        for (column, rows) in wanted(&footer, columns) {
            check_column(column, rows, &whole, &mut DECODED.clone())?;
        }
        return Ok(vec![whole]);
    }
    let mut tail = get(size - TAIL..size).await?;
    let footer = match footer(&tail, size)? {
        Some(footer) => footer,
        None => {
            tail = get(size.saturating_sub(FOOTER)..size).await?;
            footer(&tail, size)?.ok_or_else(unsound)?
        }
    };
    let mut ranges = Vec::new();
    for (column, _) in wanted(&footer, columns) {
        ranges.push(range(column, size)?);
    }
    let total: u64 = ranges.iter().map(|range| range.end - range.start).sum();
    if total > STATE {
        return Err(TooLarge::checkpoint("has too large columns").into());
    }
    let read = store.get_ranges(location, &ranges).await?;
    let mut parts = vec![tail];
    let mut left = DECODED;
    for ((range, bytes), (column, rows)) in ranges.iter().zip(read).zip(wanted(&footer, columns)) {
        let part = Part::at(range.start, bytes);
        check_column(column, rows, &part, &mut left)?;
        parts.push(part);
    }
    Ok(parts)
}

fn unsound() -> TooLarge {
    TooLarge::checkpoint("is not what it claims")
}

/// The footer of a file of `size` bytes, of which this is the end; `None` if more of it is needed.
fn footer(tail: &Part, size: u64) -> Result<Option<ParquetMetaData>, TooLarge> {
    let end = size.checked_sub(8).ok_or_else(unsound)?;
    let last = tail.slice(&(end..size)).ok_or_else(unsound)?;
    let length: [u8; 4] = last[..4].try_into().map_err(|_| unsound())?;
    let length = u64::from(u32::from_le_bytes(length));
    if &last[4..] != b"PAR1" || length > FOOTER - 8 {
        return Err(unsound());
    }
    let start = end.checked_sub(length).ok_or_else(unsound)?;
    let Some(bytes) = tail.slice(&(start..end)) else {
        return Ok(None);
    };
    if !thrift::is_sound(&bytes) {
        return Err(unsound());
    }
    let footer = ParquetMetaDataReader::decode_metadata(&bytes).map_err(|_| unsound())?;
    Ok(Some(footer))
}

/// The columns that are wanted of each row group, and the rows it claims.
fn wanted(
    footer: &ParquetMetaData,
    columns: Columns,
) -> impl Iterator<Item = (&ColumnChunkMetaData, i64)> {
    footer.row_groups().iter().flat_map(move |group| {
        let wanted = group.columns().iter().filter(move |c| columns.has(c));
        wanted.map(move |column| (column, group.num_rows()))
    })
}

/// Where a column is in a file of `size` bytes.
fn range(column: &ColumnChunkMetaData, size: u64) -> Result<Range<u64>, TooLarge> {
    let start = column
        .dictionary_page_offset()
        .unwrap_or_else(|| column.data_page_offset());
    let start = u64::try_from(start).map_err(|_| unsound())?;
    let length = u64::try_from(column.compressed_size()).map_err(|_| unsound())?;
    match start.checked_add(length) {
        Some(end) if end <= size => Ok(start..end),
        _ => Err(unsound()),
    }
}

/// Checks the pages of a column before anything of them is decoded.
fn check_column(
    column: &ColumnChunkMetaData,
    rows: i64,
    part: &Part,
    left: &mut u64,
) -> Result<(), TooLarge> {
    let end = part.start.saturating_add(part.bytes.len() as u64);
    let bytes = part.slice(&range(column, end)?).ok_or_else(unsound)?;
    let rows = u64::try_from(rows).map_err(|_| unsound())?;
    let repeats = column.column_descr().max_rep_level() > 0;
    let (mut values, mut has_dictionary) = (0_u64, false);
    let mut reader = thrift::Reader::new(&bytes);
    while reader.left() > 0 {
        let page = thrift::page(&mut reader).ok_or_else(unsound)?;
        *left = left.checked_sub(page.decoded).ok_or_else(unsound)?;
        let prefixed = page.encoding == DELTA_BYTE_ARRAY && page.decoded > COLUMN / ROWS;
        if page.decoded > PAGE || prefixed {
            return Err(TooLarge::checkpoint("has too large pages"));
        }
        match page.is_dictionary {
            true => has_dictionary = true,
            false => values = values.checked_add(page.values).ok_or_else(unsound)?,
        }
    }
    let listed = values.saturating_sub(rows);
    if listed > if repeats { LISTED } else { 0 } {
        return Err(TooLarge::checkpoint("has too many values"));
    }
    match column.column_type() {
        Type::BYTE_ARRAY if has_dictionary => {
            let at_once = values.min(ROWS + listed);
            match longest(column, part)?.checked_mul(at_once) {
                Some(bytes) if bytes <= COLUMN => Ok(()),
                _ => Err(TooLarge::checkpoint("has too large values")),
            }
        }
        Type::FIXED_LEN_BYTE_ARRAY => Err(unsound()),
        _ => Ok(()),
    }
}

/// The length of the longest text in a dictionary.
fn longest(column: &ColumnChunkMetaData, part: &Part) -> Result<u64, TooLarge> {
    let chunk = Arc::new(Chunk(part.clone()));
    let page = SerializedPageReader::new(chunk, column, 0, None)
        .and_then(|mut pages| pages.get_next_page());
    let Ok(Some(Page::DictionaryPage { mut buf, .. })) = page else {
        return Err(unsound());
    };
    let mut longest = 0;
    while buf.remaining() >= 4 {
        let length = buf.get_u32_le();
        longest = longest.max(u64::from(length));
        let length = usize::try_from(length).map_err(|_| unsound())?;
        if length > buf.remaining() {
            return Err(unsound());
        }
        buf.advance(length);
    }
    Ok(longest)
}

/// A part as Parquet's own reader takes it.
struct Chunk(Part);

impl Length for Chunk {
    fn len(&self) -> u64 {
        self.0.start.saturating_add(self.0.bytes.len() as u64)
    }
}

impl ChunkReader for Chunk {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Self::T> {
        let rest = self.0.slice(&(start..self.len()));
        rest.map(Bytes::reader).ok_or_else(beyond)
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let end = start.saturating_add(length as u64);
        self.0.slice(&(start..end)).ok_or_else(beyond)
    }
}

fn beyond() -> ParquetError {
    ParquetError::EOF("beyond what was read".into())
}

#[cfg(test)]
mod tests;
