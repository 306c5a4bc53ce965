//! Values whose root does not come.

use super::Delivery;
use crate::error::Error;
use crate::pipeline::values::lost;
use opentelemetry::trace::TraceId;
use std::time::{Duration, Instant};

/// How long values stay whose trace has no open root any more. A thread that ends a root may be held
/// up between the end of its binding and the hand-over of the span.
const GRACE: Duration = Duration::from_secs(1);

impl Delivery {
    /// Counts values as lost whose root does not come: it was dropped for want of room, or its trace
    /// has expired.
    pub(super) fn lose_unawaited_values(&self, now: Instant) {
        let is_settled = |id, since: Instant| {
            let Some(over) = since.checked_add(GRACE).filter(|over| *over < now) else {
                return false;
            };
            // The root may be in the batch that grows.
            let batch = self.lanes.get(id).and_then(|slot| slot.batch.as_deref());
            batch.is_none_or(|batch| batch.since > over)
        };
        let is_awaited = |id, trace| self.shared.awaits_root(id, trace);
        let gone = self
            .shared
            .values
            .take_unawaited(now, is_awaited, is_settled);
        for (id, waiting) in gone {
            let error = without_root(waiting.update.trace_id);
            self.shared.lose_waiting(id, &waiting, error);
        }
    }
}

fn without_root(trace: TraceId) -> Error {
    lost(trace, "its root span did not come").mend(
        "end every span; where spans are dropped for want of room, raise the budget of the pipeline",
    )
}
