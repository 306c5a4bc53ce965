//! Which share of traces is kept, and which traces are in it.

use opentelemetry::trace::{SpanKind, TraceId};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether any destination of this process ever got a ratio that drops traces. Never taken back, as
/// the flag of scopes.
static EVER_BY_DESTINATION: AtomicBool = AtomicBool::new(false);

/// Notes that a destination has a ratio of its own.
pub(crate) fn note_ratio(ratio: f64) {
    if ratio < 1.0 {
        EVER_BY_DESTINATION.store(true, Ordering::Relaxed);
    }
}

/// Which share of traces a pipeline keeps.
pub(crate) struct Sampling {
    pub(crate) ratio: f64,
    drops: bool,
    /// A sampler of the pipeline was made: a remote parent's flag then tells what was decided.
    pub(crate) by_sampler: AtomicBool,
}

impl Sampling {
    pub(crate) fn new(ratio: f64) -> Self {
        Self {
            ratio,
            drops: ratio < 1.0,
            by_sampler: AtomicBool::new(false),
        }
    }

    /// Whether any trace may have to be dropped.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.drops || EVER_BY_DESTINATION.load(Ordering::Relaxed)
    }
}

/// Whether a trace is among the share that is kept. One that is kept at a ratio is kept at any
/// higher one.
pub(crate) fn keeps(trace: TraceId, ratio: f64) -> bool {
    let decided = Sampler::TraceIdRatioBased(ratio).should_sample(
        None,
        trace,
        "",
        &SpanKind::Internal,
        &[],
        &[],
    );
    ratio >= 1.0 || decided.decision == SamplingDecision::RecordAndSample
}
