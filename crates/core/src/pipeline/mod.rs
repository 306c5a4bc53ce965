//! The pipeline: bindings, routes, lanes and the thread that serves them, shared by any number of
//! tracer providers.

mod admission;
mod builder;
mod delivery;
mod flush;
mod ingest;
mod refusal;
mod snapshot;

pub use builder::{
    MLFLOW_RUN_ID, MLFLOW_TRACE_SAMPLING_RATIO, OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_SCHEDULE_DELAY, PipelineBuilder,
};
pub use flush::{Flush, FlushGuard, FlushReport, LocationReport};
pub use ingest::Ingested;

use crate::binding::Bindings;
use crate::budget::{Budget, Overflow};
use crate::clock::later;
use crate::destination::Destination;
use crate::ingress::{Drained, Ingress};
use crate::lane::{LaneId, RetryPolicy, Spent};
use crate::log::Log;
use crate::mutant::Switch;
use crate::processor::DestinationProcessor;
use crate::record::{Resource, Span, SpanGroup, TraceUpdate};
use crate::routes::Routes;
use crate::sampler::DestinationSampler;
use crate::scope::Levels;
use crate::stats::{DropReason, PipelineStats};
use crate::transform::SpanTransform;
use admission::AtHand;
use delivery::Control;
use flush::{Asked, FlushState, Unfinished};
use opentelemetry::Context;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Bindings and delivery, shared by the tracer providers of an application. Cheap to clone; when
/// the last clone and the last processor are gone, what is queued is still delivered in the
/// background.
#[derive(Clone)]
pub struct Pipeline(Arc<Owner>);

/// Ends the pipeline when nobody can feed it any more.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        let state = FlushState::new(later(Instant::now(), self.0.flush_deadline));
        self.0.control(Control::Shutdown(Asked(state)));
    }
}

/// What all threads share.
pub(crate) struct Shared {
    pub(crate) levels: Levels,
    pub(crate) bindings: Bindings,
    pub(crate) routes: Routes,
    pub(crate) resources: boxcar::Vec<Arc<Resource>>,
    ingress: Ingress<Item, AtHand>,
    pub(crate) spent: Spent,
    /// Places for batches that are made ready ahead.
    pub(crate) ahead: Arc<Semaphore>,
    pub(crate) budget: Budget,
    lane_budget: usize,
    overflow: Overflow,
    pub(crate) retry: RetryPolicy,
    pub(crate) transform: Option<Box<dyn SpanTransform>>,
    run_id: Option<String>,
    sampling_ratio: f64,
    flush_deadline: Duration,
    pub(crate) totals: Totals,
    pub(crate) log: Log,
    writer: Uuid,
    control: Mutex<Controls>,
    delivery: OnceLock<Thread>,
    /// Flushes that wait for lanes; lanes report progress only while there are any.
    flushing: AtomicUsize,
    /// The shutdown deadline is over: nothing is retried any more.
    abandoned: AtomicBool,
    pub(crate) mutant: Switch,
}

#[derive(Default)]
struct Controls {
    waiting: Vec<Control>,
    /// The delivery thread has gone; nobody will answer.
    terminated: bool,
}

/// Spans that never reach a lane.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    pub(crate) unrouted: AtomicU64,
    pub(crate) discarded: AtomicU64,
    pub(crate) orphaned: AtomicU64,
    pub(crate) expired_bindings: AtomicU64,
    pub(crate) ignored_scopes: AtomicU64,
}

/// What travels through the ingress, already bound to one lane.
pub(crate) struct Item {
    lane: LaneId,
    bytes: usize,
    payload: Payload,
}

#[expect(
    clippy::large_enum_variant,
    reason = "nearly every item is a span of the SDK; boxing it would cost an allocation on the hot path"
)]
pub(crate) enum Payload {
    /// A span of the SDK and the index of its resource.
    Sdk(u32, Span),
    /// Decoded spans.
    Group(Box<SpanGroup>),
    Update(Box<TraceUpdate>),
}

impl Shared {
    pub(crate) fn flush_deadline(&self) -> Duration {
        self.flush_deadline
    }

    pub(crate) fn sampling_ratio(&self) -> f64 {
        self.sampling_ratio
    }

    fn wake_delivery(&self) {
        if let Some(thread) = self.delivery.get() {
            thread.unpark();
        }
    }

