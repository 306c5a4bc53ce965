//! What the application said about traces that have not ended yet.

use super::complete::Known;
use crate::databricks::Calls;
use crate::encode::Carried;
use crate::error::{Fault, FaultExt as _};
use crate::generations::Generations;
use crate::later::Later;
use foldhash::HashMap;
use opentelemetry::trace::TraceId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trace_destination_core::{Error, ErrorKind, LateUpdate, TraceUpdate};

/// Traces with values of their own that are remembered, per location and generation.
const REMEMBERED: usize = 4096;

/// Kept by the location, since its sink is closed while nothing comes.
pub(crate) struct TraceMemory {
    entries: Mutex<Entries>,
    /// Why values were given up; not reported yet.
    lost: Mutex<Vec<(TraceId, Error)>>,
    /// Traces of a tracking server whose values are told apart from their batches.
    pub(crate) later: Arc<Later<Known>>,
    /// The same for traces of Databricks.
    pub(crate) infos: Arc<Later<Calls>>,
    /// Traces of Databricks whose root is stored.
    roots: Mutex<Generations<TraceId, ()>>,
}

/// Entries by trace. Those of traces whose calls wait are held, however many others come meanwhile:
/// without them a value would be neither told nor counted as lost. An entry that is absent then is
/// one whose values the server has.
struct Entries {
    /// As many as calls that wait, for which [`Later`] has a limit.
    held: HashMap<TraceId, Entry>,
    others: Generations<TraceId, Entry>,
}

impl Entries {
    fn get_mut(&mut self, trace: &TraceId) -> Option<&mut Entry> {
        match self.held.get_mut(trace) {
            Some(entry) => Some(entry),
            None => self.others.get_mut(trace),
        }
    }

    fn remove(&mut self, trace: &TraceId) {
        if self.held.remove(trace).is_none() {
            self.others.remove(trace);
        }
    }
}

/// The values of one trace.
#[derive(Debug)]
pub(crate) struct Entry {
    /// All that was said; the root carries it when it ends.
    known: TraceUpdate,
    /// What the server was not told yet.
    todo: TraceUpdate,
    /// Counts what is left of it as lost, where nobody else does: it waits for the spans of its
    /// trace, or for their root.
    counted: Option<LateUpdate>,
}

impl Entry {
    fn new(update: &TraceUpdate) -> Self {
        Self {
            known: update.clone(),
            todo: update.clone(),
            counted: None,
        }
    }

    fn is_told(&self) -> bool {
        self.todo == TraceUpdate::new(self.todo.trace_id)
    }

    /// Nobody counts it here any more.
    fn uncount(&mut self) {
        if let Some(counted) = self.counted.take() {
            counted.stored();
        }
    }

    fn uncount_if_told(&mut self) {
        if self.is_told() {
            self.uncount();
        }
    }
}

/// It is forgotten in favour of newer ones.
impl Drop for Entry {
    fn drop(&mut self) {
        let Some(counted) = self.counted.take() else {
            return;
        };
        let cause = format!(
            "values set on trace {} are given up: its root did not end while thousands of other \
             traces came",
            self.known.trace_id
        );
        let error = Error::new(ErrorKind::Timeout, "complete trace", cause);
        counted.lost(error.mend("end the root of every trace; its spans are stored"));
    }
}

impl Default for TraceMemory {
    fn default() -> Self {
        Self {
            entries: Mutex::new(Entries {
                held: HashMap::default(),
                others: Generations::new(REMEMBERED),
            }),
            lost: Mutex::default(),
            later: Arc::default(),
            infos: Arc::default(),
            roots: Mutex::new(Generations::new(REMEMBERED)),
        }
    }
}

impl TraceMemory {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn losses(&self) -> MutexGuard<'_, Vec<(TraceId, Error)>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Values of one trace are given up. Told with the next batch that is written: this one may fail
    /// yet, and what is given up does not come again.
    pub(crate) fn lost(&self, trace: TraceId, fault: Fault) {
        let error = fault.during("complete trace");
        self.losses().push((trace, error));
    }

