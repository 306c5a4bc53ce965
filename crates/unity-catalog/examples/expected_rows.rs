//! Prints the rows that the spans of an OTLP file have to become in a spans table, one JSON object
//! per line, so that what an engine reads from a table can be compared with what went in:
//!
//! ```console
//! cargo run -p trace-destination-unity-catalog --example expected_rows -- traces.binpb
//! cargo run -p trace-destination-unity-catalog --example expected_rows -- --v1 traces.binpb
//! cargo run -p trace-destination-unity-catalog --example expected_rows -- --generated
//! ```
//!
//! The rows are made from the decoded spans by code that shares nothing with the writer. An object
//! has all 24 columns (with `--v1` the 20 of the older shape) under their names, in order:
//!
//! - STRING as text, INT and BIGINT as whole numbers, NULL as `null`; STRUCT as object, ARRAY as
//!   list, never NULL.
//! - `time` as microseconds since 1970 (a whole number), `date` as `YYYY-MM-DD`.
//! - VARIANT by its types: null, booleans and text as in JSON; a whole number for every integer
//!   (however many bits it takes), a number with a point or an exponent for a double (`3.0`);
//!   `{"$double": "NaN"}`, `"Infinity"` and `"-Infinity"` for those JSON cannot say;
//!   `{"$bytes": "<Base64>"}` for binary; lists; objects with their keys in byte order, where a key
//!   that itself begins with `$` has another `$` in front.
//! - MAP (with `--v1`) as an object of text and `null`, keys in byte order.
//!
//! Spans come in the order of the file; one that a table refuses (a time beyond 64 signed bits) is
//! left out, and counted on standard error. `--generated` takes the made traces of
//! `trace_destination_otlp::sample` in place of a file, `--captured` the captured ones.
#![expect(clippy::print_stderr, reason = "it is a command")]

#[path = "../tests/support/expected_rows.rs"]
mod expected;

use std::error::Error;
use std::io::{BufWriter, Write};
use trace_destination_core::SpanGroup;
use trace_destination_otlp::{OtlpFile, ResourceSpans, decode_protobuf, sample};

fn main() -> Result<(), Box<dyn Error>> {
    let mut version = 2;
    let mut groups: Vec<ResourceSpans> = Vec::new();
    for argument in std::env::args().skip(1) {
        match argument.as_str() {
            "--v1" => version = 1,
            "--captured" => groups.extend(decode_protobuf(sample::captured())?),
            "--generated" => {
                for request in sample::generated() {
                    groups.extend(decode_protobuf(&request)?);
                }
            }
            path => {
                for part in OtlpFile::open(path)? {
                    groups.extend(part?);
                }
            }
        }
    }
    if groups.is_empty() {
        return Err(
            "usage: expected_rows [--v1] (--captured | --generated | <OTLP file>)...".into(),
        );
    }
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut left_out = 0;
    for group in groups {
        let mut group: SpanGroup = group.into_group();
        let before = group.spans.len();
        group.spans.retain(|span| {
            let events = span.events().map(|e| e.time_unix_nano);
            [span.start_time_unix_nano(), span.end_time_unix_nano()]
                .into_iter()
                .chain(events)
                .all(|time| i64::try_from(time).is_ok())
        });
        left_out += before - group.spans.len();
        for row in expected::expected_rows(&group, version) {
            writeln!(out, "{row}")?;
        }
    }
    out.flush()?;
    if left_out > 0 {
        eprintln!("{left_out} spans left out, which tables refuse");
    }
    Ok(())
}
