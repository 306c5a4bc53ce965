//! SQLite's files, as far as it takes to see whether they belong together.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of the database header that are read.
pub(super) const HEADER: usize = 100;
pub(super) const MAGIC: &[u8] = b"SQLite format 3\0";
/// Where in page 1 the counters are.
pub(super) const CHANGES: usize = 24;
pub(super) const PAGES: usize = 28;
pub(super) const COOKIE: usize = 40;

pub(super) const AHEAD_HEADER: u64 = 32;
const FRAME_HEADER: u64 = 24;
/// Where in the header of a write-ahead log the first salt is.
const SALT: usize = 16;

/// What a database file is to a write-ahead log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// It has the count of changes that the log goes on from.
    Begun,
    /// The log was merged into it, up to the end of a transaction.
    Merged,
    /// Its first page is of the log, others are not.
    Partly,
    /// None of these.
    Other,
    /// The log has no first page.
    Unknown,
}

/// The frames of a write-ahead log, of the writers since it was last begun.
pub(super) struct Frames {
    /// The first salt, which changes whenever the log is begun anew.
    pub(super) salt: u32,
    page_size: usize,
    /// Number of the page, and whether a transaction ends with it.
    pages: Vec<(u32, bool)>,
}

impl Frames {
    /// `None` where there is none.
    pub(super) fn read(log: &mut File) -> io::Result<Option<Self>> {
        let Some(header) = ahead_header(log)? else {
            return Ok(None);
        };
        let page_size = number(&header, 8) as usize;
        if !page_size.is_power_of_two() || !(512..=65536).contains(&page_size) {
            return Ok(None);
        }
        let mut frames = Self {
            salt: number(&header, SALT),
            page_size,
            pages: Vec::new(),
        };
        let len = log.metadata()?.len();
        let mut frame = [0; FRAME_HEADER as usize];
        while frames.offset(frames.pages.len() + 1) <= len
            && read_at(log, frames.offset(frames.pages.len()), &mut frame)?
            && frame[8..16] == header[16..24]
            && number(&frame, 0) > 0
        {
            let ends = number(&frame, 4) > 0;
            frames.pages.push((number(&frame, 0), ends));
        }
        Ok((!frames.pages.is_empty()).then_some(frames))
    }

    fn offset(&self, frame: usize) -> u64 {
        AHEAD_HEADER + frame as u64 * (FRAME_HEADER + self.page_size as u64)
    }

    fn page(&self, log: &mut File, frame: usize, page: &mut [u8]) -> io::Result<bool> {
        read_at(log, self.offset(frame) + FRAME_HEADER, page)
    }

    pub(super) fn content(&self, main: &mut File, log: &mut File) -> io::Result<Content> {
        let mut first = vec![0; self.page_size];
        let mut page = vec![0; self.page_size];
        if !read_at(main, 0, &mut first)? || !first.starts_with(MAGIC) {
            return Ok(Content::Other);
        }
        // 65,536 does not fit.
        let size = u16::from_be_bytes([first[16], first[17]]);
        if size as usize != self.page_size & 0xffff && size != 1 {
            return Ok(Content::Other);
        }
        let mut begun = None;
        let mut merged = None;
        for (frame, _) in self.pages.iter().enumerate().filter(|(_, (p, _))| *p == 1) {
            if !self.page(log, frame, &mut page)? {
                break;
            }
            begun.get_or_insert_with(|| goes_on(&first, &page));
            if page == first {
                merged = Some(frame);
            }
        }
        match (begun, merged) {
            (None, _) => Ok(Content::Unknown),
            (Some(_), Some(frame)) => match self.is_merged(frame, main, log)? {
                true => Ok(Content::Merged),
                false => Ok(Content::Partly),
            },
            (Some(true), None) => Ok(Content::Begun),
            (Some(false), None) => Ok(Content::Other),
        }
    }

