//! A sealed batch on its way to the sink. It is made ready once, by the hook and the sink's encoder:
//! when its turn comes, or ahead of it, while the batch before it is written.

use super::Lane;
use crate::error::{Error, ErrorKind};
use crate::location::BatchEncoder;
use crate::pipeline::Shared;
use crate::record::{Span, SpanGroup, TraceBatch};
use crate::transform::{SpanTransform, Verdict, apply};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;
use tokio::runtime::Handle;

/// Batches of a pipeline that are made ready ahead at the same time.
pub(crate) const AHEAD: usize = 2;

/// A batch with what the budgets and the counters know of it.
pub(crate) struct Sealed {
    pub(crate) sequence: u64,
    /// When it was sealed.
    pub(crate) since: Instant,
    /// Spans and trace-level values, before the hook took any out.
    pub(crate) spans: u64,
    pub(crate) updates: usize,
    pub(crate) bytes: usize,
    raw: Mutex<Option<TraceBatch>>,
    ready: OnceLock<Ready>,
    /// Somebody makes it ready, or has.
    claimed: AtomicBool,
}

/// What is written.
pub(super) struct Ready {
    pub(super) batch: TraceBatch,
    /// Spans that the hook took out.
    pub(super) lost: u64,
    /// Why, where it panicked.
    pub(super) hook_error: Option<Error>,
    /// The memory of what was encoded ahead.
    _encoded: Option<HeldBytes>,
}

/// Memory that is counted in the budgets until this is dropped.
struct HeldBytes {
    bytes: usize,
    lane: Arc<Lane>,
    shared: Arc<Shared>,
}

impl HeldBytes {
    fn new(bytes: usize, lane: &Arc<Lane>, shared: &Arc<Shared>) -> Self {
        lane.intake().add(bytes, &shared.budget);
        Self {
            bytes,
            lane: lane.clone(),
            shared: shared.clone(),
        }
    }
}

impl Drop for HeldBytes {
    fn drop(&mut self) {
        self.lane.release(self.bytes, &self.shared.budget);
    }
}

impl Sealed {
    pub(crate) fn new(batch: TraceBatch, bytes: usize) -> Self {
        Self {
            sequence: batch.id.sequence,
            since: Instant::now(),
            spans: batch.span_count() as u64,
            updates: batch.updates.len(),
            bytes,
            raw: Mutex::new(Some(batch)),
            ready: OnceLock::new(),
            claimed: AtomicBool::new(false),
        }
    }

    /// Runs the hook, unless that was done; waits for whoever does it at the moment.
    pub(super) fn ready(&self, lane: &Arc<Lane>, shared: &Arc<Shared>) -> &Ready {
        if let Some(ready) = self.ready.get() {
            return ready;
        }
        let claimed = self.claimed.swap(true, Ordering::AcqRel);
        if shared.transform.is_none() && !claimed {
            return self.make_ready(lane, shared, None);
        }
        // A hook is the application's code and may take its time, like a sink.
        tokio::task::block_in_place(|| self.make_ready(lane, shared, None))
    }

    fn make_ready(
        &self,
        lane: &Arc<Lane>,
        shared: &Arc<Shared>,
        encoder: Option<&dyn BatchEncoder>,
    ) -> &Ready {
        self.ready.get_or_init(|| {
            let raw = self
                .raw
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            let mut batch = raw.expect("a batch is taken once, by whoever makes it ready");
            let (lost, hook_error) = match &shared.transform {
                Some(hook) => transform(&**hook, lane, &mut batch),
                None => (0, None),
            };
            let mut held = None;
            if let Some(encoder) = encoder {
                // A panic is the sink's to repeat when its turn comes, where it is reported.
                let encoded = catch_unwind(AssertUnwindSafe(|| encoder.encode(&batch)));
                batch.encoded = encoded.ok().flatten();
                let bytes = batch.encoded.as_ref().map(|e| encoder.encoded_bytes(&**e));
                held = bytes.map(|bytes| HeldBytes::new(bytes, lane, shared));
            }
            Ready {
                batch,
                lost,
                hook_error,
                _encoded: held,
            }
        })
    }

