//! Sends a file of captured OTLP traces to one or more destinations, through the same pipeline as
//! live spans. Run it:
//!
//! ```text
//! cargo run --example replay -- traces.jsonl 'sqlite:///traces.db?experiment_name=replay'
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr)]

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use std::collections::HashSet;
use std::error::Error as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use trace_destination::{
    Destination, DropReason, Error, ErrorKind, FlushReport, LocationReport, Overflow, Pipeline,
    RetryPolicy,
};
use trace_destination_otlp::{OtlpFile, Refused, ResourceSpans};

/// Send captured OTLP traces to one or more destinations.
#[derive(Parser)]
#[command(name = "replay", after_help = EXIT_STATUS)]
struct Args {
    /// Captured traces: OTLP protobuf (.binpb) or OTLP/JSON (.jsonl).
    file: PathBuf,

    /// Destinations, such as 'sqlite:///traces.db?experiment_name=replay'. Each gets every span.
    #[arg(required = true, value_name = "URI")]
    uris: Vec<String>,

    /// Seconds to wait for a destination that does not take spans.
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    timeout: u64,
}

const EXIT_STATUS: &str = "\
Exit status: 0 if every span was stored at every destination, 1 if some were not, 2 if the file is \
damaged (what could be read is stored) or the command line is wrong.";

fn main() -> ExitCode {
    let args = Args::parse();
    match replay(&args) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {}", in_full(&error));
            ExitCode::from(2)
        }
    }
}

