//! Detects the format of a file of captured traces from its first bytes, and explains what is wrong
//! with other files.

use crate::json_file::{BOM, begins_request};
use std::io;
use std::path::Path;
use trace_destination_core::{Error, ErrorKind};

/// Length of the beginning from which the format is detected, in bytes: 64 KiB.
pub(crate) const SNIFF: usize = 64 << 10;

/// The format of a file of captured traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OTLP/JSON (`.jsonl`): one request per line, requests without line breaks between them,
    /// requests that span lines, or a list of requests.
    JsonLines,
    /// One protobuf `ExportTraceServiceRequest` (`.binpb`), or several concatenated, which is the
    /// same in protobuf.
    Protobuf,
    /// Protobuf requests, each preceded by its length in four big-endian bytes, as the
    /// OpenTelemetry Collector's file exporter writes them with `format: proto`.
    FramedProtobuf,
}

/// `resource_spans`, the only field of a request: number 1, length-delimited. Also a line feed.
const FIRST_TAG: u8 = 0x0a;
pub(crate) const NOT_OTLP: &str = "give OTLP traces: protobuf ExportTraceServiceRequests (.binpb) or \
                                  OTLP/JSON (.jsonl)";

/// The format of a file with this beginning.
pub(crate) fn sniff(start: &[u8], path: &Path) -> Result<Format, Error> {
    let text = start.strip_prefix(BOM).unwrap_or(start).trim_ascii_start();
    let text = text.strip_prefix(b"[").unwrap_or(text);
    let mut json = text.iter().filter(|b| !b.is_ascii_whitespace());
    let like_json =
        json.next() == Some(&b'{') && matches!(json.next(), None | Some(b'"') | Some(b'}'));
    // A file that is damaged at the start, or a log with requests in it. Tried last, as it takes
    // longest.
    let has_request = || {
        let mut braces = (0..start.len()).filter(|at| start[*at] == b'{');
        braces.any(|at| begins_request(&start[at..]))
    };
    let like_protobuf = start.first() == Some(&FIRST_TAG);
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
    let named_json = ["json", "jsonl", "ndjson"]
        .iter()
        .any(|e| extension.eq_ignore_ascii_case(e));
    match start {
        [] => Err(read_error(ErrorKind::Corrupt, path, "it is empty").mend(NOT_OTLP)),
        // A protobuf message of 123 bytes begins like JSON after an empty line.
        _ if like_json && (!like_protobuf || named_json) => Ok(Format::JsonLines),
        _ if named_json && (has_request() || start.iter().all(|b| *b == 0)) => {
            Ok(Format::JsonLines)
        }
        _ if like_protobuf && !named_json => Ok(Format::Protobuf),
        // No message reaches 256 MiB, so the first byte of its length is below 16.
        [0..=15, _, _, _, FIRST_TAG, ..] => Ok(Format::FramedProtobuf),
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            Err(read_error(ErrorKind::Corrupt, path, "it is compressed")
                .mend("decompress it first"))
        }
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => {
            Err(read_error(ErrorKind::Corrupt, path, "it is UTF-16 text")
                .mend("convert it to UTF-8 (`iconv -f UTF-16 -t UTF-8`)"))
        }
        _ if has_request() => Ok(Format::JsonLines),
        _ => Err(
            read_error(ErrorKind::Corrupt, path, "it is not a file of OTLP traces").mend(NOT_OTLP),
        ),
    }
}

pub(crate) fn read_error(kind: ErrorKind, path: &Path, cause: impl Into<String>) -> Error {
    Error::new(kind, format!("read {}", path.display()), cause.into())
}

pub(crate) fn io_error(path: &Path, cause: &'static str, error: io::Error) -> Error {
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
