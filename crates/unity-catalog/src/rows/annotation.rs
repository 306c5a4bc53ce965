//! Values set on a trace as a whole, as rows of a table of annotations.
//!
//! Source, unless stated otherwise: Databricks, "Query OpenTelemetry traces stored in Unity Catalog",
//! section "MLflow annotation data formats". One row for each thing that is said:
//!
//! | `annotation_type` | `name` | `value` |
//! |---|---|---|
//! | `METADATA` | `metadata` | an object with those of `client_request_id`, `trace_metadata`, `request_preview`, `response_preview` that were set |
//! | `TAG` | the key | text |
//! | `RUN_LINK` | `run_link` | the run's id, text |
//!
//! `FEEDBACK` and `EXPECTATION` have their columns; nothing that comes here holds any yet.
//!
//! - `target_type` is `TRACE`, and `target_id` the trace's id in 32 lower-case digits, as in
//!   `trace_id` of spans.
//! - The keys of session, user and name are MLflow's (`mlflow/tracing/constant.py` of 3.17.2):
//!   metadata `mlflow.trace.session` and `mlflow.trace.user`, tag `mlflow.traceName`.
//! - `annotation_id` is a UUID of version 5 (RFC 9562), made of the trace, the type and the name: of
//!   a key that is set again the newest row counts. Databricks documents that it derives the ids of
//!   tags from trace and key and those of links from trace and run, and not how.
//! - Databricks has one row of `METADATA` for each trace, which is replaced as a whole. Here it is
//!   one for each set of values that were set together, so that a later row, perhaps of another
//!   process, takes nothing away: names of the values are part of the id. Usually that is one row
//!   for each trace as well.
//! - `created_at` and `updated_at` are when the row was made. `created_by` and `updated_by` are NULL:
//!   who an application writes as is not known here.

use super::bag::Shared;
use super::column::{ByteStrings, Numbers, Texts, structure};
use super::fault::Fault;
use super::identity;
use crate::schema::TableSchema;
use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use opentelemetry::trace::TraceId;
use std::collections::BTreeMap;
use std::sync::Arc;
use trace_destination_core::{AnyValue, Attribute, Attributes, Refusal, TraceUpdate};
use uuid::Uuid;

/// The namespace of annotation ids. They are stored: it must not change.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f0f_0d3c_2b5e_4a53_9d0c_7a1e_52c1_9b64);

const TARGET_TYPE: &str = "TRACE";
const SESSION: &str = "mlflow.trace.session";
const USER: &str = "mlflow.trace.user";
const TRACE_NAME: &str = "mlflow.traceName";

/// The types of annotations that values of a trace become.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Metadata,
    Tag,
    RunLink,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Metadata => "METADATA",
            Self::Tag => "TAG",
            Self::RunLink => "RUN_LINK",
        }
    }
}

/// Builds the rows of a table of annotations.
#[derive(Debug, Default)]
pub(crate) struct Annotations {
    shared: Shared,
    id: Texts,
    trace_id: Texts,
    kind: Vec<&'static str>,
    name: Texts,
    /// Places of the values' metadata, and the values.
    metadata: Numbers<i32>,
    values: ByteStrings,
    at: Numbers<i64>,
}

impl Annotations {
    /// Gives `take` the rows of updates, if there are any, with the schema
    /// [`TableSchema::Annotations`]. The first update was made at `at`, in microseconds since 1970,
    /// and each a microsecond after the one before. Returns the updates of which a value cannot be a
    /// row, by their position; their other values are rows.
    ///
    /// # Errors
    /// That of `take`.
    pub(crate) fn convert<E>(
        mut self,
        updates: &[TraceUpdate],
        at: i64,
        take: impl FnOnce(RecordBatch) -> Result<(), E>,
    ) -> Result<Vec<Refusal>, E> {
        let mut refused = Vec::new();
        for (index, update) in updates.iter().enumerate() {
            let at = at.saturating_add(i64::try_from(index).unwrap_or(i64::MAX));
            if let Some((name, fault)) = self.append(update, at) {
                refused.push(Refusal {
                    index,
                    error: fault.of_value(&name, update.trace_id),
                });
            }
        }
        if !self.kind.is_empty() {
            take(self.finish())?;
        }
        Ok(refused)
    }