    /// Everything given up since this was last called, one for each trace.
    pub(crate) fn take_lost(&self) -> Vec<(TraceId, Error)> {
        std::mem::take(&mut *self.losses())
    }

    /// What was given up of some traces.
    pub(crate) fn take_lost_of(
        &self,
        is_wanted: impl Fn(TraceId) -> bool,
    ) -> Vec<(TraceId, Error)> {
        let mut lost = self.losses();
        let (wanted, other) = lost.drain(..).partition(|(trace, _)| is_wanted(*trace));
        *lost = other;
        wanted
    }

    pub(crate) fn put_back_lost(&self, lost: Vec<(TraceId, Error)>) {
        self.losses().extend(lost);
    }

    /// Keeps the values of a trace until [`release`](Self::release): a call for it waits.
    pub(crate) fn hold(&self, trace: TraceId) {
        let mut entries = self.lock();
        if let Some(entry) = entries.others.remove(&trace) {
            entries.held.insert(trace, entry);
        }
    }

    /// Takes over what came with a batch, and keeps the values of these and `other` traces until
    /// the guard is dropped, and longer where their calls wait by then.
    pub(crate) fn note_and_hold(
        &self,
        updates: &[TraceUpdate],
        other: impl Iterator<Item = TraceId>,
    ) -> Holding<'_> {
        let traces = updates.iter().map(|u| u.trace_id).chain(other).collect();
        let holding = Holding {
            memory: self,
            traces,
        };
        for trace in &holding.traces {
            self.hold(*trace);
        }
        self.merge(updates, true);
        holding
    }

    /// Values of a trace may be forgotten again.
    pub(crate) fn release(&self, trace: TraceId) {
        let mut entries = self.lock();
        if let Some(entry) = entries.held.remove(&trace) {
            entries.others.insert(trace, entry);
        }
    }

    /// Nothing more of what was said so far is to be told.
    pub(crate) fn give_up(&self, trace: TraceId) {
        if let Some(entry) = self.lock().get_mut(&trace) {
            entry.todo = TraceUpdate::new(trace);
            entry.uncount();
        }
    }

    /// A call that waits counts the values of a trace from now on.
    pub(crate) fn counted_by_call(&self, trace: TraceId) {
        if let Some(entry) = self.lock().get_mut(&trace) {
            entry.uncount();
        }
    }

    /// Has what is not told of traces be counted as lost where it never will be. For a batch that is
    /// stored; traces whose calls wait are counted with those.
    pub(crate) fn count<J: Clone + Send + 'static>(
        &self,
        updates: &[TraceUpdate],
        calls: &Later<J>,
    ) {
        let traces: Vec<TraceId> = updates.iter().map(|u| u.trace_id).collect();
        calls.unless_waiting(&traces, |trace| {
            if let Some(entry) = self.lock().get_mut(&trace)
                && !entry.is_told()
            {
                entry.counted.get_or_insert_with(LateUpdate::hold);
            }
        });
    }

    /// Takes over what came with a batch; the same again changes nothing.
    pub(crate) fn note(&self, updates: &[TraceUpdate]) {
        self.merge(updates, false);
    }

    fn merge(&self, updates: &[TraceUpdate], hold: bool) {
        if updates.is_empty() {
            return;
        }
        let mut entries = self.lock();
        for update in updates {
            match entries.get_mut(&update.trace_id) {
                Some(entry) => {
                    entry.known.merge(update.clone());
                    entry.todo.merge(update.clone());
                }
                None => {
                    let entry = Entry::new(update);
                    match hold {
                        true => drop(entries.held.insert(update.trace_id, entry)),
                        false => entries.others.insert(update.trace_id, entry),
                    }
                }
            }
        }
    }

    fn roots(&self) -> MutexGuard<'_, Generations<TraceId, ()>> {
        self.roots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that the root of a trace is stored.
    pub(crate) fn note_root(&self, trace: TraceId) {
        self.roots().insert(trace, ());
    }

    /// Whether the root of a trace is stored, as far as that is remembered.
    pub(crate) fn has_root(&self, trace: TraceId) -> bool {
        self.roots().get_mut(&trace).is_some()
    }

    /// Everything said about a trace.
    pub(crate) fn known(&self, trace: TraceId) -> Option<TraceUpdate> {
        self.lock().get_mut(&trace).map(|e| e.known.clone())
    }

    /// Whether there is anything the server was not told yet about a trace.
    pub(crate) fn has_todo(&self, trace: TraceId) -> bool {
        let mut entries = self.lock();
        let entry = entries.get_mut(&trace);
        entry.is_some_and(|e| !e.is_told())
    }

    /// What the server was not told yet about a trace.
    pub(crate) fn todo(&self, trace: TraceId) -> Option<TraceUpdate> {
        self.lock().get_mut(&trace).map(|e| e.todo.clone())
    }

    /// The server knows what the root carried.
    pub(crate) fn carried(&self, trace: TraceId, carried: &Carried) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&trace) else {
            return;
        };
        let todo = &mut entry.todo;
        todo.tags
            .retain(|key, value| carried.tags.get(key) != Some(value));
        for (slot, told) in [
            (&mut todo.name, &carried.name),
            (&mut todo.session_id, &carried.session),
            (&mut todo.user_id, &carried.user),
        ] {
            if slot == told {
                *slot = None;
            }
        }
        entry.uncount_if_told();
    }

    /// The server knows everything in `done`; with `last`, nothing more is expected.
    pub(crate) fn done(&self, trace: TraceId, done: &TraceUpdate, last: bool) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(&trace) else {
            return;
        };
        let todo = &mut entry.todo;
        todo.tags
            .retain(|key, value| done.tags.get(key) != Some(value));
        todo.metadata
            .retain(|key, value| done.metadata.get(key) != Some(value));
        for (slot, told) in [
            (&mut todo.name, &done.name),
            (&mut todo.session_id, &done.session_id),
            (&mut todo.user_id, &done.user_id),
            (&mut todo.client_request_id, &done.client_request_id),
            (&mut todo.request_preview, &done.request_preview),
            (&mut todo.response_preview, &done.response_preview),
            (&mut todo.run_id, &done.run_id),
        ] {
            if slot == told {
                *slot = None;
            }
        }
        entry.uncount_if_told();
        if last && entry.is_told() {
            entries.remove(&trace);
        }
    }
}

