//! Forks. What a child process inherits has no threads, and its locks may be held by threads that
//! do not exist in the child. A fork is detected by the process id, on paths where a system call
//! does not matter.

use crate::error::{Error, ErrorKind};
use arc_swap::ArcSwapOption;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

/// The process in which a value was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Process(u32);

impl Process {
    /// This process.
    pub(crate) fn current() -> Self {
        Self(std::process::id())
    }

    /// A process that is not this one.
    #[cfg(test)]
    pub(crate) fn elsewhere() -> Self {
        Self(u32::MAX)
    }

    /// Whether this is still the same process, and not a child that was forked from it. A system
    /// call.
    pub(crate) fn is_current(self) -> bool {
        self == Self::current()
    }

    /// Locks a mutex that was made in this process, also if it is poisoned. `None` if the lock is
    /// held and this is a forked child, in which its holder may not exist. Costs no more than the
    /// lock itself if that is free.
    #[inline]
    pub(crate) fn lock<T>(self, mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
        match mutex.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if self.is_current() => {
                Some(mutex.lock().unwrap_or_else(PoisonError::into_inner))
            }
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// The error for using a pipeline of the parent in a forked child.
    pub(crate) fn left_behind(self) -> Error {
        let Self(parent) = self;
        let Self(child) = Self::current();
        Error::new(
            ErrorKind::Shutdown,
            "use pipeline",
            format!(
                "it belongs to process {parent}; this is process {child}, forked from it, where its threads do not exist"
            ),
        )
        .mend("build a new pipeline and tracer provider in the child, after the fork")
    }
}

/// A static that each process has for itself: a forked child begins with an empty one.
pub(crate) struct PerProcess<T>(ArcSwapOption<(Process, T)>);

impl<T: Default> PerProcess<T> {
    pub(crate) const fn new() -> Self {
        Self(ArcSwapOption::const_empty())
    }

    /// The value of this process. Makes a system call.
    pub(crate) fn get(&self) -> Arc<(Process, T)> {
        let process = Process::current();
        let mut seen = self.0.load_full();
        loop {
            if let Some(there) = seen.as_ref().filter(|there| there.0 == process) {
                return there.clone();
            }
            let own = Arc::new((process, T::default()));
            let before = self.0.compare_and_swap(&seen, Some(own.clone()));
            let before = arc_swap::Guard::into_inner(before);
            let swapped = match (&before, &seen) {
                (None, None) => true,
                (Some(before), Some(seen)) => Arc::ptr_eq(before, seen),
                _ => false,
            };
            if swapped {
                // A thread of the parent may have been changing it during the fork.
                std::mem::forget((before, seen));
                return own;
            }
            seen = before;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_is_one_value_in_one_process() {
        static ALL: PerProcess<std::sync::Mutex<Vec<u32>>> = PerProcess::new();
        std::thread::scope(|scope| {
            for i in 0..8 {
                scope.spawn(move || ALL.get().1.lock().unwrap().push(i));
            }
        });
        assert_eq!(ALL.get().1.lock().unwrap().len(), 8);
        assert_eq!(ALL.get().0, Process::current());
    }

    #[test]
    fn what_another_process_holds_is_not_waited_for() {
        let mutex = Mutex::new(1);
        let (here, elsewhere) = (Process::current(), Process(u32::MAX));
        let held = here.lock(&mutex);
        assert!(held.is_some());
        assert!(elsewhere.lock(&mutex).is_none());
        drop(held);
        assert!(elsewhere.lock(&mutex).is_some(), "nobody holds it");
        let text = elsewhere.left_behind().to_string();
        assert!(text.contains("build a new pipeline"), "{text}");
    }
}
