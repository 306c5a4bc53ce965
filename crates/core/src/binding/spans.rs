//! Sets of single spans, for what the table has to remember one by one.

use super::IdHash;
use std::collections::HashMap;

/// Tables that one map is split into, so that none is large when it grows: that happens behind a
/// shard's lock.
const PARTS: usize = 16;

/// Trace and span.
pub(super) type SpanKey = (u128, u64);

/// A map by span. Empty, it has no memory of its own.
#[derive(Debug)]
pub(super) struct Spans<V>(Vec<HashMap<SpanKey, V, IdHash>>);

impl<V> Default for Spans<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<V> Spans<V> {
    fn part(key: SpanKey) -> usize {
        // Ids of spans are random, or counted upwards.
        (key.1 ^ key.1 >> 32) as usize % PARTS
    }

    pub(super) fn get(&self, key: SpanKey) -> Option<&V> {
        self.0.get(Self::part(key))?.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: SpanKey) -> Option<&mut V> {
        self.0.get_mut(Self::part(key))?.get_mut(&key)
    }

    pub(super) fn insert(&mut self, key: SpanKey, value: V) -> Option<V> {
        if self.0.is_empty() {
            self.0.resize_with(PARTS, HashMap::default);
        }
        self.0[Self::part(key)].insert(key, value)
    }

    pub(super) fn remove(&mut self, key: SpanKey) -> Option<V> {
        self.0.get_mut(Self::part(key))?.remove(&key)
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(SpanKey, &mut V) -> bool) {
        for part in &mut self.0 {
            part.retain(|key, value| keep(*key, value));
        }
        self.shrink();
    }

    /// Gives back what a burst left behind.
    pub(super) fn shrink(&mut self) {
        for part in &mut self.0 {
            let needed = part.len().max(16);
            if part.capacity() > 8 * needed {
                part.shrink_to(2 * needed);
            }
        }
    }

    #[cfg(all(test, not(trace_destination_loom)))]
    pub(super) fn capacity(&self) -> usize {
        self.0.iter().map(HashMap::capacity).sum()
    }

    #[cfg(all(test, not(trace_destination_loom)))]
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(HashMap::len).sum()
    }
}
