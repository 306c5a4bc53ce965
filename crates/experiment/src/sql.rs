//! The statements, spelled for one shape of the database.

use crate::schema::{Shape, TRACE_VALUES};

/// Tag: where the spans of a trace are. Without it MLflow lists a trace and cannot open it.
pub(crate) const SPANS_LOCATION: &str = "mlflow.trace.spansLocation";
/// The one place this crate writes.
pub(crate) const TRACKING_STORE: &str = "TRACKING_STORE";
/// Tag: where the files of a trace would be.
pub(crate) const ARTIFACT_LOCATION: &str = "mlflow.artifactLocation";
/// Tags by which MLflow finds the data of a trace. Set by others they make it unreadable.
pub(crate) const RESERVED_TAGS: [&str; 4] = [
    SPANS_LOCATION,
    "mlflow.trace.archiveLocation",
    "mlflow.trace.archivalFailure",
    ARTIFACT_LOCATION,
];
/// Tag: the trace's name, where there is no column.
pub(crate) const TRACE_NAME: &str = "mlflow.traceName";
/// Metadata: the session, where there is no column.
pub(crate) const SESSION: &str = "mlflow.trace.session";
/// Metadata: token usage, where there are no columns.
pub(crate) const USAGE: &str = "mlflow.trace.tokenUsage";
/// Metadata: cost, where there are no columns.
pub(crate) const COST: &str = "mlflow.trace.cost";
/// Metadata: the user.
pub(crate) const USER: &str = "mlflow.trace.user";
/// Metadata: an MLflow client has given the trace its final values.
pub(crate) const FINALIZED: &str = "mlflow.trace.infoFinalized";
/// Metadata: the run a trace is linked to, where there is no table for links.
pub(crate) const SOURCE_RUN: &str = "mlflow.sourceRun";

/// A row that is inserted, or updated where its key is there already.
///
/// Two statements instead of one `ON CONFLICT DO UPDATE`: nearly every row is new, and SQLite
/// prepares each execution of the combined form for being undone halfway, which costs about as much
/// again as the insert. Both bind the same values, the key first.
#[derive(Debug)]
pub(crate) struct Upsert {
    pub(crate) insert: String,
    pub(crate) update: String,
}

impl Upsert {
    fn new(table: &str, key: &[&str], values: &[&str]) -> Self {
        let columns: Vec<&str> = key.iter().chain(values).copied().collect();
        let marks: Vec<String> = (1..=columns.len()).map(|i| format!("?{i}")).collect();
        let assign = |columns: &[&str], from: usize, by: &str| {
            let terms: Vec<String> = columns
                .iter()
                .enumerate()
                .map(|(i, c)| format!("{c} = ?{}", i + from))
                .collect();
            terms.join(by)
        };
        Self {
            insert: format!(
                "INSERT INTO {table} ({}) VALUES ({})",
                columns.join(", "),
                marks.join(", ")
            ),
            update: format!(
                "UPDATE {table} SET {} WHERE {}",
                assign(values, key.len() + 1, ", "),
                assign(key, 1, " AND ")
            ),
        }
    }
}

pub(crate) const PUT_RUN_LINK: &str = "INSERT INTO entity_associations \
     (association_id, source_type, source_id, destination_type, destination_id, created_time) \
     SELECT ?1, 'trace', ?2, 'run', run_uuid, ?4 FROM runs WHERE run_uuid = ?3 \
     ON CONFLICT (source_type, source_id, destination_type, destination_id) \
     DO UPDATE SET destination_id = excluded.destination_id";

pub(crate) const MOVE_ASSESSMENTS: &str =
    "UPDATE assessments SET trace_timestamp_ms = ?2 WHERE trace_id = ?1";

/// Content is only read where a span may carry usage or cost.
pub(crate) const SPAN_TREE: &str = "SELECT span_id, parent_span_id, \
     CASE WHEN instr(content, '\"mlflow.chat.tokenUsage\"') > 0 \
            OR instr(content, '\"mlflow.llm.cost\"') > 0 THEN content END \
     FROM spans WHERE trace_id = ?1";

/// The statements whose text depends on the shape.
#[derive(Debug)]
pub(crate) struct Statements {
    pub(crate) read_trace: String,
    pub(crate) insert_trace: String,
    pub(crate) update_trace: String,
    pub(crate) span: Upsert,
    pub(crate) tag: Upsert,
    pub(crate) metadata: Upsert,
    pub(crate) trace_metric: Upsert,
    pub(crate) span_metric: Upsert,
}

