//! What is written to each table, and what it takes for granted: columns, key, parents.

/// The promoted columns of `trace_info`, in the order in which they are bound.
pub(crate) const TRACE_VALUES: [&str; 11] = [
    "trace_name",
    "session_id",
    "input_tokens",
    "output_tokens",
    "total_tokens",
    "cache_read_input_tokens",
    "cache_creation_input_tokens",
    "cache_creation_input_tokens_above_1hr",
    "input_cost",
    "output_cost",
    "total_cost",
];

/// What the values of a column are, and so which declared types keep them as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// Text that never looks like a number.
    Json,
    Integer,
    Real,
}

/// A column that is written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether it is also left empty.
    pub(super) null: bool,
}

/// A table that is written.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: &'static str,
    pub(super) columns: Vec<Column>,
    /// What rows are told apart by: a row whose key is there replaces it.
    pub(super) key: &'static [&'static str],
    /// Whether a row is written over one of the same key, so that the database has to keep the key
    /// unique.
    pub(super) upsert: bool,
    /// A column whose values are made for the row, and so unique whatever else is.
    pub(super) fresh: Option<&'static str>,
    /// The references that every written row satisfies: column, table, and column there.
    pub(super) parents: &'static [(&'static str, &'static str, &'static str)],
}

const fn must(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        null: false,
    }
}

const fn may(name: &'static str, kind: Kind) -> Column {
    Column {
        name,
        kind,
        null: true,
    }
}

/// Experiments. Written only where one is created.
pub(super) fn experiments(workspaces: bool) -> Table {
    let mut columns = vec![
        must("experiment_id", Kind::Integer),
        must("name", Kind::Text),
        must("artifact_location", Kind::Text),
        must("lifecycle_stage", Kind::Text),
        must("creation_time", Kind::Integer),
        must("last_update_time", Kind::Integer),
    ];
    if workspaces {
        columns.push(must("workspace", Kind::Text));
    }
    Table {
        name: "experiments",
        columns,
        key: &["name"],
        upsert: false,
        fresh: Some("experiment_id"),
        parents: &[],
    }
}

/// One row per trace.
pub(super) fn trace_info(trace_columns: bool, generation: bool) -> Table {
    let mut columns = vec![
        must("request_id", Kind::Text),
        must("experiment_id", Kind::Integer),
        must("timestamp_ms", Kind::Integer),
        may("execution_time_ms", Kind::Integer),
        must("status", Kind::Text),
        may("request_preview", Kind::Text),
        may("response_preview", Kind::Text),
        may("client_request_id", Kind::Text),
    ];
    if trace_columns {
        columns.extend(TRACE_VALUES.iter().enumerate().map(|(i, name)| {
            may(
                name,
                match i {
                    0..2 => Kind::Text,
                    2..8 => Kind::Integer,
                    _ => Kind::Real,
                },
            )
        }));
    }
    if generation {
        columns.push(must("db_payload_generation", Kind::Integer));
    }
    Table {
        name: "trace_info",
        columns,
        key: &["request_id"],
        upsert: true,
        fresh: None,
        parents: &[("experiment_id", "experiments", "experiment_id")],
    }
}

/// Tags or metadata of traces.
pub(super) fn of_trace(name: &'static str, value: Kind) -> Table {
    Table {
        name,
        columns: vec![
            must("request_id", Kind::Text),
            must("key", Kind::Text),
            must("value", value),
        ],
        key: &["request_id", "key"],
        upsert: true,
        fresh: None,
        parents: &[("request_id", "trace_info", "request_id")],
    }
}

/// The columns of `spans` for cost and model, in the order in which they are bound.
pub(super) const SPAN_VALUES: [&str; 5] = [
    "input_cost",
    "output_cost",
    "total_cost",
    "model_name",
    "model_provider",
];

/// One row per span.
pub(super) fn spans(span_columns: bool, dimensions: bool) -> Table {
    let mut columns = vec![
        must("trace_id", Kind::Text),
        must("span_id", Kind::Text),
        must("experiment_id", Kind::Integer),
        may("parent_span_id", Kind::Text),
        must("name", Kind::Text),
        may("type", Kind::Text),
        must("status", Kind::Text),
        must("start_time_unix_nano", Kind::Integer),
        may("end_time_unix_nano", Kind::Integer),
        must("content", Kind::Json),
    ];
    if span_columns {
        columns.extend(SPAN_VALUES.iter().enumerate().map(|(i, name)| {
            may(
                name,
                match i {
                    0..3 => Kind::Real,
                    _ => Kind::Text,
                },
            )
        }));
    }
    if dimensions {
        columns.push(may("dimension_attributes", Kind::Json));
    }
    Table {
        name: "spans",
        columns,
        key: &["trace_id", "span_id"],
        upsert: true,
        fresh: None,
        parents: &[
            ("trace_id", "trace_info", "request_id"),
            ("experiment_id", "trace_info", "experiment_id"),
            ("experiment_id", "experiments", "experiment_id"),
        ],
    }
}

/// The older place of span costs.
pub(super) fn span_metrics() -> Table {
    Table {
        name: "span_metrics",
        columns: vec![
            must("trace_id", Kind::Text),
            must("span_id", Kind::Text),
            must("key", Kind::Text),
            must("value", Kind::Real),
        ],
        key: &["trace_id", "span_id", "key"],
        upsert: true,
        fresh: None,
        parents: &[
            ("trace_id", "trace_info", "request_id"),
            ("trace_id", "spans", "trace_id"),
            ("span_id", "spans", "span_id"),
        ],
    }
}

/// Links of traces to runs.
pub(super) fn entity_associations() -> Table {
    Table {
        name: "entity_associations",
        columns: vec![
            must("association_id", Kind::Text),
            must("source_type", Kind::Text),
            must("source_id", Kind::Text),
            must("destination_type", Kind::Text),
            must("destination_id", Kind::Text),
            must("created_time", Kind::Integer),
        ],
        key: &[
            "source_type",
            "source_id",
            "destination_type",
            "destination_id",
        ],
        upsert: true,
        fresh: Some("association_id"),
        parents: &[],
    }
}
