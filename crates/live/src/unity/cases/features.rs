//! Tables that Spark made or changed in the ways Delta has: each is written and read back equal by
//! Spark and by DuckDB, or refused with nothing of it touched.

use super::super::super::{CaseResult, Stop};
use super::super::writer::{self, Writer};
use super::super::{Unity, expected};
use super::equality::{differing, record_ids, rows};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use trace_destination_otlp::sample;

/// The documented columns, as Databricks' own statement has them.
const COLUMNS: &str = "
  record_id STRING, time TIMESTAMP, date DATE, service_name STRING,
  trace_id STRING, span_id STRING, trace_state STRING, parent_span_id STRING, flags INT,
  name STRING, kind STRING, start_time_unix_nano BIGINT, end_time_unix_nano BIGINT,
  attributes VARIANT, dropped_attributes_count INT,
  events ARRAY<STRUCT<time_unix_nano: BIGINT, name: STRING, attributes: VARIANT, dropped_attributes_count: INT>>,
  dropped_events_count INT,
  links ARRAY<STRUCT<trace_id: STRING, span_id: STRING, trace_state: STRING, attributes: VARIANT, dropped_attributes_count: INT, flags: INT>>,
  dropped_links_count INT, status STRUCT<message: STRING, code: STRING>,
  resource STRUCT<attributes: VARIANT, dropped_attributes_count: INT>,
  resource_schema_url STRING,
  instrumentation_scope STRUCT<name: STRING, version: STRING, attributes: VARIANT, dropped_attributes_count: INT>,
  span_schema_url STRING";

/// A row of Spark's own, which is not part of what is compared.
const OWN: &str = "INSERT INTO {table} (trace_id, span_id, name, time, service_name) VALUES
  ('own', 'first', 'spark', now(), 'spark'), ('own', 'second', 'spark', now(), 'spark')";

/// A table, how it came to be, and what has to hold of it when it was written.
struct Made {
    name: &'static str,
    /// After the columns in `CREATE TABLE`.
    with: &'static str,
    /// What happens to it before it is written; `OWN` is first.
    then: &'static str,
    /// Paths of columns that spans do not have.
    added: &'static [&'static str],
    /// Spark selects one row of this, in which everything is true.
    holds: &'static str,
}

const PLAIN: Made = Made {
    name: "",
    with: "",
    then: "",
    added: &[],
    holds: "",
};