    /// Appends every value of an update; gives the first that cannot be a row.
    fn append(&mut self, update: &TraceUpdate, at: i64) -> Option<(String, Fault)> {
        let trace = update.trace_id;
        let mut failed = None;
        let mut note = |name: &str, outcome: Result<(), Fault>| {
            if let Err(fault) = outcome {
                failed.get_or_insert_with(|| (name.to_owned(), fault));
            }
        };
        let (object, names) = metadata_of(update);
        if !object.is_empty() {
            let id = annotation_id(trace, Kind::Metadata, &names);
            let value = Value::Object(&object);
            note(
                "metadata",
                self.row(trace, id, Kind::Metadata, "metadata", value, at),
            );
        }
        let named = update.name.as_ref().map(|name| (TRACE_NAME, name));
        let tags = update.tags.iter().map(|(key, value)| (key.as_str(), value));
        // What is set as the name wins over a tag of the same meaning.
        let tags = tags.filter(|(key, _)| named.is_none() || *key != TRACE_NAME);
        for (key, value) in named.into_iter().chain(tags) {
            let id = annotation_id(trace, Kind::Tag, key.as_bytes());
            note(
                key,
                self.row(trace, id, Kind::Tag, key, Value::Text(value), at),
            );
        }
        if let Some(run) = &update.run_id {
            let id = annotation_id(trace, Kind::RunLink, run.as_bytes());
            let value = Value::Text(run);
            note(
                "run_link",
                self.row(trace, id, Kind::RunLink, "run_link", value, at),
            );
        }
        failed
    }

    /// Appends a row, or nothing.
    fn row(
        &mut self,
        trace: TraceId,
        id: Uuid,
        kind: Kind,
        name: &str,
        value: Value<'_>,
        at: i64,
    ) -> Result<(), Fault> {
        let (variants, blobs) = (&mut self.shared.variants, &mut self.shared.blobs);
        let out = self.values.open();
        let place = match value {
            Value::Object(object) => {
                variants.write(Attributes::record(object), &mut 0, blobs, out)?
            }
            Value::Text(text) => variants.write_text(text, blobs, out)?,
        };
        self.metadata.push(place);
        self.values.end();
        // From here on nothing fails.
        self.id
            .push(id.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
        self.trace_id.push(identity::trace_id(trace).as_str());
        self.kind.push(kind.as_str());
        self.name.push(name);
        self.at.push(at);
        Ok(())
    }

    fn finish(mut self) -> RecordBatch {
        let schema = TableSchema::Annotations.arrow();
        let rows = self.kind.len();
        let blobs = self.shared.blobs.finish();
        let at = self.at.finish_utc();
        let kind = std::mem::take(&mut self.kind);
        let columns = schema.fields().iter().map(|field| -> ArrayRef {
            let data_type = field.data_type();
            match field.name().as_str() {
                "annotation_id" => self.id.finish(),
                "target_type" => terms(std::iter::repeat_n(TARGET_TYPE, rows)),
                "target_id" => self.trace_id.finish(),
                "annotation_type" => terms(kind.iter().copied()),
                "name" => self.name.finish(),
                "value" => {
                    let metadata = self.metadata.finish_places(&blobs);
                    structure(data_type, vec![metadata, self.values.finish()])
                }
                "created_at" | "updated_at" => Arc::clone(&at),
                // What no value of a trace says.
                _ => new_null_array(data_type, rows),
            }
        });
        let columns = columns.collect();
        RecordBatch::try_new(schema, columns)
            .expect("the columns are those of the schema, and equally long")
    }
}

/// The value of an annotation.
enum Value<'a> {
    Text(&'a str),
    Object(&'a [Attribute]),
}

/// The object of the row of metadata, with what was set, and the names of that as part of its id.
fn metadata_of(update: &TraceUpdate) -> (Vec<Attribute>, Vec<u8>) {
    let mut metadata: BTreeMap<&str, &str> = update
        .metadata
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect();
    // What is set as such wins over metadata of the same meaning.
    for (key, value) in [(SESSION, &update.session_id), (USER, &update.user_id)] {
        if let Some(value) = value {
            metadata.insert(key, value);
        }
    }
    let (mut object, mut names) = (Vec::new(), Vec::new());
    for (key, value) in [
        ("client_request_id", &update.client_request_id),
        ("request_preview", &update.request_preview),
        ("response_preview", &update.response_preview),
    ] {
        if let Some(value) = value {
            object.push(Attribute::new(key, value.clone()));
            names.extend_from_slice(key.as_bytes());
            // No other name has it at its end: those of metadata have their length in front.
            names.push(0);
        }
    }
    if !metadata.is_empty() {
        names.push(1);
        let mut inner = Vec::with_capacity(metadata.len());
        for (key, value) in metadata {
            names.extend_from_slice(&(key.len() as u64).to_le_bytes());
            names.extend_from_slice(key.as_bytes());
            inner.push(Attribute::new(key.to_owned(), value.to_owned()));
        }
        object.push(Attribute::new("trace_metadata", AnyValue::Map(inner)));
    }
    (object, names)
}

fn annotation_id(trace: TraceId, kind: Kind, name: &[u8]) -> Uuid {
    let mut bytes = trace.to_bytes().to_vec();
    bytes.extend_from_slice(kind.as_str().as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(name);
    Uuid::new_v5(&NAMESPACE, &bytes)
}

fn terms<'a>(all: impl Iterator<Item = &'a str>) -> ArrayRef {
    let mut builder = StringDictionaryBuilder::<Int32Type>::new();
    builder.extend(all.map(Some));
    Arc::new(builder.finish())
}
