//! What the writer remembers of traces between batches, so that it need not read it again.
//!
//! Only a hint: everything here can be read from the database, and is forgotten whenever another
//! connection has written to it or a transaction failed. Explicit values are the exception: which
//! of a trace's values the application itself set is not in the database.

use crate::config::{REMEMBERED_BYTES, REMEMBERED_EXPLICIT_BYTES, REMEMBERED_TRACES};
use crate::derive::Rollup;
use foldhash::{HashMap, HashMapExt, HashSet};
use std::borrow::Cow;

/// A trace as the database has it.
#[derive(Debug, Default)]
pub(crate) struct TraceState {
    pub(crate) experiment: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) execution_ms: Option<i64>,
    pub(crate) status: State,
    pub(crate) has_request_preview: bool,
    pub(crate) has_response_preview: bool,
    pub(crate) has_name: bool,
    pub(crate) has_session: bool,
    pub(crate) has_usage: bool,
    pub(crate) has_cost: bool,
    pub(crate) has_user: bool,
    /// Its spans are in this database, or it has none yet.
    pub(crate) here: bool,
    /// An MLflow client gave its final values.
    pub(crate) finalized: bool,
    /// Its span tree with usage and cost. `None` where no span had any; it is read when one has.
    pub(crate) tree: Option<Rollup>,
    /// Tags this writer put there, as hashes of key and value.
    pub(crate) tags: HashSet<u64>,
}

impl TraceState {
    /// Memory it takes, in bytes.
    fn bytes(&self) -> usize {
        let tree = self.tree.as_ref().map_or(0, Rollup::heap_bytes);
        size_of::<Slot<Self>>() + tree + self.tags.capacity() * (size_of::<u64>() + 1)
    }
}

/// The state of a trace, as far as it decides anything here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// `IN_PROGRESS` or `STATE_UNSPECIFIED`: the root decides.
    Open(Cow<'static, str>),
    /// Anything else: kept.
    Final(Cow<'static, str>),
}

impl State {
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Open(text) | Self::Final(text) => text,
        }
    }
}

impl Default for State {
    fn default() -> Self {
        Self::Open(Cow::Borrowed("IN_PROGRESS"))
    }
}

/// Values that the application set on a trace as a whole; spans do not change them.
#[derive(Debug, Default)]
pub(crate) struct Explicit {
    pub(crate) name: bool,
    pub(crate) usage: bool,
    pub(crate) cost: bool,
    pub(crate) tags: HashSet<String>,
}

impl Explicit {
    pub(crate) fn is_empty(&self) -> bool {
        !self.name && !self.usage && !self.cost && self.tags.is_empty()
    }

    /// Memory it takes, in bytes.
    fn bytes(&self) -> usize {
        let keys: usize = self.tags.iter().map(String::capacity).sum();
        size_of::<Slot<Self>>() + self.tags.capacity() * (size_of::<String>() + 1) + keys
    }
}

/// An entry of a map, for its size.
type Slot<V> = (u128, (V, usize), u8);

/// A map that forgets what was not used for a while. Holds at most twice `limit` bytes.
#[derive(Debug)]
struct Recent<V> {
    young: HashMap<u128, (V, usize)>,
    old: HashMap<u128, (V, usize)>,
    /// Bytes of the young ones and of the old ones.
    bytes: (usize, usize),
    /// Bytes after which the young ones become the old ones.
    limit: usize,
}

impl<V> Recent<V> {
    fn new(limit: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            bytes: (0, 0),
            limit,
        }
    }

    fn take(&mut self, key: u128) -> Option<V> {
        if let Some((value, bytes)) = self.young.remove(&key) {
            self.bytes.0 -= bytes;
            return Some(value);
        }
        let (value, bytes) = self.old.remove(&key)?;
        self.bytes.1 -= bytes;
        Some(value)
    }

    /// Keeps a value that is not there: it was taken before, or is new. One that is larger than the
    /// limit is not kept.
    fn put(&mut self, key: u128, value: V, bytes: usize) {
        if bytes > self.limit {
            return;
        }
        if self.young.len() >= REMEMBERED_TRACES || self.bytes.0 + bytes > self.limit {
            self.old = std::mem::take(&mut self.young);
            self.bytes = (0, self.bytes.0);
        }
        self.bytes.0 += bytes;
        self.young.insert(key, (value, bytes));
    }

    fn bytes(&self) -> usize {
        self.bytes.0 + self.bytes.1
    }
}

