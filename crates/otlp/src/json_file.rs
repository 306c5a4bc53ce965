//! Finds the requests in a JSON text file, in any layout: one per line, without line breaks,
//! spanning lines, or in a list; and finds the next request after damage.

use crate::json::{self, First, NotTraces, SyntaxError};
use crate::request::ResourceSpans;
use std::io::{self, BufRead, Read};

/// Bytes that are read at once if there are no line breaks: 16 MiB.
const CHUNK: u64 = 16 << 20;

/// What comes next in the file.
#[derive(Debug)]
pub(crate) enum Step {
    Request(Vec<ResourceSpans>),
    /// A request of metrics, logs or profiles.
    OtherSignal,
    Damage(Damage),
    End,
}

/// A part of the file that is not a request.
#[derive(Debug)]
pub(crate) enum Damage {
    /// Zero bytes, with which file systems and loggers fill space that was not written.
    Zeros(u64),
    Syntax(SyntaxError),
    NotTraces(NotTraces),
    TooLong,
}

/// The part of the file that has been read and not yet consumed, and its position.
#[derive(Debug)]
pub(crate) struct JsonFile {
    buffer: Vec<u8>,
    /// Start of the rest in the buffer.
    at: usize,
    /// Line of the rest.
    line: u64,
    /// Line on which the last step began.
    pub(crate) step_line: u64,
    /// Whether the buffer ends with a line or the file; else there is more of its last line.
    whole_line: bool,
    /// Whether the buffer is one line or a part of one, so that lines need not be counted.
    one_line: bool,
    /// Whether the rest of the buffer comes after damage. Then only one object of it is parsed, so
    /// that the time for a file that is all damage is proportional to its length.
    wary: bool,
    /// Longest request, in bytes.
    longest: usize,
}

impl JsonFile {
    /// `longest` is the longest accepted request, in bytes.
    pub(crate) fn new(longest: usize) -> Self {
        Self {
            buffer: Vec::new(),
            at: 0,
            line: 1,
            step_line: 1,
            whole_line: true,
            one_line: true,
            wary: false,
            longest,
        }
    }

    /// The next step; advances `position` by what is read.
    pub(crate) fn next(&mut self, input: &mut dyn BufRead, position: &mut u64) -> io::Result<Step> {
        let zeros = self.skip_blank(input, position)?;
        if zeros > 0 {
            return Ok(Step::Damage(Damage::Zeros(zeros)));
        }
        self.step_line = self.line;
        if self.rest().is_empty() {
            return Ok(Step::End);
        }
        if self.rest().first() != Some(&b'{') {
            let line = self.rest().iter().position(|b| *b == b'\n');
            self.pass_over(line.map_or(self.rest().len(), |at| at + 1));
            return Ok(Step::Damage(Damage::Syntax(SyntaxError::no_object())));
        }
        let mut extent = None;
        if self.wary || !self.whole_line {
            extent = Some(self.extent(input, position)?);
        }
        let mut parsed = self.parse(extent);
        if matches!(&parsed, Err(e) if e.eof) && extent.is_none() {
            extent = Some(self.extent(input, position)?);
            if matches!(extent, Some(Extent::Balanced(_))) {
                parsed = self.parse(extent);
            }
        }
        let error = match parsed {
            Ok(First { outcome, end }) => {
                self.advance(end);
                return Ok(match outcome {
                    Ok(groups) => Step::Request(groups),
                    Err(e) if e.is_other_signal() => Step::OtherSignal,
                    Err(e) => Step::Damage(Damage::NotTraces(e)),
                });
            }
            Err(e) => e,
        };
        let extent = match extent {
            Some(extent) => extent,
            None => self.extent(input, position)?,
        };
        self.pass_over(extent.end());
        Ok(Step::Damage(match extent {
            Extent::TooLong(_) => Damage::TooLong,
            Extent::Balanced(_) | Extent::Broken(_) => Damage::Syntax(error),
        }))
    }

    fn parse(&self, extent: Option<Extent>) -> Result<First, SyntaxError> {
        json::first(match extent {
            Some(extent) => &self.rest()[..extent.end()],
            None => self.rest(),
        })
    }

    /// Moves past damage of this length, but not past a request that begins in it.
    fn pass_over(&mut self, damage: usize) {
        self.advance(self.next_request(damage));
        self.wary = true;
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }

    fn advance(&mut self, len: usize) {
        let mut passed = &self.buffer[self.at..self.at + len];
        if self.one_line {
            passed = &passed[passed.len().saturating_sub(1)..];
        }
        self.line += passed.iter().map(|b| u64::from(*b == b'\n')).sum::<u64>();
        self.at += len;
    }