    /// A lane has finished or failed an attempt: a flush may be waiting for it.
    pub(crate) fn lane_progressed(&self) {
        if self.flushing.load(Ordering::SeqCst) > 0 {
            self.wake_delivery();
        }
    }

    /// Whether the shutdown deadline is over.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Relaxed)
    }

    /// Hands a request to the delivery thread, or answers it at once if that has gone.
    fn control(&self, control: Control) {
        {
            let mut controls = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            if !controls.terminated {
                controls.waiting.push(control);
                drop(controls);
                self.wake_delivery();
                return;
            }
        }
        let report = || flush::report(self, &Default::default(), Unfinished::InFlight);
        control.state().complete(report());
    }

    /// The delivery thread has panicked, which only a defect of this crate can cause. Nothing is
    /// accepted any more and nobody is left waiting.
    fn delivery_died(&self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.ingress.close();
        self.budget.wake();
        let settle = |at_hand: &mut AtHand| self.settle(at_hand);
        self.ingress.drain(&mut Drained::default(), settle, |item| {
            let lane = self.routes.lane(item.lane);
            let spans = match item.payload {
                Payload::Sdk(..) => 1,
                Payload::Group(group) => group.spans.len() as u64,
                Payload::Update(_) => 0,
            };
            lane.release(item.bytes, &self.budget);
            lane.counters.drop_spans(DropReason::Shutdown, spans);
        });
        let waiting = {
            let mut controls = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            controls.terminated = true;
            std::mem::take(&mut controls.waiting)
        };
        drop(waiting);
    }
}

impl Pipeline {
    /// A pipeline to configure.
    pub fn builder() -> PipelineBuilder {
        PipelineBuilder::new()
    }

    /// A span processor for a tracer provider. Each provider gets its own; all feed this pipeline.
    pub fn processor(&self) -> DestinationProcessor {
        DestinationProcessor::new(self.clone())
    }

    /// A sampler that keeps the share of traces their destination asks for.
    pub fn sampler(&self) -> DestinationSampler {
        DestinationSampler::new(self.shared().clone())
    }

    /// Writes everything that ended before the call, and reports per location. The result can be
    /// awaited on any runtime or waited for on any thread; dropping it cancels only the report.
    ///
    /// A lane's own backoff is skipped once; a delay that a server asked for is not.
    pub fn flush(&self, deadline: Duration) -> Flush {
        let state = FlushState::new(later(Instant::now(), deadline));
        self.shared().control(Control::Flush(Asked(state.clone())));
        Flush::new(state, self.shared().clone())
    }

    /// Flushes, closes every sink and ends delivery. Spans that end afterwards are counted as
    /// dropped; `stats` still answers. A second call reports and does nothing.
    pub fn shutdown(&self, deadline: Duration) -> Flush {
        let state = FlushState::new(later(Instant::now(), deadline));
        self.shared()
            .control(Control::Shutdown(Asked(state.clone())));
        Flush::new(state, self.shared().clone())
    }

    /// Flushes when dropped, waiting at most `deadline`: for the end of `main`.
    pub fn flush_guard(&self, deadline: Duration) -> FlushGuard {
        FlushGuard::new(self.clone(), deadline)
    }

    /// A snapshot of every counter.
    pub fn stats(&self) -> PipelineStats {
        self.shared().stats()
    }

    /// The destination of a local root started in `cx` now, all levels considered.
    pub fn resolve(&self, cx: &Context) -> Option<Destination> {
        self.shared().levels.resolve(cx)
    }

    /// What `on_start` asks for a local root, without binding anything: for benches, which measure
    /// this step alone.
    #[doc(hidden)]
    pub fn resolve_route(&self, cx: &Context) -> u32 {
        let shared = self.shared();
        shared.levels.route(cx, &shared.routes).0
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.0
    }

    pub(crate) fn from_shared(shared: Arc<Shared>) -> Self {
        register(&shared);
        Self(Arc::new(Owner(shared)))
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipeline")
            .field("writer", &self.shared().writer)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("writer", &self.writer)
            .finish_non_exhaustive()
    }
}

/// The pipelines of this process, for the trace-level API, which has no pipeline at hand.
static PIPELINES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

fn register(shared: &Arc<Shared>) {
    let mut all = PIPELINES.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|p| p.strong_count() > 0);
    all.push(Arc::downgrade(shared));
}

/// The pipelines of this process that are alive.
pub(crate) fn all() -> Vec<Arc<Shared>> {
    let all = PIPELINES.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).collect()
}

#[cfg(test)]
mod tests;
