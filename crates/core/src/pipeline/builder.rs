//! Configuring and starting a pipeline.

use super::{Controls, Pipeline, Shared, delivery};
use crate::binding::{self, Bindings, Room};
use crate::budget::{Budget, Overflow};
use crate::config::{EnvSource, millis_var, parse_var};
use crate::contain::caught;
use crate::destination::Destination;
use crate::error::{Error, ErrorKind};
use crate::ingress::Ingress;
use crate::lane::{AHEAD, RetryPolicy, Spent};
use crate::location::{BatchLimits, BatchSettings};
use crate::log::Log;
use crate::metrics;
use crate::process::Process;
use crate::record::Resource;
use crate::routes::Routes;
use crate::sampling::Sampling;
use crate::scope::{GlobalSlot, Levels, process_slot};
use crate::totals::Totals;
use crate::transform::SpanTransform;
use crate::values::WaitingValues;
use opentelemetry::metrics::Meter;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use tokio::sync::Semaphore;
use uuid::Uuid;

/// Spans per batch, as OpenTelemetry's batch span processor reads it.
pub const OTEL_BSP_MAX_EXPORT_BATCH_SIZE: &str = "OTEL_BSP_MAX_EXPORT_BATCH_SIZE";
/// Longest time a span waits for its batch, in milliseconds, as OpenTelemetry's batch span
/// processor reads it.
pub const OTEL_BSP_SCHEDULE_DELAY: &str = "OTEL_BSP_SCHEDULE_DELAY";
/// Share of traces kept, 0 to 1, as MLflow 3.17.2 reads it.
pub const MLFLOW_TRACE_SAMPLING_RATIO: &str = "MLFLOW_TRACE_SAMPLING_RATIO";
/// The MLflow run every trace of this process is linked to.
pub const MLFLOW_RUN_ID: &str = "MLFLOW_RUN_ID";

/// How long a trace waits for its destination in a strict pipeline.
const LATE_WAIT: Duration = Duration::from_secs(30);
/// The part of the budget in which such traces wait.
const LATE_PART: usize = 16;

/// Settings of a pipeline; every one has a default that suits most programs.
#[must_use = "a builder does nothing until `build`"]
pub struct PipelineBuilder {
    global: Arc<GlobalSlot>,
    environment: Option<Destination>,
    strict: bool,
    late_binding: Option<(Duration, usize)>,
    process_budget: usize,
    lane_budget: usize,
    overflow: Overflow,
    limits: BatchSettings,
    linger: Duration,
    idle_close: Duration,
    max_trace_age: Duration,
    flush_deadline: Duration,
    retry: RetryPolicy,
    transform: Option<Box<dyn SpanTransform>>,
    meter: Option<Meter>,
    metric_locations: usize,
    run_id: Option<String>,
    sampling_ratio: f64,
}

impl PipelineBuilder {
    pub(super) fn new() -> Self {
        Self {
            global: process_slot().clone(),
            environment: None,
            strict: false,
            late_binding: None,
            process_budget: 64 << 20,
            lane_budget: 16 << 20,
            overflow: Overflow::default(),
            limits: BatchSettings::default(),
            linger: Duration::from_secs(30),
            idle_close: Duration::from_secs(60),
            max_trace_age: Duration::from_secs(24 * 60 * 60),
            flush_deadline: Duration::from_secs(30),
            retry: RetryPolicy::default(),
            transform: None,
            meter: None,
            metric_locations: 0,
            run_id: None,
            sampling_ratio: 1.0,
        }
    }

    /// Takes the global destination from another slot than that of the process.
    pub fn with_global(mut self, slot: Arc<GlobalSlot>) -> Self {
        self.global = slot;
        self
    }

    /// The destination of traces for which neither the context nor the global slot has one.
    pub fn with_environment(mut self, destination: Destination) -> Self {
        self.environment = Some(destination);
        self
    }

    /// Only the context-local scope counts: a trace without one is not stored. The setting for
    /// multi-tenant processes, where a fallback would mix tenants. A trace may get its destination
    /// after its root has started, see [`with_late_binding`](Self::with_late_binding).
    pub fn strict(mut self) -> Self {
        self.strict = true;
        self
    }

    /// Traces whose root starts without a destination wait for one, at most for `wait` (and a
    /// quarter of it more), in `bytes` of memory: a part of the pipeline's budget that is kept for
    /// them, so that they and other traces take no room from each other. Under
    /// [`strict`](Self::strict) this is on by itself, with 30 s and a sixteenth of the budget; zero
    /// bytes turn it off. Without `strict` it is off by itself, and with a global or an environment's
    /// destination no root starts without one.
    ///
    /// Code that runs inside the trace decides, once: by
    /// [`bind_current_trace`](crate::bind_current_trace), or by starting a span in a scope that was
    /// entered there.
    /// The spans that ended before, and the trace's values, then follow. A further scope that names
    /// another destination is followed by the spans that start in it, which are stored there as a
    /// part of the same trace.
    ///
    /// What waits is counted as unrouted after `wait`, when the pipeline is shut down, and once no
    /// span of the trace is open: with the next flush, and after the linger time at the latest. A
    /// span that finds no room is counted at once; a single trace holds an eighth of what is free at
    /// most, and beyond a half of the room only traces with open spans wait.
    ///
    /// The sampling ratio of the destination that is named decides about the whole trace. With
    /// [`Pipeline::sampler`](crate::Pipeline::sampler), the pipeline's ratio was applied at its start,
    /// and of the two the smaller one counts.
    pub fn with_late_binding(mut self, wait: Duration, bytes: usize) -> Self {
        self.late_binding = Some((wait, bytes));
        self
    }