/// Values that a batch needs until it is written.
pub(crate) struct Holding<'a> {
    memory: &'a TraceMemory,
    traces: Vec<TraceId>,
}

impl Drop for Holding<'_> {
    fn drop(&mut self) {
        let memory = self.memory;
        memory
            .later
            .unless_waiting(&self.traces, |trace| memory.release(trace));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(trace: u128) -> TraceUpdate {
        let mut update = TraceUpdate::new(TraceId::from(trace));
        update.user_id = Some("user".into());
        update
    }

    #[test]
    fn what_is_held_stays_and_memory_is_bounded() {
        let memory = TraceMemory::default();
        let many = REMEMBERED as u128 * 3;
        memory.note(&[update(0)]);
        let other = std::iter::once(TraceId::from(0));
        let updates: Vec<_> = (1..=many).map(update).collect();
        let held = memory.note_and_hold(&updates, other);
        let told = |n: u128| memory.todo(TraceId::from(n));
        assert!((0..=many).all(|n| told(n) == Some(update(n))));
        drop(held);
        assert!(memory.lock().held.is_empty());
        assert!((0..=many).filter(|n| told(*n).is_some()).count() <= 2 * REMEMBERED);
        // What is told is gone, held or not.
        let held = memory.note_and_hold(&[update(1)], std::iter::empty());
        memory.done(TraceId::from(1), &update(1), true);
        assert_eq!(told(1), None);
        drop(held);
        assert_eq!(told(1), None);
    }
}
