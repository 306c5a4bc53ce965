//! The pipeline: bindings, routes, lanes and the thread that serves them, shared by any number of
//! tracer providers.

mod admission;
mod builder;
mod delivery;
mod flush;
mod ingest;
mod inherited;
mod refusal;
mod report;
mod snapshot;
mod timer;
mod undecided;
mod values;

pub use builder::{
    MLFLOW_RUN_ID, MLFLOW_TRACE_SAMPLING_RATIO, OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
    OTEL_BSP_SCHEDULE_DELAY, PipelineBuilder,
};
pub use flush::{Flush, FlushGuard};
pub use ingest::{Ingested, RefusedSpans};
pub use report::{FlushReport, LocationReport};

use crate::binding::{Bindings, Room, Which};
use crate::budget::{Budget, Overflow};
use crate::clock::later;
use crate::contain::drop_apart;
use crate::destination::Destination;
use crate::error::{Error, ErrorKind};
use crate::ingress::{Drained, Ingress};
use crate::lane::{LaneId, PollTurns, RetryPolicy, Spent};
use crate::log::Log;
use crate::process::{PerProcess, Process};
use crate::processor::DestinationProcessor;
use crate::record::{Resource, Span, SpanGroup, TraceUpdate};
use crate::routes::Routes;
use crate::sampler::DestinationSampler;
use crate::sampling::Sampling;
use crate::scope::Levels;
use crate::stats::{DropReason, PipelineStats};
use crate::totals::Totals;
use crate::transform::SpanTransform;
use crate::uri::LocationUri;
use crate::values::WaitingValues;
use admission::AtHand;
use delivery::Control;
use flush::{Asked, FlushState};
use opentelemetry::Context;
use report::Unfinished;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Bindings and delivery, shared by the tracer providers of an application. Cheap to clone; when
/// the last clone and the last processor are gone, what is queued is still delivered in the
/// background.
///
/// A pipeline has threads, so it does not follow a `fork`. In the child, `flush`, `shutdown` and
/// `stats` return at once, spans are counted as dropped, and [`FlushReport::error`] tells to build
/// a new pipeline there. What was queued is the parent's to deliver.
#[derive(Clone)]
pub struct Pipeline(Arc<Owner>);

/// Ends the pipeline when nobody can feed it any more.
struct Owner(Arc<Shared>);

impl Drop for Owner {
    fn drop(&mut self) {
        if self.0.is_inherited() {
            return;
        }
        let state = FlushState::new(later(Instant::now(), self.0.flush_deadline));
        self.0.control(Control::Shutdown(Asked(state)));
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // It goes last on any thread, of the application's too.
        if let Some(hook) = self.transform.take() {
            drop_apart(hook);
        }
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
    /// Turns for polls of sinks that may block.
    pub(crate) turns: Arc<PollTurns>,
    pub(crate) budget: Budget,
    /// Trace-level values that wait for the root of their trace.
    values: WaitingValues,
    overflow: Overflow,
    pub(crate) retry: RetryPolicy,
    pub(crate) transform: Option<Box<dyn SpanTransform>>,
    run_id: Option<String>,
    pub(crate) sampling: Sampling,
    flush_deadline: Duration,
    pub(crate) totals: Arc<Totals>,
    /// What waits for the destination of its trace.
    pub(crate) room: Arc<Room>,
    pub(crate) log: Log,
    /// The process that has the delivery thread.
    process: Process,
    /// Why delivery ended, where it was not told to.
    defect: OnceLock<Error>,
    writer: Uuid,
    control: Mutex<Controls>,
    delivery: OnceLock<Thread>,
    /// Flushes that wait for lanes; lanes report progress only while there are any.
    flushing: AtomicUsize,
    /// The shutdown deadline is over: nothing is retried any more.
    abandoned: AtomicBool,
}

#[derive(Default)]
struct Controls {
    waiting: Vec<Control>,
    /// The delivery thread has gone; nobody will answer.
    terminated: bool,
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