/// What is remembered of all traces of one store.
#[derive(Debug)]
pub(crate) struct Memory {
    traces: Recent<TraceState>,
    explicit: Recent<Explicit>,
}

impl Memory {
    pub(crate) fn new() -> Self {
        Self {
            traces: Recent::new(REMEMBERED_BYTES),
            explicit: Recent::new(REMEMBERED_EXPLICIT_BYTES),
        }
    }

    /// Forgets what another writer may have changed.
    pub(crate) fn forget(&mut self) {
        self.traces = Recent::new(self.traces.limit);
    }

    /// Changes the memory for traces that can be read again, in bytes; at most twice as much is
    /// used.
    pub(crate) fn set_limit(&mut self, limit: usize) {
        self.traces.limit = limit;
    }

    /// What is remembered, in bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.traces.bytes() + self.explicit.bytes()
    }

    pub(crate) fn take_trace(&mut self, key: u128) -> Option<TraceState> {
        self.traces.take(key)
    }

    pub(crate) fn put_trace(&mut self, key: u128, state: TraceState) {
        let bytes = state.bytes();
        self.traces.put(key, state, bytes);
    }

    pub(crate) fn take_explicit(&mut self, key: u128) -> Option<Explicit> {
        self.explicit.take(key)
    }

    pub(crate) fn put_explicit(&mut self, key: u128, explicit: Explicit) {
        let bytes = explicit.bytes();
        self.explicit.put(key, explicit, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut recent = Recent::new(REMEMBERED_BYTES);
        for key in 0..10 * REMEMBERED_TRACES as u128 {
            recent.put(key, (), 1);
            assert!(recent.take(0).is_some(), "used with each key");
            recent.put(0, (), 1);
        }
        assert!(recent.young.len() + recent.old.len() <= 2 * REMEMBERED_TRACES);
        assert_eq!(recent.bytes(), recent.young.len() + recent.old.len());
        assert!(recent.take(1).is_none());
        assert!(recent.take(10 * REMEMBERED_TRACES as u128 - 1).is_some());
    }

    #[test]
    fn large_values_push_others_out_and_count_only_while_they_are_there() {
        let mut recent = Recent::new(1000);
        for _ in 0..10 {
            recent.put(1, (), 1000);
            assert!(recent.take(1).is_some());
            assert_eq!(recent.bytes(), 0);
        }
        for key in 2..10 {
            recent.put(key, (), 1000);
            assert!(recent.bytes() <= 2000);
        }
        assert_eq!(recent.young.len() + recent.old.len(), 2);
        recent.put(20, (), 1001);
        assert!(recent.take(20).is_none(), "larger than the limit");
    }

    #[test]
    fn whatever_traces_hold_the_memory_is_bounded() {
        let mut memory = Memory::new();
        let mut most = 0;
        for key in 0..200u128 {
            let mut state = TraceState::default();
            state.tags.extend(0..5_000 * (key as u64 % 9));
            let mut tree = Rollup::default();
            for span in 0..5_000 * (key as u64 % 7) {
                tree.insert(&format!("{span:016x}"), None, None, None);
            }
            state.tree = Some(tree);
            memory.put_trace(key, state);
            let mut explicit = Explicit::default();
            let tags = 0..200 * (key as usize % 11);
            explicit.tags.extend(tags.map(|tag| format!("{tag:0250}")));
            memory.put_explicit(key, explicit);
            most = most.max(memory.bytes());
        }
        let bound = 2 * (REMEMBERED_BYTES + REMEMBERED_EXPLICIT_BYTES);
        assert!(most <= bound, "{most} bytes");
        assert!(most > bound / 4, "{most} bytes: nothing was kept");
    }
}