    /// Moves to the next byte that may begin a request, and counts the zero bytes on the way.
    fn skip_blank(&mut self, input: &mut dyn BufRead, position: &mut u64) -> io::Result<u64> {
        let mut zeros = 0;
        loop {
            if *position == self.buffer.len() as u64 && self.at == 0 && self.rest().starts_with(BOM)
            {
                self.at = BOM.len();
            }
            // 0x1e is the record separator of JSON text sequences (RFC 7464). The punctuation is
            // that of a list of requests.
            let blank = |b: &u8| {
                matches!(
                    *b,
                    b' ' | b'\t' | b'\n' | b'\r' | 0x0c | 0x1e | 0 | b'[' | b',' | b']'
                )
            };
            let len = self.rest().iter().take_while(|b| blank(b)).count();
            let zero = self.rest()[..len].iter().position(|b| *b == 0);
            if let Some(at) = zero {
                if zeros == 0 {
                    let before = &self.rest()[..at];
                    let lines = before.iter().filter(|b| **b == b'\n').count();
                    self.step_line = self.line + lines as u64;
                }
                let all = self.rest()[..len].iter().filter(|b| **b == 0).count();
                zeros += all as u64;
            }
            self.advance(len);
            if !self.rest().is_empty() || !self.read(input, position)? {
                return Ok(zeros);
            }
        }
    }

    /// Reads the next line, or a chunk of it; `false` at the end of the file.
    fn read(&mut self, input: &mut dyn BufRead, position: &mut u64) -> io::Result<bool> {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.one_line = self.buffer.is_empty();
        self.wary &= !self.one_line;
        let read = input.take(CHUNK).read_until(b'\n', &mut self.buffer)?;
        *position += read as u64;
        self.whole_line = (read as u64) < CHUNK || self.buffer.ends_with(b"\n");
        Ok(read > 0)
    }

    /// How far the object at the start of the rest goes, by its brackets alone. Reads on as far as
    /// that takes.
    fn extent(&mut self, input: &mut dyn BufRead, position: &mut u64) -> io::Result<Extent> {
        let mut brackets = Brackets::default();
        let mut scanned = 0;
        loop {
            if let Some(extent) = brackets.scan(self.rest(), scanned) {
                return Ok(extent);
            }
            scanned = self.rest().len();
            if scanned >= self.longest {
                return Ok(Extent::TooLong(scanned));
            }
            if !self.read(input, position)? {
                return Ok(Extent::Broken(scanned));
            }
        }
    }

    /// Where in the rest, after its first byte and before `end`, a request seems to begin; else
    /// `end`. A line that was cut off may be followed by a whole request without a line break.
    fn next_request(&self, end: usize) -> usize {
        let mut starts = (1..end).filter(|at| self.rest()[*at] == b'{');
        starts
            .find(|at| begins_request(&self.rest()[*at..]))
            .unwrap_or(end)
    }
}

pub(crate) const BOM: &[u8] = b"\xef\xbb\xbf";

/// Whether a request of any signal seems to begin here. Inside a text its quotes would be escaped.
pub(crate) fn begins_request(text: &[u8]) -> bool {
    let Some(text) = text.strip_prefix(b"{") else {
        return false;
    };
    let keys = ["Spans", "Metrics", "Logs", "Profiles"];
    let Some(key) = text.trim_ascii_start().strip_prefix(b"\"resource") else {
        return false;
    };
    let mut endings = keys.iter().filter_map(|k| key.strip_prefix(k.as_bytes()));
    endings.any(|rest| rest.starts_with(b"\""))
}

/// The end of a damaged or unfinished object, in bytes.
#[derive(Clone, Copy, Debug)]
enum Extent {
    /// To its closing bracket.
    Balanced(usize),
    /// To a line break in a text, the start of another request, or the end of the file.
    Broken(usize),
    TooLong(usize),
}

impl Extent {
    fn end(self) -> usize {
        match self {
            Self::Balanced(end) | Self::Broken(end) | Self::TooLong(end) => end,
        }
    }
}

/// Open brackets and texts.
#[derive(Default)]
struct Brackets {
    open: usize,
    in_text: bool,
    escaped: bool,
}

impl Brackets {
    /// Goes on at `from`; `None` where the object is not yet at its end.
    fn scan(&mut self, text: &[u8], from: usize) -> Option<Extent> {
        for (at, byte) in text.iter().enumerate().skip(from) {
            // No request begins in another one, and none begins in a text.
            if *byte == b'{' && at > 0 && begins_request(&text[at..]) {
                return Some(Extent::Broken(at));
            }
            if std::mem::take(&mut self.escaped) {
                continue;
            }
            match (self.in_text, byte) {
                (true, b'\\') => self.escaped = true,
                (true, b'"') => self.in_text = false,
                (true, b'\n') => return Some(Extent::Broken(at + 1)),
                (true, _) => {}
                (false, b'{' | b'[') => self.open += 1,
                (false, b'}' | b']') => {
                    self.open = self.open.saturating_sub(1);
                    if self.open == 0 {
                        return Some(Extent::Balanced(at + 1));
                    }
                }
                (false, b'"') => self.in_text = true,
                (false, _) => {}
            }
        }
        None
    }
}
