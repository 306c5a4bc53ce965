//! Files of captured traces, read one request at a time.

use crate::format::{Format, NOT_OTLP, SNIFF, io_error, read_error, sniff};
use crate::json_file::{Damage, JsonFile, Step};
use crate::raw::{self, Part};
use crate::request::ResourceSpans;
use bytes::Bytes;
use std::fmt;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use trace_destination_core::{Error, ErrorKind};

/// Longest request or message, in bytes: 256 MiB. Bounds the memory of one step of the reader.
const MAX_REQUEST: u64 = 256 << 20;

/// A file of captured traces. The iterator returns spans, one JSON request or one protobuf
/// `ResourceSpans` at a time, so that memory depends on the largest of these and not on the file.
///
/// The format is detected from the content; if the content fits two formats, the extension decides.
///
/// Only the damaged part of a file is lost. It is an error that names the file and the line or
/// byte, and the iterator continues with the next request. If the next request cannot be found (the
/// file cannot be read, a protobuf message is cut off), the error is the last item. Requests of
/// metrics and logs are skipped and [counted](Self::other_signals).
pub struct OtlpFile {
    path: PathBuf,
    input: Box<dyn BufRead + Send>,
    format: Format,
    json: JsonFile,
    size: Option<u64>,
    position: u64,
    /// `ResourceSpans` so far, in protobuf that has no frames.
    parts: usize,
    other_signals: u64,
    done: bool,
}

/// An error, and whether reading can continue after it.
struct Failure {
    error: Error,
    last: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, last: true }
    }
}

fn passed_over(error: Error) -> Failure {
    Failure { error, last: false }
}

impl OtlpFile {
    /// Opens a file and detects its format.
    ///
    /// # Errors
    /// `NotFound` or `PermissionDenied` if the file cannot be read, `Corrupt` if it is empty or
    /// none of the [formats](Format).
    pub fn open(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref().to_owned();
        let file = File::open(&path).map_err(|e| io_error(&path, "it cannot be opened", e))?;
        let metadata = file
            .metadata()
            .map_err(|e| io_error(&path, "it cannot be opened", e))?;
        if metadata.is_dir() {
            return Err(read_error(ErrorKind::Corrupt, &path, "it is a folder")
                .mend("name a file of captured traces"));
        }
        let size = metadata.is_file().then_some(metadata.len());
        let input = BufReader::with_capacity(SNIFF, file);
        Self::new(Box::new(input), path, size)
    }

    /// Reads from any reader, such as standard input. The name is shown in errors; its extension
    /// decides if the content fits two formats.
    ///
    /// # Errors
    /// `Corrupt` if the input is empty or has none of the [formats](Format), `Unavailable` if
    /// reading fails.
    pub fn from_reader(
        input: impl BufRead + Send + 'static,
        name: impl Into<PathBuf>,
    ) -> Result<Self, Error> {
        Self::new(Box::new(input), name.into(), None)
    }

    fn new(
        mut input: Box<dyn BufRead + Send>,
        path: PathBuf,
        size: Option<u64>,
    ) -> Result<Self, Error> {
        let start = input
            .fill_buf()
            .map_err(|e| io_error(&path, "it cannot be read", e))?;
        let start = &start[..start.len().min(SNIFF)];
        let format = sniff(start, &path)?;
        Ok(Self {
            path,
            input,
            format,
            json: JsonFile::new(MAX_REQUEST as usize),
            size,
            position: 0,
            parts: 0,
            other_signals: 0,
            done: false,
        })
    }

    /// The format of the file.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Size in bytes when the file was opened; `None` for inputs without a size, such as a pipe.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Line on which the last item began, counted from 1; `None` in protobuf, which has no lines.
    pub fn line(&self) -> Option<u64> {
        (self.format == Format::JsonLines).then_some(self.json.step_line)
    }

    /// Number of requests of metrics, logs and profiles that were skipped so far.
    pub fn other_signals(&self) -> u64 {
        self.other_signals
    }

    /// The next request; an empty step for a request of another signal.
    fn step(&mut self) -> Result<Step, Failure> {
        match self.format {
            Format::JsonLines => self.next_json(),
            Format::Protobuf => self.next_field(),
            Format::FramedProtobuf => self.next_frame(),
        }
    }

    fn next_json(&mut self) -> Result<Step, Failure> {
        let step = self.json.next(&mut *self.input, &mut self.position);
        let step = step.map_err(|e| io_error(&self.path, "it cannot be read", e))?;
        let line = self.json.step_line;
        match step {
            Step::Request(mut groups) => {
                place(&mut groups, || format!("line {line}"));
                Ok(Step::Request(groups))
            }
            Step::Damage(damage) => Err(passed_over(self.damage(line, damage))),
            step => Ok(step),
        }
    }

    fn damage(&self, line: u64, damage: Damage) -> Error {
        match damage {
            Damage::Zeros(count) => self
                .corrupt(format!(
                    "line {line}: {count} zero bytes stand where data was lost"
                ))
                .mend("capture it again; the requests around them are read"),
            Damage::TooLong => self
                .corrupt(format!(
                    "line {line}: a request is longer than {MAX_REQUEST} bytes"
                ))
                .mend("split it into several requests"),
            Damage::NotTraces(e) => {
                let error = self.corrupt(format!("line {line}: {}", e.cause()));
                error.mend(e.mend())
            }
            Damage::Syntax(e) => {
                let error = self.corrupt(format!("line {line}: {}", e.cause()));
                let mend = if e.eof {
                    "capture it again, or remove what was cut off"
                } else {
                    "remove what is no OTLP/JSON ExportTraceServiceRequest"
                };
                error.mend(mend).caused_by(e)
            }
        }
    }