const MADE: &[Made] = &[
    Made {
        name: "documented",
        with: "CLUSTER BY (time, service_name, trace_id) TBLPROPERTIES (
            'otel.schemaVersion' = 'v2', 'delta.checkpointPolicy' = 'classic',
            'delta.enableVariantShredding' = 'true',
            'delta.feature.variantShredding-preview' = 'supported',
            'delta.feature.variantType-preview' = 'supported')",
        // Spark leaves files out by what the log says of the clustering columns.
        holds: "SELECT count(*) = 252 FROM {table} WHERE time < now() AND trace_id <> 'own'
            AND service_name IS NOT NULL",
        ..PLAIN
    },
    Made {
        name: "clustered_within",
        with: "CLUSTER BY (status.code, start_time_unix_nano, kind)",
        holds: "SELECT count(*) = 252 FROM {table} WHERE status.code >= 'STATUS' AND kind > 'SPAN'",
        ..PLAIN
    },
    Made {
        name: "row_tracking",
        with: "TBLPROPERTIES ('delta.enableRowTracking' = 'true', 'delta.checkpointInterval' = '2')",
        holds: "SELECT count(DISTINCT _metadata.row_id) = 254, min(_metadata.row_id) = 0,
            count(_metadata.row_commit_version) = 254 FROM {table}",
        ..PLAIN
    },
    Made {
        name: "in_commit_timestamps",
        with: "TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')",
        ..PLAIN
    },
    Made {
        name: "mapped_by_name",
        with: "TBLPROPERTIES ('delta.columnMapping.mode' = 'name')",
        then: "ALTER TABLE {table} ADD COLUMNS (tenant STRING, spare INT);
            ALTER TABLE {table} RENAME COLUMN tenant TO customer;
            ALTER TABLE {table} DROP COLUMN spare",
        added: &["customer"],
        holds: "SELECT count(*) = 252 FROM {table} WHERE trace_id < 'own'",
    },
    Made {
        name: "mapped_by_id",
        with: "CLUSTER BY (trace_id) TBLPROPERTIES ('delta.columnMapping.mode' = 'id')",
        holds: "SELECT count(*) = 252 FROM {table} WHERE trace_id < 'own'",
        ..PLAIN
    },
    Made {
        name: "deletion_vectors",
        with: "TBLPROPERTIES ('delta.enableDeletionVectors' = 'true', 'delta.checkpointInterval' = '2')",
        then: "DELETE FROM {table} WHERE span_id = 'first'",
        holds: "SELECT count(*) = 253 FROM {table}",
        ..PLAIN
    },
    Made {
        name: "added_columns",
        with: "TBLPROPERTIES ('delta.feature.timestampNtz' = 'supported')",
        then: "ALTER TABLE {table} ADD COLUMNS (tenant STRING AFTER time, price DECIMAL(10, 2) FIRST,
              extra STRUCT<a: VARIANT, b: MAP<STRING, INT>>, seen TIMESTAMP_NTZ);
            ALTER TABLE {table} ADD COLUMNS (status.reason STRING FIRST);
            ALTER TABLE {table} ADD COLUMNS (events.element.severity INT AFTER name);
            ALTER TABLE {table} ADD COLUMNS (resource.owners ARRAY<STRING>)",
        added: &[
            "tenant",
            "price",
            "extra",
            "seen",
            "status.reason",
            "events.severity",
            "resource.owners",
        ],
        holds: "SELECT count(tenant) = 0, count(status.reason) = 0, count(extra.b) = 0,
            count(CASE WHEN exists(events, e -> e.severity IS NOT NULL) THEN 1 END) = 0 FROM {table}",
    },
    Made {
        name: "features_of_no_use",
        with: "TBLPROPERTIES ('delta.appendOnly' = 'true', 'delta.enableChangeDataFeed' = 'true',
            'delta.enableTypeWidening' = 'true', 'delta.checkpointPolicy' = 'v2',
            'delta.feature.vacuumProtocolCheck' = 'supported',
            'delta.feature.allowColumnDefaults' = 'supported',
            'delta.feature.checkConstraints' = 'supported',
            'delta.feature.generatedColumns' = 'supported',
            'delta.feature.identityColumns' = 'supported',
            'delta.feature.invariants' = 'supported',
            'delta.checkpointInterval' = '2')",
        ..PLAIN
    },
    Made {
        name: "protected_checkpoints",
        with: "TBLPROPERTIES ('delta.enableDeletionVectors' = 'true')",
        // Delta for Spark leaves `checkpointProtection` behind.
        then: "ALTER TABLE {table} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'false');
            ALTER TABLE {table} DROP FEATURE deletionVectors",
        ..PLAIN
    },
    Made {
        name: "everything",
        with: "CLUSTER BY (time, service_name, trace_id) TBLPROPERTIES (
            'delta.enableRowTracking' = 'true', 'delta.enableInCommitTimestamps' = 'true',
            'delta.columnMapping.mode' = 'name', 'delta.enableDeletionVectors' = 'true',
            'delta.enableChangeDataFeed' = 'true', 'delta.checkpointPolicy' = 'v2',
            'delta.checkpointInterval' = '2', 'delta.enableVariantShredding' = 'true')",
        then: "DELETE FROM {table} WHERE span_id = 'first';
            ALTER TABLE {table} ADD COLUMNS (tenant STRING FIRST);
            ALTER TABLE {table} ADD COLUMNS (status.reason STRING FIRST)",
        added: &["tenant", "status.reason"],
        holds: "SELECT count(DISTINCT _metadata.row_id) = count(*), count(*) = 253,
            count(CASE WHEN trace_id < 'own' THEN 1 END) = 252 FROM {table}",
    },
];