    /// Whether everything up to the end of a transaction is in the file: that which `from` is of, or
    /// one after it, as other programs than this crate do not write page 1 with each.
    fn is_merged(&self, from: usize, main: &mut File, log: &mut File) -> io::Result<bool> {
        let mut there = vec![0; self.page_size];
        let mut page = vec![0; self.page_size];
        let mut others = HashSet::new();
        for (frame, &(number, ends)) in self.pages.iter().enumerate() {
            let offset = u64::from(number - 1) * self.page_size as u64;
            let is_there = read_at(main, offset, &mut there)?
                && self.page(log, frame, &mut page)?
                && there == page;
            match is_there {
                true => others.remove(&number),
                false => others.insert(number),
            };
            if ends && frame >= from && others.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The header of a write-ahead log; `None` where there is none.
fn ahead_header(log: &mut File) -> io::Result<Option<[u8; AHEAD_HEADER as usize]>> {
    let mut header = [0; AHEAD_HEADER as usize];
    let there = read_at(log, 0, &mut header)? && number(&header, 0) & !1 == 0x377f_0682;
    Ok(there.then_some(header))
}

/// The first salt of a write-ahead log; `None` where there is no header.
pub(super) fn salt(log: &mut File) -> io::Result<Option<u32>> {
    Ok(ahead_header(log)?.map(|header| number(&header, SALT)))
}

/// Whether `next` is page 1 one transaction after `first`.
fn goes_on(first: &[u8], next: &[u8]) -> bool {
    let (was, is) = (number(first, CHANGES), number(next, CHANGES));
    // A connection that keeps page 1 in memory, as others do than those of this crate, does not
    // count every transaction.
    let counts = is == was || is == was.wrapping_add(1);
    // The tables' definitions begin behind the header, and may change only with their version.
    let same = number(first, COOKIE) != number(next, COOKIE) || first[HEADER..] == next[HEADER..];
    counts && same
}

/// A file before the transaction that a rollback journal takes back.
pub(super) struct Before {
    pub(super) pages: u32,
    page_size: u64,
    /// The count of changes; `None` where the transaction did not get to page 1.
    changes: Option<u32>,
}

impl Before {
    /// `None` where the journal takes nothing back.
    pub(super) fn read(log: &mut File) -> io::Result<Option<Self>> {
        let mut header = [0; 28];
        let magic = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
        if !read_at(log, 0, &mut header)? || header[..8] != magic {
            return Ok(None);
        }
        let (sector, size) = (u64::from(number(&header, 20)), number(&header, 24) as usize);
        if !size.is_power_of_two() || !(512..=65536).contains(&size) {
            return Ok(None);
        }
        let mut before = Self {
            pages: number(&header, 16),
            page_size: size as u64,
            changes: None,
        };
        let mut record = vec![0; size + 8];
        let mut offset = sector;
        while before.changes.is_none() && read_at(log, offset, &mut record)? {
            if number(&record, 0) == 1 {
                before.changes = Some(number(&record, 4 + CHANGES));
            }
            offset += record.len() as u64;
        }
        Ok(Some(before))
    }

    /// Whether a file of this length was just being made: it was empty before, and is without a table.
    pub(super) fn is_of_new(&self, len: u64) -> bool {
        self.pages == 0 && len <= self.page_size
    }

    /// Whether a file with this header is the one that the transaction began with.
    pub(super) fn is_of(&self, header: &[u8]) -> bool {
        let now = number(header, CHANGES);
        match self.changes {
            // The transaction may have counted already.
            Some(changes) => now == changes || now == changes.wrapping_add(1),
            None => number(header, PAGES) == self.pages,
        }
    }
}

pub(super) fn number(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(four)
}

/// Fills the buffer from a position; false where the file ends before.
pub(super) fn read_at(file: &mut File, offset: u64, buffer: &mut [u8]) -> io::Result<bool> {
    file.seek(SeekFrom::Start(offset))?;
    match file.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(e) => Err(e),
    }
}
