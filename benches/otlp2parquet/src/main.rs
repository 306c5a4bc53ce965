//! Spans to Parquet, side by side with `otlp2parquet` 0.12: the same OTLP spans, the same
//! compression, one row group a file on either side. What it makes rows and files with is the crate
//! `otlp2records`, called here as its server calls it; its files are not compressed, so both sides
//! run once without compression and once with Zstandard, level 1, through the writer of their own
//! version of `parquet`.
//!
//! One process, sides taking turns, median of five. Theirs keeps attributes as JSON text, ours as
//! VARIANT; statistics and dictionaries are what each side itself chooses.

use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use prost::Message;
use std::hint::black_box;
use std::time::Instant;
use their_parquet::arrow::ArrowWriter as TheirWriter;
use their_parquet::basic::{Compression as TheirCompression, ZstdLevel as TheirLevel};
use their_parquet::file::properties::WriterProperties as TheirProperties;
use their_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use trace_destination_core::{BatchId, TraceBatch};
use trace_destination_otlp::{decode_protobuf, sample};
use trace_destination_unity_catalog::bench_support::{Converter, writer_properties};

/// Rounds that count; the median of them is reported.
const ROUNDS: usize = 5;
/// Rows of a row group, on either side: all there are.
const ROW_GROUP: usize = 1 << 20;

fn main() {
    let captured = sample::captured();
    let workloads = [
        ("agent traces", repeated(captured, 24, |_| {})),
        // The same spans without their long texts.
        (
            "small spans",
            repeated(captured, 64, |span| {
                span.attributes.retain(|kv| kv.encoded_len() < 100);
                span.events.clear();
            }),
        ),
    ];
    println!(
        "{:<14} {:<10} {:<22} {:>7} {:>14} {:>14}",
        "spans", "files", "from", "ratio", "ours, spans/s", "theirs"
    );
    for (name, request) in workloads {
        let bytes = request.encode_to_vec();
        let spans = spans_of(&request);
        for zstd in [false, true] {
            let files = if zstd { "zstd 1" } else { "plain" };
            let mut converter = Converter::default();
            let batch = batch(&bytes);
            // From what is in memory on either side, decoded.
            let decoded = compare(
                || ours(&mut converter, &batch, zstd),
                || request.clone(),
                |request| {
                    let rows =
                        otlp2records::transform_traces_decoded_for_bench(request, bytes.len());
                    theirs(&rows.expect("it takes OTLP"), zstd)
                },
            );
            report(name, files, "decoded spans", spans, decoded);
            let mut converter = Converter::default();
            let encoded = compare(
                || ours(&mut converter, &self::batch(&bytes), zstd),
                || (),
                |()| {
                    let rows =
                        otlp2records::transform_traces(&bytes, otlp2records::InputFormat::Protobuf);
                    theirs(&rows.expect("it takes OTLP"), zstd)
                },
            );
            report(name, files, "protobuf", spans, encoded);
        }
    }
}

/// Copies of a request with other ids, as one request.
fn repeated(
    request: &[u8],
    copies: u64,
    edit: impl Fn(&mut their_proto::tonic::trace::v1::Span),
) -> ExportTraceServiceRequest {
    let one = ExportTraceServiceRequest::decode(request).expect("it is OTLP");
    let mut all = one.clone();
    let spans = &mut all.resource_spans[0].scope_spans[0].spans;
    spans.clear();
    for copy in 0..copies {
        let spread = (copy + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
        let other = |id: &mut Vec<u8>| id.iter_mut().zip(spread).for_each(|(id, s)| *id ^= s);
        for span in &one.resource_spans[0].scope_spans[0].spans {
            let mut span = span.clone();
            other(&mut span.trace_id);
            other(&mut span.span_id);
            other(&mut span.parent_span_id);
            edit(&mut span);
            spans.push(span);
        }
    }
    all
}

fn spans_of(request: &ExportTraceServiceRequest) -> usize {
    request.resource_spans[0].scope_spans[0].spans.len()
}

fn batch(bytes: &[u8]) -> TraceBatch {
    let groups = decode_protobuf(bytes).expect("it is OTLP").into_iter();
    let id = BatchId {
        writer: uuid::Uuid::nil(),
        sequence: 1,
    };
    TraceBatch::new(id, groups.map(|g| g.into_group()).collect(), Vec::new())
}

fn ours(converter: &mut Converter, batch: &TraceBatch, zstd: bool) -> usize {
    let compression = match zstd {
        true => Compression::ZSTD(ZstdLevel::default()),
        false => Compression::UNCOMPRESSED,
    };
    let properties = writer_properties()
        .into_builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let (mut writer, mut properties, mut written) = (None, Some(properties), 0);
    let refused = converter.each_slice(batch, |rows| {
        let writer = writer.get_or_insert_with(|| {
            ArrowWriter::try_new(Vec::new(), rows.schema(), properties.take()).expect("a writer")
        });
        writer.write(&rows).expect("it takes rows");
        written += rows.num_rows();
    });
    assert!(refused.is_empty() && written == batch.span_count());
    let file = writer.expect("there are spans").into_inner();
    black_box(file.expect("it closes")).len()
}

fn theirs(rows: &their_arrow::RecordBatch, zstd: bool) -> usize {
    let compression = match zstd {
        true => TheirCompression::ZSTD(TheirLevel::default()),
        // What the crate itself writes.
        false => return black_box(otlp2records::to_parquet(rows).expect("it takes rows")).len(),
    };
    let properties = TheirProperties::builder()
        .set_compression(compression)
        .set_max_row_group_row_count(Some(ROW_GROUP))
        .build();
    let mut file = Vec::new();
    let mut writer =
        TheirWriter::try_new(&mut file, rows.schema(), Some(properties)).expect("a writer");
    writer.write(rows).expect("it takes rows");
    writer.close().expect("it closes");
    black_box(file).len()
}

/// Median seconds of either side, and bytes of their files.
struct Outcome {
    ours: (f64, usize),
    theirs: (f64, usize),
}

fn compare<T>(
    mut ours: impl FnMut() -> usize,
    prepare: impl Fn() -> T,
    theirs: impl Fn(T) -> usize,
) -> Outcome {
    let (mut a, mut b) = (Vec::new(), Vec::new());
    let mut sizes = (0, 0);
    // The first round is not counted: caches and allocators settle.
    for round in 0..=ROUNDS {
        let prepared = prepare();
        let started = Instant::now();
        sizes.0 = ours();
        let one = started.elapsed().as_secs_f64();
        let started = Instant::now();
        sizes.1 = theirs(prepared);
        let other = started.elapsed().as_secs_f64();
        if round > 0 {
            a.push(one);
            b.push(other);
        }
    }
    Outcome {
        ours: (median(a), sizes.0),
        theirs: (median(b), sizes.1),
    }
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

fn report(name: &str, files: &str, from: &str, spans: usize, outcome: Outcome) {
    println!(
        "{name:<14} {files:<10} {from:<22} {:>6.2}x {:>14.0} {:>14.0}   {} KB against {} KB",
        outcome.theirs.0 / outcome.ours.0,
        spans as f64 / outcome.ours.0,
        spans as f64 / outcome.theirs.0,
        outcome.ours.1 / 1_000,
        outcome.theirs.1 / 1_000,
    );
}
