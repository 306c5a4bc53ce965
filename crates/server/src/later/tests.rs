use super::*;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use trace_destination_core::TraceUpdate;

struct Calls {
    uri: LocationUri,
    memory: TraceMemory,
    fails: AtomicBool,
    /// The calls of this trace fail, whatever becomes of others.
    poison: Option<TraceId>,
    /// Without an error: the calls wait for something.
    waits: AtomicBool,
    tried: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl Complete<u32> for Calls {
    async fn complete(&self, jobs: Vec<(TraceId, u32)>) -> Vec<Left<u32>> {
        self.tried.fetch_add(jobs.len(), Ordering::SeqCst);
        self.most.fetch_max(jobs.len(), Ordering::SeqCst);
        let error = || Error::new(ErrorKind::Unavailable, "complete trace", "away").retryable();
        match (
            self.fails.load(Ordering::SeqCst),
            self.waits.load(Ordering::SeqCst),
        ) {
            (true, _) => untried(jobs, || Some(error())),
            (_, true) => untried(jobs, || None),
            _ => {
                let jobs = jobs.into_iter();
                let poison = jobs.filter(|(trace, _)| Some(*trace) == self.poison);
                untried(poison.collect(), || Some(error()))
            }
        }
    }

    fn memory(&self) -> &TraceMemory {
        &self.memory
    }

    fn uri(&self) -> &LocationUri {
        &self.uri
    }
}

type With = Arc<dyn Complete<u32>>;

fn calls() -> (Arc<Later<u32>>, Arc<Calls>, With) {
    calls_with(None)
}

fn calls_with(poison: Option<TraceId>) -> (Arc<Later<u32>>, Arc<Calls>, With) {
    let calls = Arc::new(Calls {
        uri: "http://h?experiment_id=1".parse().unwrap(),
        memory: TraceMemory::default(),
        fails: AtomicBool::new(true),
        poison,
        waits: AtomicBool::new(false),
        tried: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    (Arc::default(), calls.clone(), calls)
}

fn job(trace: u128) -> Vec<(TraceId, u32)> {
    vec![(TraceId::from(trace), 0)]
}

fn lost(calls: &Calls) -> Vec<String> {
    let lost = calls.memory.take_lost().into_iter();
    lost.map(|(_, error)| error.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_tried_until_it_succeeds_and_not_by_batches() {
    let (later, calls, with) = calls();
    for trace in 1..=500 {
        later.run(&with, job(trace)).await;
    }
    assert_eq!(calls.tried.load(Ordering::SeqCst), 1, "the first alone");
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(later.lock().waiting.len(), 500);
    assert!(calls.most.load(Ordering::SeqCst) <= AT_ONCE);
    // A place in trouble is asked less and less often.
    assert!(calls.tried.load(Ordering::SeqCst) < 20 * AT_ONCE);
    calls.fails.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(later.lock().waiting.len(), 0);
    assert!(!later.lock().running);
    assert_eq!(lost(&calls), Vec::<String>::new());
    // And by batches again.
    later.run(&with, job(1)).await;
    assert_eq!(later.lock().waiting.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_never_succeeds_is_told_in_the_end() {
    let (later, calls, with) = calls();
    later.run(&with, job(1)).await;
    tokio::time::sleep(PATIENCE - Duration::from_secs(1)).await;
    assert_eq!(lost(&calls), Vec::<String>::new());
    tokio::time::sleep(PAUSES.1 * 2).await;
    let told = lost(&calls);
    assert_eq!(told.len(), 1, "{told:?}");
    for part in [
        "away",
        "http://h",
        "five minutes",
        "spans of the trace are stored",
    ] {
        assert!(told[0].contains(part), "{told:?}");
    }
    assert_eq!(later.lock().waiting.len(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_waits_holds_up_nobody() {
    let (later, calls, with) = calls();
    calls.fails.store(false, Ordering::SeqCst);
    calls.waits.store(true, Ordering::SeqCst);
    for trace in 1..=3 {
        later.run(&with, job(trace)).await;
    }
    // Each was tried with its batch: to wait is no failure of the place.
    assert_eq!(calls.tried.load(Ordering::SeqCst), 3);
    tokio::time::sleep(PATIENCE + PAUSES.1 * 2).await;
    let told = lost(&calls);
    assert_eq!(told.len(), 3);
    assert!(told[0].contains("did not end"), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let (later, calls, with) = calls();
    for trace in 1..=(MOST as u128 + 100) {
        later.run(&with, job(trace)).await;
    }
    assert_eq!(later.lock().waiting.len(), MOST);
    let told = lost(&calls);
    assert_eq!(told.len(), 100);
    assert!(told[0].contains("too many others"), "{}", told[0]);
    // The same trace again takes no more room.
    later.run(&with, job(1)).await;
    assert_eq!((later.lock().waiting.len(), lost(&calls).len()), (MOST, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_try_is_for_all() {
    let (later, calls, with) = calls();
    for trace in 1..=200 {
        later.run(&with, job(trace)).await;
    }
    calls.fails.store(false, Ordering::SeqCst);
    later.last_try(&with).await;
    assert_eq!(later.lock().waiting.len(), 0);
    assert_eq!(lost(&calls), Vec::<String>::new());
}

/// One trace whose calls never succeed is its own trouble: others are told with their batches.
#[tokio::test(start_paused = true)]
async fn one_failing_trace_slows_no_other() {
    let poison = TraceId::from(1);
    let (later, calls, with) = calls_with(Some(poison));
    calls.fails.store(false, Ordering::SeqCst);
    let two = |a: u128, b: u128| [job(a), job(b)].concat();
    // In a batch with others.
    later.run(&with, two(1, 2)).await;
    assert_eq!(later.lock().failures, 0, "the batch had a success");
    for trace in 3..=20 {
        later.run(&with, job(trace)).await;
        assert_eq!(
            later.lock().waiting.len(),
            1,
            "told with its batch: {trace}"
        );
    }
    // In a round with others, some of which are told and some wait.
    calls.fails.store(true, Ordering::SeqCst);
    for trace in 30..=40 {
        later.run(&with, job(trace)).await;
    }
    assert!(later.lock().failures > 0);
    let taken = later.take(AT_ONCE, |_| true);
    assert_eq!(taken.len(), 12);
    let error = || Some(Error::new(ErrorKind::Unavailable, "complete trace", "away"));
    later.settle(&*with, taken, untried(job(1), error));
    let state = later.lock();
    assert_eq!((state.waiting.len(), state.failures), (1, 0));
}

/// A call that was replaced while a round tried the one before it is not taken for that.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_new_again_is_not_the_old_one() {
    for begun_anew in [false, true] {
        let (later, _, with) = calls();
        let fail = || later.settle_batch(&*with, job(1), untried(job(1), || None));
        fail();
        let taken = later.take(1, |_| true);
        if begun_anew {
            // A batch tells all there is to tell, and another one has more.
            later.settle_batch(&*with, job(1), Vec::new());
            assert!(later.lock().waiting.is_empty());
        }
        fail();
        later.settle(&*with, taken, Vec::new());
        let waiting = later.lock().waiting.len();
        assert_eq!(waiting, 1, "begun anew: {begun_anew}");
    }
}

/// What a call is to tell stays however many other traces come while it waits.
#[tokio::test(start_paused = true)]
async fn values_of_calls_that_wait_are_not_forgotten() {
    let (later, calls, with) = calls();
    let update = |trace: u128| TraceUpdate::new(TraceId::from(trace));
    calls.memory.note(&[update(1)]);
    later.run(&with, job(1)).await;
    let others: Vec<_> = (2..20_000).map(update).collect();
    calls.memory.note(&others);
    assert_eq!(calls.memory.todo(TraceId::from(1)), Some(update(1)));
    // Once it is told, it is a trace like others.
    calls.fails.store(false, Ordering::SeqCst);
    later.last_try(&with).await;
    calls.memory.note(&others);
    assert_eq!(calls.memory.todo(TraceId::from(1)), None);
}