    fn wake_delivery(&self) {
        if self.is_inherited() {
            return;
        }
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

    /// Hands a request to the delivery thread; it is about these locations, or about all.
    fn ask(
        self: &Arc<Self>,
        deadline: Duration,
        only: Option<Arc<[LocationUri]>>,
        request: impl FnOnce(Asked) -> Control,
    ) -> Flush {
        let state = FlushState::new(later(Instant::now(), deadline));
        if !self.is_inherited() {
            self.control(request(Asked(state.clone())));
        }
        Flush::new(state, self.clone(), only)
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
        let report = report::report(self, None, Unfinished::InFlight);
        control.state().complete(report.only(control.only()));
    }

    /// Accounts for an item that nobody will write.
    fn drop_item(&self, item: Item) {
        match self.routes.lane(item.lane) {
            Some(lane) => lane.release(item.bytes, &self.budget),
            None => self.budget.give(item.bytes),
        }
        self.count_dropped(&item);
    }

    /// The delivery thread has panicked, which only a defect of this crate can cause. Nothing is
    /// accepted any more and nobody is left waiting.
    fn delivery_died(&self, panic: &str) {
        let error = Error::new(
            ErrorKind::Internal,
            "deliver traces",
            format!("the delivery thread panicked: {panic}"),
        )
        .mend("report this defect, and build a new pipeline");
        if self.defect.set(error.clone()).is_ok() {
            self.log.delivery_died(&error);
        }
        self.abandoned.store(true, Ordering::Relaxed);
        self.end_undecided(Which::All);
        self.ingress.close();
        self.budget.wake();
        let settle = |at_hand: &mut AtHand| self.settle(at_hand);
        self.ingress
            .drain(&mut Drained::default(), settle, |item| self.drop_item(item));
        let waiting = {
            let mut controls = self.control.lock().unwrap_or_else(PoisonError::into_inner);
            controls.terminated = true;
            std::mem::take(&mut controls.waiting)
        };
        drop(waiting);
    }

    /// Counts what an item holds as dropped with the pipeline.
    fn count_dropped(&self, item: &Item) {
        let (spans, updates) = match &item.payload {
            Payload::Sdk(..) => (1, 0),
            Payload::Group(group) => (group.spans.len() as u64, 0),
            Payload::Update(_) => (0, 1),
        };
        match self.routes.lane(item.lane) {
            Some(lane) => {
                lane.counters.drop_spans(DropReason::Shutdown, spans);
                lane.counters.lose_updates(updates);
            }
            // The lane was forgotten while the item was on its way, or while its route was looked up.
            None => {
                self.levels.look_again();
                self.totals.orphaned.fetch_add(spans, Ordering::Relaxed);
            }
        }
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

    /// A sampler that keeps the share of traces their destination asks for. The pipeline keeps no
    /// more than that without it too; with it the spans of other traces are not even recorded, and
    /// other processes are told so.
    pub fn sampler(&self) -> DestinationSampler {
        DestinationSampler::new(self.shared().clone())
    }

    /// Writes everything that ended before the call, and reports per location. The result can be
    /// awaited on any runtime or waited for on any thread; dropping it cancels only the report.
    ///
    /// A lane's own backoff is skipped once; a delay that a server asked for is not.
    pub fn flush(&self, deadline: Duration) -> Flush {
        let all = |asked| Control::Flush(asked, None);
        self.shared().ask(deadline, None, all)
    }

    /// Like [`flush`](Self::flush), for the locations of one destination: it waits for these alone,
    /// whatever becomes of others, and reports on these alone. Locations that no span ever went to
    /// are not in the report; [`Destination::discard`] and [`Destination::unset`] have none.
    ///
    /// In the report, [`nothing_lost`](FlushReport::nothing_lost) is about spans dropped while this
    /// flush ran, and what was lost or waits without a location is no part of it: that is no one's of
    /// this destination. What it tells is news to a flush of everything all the same.
    pub fn flush_destination(&self, destination: &Destination, deadline: Duration) -> Flush {
        let uris = destination.legs().map_or(&[][..], |legs| legs.uris());
        let only: Arc<[LocationUri]> = uris.into();
        let of_these = {
            let only = only.clone();
            move |asked| Control::Flush(asked, Some(only))
        };
        self.shared().ask(deadline, Some(only), of_these)
    }

    /// Flushes, closes every sink and ends delivery. Spans that end afterwards are counted as
    /// dropped; `stats` still answers. A second call reports and does nothing.
    pub fn shutdown(&self, deadline: Duration) -> Flush {
        self.shared().ask(deadline, None, Control::Shutdown)
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
static PIPELINES: PerProcess<Mutex<Vec<Weak<Shared>>>> = PerProcess::new();

fn register(shared: &Arc<Shared>) {
    let pipelines = PIPELINES.get();
    let mut all = pipelines.1.lock().unwrap_or_else(PoisonError::into_inner);
    all.retain(|p| p.strong_count() > 0);
    all.push(Arc::downgrade(shared));
}

/// The pipelines of this process that are alive.
pub(crate) fn all() -> Vec<Arc<Shared>> {
    let pipelines = PIPELINES.get();
    let all = pipelines.1.lock().unwrap_or_else(PoisonError::into_inner);
    all.iter().filter_map(Weak::upgrade).collect()
}

#[cfg(test)]
mod tests;
