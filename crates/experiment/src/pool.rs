//! The threads that may be inside SQLite at once, over all files of the process.
//!
//! A permit is taken before a thread is. Two things keep many bad files from costing a good one its
//! turn: files that are in trouble, or new, have permits of their own; and work that takes too long,
//! as on a network file system that hangs, gives its permit to the next while its thread waits on.

use crate::error::Fault;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Threads inside SQLite for files that worked the last time.
const PROVEN: usize = 8;
/// Threads inside SQLite for files that are opened, locked by others, or were slow the last time.
const UNPROVEN: usize = 8;
/// Work that takes longer than this gives its permit to the next; far more than a full transaction
/// takes. With every eight that have done so it takes as much longer: where all work is slow, as on
/// an overloaded machine, more threads are no help.
pub(crate) const OVERDUE: Duration = Duration::from_millis(500);
/// Threads that wait on without a permit. Once as many hang, others of their kind wait for them.
const MAX_OVERDUE: usize = 256;
/// Most batches that are made into rows at once.
const MAX_ENCODERS: usize = 16;

/// Whose permits a piece of work takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The file worked the last time.
    Proven,
    /// The file is new here, or was locked or slow the last time.
    Unproven,
}

/// Permits for blocking work and for encoding.
#[derive(Debug)]
pub(crate) struct Pool {
    proven: Arc<Semaphore>,
    unproven: Arc<Semaphore>,
    overdue: Arc<Semaphore>,
    encoders: Semaphore,
}

impl Pool {
    pub(crate) fn new() -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            proven: Arc::new(Semaphore::new(PROVEN)),
            unproven: Arc::new(Semaphore::new(UNPROVEN)),
            overdue: Arc::new(Semaphore::new(MAX_OVERDUE)),
            encoders: Semaphore::new(cores.clamp(2, MAX_ENCODERS)),
        }
    }

    /// Runs blocking work on a thread of the runtime, in its turn. Dropping the future leaves work
    /// that has begun to its end.
    ///
    /// # Errors
    /// `Abandoned` where the runtime ends first, or the work panics.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        class: Class,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        let permits = match class {
            Class::Proven => &self.proven,
            Class::Unproven => &self.unproven,
        };
        let Ok(permit) = permits.clone().acquire_owned().await else {
            return Err(Fault::Abandoned);
        };
        let overdue = self.overdue.clone();
        // A task of its own, so that the permit stays with the work when the caller goes away.
        let supervised = tokio::spawn(async move {
            let mut work = tokio::task::spawn_blocking(work);
            let waiting_on = MAX_OVERDUE - overdue.available_permits();
            let patience = OVERDUE * (1 + waiting_on / 8) as u32;
            if let Ok(done) = tokio::time::timeout(patience, &mut work).await {
                return done;
            }
            let lent = overdue.try_acquire_owned();
            // Kept where too many hang already: threads are bounded before all else.
            let kept = lent.is_err().then_some(permit);
            let done = work.await;
            drop((lent, kept));
            done
        });
        match supervised.await {
            Ok(Ok(done)) => Ok(done),
            _ => Err(Fault::Abandoned),
        }
    }

    /// Waits until a batch may be made into rows. The permit must not be kept over an `await`.
    pub(crate) async fn encoder(&self) -> Option<SemaphorePermit<'_>> {
        self.encoders.acquire().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_time()
            .build()
            .unwrap()
    }

    #[test]
    fn as_many_threads_as_permits() {
        static NOW: AtomicUsize = AtomicUsize::new(0);
        static MOST: AtomicUsize = AtomicUsize::new(0);
        runtime().block_on(async {
            let pool = Arc::new(Pool::new());
            let jobs: Vec<_> = (0..400)
                .map(|n| {
                    let pool = pool.clone();
                    let class = [Class::Proven, Class::Unproven][n % 2];
                    tokio::spawn(async move {
                        let work = || {
                            MOST.fetch_max(
                                NOW.fetch_add(1, Ordering::SeqCst) + 1,
                                Ordering::SeqCst,
                            );
                            std::thread::sleep(Duration::from_millis(2));
                            NOW.fetch_sub(1, Ordering::SeqCst);
                        };
                        pool.run(class, work).await.unwrap();
                    })
                })
                .collect();
            for job in jobs {
                job.await.unwrap();
            }
            let most = MOST.load(Ordering::SeqCst);
            assert!(most <= PROVEN + UNPROVEN, "{most} at once");
            assert!(most > 1, "one after the other");
        });
    }

    #[test]
    fn work_that_hangs_holds_a_thread_and_no_permit() {
        let runtime = runtime();
        let (release, wait) = mpsc::channel::<()>();
        let wait = Arc::new(std::sync::Mutex::new(wait));
        runtime.block_on(async {
            let pool = Arc::new(Pool::new());
            for _ in 0..64 {
                let (pool, wait) = (pool.clone(), wait.clone());
                tokio::spawn(async move {
                    let hang = move || {
                        let _ = wait.lock().map(|wait| wait.recv());
                    };
                    pool.run(Class::Proven, hang).await
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            // Each round of eight is found out after `OVERDUE` and as much more for each before it.
            let done = pool.run(Class::Proven, || 7);
            let done = tokio::time::timeout(OVERDUE * 60, done).await;
            assert!(matches!(done, Ok(Ok(7))), "64 that hang keep the 65th out");
            let began = std::time::Instant::now();
            assert!(matches!(pool.run(Class::Unproven, || 7).await, Ok(7)));
            assert!(began.elapsed() < OVERDUE, "{:?}", began.elapsed());
        });
        drop(release);
        runtime.shutdown_background();
    }
}
