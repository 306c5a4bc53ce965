//! What the writer remembers of traces between batches, so that it need not read it again.
//!
//! Only a hint: everything here can be read from the database, and is forgotten whenever another
//! connection has written to it or a transaction failed. Explicit values are the exception: which
//! of a trace's values the application itself set is not in the database.

use crate::config::{REMEMBERED_SPANS, REMEMBERED_TRACES};
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
    /// Number of spans in `tree`, repetitions included.
    pub(crate) tree_size: usize,
    /// Tags this writer put there, as hashes of key and value.
    pub(crate) tags: HashSet<u64>,
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
}

/// A map that forgets what was not used for a while. Values have a weight besides themselves.
#[derive(Debug)]
struct Recent<V> {
    young: HashMap<u128, (V, usize)>,
    old: HashMap<u128, (V, usize)>,
    /// Weight of the young ones.
    weight: usize,
}

impl<V> Recent<V> {
    fn new() -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            weight: 0,
        }
    }

    fn take(&mut self, key: u128) -> Option<V> {
        if let Some((value, weight)) = self.young.remove(&key) {
            self.weight -= weight;
            return Some(value);
        }
        self.old.remove(&key).map(|(value, _)| value)
    }

    /// Keeps a value that is not there: it was taken before, or is new.
    fn put(&mut self, key: u128, value: V, weight: usize) {
        if self.young.len() >= REMEMBERED_TRACES || self.weight >= REMEMBERED_SPANS {
            self.old = std::mem::take(&mut self.young);
            self.weight = 0;
        }
        self.weight += weight;
        self.young.insert(key, (value, weight));
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
            traces: Recent::new(),
            explicit: Recent::new(),
        }
    }

    /// Forgets what another writer may have changed.
    pub(crate) fn forget(&mut self) {
        self.traces = Recent::new();
    }

    pub(crate) fn take_trace(&mut self, key: u128) -> Option<TraceState> {
        self.traces.take(key)
    }

    pub(crate) fn put_trace(&mut self, key: u128, state: TraceState) {
        let weight = state.tree_size;
        self.traces.put(key, state, weight);
    }

    pub(crate) fn take_explicit(&mut self, key: u128) -> Option<Explicit> {
        self.explicit.take(key)
    }

    pub(crate) fn put_explicit(&mut self, key: u128, explicit: Explicit) {
        self.explicit.put(key, explicit, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut recent = Recent::new();
        for key in 0..10 * REMEMBERED_TRACES as u128 {
            recent.put(key, (), 0);
            assert!(recent.take(0).is_some(), "used with each key");
            recent.put(0, (), 0);
        }
        assert!(recent.young.len() + recent.old.len() <= 2 * REMEMBERED_TRACES);
        assert!(recent.take(1).is_none());
        assert!(recent.take(10 * REMEMBERED_TRACES as u128 - 1).is_some());
    }

    #[test]
    fn heavy_values_push_others_out_and_weigh_only_while_they_are_there() {
        let mut recent = Recent::new();
        for _ in 0..10 {
            recent.put(1, (), REMEMBERED_SPANS);
            assert!(recent.take(1).is_some());
            assert_eq!(recent.weight, 0);
        }
        for key in 2..10 {
            recent.put(key, (), REMEMBERED_SPANS);
        }
        assert_eq!(recent.young.len() + recent.old.len(), 2);
    }
}
