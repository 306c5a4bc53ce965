//! Files of captured traces, read one request at a time.

use crate::decode::RawResourceSpans;
use crate::json;
use crate::request::ResourceSpans;
use bytes::Bytes;
use prost::Message;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use trace_destination_core::{Error, ErrorKind};

/// Longest line or message taken, in bytes: 256 MiB. Bounds what one step of the reader holds.
const MAX_REQUEST: u64 = 256 << 20;

/// How much of the beginning is looked at to tell the formats apart.
const SNIFF: usize = 4096;

/// How a file of captured traces is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OTLP/JSON, one request per line (`.jsonl`).
    JsonLines,
    /// One protobuf `ExportTraceServiceRequest` (`.binpb`), or several one after the other, which
    /// protobuf makes one.
    Protobuf,
    /// Protobuf requests, each after its length as four big-endian bytes: what the file exporter of
    /// the OpenTelemetry Collector writes with `format: proto`.
    FramedProtobuf,
}

/// A file of captured traces. Iterating gives the spans, one line of JSON or one protobuf
/// `ResourceSpans` at a time, so that memory follows the largest of these and not the file.
///
/// The format is told by the content; the extension decides where the content fits two.
///
/// The first error ends the iteration: what comes after damage cannot be trusted. Every error names
/// the file and the line or byte.
#[derive(Debug)]
pub struct OtlpFile {
    path: PathBuf,
    input: BufReader<File>,
    format: Format,
    size: Option<u64>,
    position: u64,
    line: u64,
    done: bool,
}

impl OtlpFile {
    /// Opens a file and finds out its format.
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
        let mut input = BufReader::with_capacity(SNIFF.max(64 << 10), file);
        let start = input
            .fill_buf()
            .map_err(|e| io_error(&path, "it cannot be read", e))?;
        let format = sniff(&start[..start.len().min(SNIFF)], &path)?;
        Ok(Self {
            path,
            input,
            format,
            size: metadata.is_file().then_some(metadata.len()),
            position: 0,
            line: 0,
            done: false,
        })
    }

    /// How the file is written.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Size in bytes when it was opened; `None` where it has no size, such as a pipe.
    pub fn size(&self) -> Option<u64> {
        self.size
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.position
    }

    fn next_request(&mut self) -> Result<Option<Vec<ResourceSpans>>, Error> {
        match self.format {
            Format::JsonLines => self.next_line(),
            Format::Protobuf => self.next_field(),
            Format::FramedProtobuf => self.next_frame(),
        }
    }

    fn next_line(&mut self) -> Result<Option<Vec<ResourceSpans>>, Error> {
        loop {
            let mut text = Vec::new();
            self.line += 1;
            let read = (&mut self.input)
                .take(MAX_REQUEST)
                .read_until(b'\n', &mut text)
                .map_err(|e| io_error(&self.path, "it cannot be read", e))?;
            self.position += read as u64;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == MAX_REQUEST && !text.ends_with(b"\n") {
                return Err(self
                    .corrupt(format!(
                        "line {} is longer than {MAX_REQUEST} bytes",
                        self.line
                    ))
                    .mend("write one request per line"));
            }
            let mut json = text.trim_ascii();
            if self.line == 1 {
                json = json.strip_prefix(BOM).unwrap_or(json);
            }
            if json.is_empty() {
                continue;
            }
            return json::parse(json).map(Some).map_err(|e| {
                let mut error = self.corrupt(format!("line {}: {}", self.line, e.cause()));
                if let json::JsonError::Json(e) = e {
                    error = if e.is_eof() {
                        error.mend(
                            "capture it again, or remove the line that was cut off; a request \
                             spread over several lines must be put on one (`jq -c .`)",
                        )
                    } else {
                        error.mend("write one OTLP/JSON ExportTraceServiceRequest per line")
                    }
                    .caused_by(e);
                } else {
                    error = error.mend("keep metrics and logs in files of their own");
                }
                error
            });
        }
    }

    /// The next field of a plain protobuf request, which is a `ResourceSpans`.
    fn next_field(&mut self) -> Result<Option<Vec<ResourceSpans>>, Error> {
        loop {
            let start = self.position;
            let Some(tag) = self.varint(true)? else {
                return Ok(None);
            };
            let (field, wire_type) = (tag >> 3, tag & 7);
            if field == 0 || wire_type != LENGTH_DELIMITED {
                return Err(self
                    .corrupt(format!("at byte {start} it is not an OTLP trace request"))
                    .mend(NOT_OTLP));
            }
            let len = self.varint(false)?.unwrap_or_default();
            let bytes = self.message(start, len)?;
            if field == 1 {
                return self.resource_spans(start, bytes).map(Some);
            }
            // A field of a later OTLP: skipped, as protobuf asks for.
        }
    }

    fn next_frame(&mut self) -> Result<Option<Vec<ResourceSpans>>, Error> {
        let start = self.position;
        let mut length = [0; 4];
        match self.read_up_to(&mut length)? {
            0 => return Ok(None),
            4 => {}
            _ => return Err(self.cut_off(start)),
        }
        let bytes = self.message(start, u32::from_be_bytes(length).into())?;
        crate::decode_protobuf(&bytes).map(Some).map_err(|e| {
            self.corrupt(format!(
                "the message at byte {start} is not an OTLP trace request"
            ))
            .mend(NOT_OTLP)
            .caused_by(e)
        })
    }

    fn resource_spans(&self, start: u64, bytes: Bytes) -> Result<Vec<ResourceSpans>, Error> {
        let message = RawResourceSpans::decode(bytes).map_err(|e| {
            self.corrupt(format!(
                "the message at byte {start} is not OTLP ResourceSpans"
            ))
            .mend(NOT_OTLP)
            .caused_by(e)
        })?;
        let mut groups = Vec::new();
        message.unpack(&mut groups);
        Ok(groups)
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
        if self.done {
            return None;
        }
        let next = self.next_request().transpose();
        self.done = !matches!(next, Some(Ok(_)));
        next
    }
}

