//! Lists of spans that were written, on their way to the next batch.

use crate::record::{Span, TraceBatch};
use std::sync::{Mutex, PoisonError};

/// Lists kept at most.
const KEPT: usize = 16;
/// A list with less room is not worth keeping, and one with more takes too much memory.
const WORTH: std::ops::RangeInclusive<usize> = 64..=1024;

/// A few empty lists with room for a batch. A list that grows anew for each batch is copied several
/// times, and its memory goes back to the kernel and comes again, page by page.
#[derive(Default)]
pub(crate) struct Buffers(Mutex<Vec<Vec<Span>>>);

impl Buffers {
    /// An empty list for about `expected` spans.
    pub(crate) fn take(&self, expected: usize) -> Vec<Span> {
        let kept = if WORTH.contains(&expected) {
            self.lock().pop()
        } else {
            None
        };
        kept.unwrap_or_else(|| Vec::with_capacity(expected.min(*WORTH.end())))
    }

    /// Takes the lists of a batch that is done with.
    pub(crate) fn give(&self, batch: TraceBatch) {
        for mut group in batch.groups {
            if WORTH.contains(&group.spans.capacity()) {
                group.spans.clear();
                let mut kept = self.lock();
                if kept.len() < KEPT {
                    kept.push(group.spans);
                }
            }
        }
    }

    /// Frees everything.
    pub(crate) fn clear(&self) {
        let kept = std::mem::take(&mut *self.lock());
        drop(kept);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<Span>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
