//! Per-file statistics (Delta protocol, "Per-file Statistics") of the columns files are found by.
//! Readers skip a file whose bounds exclude what they look for, so a bound that is not one hides
//! rows. Where a bound cannot be given it is left out.

use crate::schema::{Layout, Measure};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

/// Characters of a text that statistics keep, as Delta's own writers do.
const PREFIX: usize = 32;

/// The least and the greatest value of a column, where there are such.
#[derive(Debug, Default)]
struct Bounds {
    low: Option<Value>,
    high: Option<Value>,
}

/// The statistics of a file with `rows` rows.
pub(super) fn stats(layout: &Layout, metadata: &ParquetMetaData, rows: i64) -> Value {
    let (mut least, mut most, mut nulls) = (Map::new(), Map::new(), Map::new());
    let columns = metadata.file_metadata().schema_descr().columns();
    for measured in layout.measured() {
        let (path, measure) = (&measured.path, measured.measure);
        if measure == Measure::Null {
            insert(&mut nulls, path, json!(rows));
            continue;
        }
        let Some(at) = columns.iter().position(|c| c.path().parts() == path) else {
            continue;
        };
        // One batch is one row group, unless it has more than a million rows.
        let groups = metadata.row_groups().iter();
        let groups: Option<Vec<_>> = groups.map(|group| group.column(at).statistics()).collect();
        let Some(groups) = groups else { continue };
        let null_counts = groups
            .iter()
            .map(|s| s.null_count_opt().unwrap_or_default());
        insert(&mut nulls, path, json!(null_counts.sum::<u64>()));
        // A group of NULLs alone has no bounds, and needs none.
        let filled = groups.iter().filter(|s| has_values(s));
        let bounds: Vec<Bounds> = filled.map(|s| bounds(measure, s)).collect();
        let (mut lows, mut highs) = (Vec::new(), Vec::new());
        for Bounds { low, high } in bounds {
            lows.push(low);
            highs.push(high);
        }
        // One bound that is missing leaves the file without.
        if let Some(low) = lows.into_iter().collect::<Option<Vec<_>>>()
            && let Some(low) = low.into_iter().reduce(lesser)
        {
            insert(&mut least, path, low);
        }
        if let Some(high) = highs.into_iter().collect::<Option<Vec<_>>>()
            && let Some(high) = high.into_iter().reduce(greater)
        {
            insert(&mut most, path, high);
        }
    }
    json!({"numRecords": rows, "minValues": least, "maxValues": most, "nullCount": nulls})
}

/// Puts a value where the log has that of a column: within objects that are named like structs.
fn insert(into: &mut Map<String, Value>, path: &[String], value: Value) {
    match path {
        [] => {}
        [name] => {
            into.insert(name.clone(), value);
        }
        [name, rest @ ..] => {
            let inner = into.entry(name.clone()).or_insert_with(|| json!({}));
            if let Some(inner) = inner.as_object_mut() {
                insert(inner, rest, value);
            }
        }
    }
}

fn has_values(statistics: &Statistics) -> bool {
    statistics.min_bytes_opt().is_some() || statistics.max_bytes_opt().is_some()
}

/// Bounds of a column in a row group as the log writes them.
fn bounds(measure: Measure, statistics: &Statistics) -> Bounds {
    let (low, high) = match statistics {
        Statistics::Int64(s) if measure == Measure::Time => (
            s.min_opt().and_then(|min| instant(*min, false)),
            s.max_opt().and_then(|max| instant(*max, true)),
        ),
        Statistics::Int64(s) => (
            s.min_opt().map(|min| json!(min)),
            s.max_opt().map(|max| json!(max)),
        ),
        Statistics::Int32(s) if measure == Measure::Date => (
            s.min_opt().and_then(|min| day(*min)),
            s.max_opt().and_then(|max| day(*max)),
        ),
        Statistics::Int32(s) => (
            s.min_opt().map(|min| json!(min)),
            s.max_opt().map(|max| json!(max)),
        ),
        Statistics::ByteArray(s) => (
            s.min_opt()
                .and_then(|min| min.as_utf8().ok())
                .map(|min| Value::String(lower(min))),
            s.max_opt()
                .and_then(|max| max.as_utf8().ok())
                .and_then(upper)
                .map(Value::String),
        ),
        _ => (None, None),
    };
    Bounds { low, high }
}

/// A text of at most [`PREFIX`] characters that is not greater than `text`.
fn lower(text: &str) -> String {
    text.chars().take(PREFIX).collect()
}

/// A text of at most [`PREFIX`] characters that is not less than `text`, in the order of code
/// points, which is that of UTF-8's bytes; `None` if there is none.
///
/// A text that is cut has its last character replaced by the next one. A character added behind the
/// cut would not do: the text may go on with the greatest character there is, and then with another.
fn upper(text: &str) -> Option<String> {
    let mut kept: Vec<char> = text.chars().take(PREFIX + 1).collect();
    if kept.len() <= PREFIX {
        return Some(text.to_owned());
    }
    kept.truncate(PREFIX);
    while let Some(last) = kept.pop() {
        if let Some(next) = successor(last) {
            kept.push(next);
            return Some(kept.into_iter().collect());
        }
    }
    None
}

/// The next character: there is none behind the last, and surrogates are none.
fn successor(c: char) -> Option<char> {
    (c..=char::MAX).nth(1)
}

/// A time in milliseconds, which is what readers expect, rounded away from what it bounds.
fn instant(micros: i64, up: bool) -> Option<Value> {
    let millis = match up {
        true => micros.div_euclid(1_000) + i64::from(micros.rem_euclid(1_000) > 0),
        false => micros.div_euclid(1_000),
    };
    let time = jiff::Timestamp::from_millisecond(millis).ok()?;
    Some(json!(time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()))
}

fn day(days: i32) -> Option<Value> {
    let span = jiff::Span::new().try_days(days).ok()?;
    let date = jiff::civil::date(1970, 1, 1).checked_add(span).ok()?;
    Some(json!(date.to_string()))
}

fn lesser(a: Value, b: Value) -> Value {
    match is_less(&b, &a) {
        true => b,
        false => a,
    }
}

fn greater(a: Value, b: Value) -> Value {
    match is_less(&a, &b) {
        true => b,
        false => a,
    }
}

fn is_less(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::String(a), Value::String(b)) => a < b,
        (Value::Number(a), Value::Number(b)) => a.as_i64() < b.as_i64(),
        _ => false,
    }
}

#[cfg(test)]
mod tests;