/// Creates a table of Spark's, with two rows of its own.
fn create(unity: &mut Unity, made: &Made) -> Result<(PathBuf, String), Stop> {
    let work = unity.work(&format!("by_spark_{}", made.name))?;
    let path = writer::table(&work, made.name);
    let create = format!(
        "CREATE TABLE {{table}} ({COLUMNS}) USING delta {}",
        made.with
    );
    let text = format!("{create}; {OWN}; {}", made.then);
    unity
        .spark()?
        .ask("sql", json!({"text": text, "path": path}))?;
    Ok((work, path))
}

fn write(unity: &mut Unity, work: &Path, name: &str, requests: &[Vec<u8>]) -> Result<(), String> {
    let uri = writer::uri(&work.display().to_string(), name);
    Writer::new(unity, &uri).files(&format!("by-spark-{name}"), requests)
}

/// What both engines see, without Spark's own rows and with the added columns taken off.
fn equal(unity: &mut Unity, made: &Made, path: &str, expected: &[Value]) -> Result<(), String> {
    for engine in ["Spark", "DuckDB"] {
        let found = match engine {
            "Spark" => unity
                .spark()
                .map_err(text)?
                .ask("rows", json!({"path": path}))?,
            _ => unity
                .duck()
                .map_err(text)?
                .ask("rows", json!({"path": path}))?,
        };
        let mut found = rows(&found)?;
        found.retain(|row| row["trace_id"] != "own");
        for row in &mut found {
            for added in made.added {
                let value = taken(row, added);
                if value.iter().any(|value| !value.is_null()) {
                    return Err(format!("{engine} sees {value:?} in {added}"));
                }
            }
        }
        record_ids(&mut found).map_err(|e| format!("{engine}: {e}"))?;
        differing(&found, expected).map_err(|e| format!("{engine}: {e}"))?;
    }
    Ok(())
}

fn text(stop: Stop) -> String {
    match stop {
        Stop::Failed(text) | Stop::Missing(text) => text,
    }
}

/// Takes a field out, of lists out of each element; what was there.
fn taken(value: &mut Value, path: &str) -> Vec<Value> {
    if let Some(elements) = value.as_array_mut() {
        return elements.iter_mut().flat_map(|e| taken(e, path)).collect();
    }
    let Some(fields) = value.as_object_mut() else {
        return Vec::new();
    };
    match path.split_once('.') {
        None => fields.shift_remove(path).into_iter().collect(),
        Some((name, rest)) => fields.get_mut(name).map_or(Vec::new(), |v| taken(v, rest)),
    }
}