    /// Memory for spans that are not stored yet, in bytes: of the pipeline (64 MiB) and of one
    /// location (16 MiB). A span larger than a budget is taken while the budget is empty.
    pub fn with_budget(mut self, process: usize, lane: usize) -> Self {
        self.process_budget = process;
        self.lane_budget = lane;
        self
    }

    /// What happens when a budget is exhausted.
    pub fn with_overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// When a batch is ready, instead of what each backend prefers.
    pub fn with_batch_limits(mut self, limits: BatchLimits) -> Self {
        self.limits = limits.into();
        self
    }

    /// How long a trace stays bound after its last span ended, for children that start late; 30 s,
    /// or until some 8,000 further traces have ended (a hundred, of roots that share one trace id
    /// from outside). Zero for not at all.
    pub fn with_linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// How long a location stays open without being written; 60 s.
    pub fn with_idle_close(mut self, idle: Duration) -> Self {
        self.idle_close = idle;
        self
    }

    /// How long a trace may stay open before its binding expires; 24 h.
    pub fn with_max_trace_age(mut self, age: Duration) -> Self {
        self.max_trace_age = age;
        self
    }

    /// How long a flush may take where its caller names no deadline; 30 s.
    pub fn with_flush_deadline(mut self, deadline: Duration) -> Self {
        self.flush_deadline = deadline;
        self
    }

    /// When a failed batch is written again.
    pub fn with_retry(mut self, retry: RetryPolicy) -> Self {
        self.retry = retry;
        self
    }

    /// A hook that edits spans before they are stored.
    pub fn with_transform(mut self, transform: impl SpanTransform) -> Self {
        self.transform = Some(Box::new(transform));
        self
    }

    /// Publishes the counters as OpenTelemetry metrics, per backend and reason.
    pub fn with_meter(mut self, meter: Meter) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Adds the location to the metrics' attributes, for the first `at_most` locations; the rest
    /// is summed up per backend. Off by default: each location is a time series.
    pub fn with_metrics_per_location(mut self, at_most: usize) -> Self {
        self.metric_locations = at_most;
        self
    }

    /// Links every trace whose root ends in this process to an MLflow run.
    pub fn with_run_id(mut self, run_id: impl Into<String>) -> Self {
        self.run_id = Some(run_id.into());
        self
    }

    /// The share of traces kept for destinations without their own, from 0 to 1; 1. Decided by the
    /// trace id, as OpenTelemetry's `TraceIdRatioBased` does: whole traces, in every process with the
    /// same ratio. Spans of the others are counted as `sampled_out`.
    pub fn with_sampling_ratio(mut self, ratio: f64) -> Self {
        self.sampling_ratio = ratio;
        self
    }

    /// Reads the variables that mean the same here as in OpenTelemetry or MLflow:
    /// [`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`], [`OTEL_BSP_SCHEDULE_DELAY`],
    /// [`MLFLOW_TRACE_SAMPLING_RATIO`], [`MLFLOW_RUN_ID`].
    ///
    /// # Errors
    /// `InvalidConfig` naming the variable, its value and what was expected; `Internal` if `env`
    /// panics.
    pub fn with_env(self, env: &dyn EnvSource) -> Result<Self, Error> {
        caught(|| self.read_env(env)).unwrap_or_else(|panic| {
            let cause = format!("the source panicked: {panic}");
            Err(Error::new(ErrorKind::Internal, "read environment", cause)
                .mend("mend the `EnvSource`"))
        })
    }

    fn read_env(mut self, env: &dyn EnvSource) -> Result<Self, Error> {
        let spans: Option<std::num::NonZeroUsize> = parse_var(
            env,
            OTEL_BSP_MAX_EXPORT_BATCH_SIZE,
            "a number of spans, at least 1",
        )?;
        let spans = spans.map(std::num::NonZeroUsize::get);
        self.limits.spans = spans.or(self.limits.spans);
        let age = millis_var(env, OTEL_BSP_SCHEDULE_DELAY)?;
        self.limits.age = age.or(self.limits.age);
        if let Some(ratio) = parse_var(env, MLFLOW_TRACE_SAMPLING_RATIO, "a number from 0 to 1")? {
            self.sampling_ratio = ratio;
        }
        if let Some(run_id) = env.var(MLFLOW_RUN_ID)? {
            self.run_id = Some(run_id);
        }
        Ok(self)
    }

