//! What application threads change of a lane when a span ends. It stays for the life of the
//! pipeline, also when its lane was forgotten, so that a thread needs no reference count to use it.

use crate::budget::{self, Budget, Standing};
use crate::stats::DropReason;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

/// The counters of one lane at the entrance.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Spans that ended and were bound to this location.
    accepted: AtomicU64,
    /// Bytes of spans from acceptance until stored or dropped.
    bytes: AtomicUsize,
    /// What `bytes` may reach: the lane's budget, or less while room is short.
    cap: AtomicUsize,
    /// Spans that found no room, and those that came after the shutdown.
    overflown: AtomicU64,
    late: AtomicU64,
    /// Trace-level values that found no room.
    lost_updates: AtomicU64,
    /// The lane's [`Standing`].
    standing: AtomicU8,
}

impl Intake {
    pub(crate) fn new(cap: usize) -> Self {
        Self {
            accepted: AtomicU64::new(0),
            bytes: AtomicUsize::new(0),
            cap: AtomicUsize::new(cap),
            overflown: AtomicU64::new(0),
            late: AtomicU64::new(0),
            lost_updates: AtomicU64::new(0),
            standing: AtomicU8::new(Standing::default() as u8),
        }
    }

    /// Counts spans that ended and are bound to this location.
    pub(crate) fn accept(&self, spans: u64) {
        self.accepted.fetch_add(spans, Ordering::Relaxed);
    }

    /// Spans accepted so far, but for those that queues of the ingress have yet to count.
    pub(crate) fn accepted(&self) -> u64 {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Counts spans that were accepted and are not let in: for want of room, or after the shutdown.
    pub(crate) fn drop_spans(&self, late: bool, spans: u64) {
        let counter = if late { &self.late } else { &self.overflown };
        // Release and Acquire: who sees the drop sees that the span was accepted before.
        counter.fetch_add(spans, Ordering::Release);
    }

    /// Spans that were not let in, for one reason.
    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        match reason {
            DropReason::Overflow => self.overflown.load(Ordering::Acquire),
            DropReason::Shutdown => self.late.load(Ordering::Acquire),
            _ => 0,
        }
    }

    /// Counts trace-level values that are not let in.
    pub(crate) fn lose_update(&self) {
        self.lost_updates.fetch_add(1, Ordering::Relaxed);
    }

    /// Trace-level values that were not let in.
    pub(crate) fn lost_updates(&self) -> u64 {
        self.lost_updates.load(Ordering::Relaxed)
    }

    /// Reserves room for a span in this lane and in the pipeline.
    pub(crate) fn reserve(&self, bytes: usize, process: &Budget) -> bool {
        if !self.take(bytes) {
            return false;
        }
        if process.take(bytes, self.standing()) {
            return true;
        }
        // Whatever others hold, each active lane has its share.
        if self.bytes() <= process.share() && process.take_of_share(bytes) {
            return true;
        }
        self.give(bytes);
        false
    }

    /// Takes room in this lane alone.
    pub(crate) fn take(&self, bytes: usize) -> bool {
        budget::take(&self.bytes, bytes, self.cap())
    }

    /// Counts bytes that are held already, whether they fit or not.
    pub(crate) fn add(&self, bytes: usize, process: &Budget) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        process.add(bytes);
    }

    /// Gives back room in this lane alone.
    pub(crate) fn give(&self, bytes: usize) {
        if bytes > 0 {
            self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        }
    }

    /// Gives room back.
    pub(crate) fn release(&self, bytes: usize, process: &Budget) {
        self.give(bytes);
        process.give(bytes);
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// What the lane may hold at the moment.
    pub(crate) fn cap(&self) -> usize {
        self.cap.load(Ordering::Relaxed)
    }

    /// Sets what the lane may hold. What it holds beyond that stays until it is cut.
    pub(crate) fn set_cap(&self, cap: usize) {
        self.cap.store(cap, Ordering::Relaxed);
    }

    pub(crate) fn standing(&self) -> Standing {
        Standing::from_u8(self.standing.load(Ordering::Relaxed))
    }

    pub(super) fn set_standing(&self, standing: Standing) {
        self.standing.store(standing as u8, Ordering::Relaxed);
    }
}