/// Every table is written, read back, put together by Spark, and written again.
pub(super) fn written(unity: &mut Unity) -> CaseResult {
    let requests = vec![sample::captured().to_vec()];
    let expected = expected::rows(&requests)?;
    let mut twice = expected.clone();
    let generated = sample::generated();
    twice.extend(expected::rows(&generated)?);
    let mut failed = Vec::new();
    for made in MADE {
        let tried = |unity: &mut Unity| -> Result<(), String> {
            let (work, path) = create(unity, made).map_err(text)?;
            write(unity, &work, made.name, &requests)?;
            equal(unity, made, &path, &expected)?;
            if !made.holds.is_empty() {
                let spark = unity.spark().map_err(text)?;
                let seen = spark.ask("sql", json!({"text": made.holds, "path": path}))?;
                let all = seen["rows"][0].as_array().into_iter().flatten();
                if all.clone().count() == 0 || all.clone().any(|v| *v != true) {
                    return Err(format!("{} is {}", made.holds, seen["rows"]));
                }
            }
            // Spark goes on, and so do we after it.
            let text_of = format!("OPTIMIZE {{table}}; {OWN}");
            let spark = unity.spark().map_err(text)?;
            spark.ask("sql", json!({"text": text_of, "path": path}))?;
            write(unity, &work, made.name, &generated)?;
            equal(unity, made, &path, &twice)?;
            if made.with.contains("enableRowTracking") {
                let unique = "SELECT count(DISTINCT _metadata.row_id) = count(*) FROM {table}";
                let spark = unity.spark().map_err(text)?;
                let seen = spark.ask("sql", json!({"text": unique, "path": path}))?;
                if seen["rows"][0][0] != true {
                    return Err("two rows have one number".into());
                }
            }
            Ok(())
        };
        if let Err(error) = tried(unity) {
            failed.push(format!("{}: {error}", made.name));
        }
    }
    match failed.is_empty() {
        true => Ok(format!(
            "{} tables that Spark made: {} spans equal in Spark and DuckDB, after OPTIMIZE {}",
            MADE.len(),
            expected.len(),
            twice.len()
        )),
        false => Err(failed.join("\n").into()),
    }
}

/// A table that is refused, what the error names, and what mends it, if that is possible in place.
struct Refused {
    made: Made,
    named: &'static str,
    mend: Option<&'static str>,
}

const REFUSED: &[Refused] = &[
    Refused {
        made: Made {
            name: "check_constraint",
            then: "ALTER TABLE {table} ADD CONSTRAINT named CHECK (name <> '')",
            ..PLAIN
        },
        named: "DROP CONSTRAINT named",
        mend: Some("ALTER TABLE {table} DROP CONSTRAINT named"),
    },
    Refused {
        made: Made {
            name: "column_default",
            with: "TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported')",
            then: "ALTER TABLE {table} ADD COLUMNS (tenant STRING);
                ALTER TABLE {table} ALTER COLUMN tenant SET DEFAULT 'a'",
            added: &["tenant"],
            ..PLAIN
        },
        named: "ALTER COLUMN tenant DROP DEFAULT",
        mend: Some("ALTER TABLE {table} ALTER COLUMN tenant DROP DEFAULT"),
    },
];

/// What a table demands of rows that only an engine for SQL can see to is refused, and nothing of
/// the table is touched; what the error says mends it.
pub(super) fn refused(unity: &mut Unity) -> CaseResult {
    let requests = vec![sample::captured().to_vec()];
    let expected = expected::rows(&requests)?;
    for Refused { made, named, mend } in REFUSED {
        let (work, path) = create(unity, made)?;
        let before = files(Path::new(&path))?;
        match write(unity, &work, made.name, &requests) {
            Ok(()) => return Err(format!("{} was written", made.name).into()),
            Err(text) if text.contains(named) => {}
            Err(text) => return Err(format!("the error does not name {named}: {text}").into()),
        }
        if files(Path::new(&path))? != before {
            return Err(format!("{} was touched", made.name).into());
        }
        if let Some(mend) = mend {
            unity
                .spark()?
                .ask("sql", json!({"text": mend, "path": path}))?;
            write(unity, &work, made.name, &requests)?;
            equal(unity, made, &path, &expected).map_err(|e| format!("{}: {e}", made.name))?;
        }
    }
    Ok(format!(
        "{} tables are refused untouched, and written after what the error says",
        REFUSED.len()
    ))
}

/// The files below a folder, with their sizes.
fn files(folder: &Path) -> Result<Vec<(PathBuf, u64)>, String> {
    let failed = |e| format!("list {}: {e}", folder.display());
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let kind = entry.metadata().map_err(failed)?;
        match kind.is_dir() {
            true => all.extend(files(&entry.path())?),
            false => all.push((entry.path(), kind.len())),
        }
    }
    all.sort();
    Ok(all)
}
