//! What is left to the engine that has the table: compaction and vacuum. Writers go on afterwards.

use super::super::super::CaseResult;
use super::super::Unity;
use super::super::writer::{self, Batches, Writer};
use super::writers::exactly_once;
use serde_json::json;

/// Batches of five spans, as one writer makes them.
const FIRST: u64 = 30;
const LAST: u64 = 40;
const SPANS: u64 = 5;

/// `OPTIMIZE` and `VACUUM` by Spark between the commits of one writer, whose last batches before
/// come again after.
pub(super) fn by_spark(unity: &mut Unity) -> CaseResult {
    let work = unity.work("maintained_by_spark")?;
    let path = writer::table(&work, "maintained");
    let writer = Writer::new(
        unity,
        &writer::uri(&work.display().to_string(), "maintained"),
    );
    let batches = |first: u64, last: u64| -> Vec<String> {
        let mut arguments = vec!["batches".to_owned()];
        arguments.extend([1, first, last, SPANS].map(|n| n.to_string()));
        arguments
    };
    writer.run("maintained-before", &batches(1, FIRST))?;
    let before = unity.duck()?.ask("log", json!({"path": path}))?;
    let spark = unity.spark()?;
    spark.ask("sql", json!({"text": "OPTIMIZE {table}", "path": path}))?;
    // Without this setting Delta keeps what was compacted for a week; here nobody reads it.
    let vacuum = "SET spark.databricks.delta.retentionDurationCheck.enabled = false;
                  VACUUM {table} RETAIN 0 HOURS";
    spark.ask("sql", json!({"text": vacuum, "path": path}))?;
    let between = unity.duck()?.ask("log", json!({"path": path}))?;
    if before["files"] != FIRST || between["files"] != 1 {
        return Err(format!("{} files became {}", before["files"], between["files"]).into());
    }
    // Three batches again: the table remembers them although their files are gone.
    writer.run("maintained-after", &batches(FIRST - 2, LAST))?;
    let after = unity.duck()?.ask("log", json!({"path": path}))?;
    let expected = Batches {
        writers: 1,
        last: LAST,
        spans: SPANS,
    }
    .ids();
    let seen = unity.spark()?.ask("ids", json!({"path": path}))?;
    exactly_once(&seen, &expected).map_err(|e| format!("Spark: {e}"))?;
    let seen = unity.duck()?.ask("ids", json!({"path": path}))?;
    exactly_once(&seen, &expected).map_err(|e| format!("DuckDB: {e}"))?;
    Ok(format!(
        "{FIRST} files became 1; then {} batches more, of which 3 had come before: {} spans once each in {} files",
        LAST - FIRST + 3,
        expected.len(),
        after["files"]
    ))
}