impl Statements {
    pub(crate) fn of(shape: &Shape) -> Self {
        Self {
            read_trace: read_trace(shape),
            insert_trace: insert_trace(shape),
            update_trace: update_trace(shape),
            span: span(shape),
            tag: Upsert::new("trace_tags", &["request_id", "\"key\""], &["value"]),
            metadata: Upsert::new(
                "trace_request_metadata",
                &["request_id", "\"key\""],
                &["value"],
            ),
            trace_metric: Upsert::new("trace_metrics", &["request_id", "\"key\""], &["value"]),
            span_metric: Upsert::new(
                "span_metrics",
                &["trace_id", "span_id", "\"key\""],
                &["value"],
            ),
        }
    }
}

fn read_trace(shape: &Shape) -> String {
    let row = |table: &str, key: &str| {
        format!("EXISTS (SELECT 1 FROM {table} WHERE request_id = ?1 AND \"key\" = '{key}')")
    };
    let known = |columns: &[&str], table: &str, key: &str| {
        let mut parts = Vec::new();
        if shape.trace_columns {
            parts.extend(columns.iter().map(|c| format!("{c} IS NOT NULL")));
        }
        if shape.legacy_rows {
            parts.push(row(table, key));
        }
        format!("({})", parts.join(" OR "))
    };
    format!(
        "SELECT experiment_id, timestamp_ms, execution_time_ms, status, \
         request_preview IS NOT NULL, response_preview IS NOT NULL, {}, {}, {}, {}, \
         (SELECT value FROM trace_tags WHERE request_id = ?1 AND \"key\" = '{SPANS_LOCATION}'), \
         {}, {} FROM trace_info WHERE request_id = ?1",
        known(&TRACE_VALUES[..1], "trace_tags", TRACE_NAME),
        known(&TRACE_VALUES[1..2], "trace_request_metadata", SESSION),
        known(&TRACE_VALUES[2..8], "trace_request_metadata", USAGE),
        known(&TRACE_VALUES[8..], "trace_request_metadata", COST),
        row("trace_request_metadata", USER),
        row("trace_request_metadata", FINALIZED),
    )
}

fn insert_trace(shape: &Shape) -> String {
    let mut columns = vec![
        "request_id",
        "experiment_id",
        "timestamp_ms",
        "execution_time_ms",
        "status",
        "request_preview",
        "response_preview",
        "client_request_id",
    ];
    if shape.trace_columns {
        columns.extend(TRACE_VALUES);
    }
    let mut values: Vec<String> = (1..=columns.len()).map(|i| format!("?{i}")).collect();
    if shape.generation {
        columns.push("db_payload_generation");
        values.push("1".into());
    }
    format!(
        "INSERT INTO trace_info ({}) VALUES ({})",
        columns.join(", "),
        values.join(", ")
    )
}

fn update_trace(shape: &Shape) -> String {
    // ?2 is the experiment, as in the insert; it makes sure that no other one is touched.
    let mut set = vec![
        "timestamp_ms = ?3".to_owned(),
        "execution_time_ms = ?4".to_owned(),
        "status = ?5".to_owned(),
    ];
    let mut keep = vec!["request_preview", "response_preview", "client_request_id"];
    if shape.trace_columns {
        keep.extend(TRACE_VALUES);
    }
    for (i, column) in keep.iter().enumerate() {
        set.push(format!("{column} = COALESCE(?{}, {column})", i + 6));
    }
    if shape.generation {
        set.push("db_payload_generation = db_payload_generation + 1".into());
    }
    format!(
        "UPDATE trace_info SET {} WHERE request_id = ?1 AND experiment_id = ?2",
        set.join(", ")
    )
}

fn span(shape: &Shape) -> Upsert {
    // `duration_ns` is generated by the database and must not be written.
    let mut values = vec![
        "experiment_id",
        "parent_span_id",
        "name",
        "type",
        "status",
        "start_time_unix_nano",
        "end_time_unix_nano",
        "content",
    ];
    if shape.span_columns {
        values.extend([
            "input_cost",
            "output_cost",
            "total_cost",
            "model_name",
            "model_provider",
        ]);
    }
    if shape.dimensions {
        values.push("dimension_attributes");
    }
    Upsert::new("spans", &["trace_id", "span_id"], &values)
}
