//! Where a span that ended is let in: the lanes of its route, the budgets, the ingress.

use super::{Item, Payload, Shared};
use crate::budget::{Overflow, Standing};
use crate::delivery_thread;
use crate::ingress::Entry;
use crate::lane::{Intake, LaneId, Written};
use crate::record::Span;
use crate::route_id::RouteId;
use opentelemetry_sdk::trace::SpanData;
use std::cell::Cell;
use std::sync::atomic::Ordering;

/// Room that a queue takes ahead where spans of one lane come in a run, in bytes. Where a budget is
/// not many times as large, span by span is counted.
const AHEAD: usize = 8 << 10;
/// How many times as large both budgets must be.
const AHEAD_SHARE: usize = 128;

thread_local! {
    /// The ingress shard of this thread. No destructor, so it works during thread teardown.
    static SHARD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// What the threads of a queue of the ingress have at hand, behind its lock.
#[derive(Default)]
pub(crate) struct AtHand {
    credit: Credit,
    /// Written spans to free.
    spent: Written,
}

/// What most spans of a run need no counter for that threads share. The delivery thread settles it
/// in each round.
#[derive(Default)]
struct Credit {
    /// Where the last span went.
    lane: Option<LaneId>,
    /// The route that leads to that lane and nowhere else, by which the last span went.
    route: Option<RouteId>,
    /// Room in the budget of that lane, taken for spans to come.
    lane_bytes: usize,
    /// Room in the budget of the pipeline, taken for spans to come of any lane.
    process_bytes: usize,
    /// Spans that came and are not counted as accepted yet.
    accepted: u64,
}

impl Credit {
    /// Takes room that was taken ahead; false if there is not enough.
    #[inline(always)]
    fn spend(&mut self, bytes: usize, spans: u64) -> bool {
        let covered = self.lane_bytes.min(self.process_bytes) >= bytes;
        if covered {
            self.lane_bytes -= bytes;
            self.process_bytes -= bytes;
            self.accepted += spans;
        }
        covered
    }
}

/// A place in the ingress.
pub(crate) type Place<'a> = Entry<'a, Item, AtHand>;

impl Shared {
    /// Takes room for a span of the SDK that ended, after sending copies of it to all lanes of its
    /// route but one, which is returned with the span's size.
    ///
    /// Whatever can fail, wait or unwind is done here, with the span by reference: it is several
    /// hundred bytes large and is to be copied as rarely as can be.
    #[inline(always)]
    pub(crate) fn admit_span(
        &self,
        route: RouteId,
        source: u32,
        span: &SpanData,
    ) -> Option<(Place<'_>, LaneId, usize)> {
        let bytes = Span::sdk_bytes(span);
        let mut place = self.ingress.enter(self.shard());
        if let Some(entry) = &mut place {
            let AtHand { credit, spent } = entry.beside();
            self.spent.free_one(spent);
            if credit.route == Some(route)
                && let Some(lane) = credit.lane
                && credit.spend(bytes, 1)
            {
                return place.map(|place| (place, lane, bytes));
            }
        }
        self.admit_by_route(place, route, source, span, bytes)
    }

    #[inline(never)]
    fn admit_by_route<'a>(
        &'a self,
        place: Option<Place<'a>>,
        route: RouteId,
        source: u32,
        span: &SpanData,
        bytes: usize,
    ) -> Option<(Place<'a>, LaneId, usize)> {
        let (place, (last, others)) = match self.routes.lanes_of(route).split_last() {
            Some(lanes) => (place, lanes),
            None => {
                // Counting takes other locks, which the threads of the shard need not wait for.
                drop(place);
                let lanes = self.lanes_of_rare(route, &span.name)?.split_last()?;
                (self.ingress.enter(self.shard()), lanes)
            }
        };
        let place = if others.is_empty() {
            // A route that some lanes refuse is looked at for every span: each is counted there.
            let only = (route.0 & RouteId::REFUSING == 0).then_some(route);
            self.admit(place, only, *last, bytes, 1)
        } else {
            drop(place);
            self.admit_copies(others, source, span, bytes);
            self.admit(self.ingress.enter(self.shard()), None, *last, bytes, 1)
        };
        place.map(|place| (place, *last, bytes))
    }

    #[cold]
    fn admit_copies(&self, lanes: &[LaneId], source: u32, span: &SpanData, bytes: usize) {
        for lane in lanes {
            let copy = || Payload::Sdk(source, Span::from(span.clone()));
            // What is refused is counted.
            let _ = self.offer(*lane, bytes, 1, copy);
        }
    }

    /// The lanes of a span whose route leads nowhere, or is refused by some of its lanes; counts what
    /// does not go on.
    #[cold]
    fn lanes_of_rare(&self, route: RouteId, span: &str) -> Option<&[LaneId]> {
        match self.routes.refusing(route) {
            Some(refusing) => {
                self.refuse_spans(refusing, 1);
                Some(&refusing.delivers)
            }
            None => {
                self.count_without_lane(route, 1, span);
                None
            }
        }
    }

    /// Counts spans whose route leads nowhere.
    #[cold]
    pub(super) fn count_without_lane(&self, route: RouteId, spans: u64, example: &str) {
        let totals = &self.totals;
        let on_purpose = match route {
            RouteId::DISCARD => Some(&totals.discarded),
            RouteId::SAMPLED_OUT => Some(&totals.sampled_out),
            _ => None,
        };
        if let Some(total) = on_purpose {
            total.fetch_add(spans, Ordering::Relaxed);
            return;
        }
        totals.lose_unrouted(spans, example);
    }

    /// Puts an item at the place that was taken for it.
    #[inline(always)]
    pub(crate) fn put(&self, place: Place<'_>, lane: LaneId, bytes: usize, payload: Payload) {
        let wake = place.push(Item {
            lane,
            bytes,
            payload,
        });
        if wake {
            self.wake_delivery();
        }
    }

    /// Puts an item into the ingress if the budgets allow it, else gives it back.
    #[expect(
        clippy::result_large_err,
        reason = "what is refused is given back as it came"
    )]
    pub(super) fn offer(
        &self,
        lane: LaneId,
        bytes: usize,
        spans: u64,
        payload: impl FnOnce() -> Payload,
    ) -> Result<(), Payload> {
        // Made before: a place is a lock, behind which nothing is to be copied or allocated.
        let payload = payload();
        let place = self.ingress.enter(self.shard());
        let place = self.admit(place, None, lane, bytes, spans);
        match place {
            Some(place) => {
                self.put(place, lane, bytes, payload);
                Ok(())
            }
            None => Err(payload),
        }
    }

    /// Takes room for an item that gets `place` in the ingress. `None` if there is no room, which is
    /// counted. `route` is the one that leads to `lane` and nowhere else, if the item came by it.
    #[inline(always)]
    fn admit<'a>(
        &'a self,
        place: Option<Place<'a>>,
        route: Option<RouteId>,
        lane: LaneId,
        bytes: usize,
        spans: u64,
    ) -> Option<Place<'a>> {
        let intake = self.routes.intake(lane);
        let Some(mut place) = place else {
            intake.accept(spans);
            return self.refuse_closed(intake, spans);
        };
        let credit = &mut place.beside().credit;
        let in_a_run = credit.lane == Some(lane);
        if in_a_run && credit.spend(bytes, spans) {
            credit.route = route;
            return Some(place);
        }
        intake.accept(spans);
        if !in_a_run {
            self.settle_lane(credit);
            credit.lane = Some(lane);
        }
        credit.route = route;
        if self.take_room(credit, in_a_run, intake, bytes) {
            return Some(place);
        }
        drop(place);
        self.admit_late(intake, bytes, spans)
    }

    #[cold]
    fn admit_late(&self, intake: &Intake, bytes: usize, spans: u64) -> Option<Place<'_>> {
        if !self.wait_for_room(intake, bytes, spans) {
            return None;
        }
        let entry = self.ingress.enter(self.shard());
        if entry.is_none() {
            intake.release(bytes, &self.budget);
            return self.refuse_closed(intake, spans);
        }
        entry
    }

    /// Takes room for a span that no credit covers, and more for spans to come: in the budget of its
    /// lane if the span before it went there too, for then another is likely to follow.
    fn take_room(&self, credit: &mut Credit, in_a_run: bool, lane: &Intake, bytes: usize) -> bool {
        if credit.process_bytes < bytes {
            let standing = lane.standing();
            let take = |n| self.budget.take(n, standing);
            credit.process_bytes += take_ahead(bytes, self.budget.limit(), take);
        }
        if credit.lane_bytes < bytes {
            let take = |n| lane.take(n);
            credit.lane_bytes += match in_a_run {
                true => take_ahead(bytes, lane.cap(), take),
                false if take(bytes) => bytes,
                false => 0,
            };
        }
        if credit.process_bytes >= bytes && credit.lane_bytes >= bytes {
            credit.process_bytes -= bytes;
            credit.lane_bytes -= bytes;
            return true;
        }
        self.take_last_room(credit, lane, bytes)
    }

    #[cold]
    fn take_last_room(&self, credit: &mut Credit, lane: &Intake, bytes: usize) -> bool {
        // What was taken ahead may be what is missing.
        self.settle_credit(credit);
        if lane.reserve(bytes, &self.budget) {
            return true;
        }
        let held_down = lane.cap() < self.routes.lane_budget();
        let fits = lane.bytes().saturating_add(bytes) <= lane.cap();
        if lane.standing() != Standing::Stuck && (held_down || fits) {
            // Others have the room: the delivery thread takes it from those that do not drain.
            self.wake_delivery();
        }
        false
    }

    /// Counts the spans that came to a queue, and gives back the room that nobody has used.
    pub(super) fn settle(&self, at_hand: &mut AtHand) {
        self.settle_credit(&mut at_hand.credit);
    }

    /// Settles every queue: the counters are going to be read.
    pub(crate) fn settle_all(&self) {
        self.ingress.visit(|at_hand| self.settle(at_hand));
    }

    fn settle_credit(&self, credit: &mut Credit) {
        self.settle_lane(credit);
        let unused = std::mem::take(&mut credit.process_bytes);
        if unused > 0 {
            self.budget.give(unused);
        }
    }

    fn settle_lane(&self, credit: &mut Credit) {
        let Some(lane) = credit.lane else { return };
        let lane = self.routes.intake(lane);
        let accepted = std::mem::take(&mut credit.accepted);
        if accepted > 0 {
            lane.accept(accepted);
        }
        lane.give(std::mem::take(&mut credit.lane_bytes));
    }

    /// Frees what was written and waits for application threads to free it: they rest.
    pub(super) fn free_spent(&self) {
        let mut at_hand = Vec::new();
        self.ingress
            .visit(|there| at_hand.push(std::mem::take(&mut there.spent)));
        self.spent.free_written(at_hand);
    }

    /// Waits for room where that is allowed; counts the spans as dropped if there is none.
    pub(super) fn wait_for_room(&self, lane: &Intake, bytes: usize, spans: u64) -> bool {
        if self.is_inherited() {
            lane.drop_spans(true, spans);
            return false;
        }
        if let Overflow::Block(max_wait) = self.overflow
            && !delivery_thread::is_current()
        {
            // The delivery thread may be resting between rounds; what is queued has to move
            // before there can be room.
            self.wake_delivery();
            let mut reserved = false;
            self.budget.wait_for(max_wait, || {
                reserved = lane.reserve(bytes, &self.budget);
                reserved || self.ingress.is_closed()
            });
            if reserved {
                return true;
            }
        }
        lane.drop_spans(self.ingress.is_closed(), spans);
        false
    }

    #[cold]
    fn refuse_closed(&self, lane: &Intake, spans: u64) -> Option<Place<'_>> {
        lane.drop_spans(true, spans);
        None
    }

    #[inline]
    fn shard(&self) -> usize {
        SHARD
            .try_with(|shard| {
                if shard.get() == usize::MAX {
                    shard.set(self.ingress.assign_shard());
                }
                shard.get()
            })
            .unwrap_or_default()
    }
}

/// Takes [`AHEAD`] bytes of a budget of `limit` bytes, or `bytes` where that is more or all there
/// is; returns how many.
fn take_ahead(bytes: usize, limit: usize, take: impl Fn(usize) -> bool) -> usize {
    let ahead = bytes.max(AHEAD);
    if limit / AHEAD_SHARE >= AHEAD && take(ahead) {
        ahead
    } else if take(bytes) {
        bytes
    } else {
        0
    }
}