/// Reads the file to its end and waits until what was in it is stored.
fn replay(args: &Args) -> Result<ExitCode, Error> {
    let legs = args.uris.iter().map(|u| trace_destination::destination(u));
    let destination = Destination::all(legs.collect::<Result<Vec<_>, _>>()?)?;
    let mut file = OtlpFile::open(&args.file)?;
    let timeout = Duration::from_secs(args.timeout);
    let pipeline = Pipeline::builder()
        // The file waits for the slowest destination, instead of losing spans.
        .with_overflow(Overflow::Block(timeout))
        .with_retry(RetryPolicy {
            deadline: timeout,
            ..RetryPolicy::default()
        })
        .build()?;

    let started = Instant::now();
    let bar = progress_bar(file.size());
    let mut read = Read::default();
    while let Some(groups) = file.next() {
        bar.set_position(file.position());
        match groups {
            Ok(groups) => read.send(groups, &pipeline, &destination),
            Err(error) => read.damaged(error),
        }
        bar.set_message(format!("{} spans", read.spans));
    }
    bar.set_message(format!(
        "{} spans, waiting until they are stored",
        read.spans
    ));
    let report = pipeline.shutdown(timeout).wait();
    bar.finish_and_clear();

    read.other_signals = file.other_signals();
    if read.damage.is_empty() && read.spans == 0 && read.invalid == 0 {
        let cause = match read.other_signals {
            0 => "it holds no spans".to_owned(),
            n => format!(
                "it holds {} of metrics or logs and no spans",
                count(n, "request")
            ),
        };
        let operation = format!("read {}", args.file.display());
        return Err(Error::new(ErrorKind::Corrupt, operation, cause)
            .mend("give a file of OTLP traces; metrics and logs have none"));
    }
    if read.spans > 0 || read.invalid > 0 {
        print_summary(args, &read, &destination, &report, started.elapsed());
    }
    for text in &read.damage {
        eprintln!("error: {text}");
    }
    if read.damages > SHOWN as u64 {
        eprintln!(
            "error: {} more",
            count(read.damages - SHOWN as u64, "damaged place")
        );
    }
    Ok(if read.damages > 0 {
        ExitCode::from(2)
    } else if read.all_stored(&destination, &report) {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

/// How many damaged places are named.
const SHOWN: usize = 20;

/// What the file held.
#[derive(Default)]
struct Read {
    /// Spans sent to the destinations.
    spans: u64,
    traces: HashSet<opentelemetry::trace::TraceId>,
    /// Spans in the file that are no valid spans.
    invalid: u64,
    first_invalid: Option<Refused>,
    /// Requests of metrics and logs.
    other_signals: u64,
    /// Places where the file is damaged, or holds what is no trace.
    damages: u64,
    /// The first of them.
    damage: Vec<String>,
}

impl Read {
    fn send(&mut self, groups: Vec<ResourceSpans>, pipeline: &Pipeline, destination: &Destination) {
        for group in groups {
            self.spans += group.spans.len() as u64;
            self.traces.extend(group.spans.iter().map(|s| s.trace_id));
            self.invalid += group.refused.len() as u64;
            if self.first_invalid.is_none() {
                self.first_invalid = group.refused.into_iter().next();
            }
            for fault in group.faults {
                self.damage_at(|| format!("{}: {}", fault.position, in_full(&fault.error)));
            }
            // What is dropped here is in the report, with its reason.
            let _ = pipeline.ingest(group.resource, group.scope, group.spans, destination);
        }
    }

    fn damaged(&mut self, error: Error) {
        self.damage_at(|| in_full(&error));
    }

    fn damage_at(&mut self, text: impl FnOnce() -> String) {
        self.damages += 1;
        if self.damage.len() < SHOWN {
            self.damage.push(text());
        }
    }

    fn all_stored(&self, destination: &Destination, report: &FlushReport) -> bool {
        let stored = |uri| report.location(uri).map_or(0, |l| l.stored);
        let mut locations = destination.locations().iter();
        self.invalid == 0 && locations.all(|l| stored(l.uri()) == self.spans)
    }
}

fn print_summary(
    args: &Args,
    read: &Read,
    destination: &Destination,
    report: &FlushReport,
    took: Duration,
) {
    println!(
        "{} in {} read from {} in {:.1} s",
        count(read.spans, "span"),
        count(read.traces.len() as u64, "trace"),
        args.file.display(),
        took.as_secs_f64()
    );
    if let Some(first) = &read.first_invalid {
        println!(
            "{} not sent; the first is {}: {}",
            count(read.invalid, "invalid span"),
            first.position,
            in_full(&first.error)
        );
    }
    if read.other_signals > 0 {
        println!(
            "{} of metrics and logs passed over",
            count(read.other_signals, "request")
        );
    }
    if read.damages > 0 {
        println!("{} passed over", count(read.damages, "damaged place"));
    }
    for location in destination.locations() {
        let uri = location.uri();
        match report.location(uri) {
            Some(l) => println!("  {uri}: {} stored{}", l.stored, not_stored(l)),
            None => println!("  {uri}: 0 stored"),
        }
    }
}

/// How many spans were not stored, by reason; nothing where all were.
fn not_stored(location: &LocationReport) -> String {
    let mut parts = Vec::new();
    if location.pending > 0 {
        parts.push(format!("{} still waiting", location.pending));
    }
    for reason in DropReason::ALL {
        let spans = location.dropped.by(reason);
        if spans > 0 {
            parts.push(format!("{spans} lost ({})", reason.as_str()));
        }
    }
    match (&location.error, parts.is_empty()) {
        (_, true) => String::new(),
        (Some(error), false) => format!(", {}: {}", parts.join(", "), in_full(error)),
        (None, false) => format!(", {}", parts.join(", ")),
    }
}

/// The error and everything beneath it: `Display` shows one layer.
fn in_full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(beneath) = source {
        text.push_str(&format!(": {beneath}"));
        source = beneath.source();
    }
    text
}

fn count(n: u64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// Shown on standard error if that is a terminal, else nowhere.
fn progress_bar(size: Option<u64>) -> ProgressBar {
    let bar = match size {
        Some(size) => ProgressBar::new(size),
        None => ProgressBar::no_length(),
    };
    let template = "{elapsed_precise} [{wide_bar}] {bytes}/{total_bytes} {msg}";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}
