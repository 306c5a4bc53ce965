//! What the application said about traces that have not ended yet.

use super::complete::Known;
use crate::databricks::Info;
use crate::encode::Carried;
use crate::error::{Fault, FaultExt as _};
use crate::generations::Generations;
use crate::later::Later;
use opentelemetry::trace::TraceId;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trace_destination_core::{Error, TraceUpdate};

/// Traces with values of their own that are remembered, per location and generation.
const REMEMBERED: usize = 4096;

/// Kept by the location, since its sink is closed while nothing comes.
pub(crate) struct TraceMemory {
    entries: Mutex<Generations<TraceId, Entry>>,
    /// Why values were given up; not reported yet.
    lost: Mutex<Vec<(TraceId, Error)>>,
    /// Traces of a tracking server whose values are told apart from their batches.
    pub(crate) later: Arc<Later<Known>>,
    /// The same for traces of Databricks.
    pub(crate) infos: Arc<Later<Info>>,
}

/// The values of one trace.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// All that was said; the root carries it when it ends.
    known: TraceUpdate,
    /// What the server was not told yet.
    todo: TraceUpdate,
}

impl Default for TraceMemory {
    fn default() -> Self {
        Self {
            entries: Mutex::new(Generations::new(REMEMBERED)),
            lost: Mutex::default(),
            later: Arc::default(),
            infos: Arc::default(),
        }
    }
}

impl TraceMemory {
    fn lock(&self) -> MutexGuard<'_, Generations<TraceId, Entry>> {
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

    /// Nothing more of what was said so far is to be told.
    pub(crate) fn give_up(&self, trace: TraceId) {
        if let Some(entry) = self.lock().get_mut(&trace) {
            entry.todo = TraceUpdate::new(trace);
        }
    }

    /// Takes over what came with a batch; the same again changes nothing.
    pub(crate) fn note(&self, updates: &[TraceUpdate]) {
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
                None => entries.insert(
                    update.trace_id,
                    Entry {
                        known: update.clone(),
                        todo: update.clone(),
                    },
                ),
            }
        }
    }

    /// Everything said about a trace.
    pub(crate) fn known(&self, trace: TraceId) -> Option<TraceUpdate> {
        self.lock().get_mut(&trace).map(|e| e.known.clone())
    }

    /// Whether there is anything the server was not told yet about a trace.
    pub(crate) fn has_todo(&self, trace: TraceId) -> bool {
        let mut entries = self.lock();
        let entry = entries.get_mut(&trace);
        entry.is_some_and(|e| e.todo != TraceUpdate::new(trace))
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
        if last && entry.todo == TraceUpdate::new(trace) {
            entries.remove(&trace);
        }
    }
}
