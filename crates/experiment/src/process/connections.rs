//! How many connections are open in a process, and which one is closed when there are many.

use crate::config::{
    CACHE_KIB, MIN_CACHE_KIB, MIN_REMEMBERED_BYTES, REMEMBERED_BYTES, TOTAL_CACHE_KIB,
    TOTAL_REMEMBERED_BYTES,
};
use crate::file_system::open_files_limit;
use crate::lock::lock;
use crate::store::Store;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

/// Files that SQLite keeps open for a connection: the database, its log and the log's index.
const FILES: u64 = 3;
/// Bounds of the number of connections that stay open.
const BOUNDS: (usize, usize) = (2, 512);
/// How long no further connection stays open after files were short.
const SHORTAGE: Duration = Duration::from_secs(60);

/// The open connections of a process.
#[derive(Debug)]
pub(crate) struct Connections {
    /// Connections that stay open while they are not used. Goes down where the application leaves
    /// fewer files than half.
    limit: AtomicUsize,
    /// What it is while the application leaves enough.
    most: usize,
    /// When no further file could be opened, the last time.
    shortage: Mutex<Option<Instant>>,
    open: Arc<AtomicUsize>,
    /// Stores in the order in which their connections were opened, or last found in use.
    order: Mutex<VecDeque<Weak<Store>>>,
}

/// A place among the open connections, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot(Arc<AtomicUsize>);

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    pub(super) fn new() -> Self {
        // Half of the files are left to the application.
        let connections = usize::try_from(open_files_limit() / 2 / FILES).unwrap_or(usize::MAX);
        let most = connections.clamp(BOUNDS.0, BOUNDS.1);
        Self {
            limit: AtomicUsize::new(most),
            most,
            shortage: Mutex::default(),
            open: Arc::default(),
            order: Mutex::default(),
        }
    }

    /// Counts a connection that is about to be opened.
    pub(crate) fn slot(&self) -> Slot {
        self.open.fetch_add(1, Ordering::Relaxed);
        Slot(self.open.clone())
    }

    /// Takes note of a store that has just opened its connection.
    pub(crate) fn opened(&self, store: &Arc<Store>) {
        self.relax(Instant::now());
        let mut order = lock(&self.order);
        order.retain(|weak| weak.strong_count() > 0);
        if !order.iter().any(|weak| weak.as_ptr() == Arc::as_ptr(store)) {
            order.push_back(Arc::downgrade(store));
        }
    }

    /// Lets one connection more stay open, where the last shortage of files is long ago.
    fn relax(&self, now: Instant) {
        let mut shortage = lock(&self.shortage);
        if shortage.is_some_and(|at| now.saturating_duration_since(at) >= SHORTAGE) {
            let limit = self.limit.load(Ordering::Relaxed);
            match limit < self.most {
                true => self.limit.store(limit + 1, Ordering::Relaxed),
                false => *shortage = None,
            }
        }
    }

    /// Memory that a connection may use for pages, in KiB: a share of what all may use together.
    pub(crate) fn cache_kib(&self) -> i64 {
        let sharing = i64::try_from(self.sharing()).unwrap_or(i64::MAX);
        (TOTAL_CACHE_KIB / sharing).clamp(MIN_CACHE_KIB, CACHE_KIB)
    }

    /// Memory that a store may use for traces, in bytes: a share of what all may use together.
    pub(crate) fn remembered_bytes(&self) -> usize {
        (TOTAL_REMEMBERED_BYTES / self.sharing()).clamp(MIN_REMEMBERED_BYTES, REMEMBERED_BYTES)
    }

    /// How many share; in steps, so that a connection more or less seldom changes anything.
    fn sharing(&self) -> usize {
        self.open.load(Ordering::Relaxed).max(1).next_power_of_two()
    }

    /// The store that should give up its connection before another is opened; `None` where there
    /// is room, or all are in use.
    pub(super) fn one_too_many(&self) -> Option<Arc<Store>> {
        if self.open.load(Ordering::Relaxed) < self.limit.load(Ordering::Relaxed) {
            return None;
        }
        let mut order = lock(&self.order);
        // Twice around: the first time takes the marks of use away. Then any will do.
        let around = order.len();
        for look in 0..3 * around {
            let weak = order.pop_front()?;
            let Some(store) = weak.upgrade().filter(|store| store.is_connected()) else {
                continue;
            };
            if store.is_idle() && (store.is_proven() || look >= 2 * around) {
                return Some(store);
            }
            order.push_back(weak);
        }
        None
    }

    /// The stores with a connection, those first that were not used for longest, where no further
    /// file could be opened.
    pub(super) fn to_be_freed(&self) -> Vec<Arc<Store>> {
        let open = self.open.load(Ordering::Relaxed);
        let fewer = open.saturating_sub(1).max(BOUNDS.0);
        let mut shortage = lock(&self.shortage);
        *shortage = Some(Instant::now());
        self.limit.fetch_min(fewer, Ordering::Relaxed);
        drop(shortage);
        let mut order = lock(&self.order);
        order.retain(|weak| weak.upgrade().is_some_and(|store| store.is_connected()));
        order.iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Process;
    use std::path::Path;

    #[test]
    fn a_store_has_one_place_in_the_order() {
        let connections = Connections::new();
        let store = |name| Process::current().store(Path::new(name));
        let (one, other) = (store("/nowhere/one.db"), store("/nowhere/other.db"));
        for store in [&one, &other, &one, &other] {
            connections.opened(store);
        }
        assert_eq!(lock(&connections.order).len(), 2);
        drop(one);
        connections.opened(&other);
        assert_eq!(lock(&connections.order).len(), 1);
    }

    #[test]
    fn a_shortage_of_files_does_not_last() {
        let connections = Connections::new();
        let limit = || connections.limit.load(Ordering::Relaxed);
        connections.to_be_freed();
        assert_eq!(limit(), BOUNDS.0);
        connections.relax(Instant::now());
        assert_eq!(limit(), BOUNDS.0, "not at once");
        let later = Instant::now() + SHORTAGE;
        for more in 1..=connections.most {
            connections.relax(later);
            assert_eq!(limit(), (BOUNDS.0 + more).min(connections.most));
        }
    }
}