    /// Starts the pipeline: one delivery thread and a small runtime of its own.
    ///
    /// # Errors
    /// `InvalidConfig` for a setting out of range, `Internal` if no thread can be started or the
    /// meter panics.
    pub fn build(self) -> Result<Pipeline, Error> {
        static NEXT_ID: AtomicU32 = AtomicU32::new(1);
        if !(0.0..=1.0).contains(&self.sampling_ratio) {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "build pipeline",
                format!(
                    "the sampling ratio {} is not between 0 and 1",
                    self.sampling_ratio
                ),
            )
            .mend(format!(
                "correct `with_sampling_ratio` or {MLFLOW_TRACE_SAMPLING_RATIO}"
            )));
        }
        let (late_wait, late_bytes) = match self.late_binding {
            Some(set) => set,
            None if self.strict => (LATE_WAIT, self.process_budget / LATE_PART),
            None => (LATE_WAIT, 0),
        };
        if late_bytes > self.process_budget / 2 {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "build pipeline",
                format!(
                    "late binding would take {late_bytes} bytes of a budget of {}",
                    self.process_budget
                ),
            )
            .mend("give `with_late_binding` half of the budget at most, or raise `with_budget`"));
        }
        let totals = Arc::<Totals>::default();
        let threads = std::thread::available_parallelism().map_or(4, usize::from);
        let shared = Arc::new(Shared {
            levels: Levels {
                global: self.global,
                environment: self.environment,
                strict: self.strict,
                memo: AtomicU64::new(0),
                unscoped: AtomicU64::new(0),
            },
            bindings: Bindings::new(binding::SHARDS, !self.linger.is_zero()),
            routes: Routes::new(
                NEXT_ID.fetch_add(1, Ordering::Relaxed),
                self.limits,
                self.lane_budget,
            ),
            resources: boxcar::vec![Arc::new(Resource::default())],
            ingress: Ingress::new((2 * threads).clamp(4, 64)),
            spent: Spent::new(self.process_budget),
            ahead: Arc::new(Semaphore::new(AHEAD)),
            turns: Arc::default(),
            budget: Budget::new(self.process_budget - late_bytes),
            values: WaitingValues::new(self.process_budget, self.lane_budget),
            overflow: self.overflow,
            retry: self.retry,
            transform: self.transform,
            run_id: self.run_id,
            sampling: Sampling::new(self.sampling_ratio),
            flush_deadline: self.flush_deadline,
            room: Room::new(late_bytes, totals.clone()),
            totals,
            log: Log::default(),
            process: Process::current(),
            defect: OnceLock::new(),
            writer: Uuid::new_v4(),
            control: Mutex::new(Controls::default()),
            delivery: OnceLock::new(),
            flushing: AtomicUsize::new(0),
            abandoned: AtomicBool::new(false),
        });
        delivery::start(
            &shared,
            delivery::Timing {
                linger: self.linger,
                late_wait: (late_bytes > 0).then_some(late_wait),
                idle_close: self.idle_close,
                max_trace_age: self.max_trace_age,
            },
        )?;
        if let Some(meter) = self.meter {
            let registered = caught(|| metrics::register(&meter, &shared, self.metric_locations));
            if let Err(panic) = registered {
                // Nobody has the pipeline yet who could end it.
                drop(Pipeline::from_shared(shared));
                return Err(Error::new(
                    ErrorKind::Internal,
                    "register metrics",
                    format!("the meter panicked: {panic}"),
                )
                .mend("mend the meter, or leave out `with_meter`"));
            }
        }
        Ok(Pipeline::from_shared(shared))
    }
}

impl fmt::Debug for PipelineBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PipelineBuilder")
            .field("environment", &self.environment)
            .field("strict", &self.strict)
            .field("batch", &self.limits)
            .field("run_id", &self.run_id)
            .field("sampling_ratio", &self.sampling_ratio)
            .field("overflow", &self.overflow)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::Duration;

    #[test]
    fn a_variable_replaces_one_limit_and_leaves_the_others_to_the_location() {
        let own = BatchLimits {
            spans: 16_384,
            bytes: 8 << 20,
            age: Duration::from_secs(5),
        };
        let limits = |variables: &[(&str, &str)]| {
            let variables = variables.iter().map(|(k, v)| ((*k).into(), (*v).into()));
            let env: BTreeMap<String, String> = variables.collect();
            let builder = PipelineBuilder::new().with_env(&env).unwrap();
            builder.limits.over(own)
        };
        assert_eq!(limits(&[]), own);
        let age = Duration::from_millis(250);
        assert_eq!(
            limits(&[(OTEL_BSP_SCHEDULE_DELAY, "250")]),
            BatchLimits { age, ..own }
        );
        assert_eq!(
            limits(&[(OTEL_BSP_MAX_EXPORT_BATCH_SIZE, "64")]),
            BatchLimits { spans: 64, ..own }
        );
        let set = PipelineBuilder::new().with_batch_limits(BatchLimits::default());
        assert_eq!(set.limits.over(own), BatchLimits::default());
    }
}
