//! The delivery thread: takes spans out of the ingress, collects them into batches per lane, and
//! starts a task for each lane that has a batch. It never runs code of a sink.

mod control;
mod end;
mod room;
mod slots;
mod sweep;
mod values;

pub(super) use control::Control;
use end::close_sinks;
use room::Room;
use slots::{Slot, Slots};
use sweep::Sweeper;

use super::flush::Asked;
use super::report::{Unfinished, report};
use super::{Item, Payload, Shared};
use crate::binding::Which;
use crate::clock::later;
use crate::contain::caught;
use crate::delivery_thread;
use crate::error::{Error, ErrorKind};
use crate::ingress::Drained;
use crate::lane::{self, Lane, LaneId, OpenBatch, Phase, Pushed, Scopes, begin_ahead};
use crate::location::TraceValues;
use crate::record::BatchId;
use crate::route_id::RouteId;
use crate::stats::Dropped;
use crate::uri::LocationUri;
use opentelemetry::InstrumentationScope;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// How long the thread rests while spans keep coming: long enough to take many at once, short
/// against the age of a batch.
const ROUND: Duration = Duration::from_millis(5);
/// Threads that poll sinks. A sink that blocks one has its other tasks moved to a spare thread.
const WORKERS: usize = 2;
/// Sinks that may block at the same time before others are held up.
const MAX_BLOCKED: usize = 512;
/// Bounds of the time between two sweeps of the bindings.
const SWEEP: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(15));

/// How long things are kept.
#[derive(Debug)]
pub(super) struct Timing {
    pub(super) linger: Duration,
    /// How long a trace may wait for its destination, if it may.
    pub(super) late_wait: Option<Duration>,
    pub(super) idle_close: Duration,
    pub(super) max_trace_age: Duration,
}

/// Starts the delivery thread of a pipeline.
pub(super) fn start(shared: &Arc<Shared>, timing: Timing) -> Result<(), Error> {
    let failed = |what: &'static str, e: std::io::Error| {
        Error::new(ErrorKind::Internal, "build pipeline", what)
            .mend("raise the limit of threads of this process")
            .caused_by(e)
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MAX_BLOCKED)
        .thread_name("trace-delivery")
        .on_thread_start(delivery_thread::enter)
        .enable_all()
        .build()
        .map_err(|e| failed("no runtime could be started", e))?;
    let mut delivery = Delivery {
        shared: shared.clone(),
        runtime,
        tasks: watch::Sender::new(()),
        lanes: Slots::default(),
        growing: 0,
        room: Room::default(),
        due: BinaryHeap::new(),
        flushes: Vec::new(),
        drained: Drained::default(),
        scopes: Scopes::default(),
        sweeper: Sweeper::new(timing),
        retired: HashSet::new(),
        warned: (false, false, false),
    };
    let thread = std::thread::Builder::new()
        .name("trace-delivery".into())
        .spawn(move || {
            delivery_thread::enter();
            match caught(|| delivery.run()) {
                Ok(()) => delivery.terminate(),
                Err(panic) => delivery.died(&panic),
            }
        })
        .map_err(|e| failed("no thread could be started", e))?;
    let _ = shared.delivery.set(thread.thread().clone());
    Ok(())
}

struct Delivery {
    shared: Arc<Shared>,
    runtime: Runtime,
    /// Tells the tasks of lanes to end; each holds a receiver.
    tasks: watch::Sender<()>,
    /// Every lane that was given something and is not forgotten.
    lanes: Slots,
    /// Bytes in growing batches.
    growing: usize,
    room: Room,
    /// When growing batches become too old: one entry per lane at most, which may have been made
    /// for an earlier batch.
    due: BinaryHeap<Reverse<(Instant, LaneId)>>,
    flushes: Vec<ActiveFlush>,
    drained: Drained<Item>,
    scopes: Scopes,
    sweeper: Sweeper,
    /// Routes that nobody seems to use, to be forgotten if that is so at the next sweep.
    retired: HashSet<RouteId>,
    /// Whether the application was told of unrouted spans, of scopes without effect, and of roots
    /// that went below the scopes.
    warned: (bool, bool, bool),
}

struct ActiveFlush {
    state: Asked,
    /// Lanes that are not done yet.
    waiting: Vec<Waiting>,
    /// What lanes had dropped before, those that had.
    dropped_before: HashMap<LocationUri, Dropped>,
    shutdown: bool,
    /// The locations it is about, where it is not about all.
    only: Option<Arc<[LocationUri]>>,
    /// The deadline came before everything was done.
    timed_out: bool,
}

/// A lane that a flush waits for.
pub(super) struct Waiting {
    pub(super) lane: Arc<Lane>,
    /// The batch that has to be done.
    sequence: u64,
    /// Attempts that had begun when the flush did.
    attempts: u64,
}

impl Waiting {
    /// Whether the batch is done.
    fn is_done(&self) -> bool {
        self.lane.state().is_done(self.sequence)
    }

    /// Whether the lane tried once more and the place seems wrong for good: waiting for it any
    /// longer would only cost time.
    fn is_hopeless(&self) -> bool {
        let state = self.lane.state();
        state.phase == Phase::Failing && state.attempts > self.attempts
    }
}