const BOM: &[u8] = b"\xef\xbb\xbf";
const LENGTH_DELIMITED: u64 = 2;
/// `resource_spans`, the only field of a request: number 1, length-delimited. Also a line feed.
const FIRST_TAG: u8 = 0x0a;
const NOT_OTLP: &str = "give OTLP traces: a protobuf ExportTraceServiceRequest (.binpb), or \
                        OTLP/JSON with one request per line (.jsonl)";

fn sniff(start: &[u8], path: &Path) -> Result<Format, Error> {
    let text = start.strip_prefix(BOM).unwrap_or(start).trim_ascii_start();
    let mut json = text.iter().filter(|b| !b.is_ascii_whitespace());
    let like_json =
        json.next() == Some(&b'{') && matches!(json.next(), None | Some(b'"') | Some(b'}'));
    let like_protobuf = start.first() == Some(&FIRST_TAG);
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let named_json = ["json", "jsonl", "ndjson"]
        .iter()
        .any(|e| extension.eq_ignore_ascii_case(e));
    match start {
        [] => Err(read_error(ErrorKind::Corrupt, path, "it is empty").mend(NOT_OTLP)),
        // A protobuf message of 123 bytes begins like JSON after an empty line.
        _ if like_json && (!like_protobuf || named_json) => Ok(Format::JsonLines),
        _ if like_protobuf && !named_json => Ok(Format::Protobuf),
        // No message reaches 256 MiB, so the first byte of its length is below 16.
        [0..=15, _, _, _, FIRST_TAG, ..] => Ok(Format::FramedProtobuf),
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Err(read_error(ErrorKind::Corrupt, path, "it is compressed")
                .mend("decompress it first"))
        }
        _ => Err(
            read_error(ErrorKind::Corrupt, path, "it is not a file of OTLP traces").mend(NOT_OTLP),
        ),
    }
}

fn read_error(kind: ErrorKind, path: &Path, cause: impl Into<String>) -> Error {
    Error::new(kind, format!("read {}", path.display()), cause.into())
}

fn io_error(path: &Path, cause: &'static str, error: io::Error) -> Error {
    let (kind, cause, mend) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            "there is no such file",
            "check the path",
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::PermissionDenied,
            "it may not be read",
            "check the file's permissions",
        ),
        _ => (ErrorKind::Unavailable, cause, "check the file and its disk"),
    };
    read_error(kind, path, cause).mend(mend).caused_by(error)
}
