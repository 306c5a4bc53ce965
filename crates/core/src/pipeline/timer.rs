//! Wakes whoever awaits a flush that was not answered in time. A thread of the process, because the
//! delivery thread may be what does not answer, and the caller may have no runtime with timers. It
//! is there while flushes are awaited.

use super::flush::FlushState;
use crate::process::{PerProcess, Process};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::Thread;
use std::time::{Duration, Instant};

/// How long the thread waits for another flush before it ends.
const IDLE: Duration = Duration::from_secs(1);

static TIMER: PerProcess<Timer> = PerProcess::new();

#[derive(Default)]
struct Timer(Mutex<Pending>);

#[derive(Default)]
struct Pending {
    flushes: BTreeMap<Due, Weak<FlushState>>,
    /// Distinguishes flushes that are due at the same time.
    next: u64,
    thread: Option<Thread>,
}

type Due = (Instant, u64);

/// A flush that is watched until this is dropped.
pub(super) struct Watched {
    timer: Arc<(Process, Timer)>,
    due: Due,
}

/// Has `flush` woken at `at`. None if no thread can be started.
pub(super) fn watch(at: Instant, flush: &Arc<FlushState>) -> Option<Watched> {
    let timer = TIMER.get();
    let mut pending = timer.1.lock();
    let due = (at, pending.next);
    pending.next += 1;
    let first = pending
        .flushes
        .keys()
        .next()
        .is_none_or(|first| due < *first);
    match &pending.thread {
        Some(thread) if first => thread.unpark(),
        Some(_) => {}
        None => {
            let own = timer.clone();
            let thread = std::thread::Builder::new().name("trace-flush".to_owned());
            let thread = thread.spawn(move || own.1.run()).ok()?;
            pending.thread = Some(thread.thread().clone());
        }
    }
    pending.flushes.insert(due, Arc::downgrade(flush));
    drop(pending);
    Some(Watched { timer, due })
}

impl Drop for Watched {
    fn drop(&mut self) {
        if self.timer.0.is_current() {
            self.timer.1.lock().flushes.remove(&self.due);
        }
    }
}

impl Timer {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut idle_since = None;
        loop {
            let now = Instant::now();
            let mut pending = self.lock();
            let later = pending.flushes.split_off(&(now, u64::MAX));
            let due = std::mem::replace(&mut pending.flushes, later);
            let wait = match pending.flushes.keys().next() {
                Some((at, _)) => {
                    idle_since = None;
                    at.saturating_duration_since(now)
                }
                None if *idle_since.get_or_insert(now) + IDLE <= now => {
                    pending.thread = None;
                    return;
                }
                None => IDLE,
            };
            drop(pending);
            due.values()
                .filter_map(Weak::upgrade)
                .for_each(|flush| flush.overdue());
            std::thread::park_timeout(wait);
        }
    }
}