impl Delivery {
    fn run(&mut self) {
        loop {
            let taken = self.take_ingress();
            let shutdown = self.take_controls();
            let now = Instant::now();
            self.seal_due(now);
            self.share_room(now);
            self.sweep(now);
            if self.finish_flushes(now) {
                return;
            }
            if shutdown {
                // Look again at once: the lanes may be empty already.
                continue;
            }
            let timer = self.next_timer(now);
            if taken > 0 {
                std::thread::park_timeout(timer.min(ROUND));
                continue;
            }
            self.shared.free_spent();
            if self.shared.ingress.fall_asleep() {
                std::thread::park_timeout(timer);
                self.shared.ingress.awake();
            }
        }
    }

    /// Moves everything from the ingress into growing batches, sealing those that are full.
    fn take_ingress(&mut self) -> usize {
        let mut drained = std::mem::take(&mut self.drained);
        let shared = self.shared.clone();
        let now = Instant::now();
        let taken = shared.ingress.drain(
            &mut drained,
            |at_hand| shared.settle(at_hand),
            |item| self.collect(item, now),
        );
        self.drained = drained;
        taken
    }

    fn collect(&mut self, item: Item, now: Instant) {
        let slot = match self.lanes.enter(item.lane) {
            Ok(slot) => slot,
            Err(empty) => match self.shared.routes.lane(item.lane) {
                Some(lane) => {
                    self.shared.budget.another_lane();
                    if self.shared.routes.lane_count() > sweep::MANY {
                        self.sweeper.soon(now);
                    }
                    empty.insert(Box::new(Slot::new(lane)))
                }
                None => return self.shared.drop_item(item),
            },
        };
        let usual = slot.usual as usize;
        let lane = &slot.lane;
        let batch = slot.batch.get_or_insert_with(|| {
            if !std::mem::replace(&mut slot.scheduled, true) {
                let due = later(now, lane.limits.age);
                self.due.push(Reverse((due, item.lane)));
            }
            Box::new(OpenBatch::new(
                now,
                self.shared.limits_of(lane, self.room.is_short()),
            ))
        });
        self.growing += item.bytes;
        match item.payload {
            Payload::Sdk(source, span) => {
                let resource = self.shared.resources.get(source as usize);
                // Sources are indices of resources; the first is there from the start.
                let resource = resource.unwrap_or(&self.shared.resources[0]);
                let scope = match span.sdk_scope() {
                    Some(scope) => self.scopes.of(scope),
                    None => self.scopes.of(&InstrumentationScope::default()),
                };
                let buffer = || self.shared.spent.take_empty(usual);
                batch.push_sdk(resource, scope, span, item.bytes, buffer);
            }
            Payload::Group(group) => batch.push_group(*group, item.bytes),
            Payload::Update(update) => batch.push_update(*update, item.bytes),
        }
        if batch.is_full() {
            self.seal(item.lane);
        } else if self.growing > self.shared.budget.limit() / 2 {
            // Room is made by writing: half of it must not wait for many batches to grow.
            self.seal_all();
        }
    }

    /// Hands the growing batch of a lane over to the lane's task.
    fn seal(&mut self, id: LaneId) {
        let Some(slot) = self.lanes.get_mut(id) else {
            return;
        };
        let Some(mut batch) = slot.batch.take() else {
            return;
        };
        slot.usual = u32::try_from(batch.len()).unwrap_or(u32::MAX);
        let lane = slot.lane.clone();
        let batch_id = BatchId {
            writer: self.shared.writer,
            // Only this thread seals, so the sequence cannot move in between.
            sequence: lane.state().sealed_seq + 1,
        };
        let (_, _, bytes) = batch.held();
        self.growing -= bytes;
        self.shared.write_on_roots(&lane, &mut batch);
        let run_id = self.shared.run_id.as_deref();
        let run_id = run_id.filter(|_| lane.trace_values == TraceValues::Stored);
        let sealed = batch.seal(batch_id, run_id);
        match lane.push(sealed) {
            Pushed::Start => self.spawn(lane::run(lane, self.shared.clone())),
            Pushed::Follows(following) => {
                begin_ahead(following, &lane, &self.shared, self.runtime.handle());
            }
            Pushed::Waits => {}
        }
    }

