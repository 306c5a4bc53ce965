#![doc = include_str!("../README.md")]

use async_trait::async_trait;
use serde_json::{Value, json};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind as Io, Write};
use std::path::PathBuf;
use std::sync::Arc;
use trace_destination_core::{
    AnyValueRef, Capabilities, Error, ErrorKind, Guarantee, Hole, LocationUri, NameRule, Registry,
    Span, TraceBatch, TraceLocation, TraceSink, Written,
};

/// A file that spans are appended to.
#[derive(Clone, Debug)]
pub struct JsonLines {
    uri: LocationUri,
    path: PathBuf,
}

impl JsonLines {
    /// The location that `jsonl:///relative/path` or `jsonl:////absolute/path` names.
    ///
    /// # Errors
    /// `InvalidConfig` if the URI names no file.
    pub fn from_uri(uri: &LocationUri) -> Result<Self, Error> {
        let invalid = |cause: &'static str| {
            Error::new(ErrorKind::InvalidConfig, "parse location", cause)
                .at(uri)
                .mend("write it as jsonl:///path/to/file")
        };
        if uri.query_pairs().next().is_some() {
            return Err(invalid("a file of JSON lines takes no parameters"));
        }
        // The first slash belongs to the URI, as with `sqlite:`.
        match uri.path().strip_prefix('/') {
            Some(path) if !path.is_empty() && uri.authority() == Some("") => Ok(Self {
                uri: uri.clone(),
                path: path.into(),
            }),
            _ => Err(invalid("it names no file")),
        }
    }

    /// Adds the `jsonl:` scheme to a registry. A template of it, such as
    /// `jsonl:///traces/{tenant}.jsonl`, has names in the file name only.
    pub fn register(registry: Registry) -> Registry {
        registry
            .with_scheme("jsonl", |uri| {
                Self::from_uri(uri).map(|l| Arc::new(l) as Arc<dyn TraceLocation>)
            })
            .with_holes("jsonl", [Hole::file(NameRule::Segment)])
    }
}

impl fmt::Display for JsonLines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.uri.fmt(f)
    }
}

#[async_trait]
impl TraceLocation for JsonLines {
    fn uri(&self) -> &LocationUri {
        &self.uri
    }

    fn capabilities(&self) -> Capabilities {
        // A batch whose outcome is unknown is appended again: a file of lines cannot recognise it.
        // Trace-level values have no line of their own, so they come as attributes of the root span.
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.path)
            .map_err(|e| failure("open file", e))?;
        Ok(Box::new(Sink(Arc::new(file))))
    }
}

struct Sink(Arc<File>);

#[async_trait]
impl TraceSink for Sink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let mut lines = Vec::new();
        for span in batch.spans() {
            // Writing to a vector cannot fail, and every value made below is representable.
            let _ = serde_json::to_writer(&mut lines, &line(span));
            lines.push(b'\n');
        }
        let file = self.0.clone();
        // Blocking work belongs off the runtime's threads.
        tokio::task::spawn_blocking(move || {
            (&*file).write_all(&lines)?;
            file.sync_data()
        })
        .await
        .unwrap_or_else(|e| Err(std::io::Error::other(e)))
        .map_err(|e| failure("append spans", e))?;
        Ok(Written::default())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        Ok(())
    }
}

/// Sorts an I/O error into what a caller can act on.
fn failure(operation: &'static str, error: std::io::Error) -> Error {
    let text = error.to_string();
    let sorted = match error.kind() {
        Io::PermissionDenied => Error::new(ErrorKind::PermissionDenied, operation, text)
            .mend("make the file writable for this user"),
        Io::NotFound => {
            Error::new(ErrorKind::NotFound, operation, text).mend("create the folder first")
        }
        Io::StorageFull => Error::new(ErrorKind::StorageFull, operation, text)
            .mend("make room on the disk")
            .retryable(),
        _ => Error::new(ErrorKind::Unavailable, operation, text).retryable(),
    };
    sorted.caused_by(error)
}

/// One span as one JSON object.
fn line(span: &Span) -> Value {
    json!({
        "trace_id": span.trace_id().to_string(),
        "span_id": span.span_id().to_string(),
        "parent_span_id": span.parent_span_id().map(|id| id.to_string()),
        "name": span.name(),
        "kind": span.kind() as i32,
        "start_time_unix_nano": span.start_time_unix_nano(),
        "end_time_unix_nano": span.end_time_unix_nano(),
        "attributes": span.attributes().iter().map(|(k, v)| json!([k, json_of(v)])).collect::<Vec<_>>(),
        "status": [span.status_code() as i32, span.status_message()],
    })
}

fn json_of(value: AnyValueRef<'_>) -> Value {
    match value {
        AnyValueRef::Empty => Value::Null,
        AnyValueRef::Bool(v) => v.into(),
        AnyValueRef::Int(v) => v.into(),
        // NaN and the infinities, which JSON does not have, come out as null.
        AnyValueRef::Double(v) => v.into(),
        AnyValueRef::String(v) => v.into(),
        AnyValueRef::Bytes(v) => json!({ "bytes": v }),
        AnyValueRef::Array(v) => v.iter().map(json_of).collect(),
        AnyValueRef::Map(v) => v.iter().map(|(k, v)| (k.to_owned(), json_of(v))).collect(),
    }
}
