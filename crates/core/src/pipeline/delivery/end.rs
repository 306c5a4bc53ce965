//! The end of delivery: what a shutdown does once its flush is over.

use super::{ActiveFlush, Delivery};
use crate::contain::caught;
use crate::lane;
use crate::pipeline::Shared;
use crate::pipeline::report::{Unfinished, report};
use crate::stats::DropReason;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// How often a shutdown looks whether idle sinks are closed by now.
const CLOSING_POLL: Duration = Duration::from_millis(5);

/// How long tasks may take to end that were told to. One whose sink blocks its thread takes longer,
/// and is left behind.
const ENDING: Duration = Duration::from_millis(250);

impl Delivery {
    /// Ends delivery after a panic of its thread.
    pub(super) fn died(mut self, panic: &str) {
        let shared = self.shared.clone();
        for slot in self.lanes.values_mut() {
            let Some(batch) = slot.batch.take() else {
                continue;
            };
            let lane = &slot.lane;
            let (spans, updates, bytes) = batch.held();
            lane.counters.drop_spans(DropReason::Shutdown, spans);
            lane.counters.lose_updates(updates);
            lane.release(bytes, &shared.budget);
        }
        // Answers those who wait, so the counters come first.
        shared.delivery_died(panic);
        if let Err(panic) = caught(|| self.terminate()) {
            shared.delivery_died(&panic);
        }
    }

    /// Ends delivery, and answers whoever waits for that.
    pub(super) fn terminate(self) {
        let Self {
            shared,
            runtime,
            tasks,
            flushes,
            ..
        } = self;
        shared.abandoned.store(true, Ordering::Relaxed);
        for lane in shared.routes.all_lanes() {
            lane.skip_backoff();
            lane.drop_queued(DropReason::Shutdown, &shared.budget);
        }
        // Tasks that still write are dropped at their next await and account for their batch. This
        // comes before the end of the runtime: timers beneath a sink panic when they are looked at
        // after it.
        tasks.send_replace(());
        let _ = runtime.block_on(async { tokio::time::timeout(ENDING, tasks.closed()).await });
        runtime.shutdown_background();
        for lane in shared.routes.all_lanes() {
            lane.give_up_late();
        }
        let waiting = {
            let mut controls = shared
                .control
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            controls.terminated = true;
            std::mem::take(&mut controls.waiting)
        };
        shared.log.settle(true);
        for flush in &flushes {
            let unfinished = match flush.shutdown {
                true => Unfinished::Lanes(&flush.waiting, flush.timed_out),
                false => Unfinished::InFlight,
            };
            let report = report(&shared, Some(&flush.dropped_before), unfinished);
            flush.state.complete(report.only(flush.only.as_deref()));
        }
        for control in &waiting {
            let report = report(&shared, None, Unfinished::InFlight);
            control.state().complete(report.only(control.only()));
        }
    }
}

/// Closes every open sink but those the flush has given up waiting for, until the deadline.
pub(super) fn close_sinks(shared: &Arc<Shared>, runtime: &Runtime, flush: &ActiveFlush) {
    let now = Instant::now();
    let deadline = flush.state.deadline;
    let mut closing = tokio::task::JoinSet::new();
    for lane in shared.routes.all_lanes() {
        if flush.waiting.iter().any(|stuck| stuck.lane.id == lane.id) {
            continue;
        }
        let shared = shared.clone();
        closing.spawn_on(
            async move {
                // Its last batch is done, but its task may not have noticed yet.
                while lane.is_running() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                if let Some(sink) = lane.take_idle_sink(Instant::now()) {
                    if let Err(error) = lane::close(sink, lane.turns(&shared)).await {
                        shared.log.closing(&lane.uri, &error);
                    }
                    lane.closed();
                }
            },
            runtime.handle(),
        );
    }
    // Closing is polite, not needed for what is stored; a second is left even past the deadline.
    let patience = deadline
        .saturating_duration_since(now)
        .max(Duration::from_secs(1));
    let _ = runtime.block_on(async {
        tokio::time::timeout(patience, async {
            while closing.join_next().await.is_some() {}
            // Sinks that were being closed already, because their lanes were idle.
            let lanes = shared.routes.all_lanes();
            while lanes.iter().any(|lane| lane.is_closing()) {
                tokio::time::sleep(CLOSING_POLL).await;
            }
        })
        .await
    });
}