    /// Starts the task of a lane, which ends with the delivery at the latest.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut told = self.tasks.subscribe();
        self.runtime.spawn(async move {
            let mut end = pin!(told.changed());
            let mut task = pin!(task);
            poll_fn(|cx| match end.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(()),
                Poll::Pending => task.as_mut().poll(cx),
            })
            .await;
        });
    }

    fn seal_all(&mut self) {
        let growing = self.lanes.values().filter(|slot| slot.batch.is_some());
        let growing: Vec<LaneId> = growing.map(|slot| slot.lane.id).collect();
        for id in growing {
            self.seal(id);
        }
    }

    fn seal_due(&mut self, now: Instant) {
        while let Some(&Reverse((at, id))) = self.due.peek()
            && at <= now
        {
            self.due.pop();
            let Some(slot) = self.lanes.get_mut(id) else {
                continue;
            };
            slot.scheduled = false;
            let Some(batch) = &slot.batch else {
                continue;
            };
            // The entry may have been made for an earlier batch of the lane.
            let due = later(batch.since, slot.lane.limits.age);
            if due <= now {
                self.seal(id);
            } else {
                slot.scheduled = true;
                self.due.push(Reverse((due, id)));
            }
        }
    }

    /// Takes requests; true if one of them is a shutdown.
    fn take_controls(&mut self) -> bool {
        let controls = {
            let mut controls = self
                .shared
                .control
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            std::mem::take(&mut controls.waiting)
        };
        let mut shutdown = false;
        for control in controls {
            let (state, ends, only) = match control {
                Control::Flush(state, only) => (state, false, only),
                Control::Shutdown(state) => (state, true, None),
                #[cfg(test)]
                Control::Panic(_) => panic!("as told"),
                #[cfg(test)]
                Control::Stall(state, time) => {
                    std::thread::sleep(time);
                    (state, false, None)
                }
            };
            if ends {
                // Before the ingress is: whoever decides now is told that it is too late.
                self.shared.end_undecided(Which::All);
                self.shared.ingress.close();
                // Nobody needs room any more.
                self.shared.budget.wake();
            }
            shutdown |= ends;
            self.begin_flush(state, ends, only);
        }
        shutdown
    }

    fn begin_flush(&mut self, state: Asked, shutdown: bool, only: Option<Arc<[LocationUri]>>) {
        self.shared.flush_began();
        // Nobody is left in them who could decide, and the report has to be true.
        if only.is_none() {
            self.shared.end_undecided(Which::WithoutOpenSpan);
        }
        // A short program has no other time to hear of it.
        self.warn();
        // Before anything is sealed: a lane may have written and dropped by the time it is asked.
        // Every lane: one that never got a span may have dropped some.
        let lanes = match &only {
            Some(uris) => self.shared.routes.lanes_at(uris),
            None => self.shared.routes.all_lanes(),
        };
        self.shared.log_lost_values(&lanes);
        let dropped = lanes.iter().map(|lane| (lane, lane.dropped()));
        let dropped_before = dropped
            .filter(|(_, dropped)| dropped.total() > 0)
            .map(|(lane, dropped)| (lane.uri.clone(), dropped))
            .collect();
        // What was pushed before the request is in the ingress now at the latest.
        self.take_ingress();
        let lanes: Vec<Arc<Lane>> = match &only {
            Some(uris) => {
                let lanes = self.shared.routes.lanes_at(uris);
                lanes.iter().for_each(|lane| self.seal(lane.id));
                lanes
            }
            None => {
                self.seal_all();
                self.lanes.values().map(|slot| slot.lane.clone()).collect()
            }
        };
        let mut waiting = Vec::new();
        for lane in lanes {
            let lane_state = lane.state();
            if !lane_state.is_done(lane_state.sealed_seq) {
                waiting.push(Waiting {
                    lane: lane.clone(),
                    sequence: lane_state.sealed_seq,
                    attempts: lane_state.attempts + u64::from(lane_state.attempting),
                });
                lane.skip_backoff();
            }
        }
        self.flushes.push(ActiveFlush {
            state,
            waiting,
            dropped_before,
            shutdown,
            only,
            timed_out: false,
        });
    }

    /// Answers flushes that are done or over their deadline; true if one of them was a shutdown.
    fn finish_flushes(&mut self, now: Instant) -> bool {
        let shared = &self.shared;
        let mut shutdown = false;
        self.flushes.retain_mut(|flush| {
            // Most lanes are done sooner or later: those behind one that has to be waited for are
            // not looked at again each time another lane gets on.
            let mut waits = false;
            let mut left = flush.waiting.len();
            while let Some(last) = left.checked_sub(1).and_then(|i| flush.waiting.get(i)) {
                left -= 1;
                if last.is_done() {
                    flush.waiting.swap_remove(left);
                } else if !last.is_hopeless() {
                    waits = true;
                    break;
                }
            }
            if waits && now < flush.state.deadline {
                return true;
            }
            flush.waiting.retain(|waiting| !waiting.is_done());
            if flush.shutdown {
                // Answered when everything has ended: until then something may still be pending.
                shutdown = true;
                flush.timed_out = waits;
                close_sinks(shared, &self.runtime, flush);
                return true;
            }
            shared.flush_ended();
            shared.log.settle(false);
            let unfinished = Unfinished::Lanes(&flush.waiting, waits);
            let report = report(shared, Some(&flush.dropped_before), unfinished);
            flush.state.complete(report.only(flush.only.as_deref()));
            false
        });
        shutdown
    }

    fn next_timer(&self, now: Instant) -> Duration {
        let due = self.due.peek().map(|Reverse((at, _))| *at);
        let flush = self.flushes.iter().map(|f| f.state.deadline).min();
        [due, flush, self.room.next(), Some(self.sweeper.next)]
            .into_iter()
            .flatten()
            .min()
            .map_or(SWEEP.1, |at| at.saturating_duration_since(now))
    }
}