    /// The next field of a plain protobuf request, which is a `ResourceSpans`.
    fn next_field(&mut self) -> Result<Step, Failure> {
        loop {
            let start = self.position;
            let Some(tag) = self.varint(true)? else {
                return Ok(Step::End);
            };
            let (field, wire_type) = (tag >> 3, tag & 7);
            if field == 0 || wire_type != LENGTH_DELIMITED {
                let cause = format!("at byte {start} it is not an OTLP trace request");
                return Err(self.corrupt(cause).mend(NOT_OTLP).into());
            }
            let len = self.varint(false)?.unwrap_or_default();
            let bytes = self.message(start, len)?;
            if field == 1 {
                let index = self.parts;
                self.parts += 1;
                let mut groups = Vec::new();
                let part = raw::resource_spans(index, bytes, &mut groups);
                return self.traces(start, part, groups, "OTLP ResourceSpans");
            }
            // A field of a later OTLP version: skipped, as protobuf requires.
        }
    }

    fn next_frame(&mut self) -> Result<Step, Failure> {
        let start = self.position;
        let mut length = [0; 4];
        match self.read_up_to(&mut length)? {
            0 => return Ok(Step::End),
            4 => {}
            _ => return Err(self.cut_off(start).into()),
        }
        let bytes = self.message(start, u32::from_be_bytes(length).into())?;
        let mut groups = Vec::new();
        let part = raw::request(&bytes, &mut groups);
        self.traces(start, part, groups, "an OTLP trace request")
    }

    fn traces(
        &self,
        start: u64,
        part: Result<Part, crate::wire::Malformed>,
        mut groups: Vec<ResourceSpans>,
        what: &str,
    ) -> Result<Step, Failure> {
        match part {
            Ok(Part::Traces) => {
                place(&mut groups, || format!("byte {start}"));
                Ok(Step::Request(groups))
            }
            Ok(Part::OtherSignal) => Ok(Step::OtherSignal),
            Err(e) => {
                let error = self.corrupt(format!("the message at byte {start} is not {what}"));
                Err(passed_over(error.mend(NOT_OTLP).caused_by(e)))
            }
        }
    }

    /// A protobuf varint; `None` at the end of the file, where the file may end.
    fn varint(&mut self, may_end: bool) -> Result<Option<u64>, Error> {
        let start = self.position;
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            if self.read_up_to(&mut byte)? == 0 {
                return if may_end && self.position == start {
                    Ok(None)
                } else {
                    Err(self.cut_off(start))
                };
            }
            value |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                return Ok(Some(value));
            }
        }
        Err(self
            .corrupt(format!("at byte {start} it is not protobuf"))
            .mend(NOT_OTLP))
    }

    fn message(&mut self, start: u64, len: u64) -> Result<Bytes, Error> {
        if self
            .size
            .is_some_and(|size| self.position + len.min(size) > size)
        {
            return Err(self.cut_off(start));
        }
        if len > MAX_REQUEST {
            return Err(self
                .corrupt(format!(
                    "the message at byte {start} is longer than {MAX_REQUEST} bytes"
                ))
                .mend("split it into several requests"));
        }
        let mut bytes = Vec::new();
        (&mut self.input)
            .take(len)
            .read_to_end(&mut bytes)
            .map_err(|e| io_error(&self.path, "it cannot be read", e))?;
        self.position += bytes.len() as u64;
        if (bytes.len() as u64) < len {
            return Err(self.cut_off(start));
        }
        Ok(bytes.into())
    }

    /// Fills the buffer as far as the file goes.
    fn read_up_to(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.input.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io_error(&self.path, "it cannot be read", e)),
            }
        }
        self.position += filled as u64;
        Ok(filled)
    }

    fn cut_off(&self, start: u64) -> Error {
        self.corrupt(format!(
            "it is truncated, or not OTLP: it ends in the middle of the message at byte {start}"
        ))
        .mend("copy or capture the file again")
    }

    fn corrupt(&self, cause: String) -> Error {
        read_error(ErrorKind::Corrupt, &self.path, cause)
    }
}

impl Iterator for OtlpFile {
    type Item = Result<Vec<ResourceSpans>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.done {
            match self.step() {
                Ok(Step::Request(groups)) => return Some(Ok(groups)),
                Ok(Step::OtherSignal) => self.other_signals += 1,
                Ok(Step::End | Step::Damage(_)) => self.done = true,
                Err(failure) => {
                    self.done = failure.last;
                    return Some(Err(failure.error));
                }
            }
        }
        None
    }
}

impl fmt::Debug for OtlpFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpFile")
            .field("path", &self.path)
            .field("format", &self.format)
            .field("position", &self.position)
            .finish_non_exhaustive()
    }
}

/// Prefixes the positions in a request with the position of the request.
fn place(groups: &mut [ResourceSpans], request: impl Fn() -> String) {
    for group in groups {
        let refused = group.refused.iter_mut().map(|r| &mut r.position);
        for position in refused.chain(group.faults.iter_mut().map(|f| &mut f.position)) {
            *position = format!("{}: {position}", request());
        }
    }
}

const LENGTH_DELIMITED: u64 = 2;