    /// The batch, if it was made ready, for whoever frees or cuts it.
    pub(super) fn into_batch(self) -> Option<TraceBatch> {
        self.ready.into_inner().map(|ready| ready.batch)
    }

    /// Takes the newest spans out until `keep` bytes are left. `None` if nothing would be left, or
    /// if the batch was made ready already: what was encoded holds all of it.
    pub(super) fn cut_to(self, keep: usize) -> Option<(Self, Cut)> {
        let (since, updates, bytes) = (self.since, self.updates, self.bytes);
        let raw = self
            .raw
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let mut batch = raw?;
        let cut = batch_cut(&mut batch, bytes, keep);
        let left = Self {
            since,
            updates,
            ..Self::new(batch, bytes.saturating_sub(cut.bytes))
        };
        (left.spans > 0).then_some((left, cut))
    }
}

/// What was taken out of a batch, the newest spans first.
#[derive(Default)]
pub(crate) struct Cut {
    /// Freed by whoever has no lock.
    pub(crate) spans: Vec<Span>,
    pub(crate) bytes: usize,
}

impl Cut {
    /// Takes spans out until they make `excess` bytes.
    pub(super) fn of(groups: &mut Vec<SpanGroup>, excess: usize) -> Self {
        let mut cut = Self::default();
        while cut.bytes < excess
            && let Some(group) = groups.last_mut()
        {
            match group.spans.pop() {
                Some(span) => {
                    cut.bytes += span.approximate_bytes();
                    cut.spans.push(span);
                }
                None => {
                    groups.pop();
                }
            }
        }
        groups.retain(|g| !g.spans.is_empty());
        cut
    }
}

/// Takes spans out of a batch that counts `held` bytes, until it counts `keep`.
pub(super) fn batch_cut(batch: &mut TraceBatch, held: usize, keep: usize) -> Cut {
    let mut cut = Cut::of(&mut batch.groups, held.saturating_sub(keep));
    if !cut.spans.is_empty() {
        // It was made of spans that are gone.
        batch.encoded = None;
    }
    cut.bytes = cut.bytes.min(held);
    cut
}

/// The next batch of a lane, and what its sink can do for it ahead.
pub(crate) struct Following {
    pub(super) batch: Arc<Sealed>,
    pub(super) encoder: Arc<dyn BatchEncoder>,
}

/// Starts to make a batch ready ahead of its turn, unless that was started or too many others are
/// being made ready.
pub(crate) fn begin_ahead(
    following: Following,
    lane: &Arc<Lane>,
    shared: &Arc<Shared>,
    runtime: &Handle,
) {
    let Ok(place) = shared.ahead.clone().try_acquire_owned() else {
        return;
    };
    let Following { batch, encoder } = following;
    if batch.claimed.swap(true, Ordering::AcqRel) {
        return;
    }
    let (lane, shared) = (lane.clone(), shared.clone());
    runtime.spawn_blocking(move || {
        if !shared.is_abandoned() {
            batch.make_ready(&lane, &shared, Some(&*encoder));
        }
        drop(place);
    });
}

/// Runs the hook over the batch; returns how many spans it took out, and why if it panicked.
fn transform(
    hook: &dyn SpanTransform,
    lane: &Lane,
    batch: &mut TraceBatch,
) -> (u64, Option<Error>) {
    let (mut lost, mut error) = (0, None);
    for group in &mut batch.groups {
        group.spans.retain_mut(|span| match apply(hook, &lane.uri, span) {
            Verdict::Keep => true,
            Verdict::Drop => {
                lost += 1;
                false
            }
            Verdict::Panicked(text) => {
                lost += 1;
                error = Some(
                    Error::new(ErrorKind::Internal, "transform span", text)
                        .at(&lane.uri)
                        .mend("mend the transform hook; the span was dropped, not stored unredacted"),
                );
                false
            }
        });
    }
    batch.groups.retain(|g| !g.spans.is_empty());
    (lost, error)
}
