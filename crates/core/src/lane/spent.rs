//! Spans that were written, on their way back: application threads free them, and the lists serve
//! the next batches.
//!
//! Most allocators keep what a thread frees for that thread, without a lock. Spans are allocated by
//! application threads; freed by ours they would go back to a heap that both lock from then on, for
//! every span that starts and for every one that was written. So each span that ends frees one that
//! was written before, and the next span that starts finds its memory at hand.

use crate::record::{Span, TraceBatch};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Empty lists kept at most.
const KEPT: usize = 16;
/// A list with less room is not worth keeping, and one with more takes too much memory.
const WORTH: std::ops::RangeInclusive<usize> = 64..=1024;
/// Shorter lists of written spans are freed where they are: fetching one would cost more.
const SHORT: usize = 8;
/// Spans of more bytes on average are freed where they are: large blocks go back to the kernel.
const SMALL: usize = 4 << 10;
/// Bytes of written spans kept at most, and the share of the budget that they may be.
const BYTES: usize = 8 << 20;
const SHARE: usize = 8;

/// Lists of written spans, and empty ones.
pub(crate) struct Spent {
    lists: Mutex<Lists>,
    /// There are spans to free. Read without the lock for each span that ends.
    any: AtomicBool,
    /// Bytes of written spans kept at most.
    limit: usize,
}

#[derive(Default)]
struct Lists {
    written: Vec<Written>,
    /// Bytes of those, and of the ones that threads have at hand.
    bytes: usize,
    /// A list that grows anew for each batch is copied several times, and its memory goes back to
    /// the kernel and comes again, page by page.
    empty: Vec<Vec<Span>>,
}

/// Written spans, and the bytes that the whole list had.
#[derive(Default)]
pub(crate) struct Written {
    spans: Vec<Span>,
    bytes: usize,
}

impl Lists {
    fn take_written(&mut self) -> Vec<Written> {
        let written = std::mem::take(&mut self.written);
        self.bytes -= written.iter().map(|w| w.bytes).sum::<usize>();
        written
    }

    fn keep_empty(&mut self, list: Vec<Span>) {
        if WORTH.contains(&list.capacity()) && self.empty.len() < KEPT {
            self.empty.push(list);
        }
    }
}

impl Spent {
    /// For a pipeline that may hold `budget` bytes of spans that are not written yet.
    pub(crate) fn new(budget: usize) -> Self {
        Self {
            lists: Mutex::default(),
            any: AtomicBool::new(false),
            limit: BYTES.min(budget / SHARE),
        }
    }

    /// An empty list for about `expected` spans.
    pub(crate) fn take_empty(&self, expected: usize) -> Vec<Span> {
        let kept = if WORTH.contains(&expected) {
            self.lock().empty.pop()
        } else {
            None
        };
        // One where nothing is known: a list that grows by itself begins with several, and many lanes
        // never get more than one span at a time.
        kept.unwrap_or_else(|| Vec::with_capacity(expected.clamp(1, *WORTH.end())))
    }

    /// Takes a batch of `bytes` that is done with.
    pub(crate) fn give(&self, batch: TraceBatch, bytes: usize) {
        let average = bytes / batch.span_count().max(1);
        for group in batch.groups {
            let mut spans = group.spans;
            if average <= SMALL && spans.len() >= SHORT {
                let bytes = average * spans.len();
                let mut lists = self.lock();
                if lists.bytes + bytes <= self.limit {
                    lists.bytes += bytes;
                    lists.written.push(Written { spans, bytes });
                    self.any.store(true, Ordering::Relaxed);
                    continue;
                }
            }
            spans.clear();
            self.lock().keep_empty(spans);
        }
    }

    /// Frees one written span; `at_hand` is where the caller keeps them between two calls.
    #[inline]
    pub(crate) fn free_one(&self, at_hand: &mut Written) {
        if let Some(left) = at_hand.spans.len().checked_sub(1) {
            at_hand.spans.truncate(left);
        } else if self.any.load(Ordering::Relaxed) {
            self.exchange(at_hand);
        }
    }

    /// Gives an emptied list for one of written spans, unless somebody else is at it.
    #[cold]
    fn exchange(&self, at_hand: &mut Written) {
        let Ok(mut lists) = self.lists.try_lock() else {
            return;
        };
        let next = lists.written.pop();
        if next.is_none() {
            self.any.store(false, Ordering::Relaxed);
        }
        let emptied = std::mem::replace(at_hand, next.unwrap_or_default());
        lists.bytes -= emptied.bytes;
        lists.keep_empty(emptied.spans);
    }

    /// Frees the written spans, and what threads had at hand: no span has ended for a while.
    pub(crate) fn free_written(&self, at_hand: Vec<Written>) {
        let bytes: usize = at_hand.iter().map(|w| w.bytes).sum();
        drop(at_hand);
        if self.any.swap(false, Ordering::Relaxed) || bytes > 0 {
            let written = {
                let mut lists = self.lock();
                lists.bytes -= bytes;
                lists.take_written()
            };
            drop(written);
        }
    }

    /// Frees everything but what threads have at hand.
    pub(crate) fn clear(&self) {
        self.any.store(false, Ordering::Relaxed);
        let (written, empty) = {
            let mut lists = self.lock();
            (lists.take_written(), std::mem::take(&mut lists.empty))
        };
        drop((written, empty));
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
