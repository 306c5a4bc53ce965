use super::*;
use crate::memory::MemoryLocation;
use opentelemetry::trace::{Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::task::{Context as TaskContext, Waker};

#[test]
fn when_the_delivery_thread_dies_nobody_waits_for_it() {
    let pipeline = Pipeline::builder()
        .with_overflow(Overflow::Block(Duration::from_secs(60)))
        .build()
        .unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let far = Duration::from_secs(60);
    let mut early = Box::pin(pipeline.flush(far));
    let shared = pipeline.shared();
    let nobody = FlushState::new(later(Instant::now(), far));
    shared.control(Control::Panic(Asked(nobody)));

    let began = Instant::now();
    let _ = pipeline.flush(far).wait();
    let mut task = TaskContext::from_waker(Waker::noop());
    while early.as_mut().poll(&mut task).is_pending() {
        std::thread::sleep(Duration::from_millis(1));
        assert!(began.elapsed() < far / 2);
    }
    let place = Destination::new(MemoryLocation::new("delivery-died"));
    let _scope = place.enter();
    drop(provider.tracer("t").start("late"));
    let _ = pipeline.shutdown(far).wait();
    assert!(began.elapsed() < far / 2);
    // The span may have come while the thread was dying.
    while pipeline.stats().locations[0]
        .dropped
        .by(DropReason::Shutdown)
        < 1
    {
        std::thread::sleep(Duration::from_millis(1));
        assert!(began.elapsed() < far / 2);
    }
    assert_eq!(pipeline.stats().bytes, 0);
    let report = pipeline.flush(far).wait();
    let error = report.error.as_ref().unwrap().to_string();
    assert!(
        error.contains("as told") && !report.is_complete(),
        "{error}"
    );
}

#[test]
fn when_the_delivery_thread_dies_what_it_held_is_accounted_for() {
    let limits = crate::BatchLimits {
        age: Duration::MAX,
        ..crate::BatchLimits::default()
    };
    let pipeline = Pipeline::builder()
        .with_batch_limits(limits)
        .build()
        .unwrap();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let places: Vec<_> = (0..64)
        .map(|i| Destination::new(MemoryLocation::new(&format!("died-{i}"))))
        .collect();
    for place in &places {
        let _scope = place.enter();
        for _ in 0..10 {
            drop(provider.tracer("t").start("held"));
        }
    }
    // Long enough that they are in growing batches.
    std::thread::sleep(Duration::from_millis(50));
    let nobody = FlushState::new(Instant::now());
    pipeline.shared().control(Control::Panic(Asked(nobody)));
    let _ = pipeline.shutdown(Duration::from_secs(10)).wait();
    // Whoever waited is answered before the thread has counted everything.
    let patience = Instant::now() + Duration::from_secs(10);
    while pipeline.stats().bytes > 0 && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(1));
    }
    let stats = pipeline.stats();
    assert_eq!(stats.bytes, 0);
    for l in &stats.locations {
        assert_eq!(
            (l.accepted, l.queued, l.in_flight, l.bytes),
            (10, 0, 0, 0),
            "{l:?}"
        );
        assert_eq!(l.accepted, l.stored + l.dropped.total());
    }
}

/// A pipeline whose delivery thread does nothing for `time`.
fn stalled(time: Duration) -> Pipeline {
    let pipeline = Pipeline::builder().build().unwrap();
    let nobody = FlushState::new(later(Instant::now(), time));
    pipeline
        .shared()
        .control(Control::Stall(Asked(nobody), time));
    std::thread::sleep(Duration::from_millis(50));
    pipeline
}

/// An executor with nothing but a thread.
fn block_on<F: Future>(future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl std::task::Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Arc::new(Unpark(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut TaskContext::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}

#[test]
fn an_awaited_flush_keeps_its_deadline_while_delivery_is_stuck() {
    const DEADLINE: Duration = Duration::from_millis(100);
    let pipeline = stalled(Duration::from_secs(6));
    let on_time = |how: &str, run: &dyn Fn(Flush) -> FlushReport| {
        let began = Instant::now();
        let report = run(pipeline.flush(DEADLINE));
        let took = began.elapsed();
        assert!(report.timed_out, "{how}");
        assert!(took >= DEADLINE, "{how}: {took:?}");
        // The deadline, its grace of a second, and what a loaded machine adds.
        assert!(took < Duration::from_millis(2_500), "{how}: {took:?}");
    };
    let current = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let multi = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    let (on_time, current, multi) = (&on_time, &current, &multi);
    std::thread::scope(|scope| {
        scope.spawn(|| on_time("waited for", &Flush::wait));
        scope.spawn(|| on_time("a thread", &|f| block_on(f)));
        scope.spawn(move || on_time("current-thread", &|f| current.block_on(f)));
        scope.spawn(move || {
            on_time("multi-thread", &|f| {
                multi.block_on(async { tokio::spawn(f).await.unwrap() })
            });
        });
        scope.spawn(|| {
            // Moved to another task between two polls: the last waker counts.
            on_time("two tasks", &|f| {
                let mut f = Box::pin(f);
                let mut first = TaskContext::from_waker(Waker::noop());
                assert!(f.as_mut().poll(&mut first).is_pending());
                block_on(f)
            });
        });
    });
}

#[test]
fn a_flush_that_was_dropped_is_watched_no_more() {
    let pipeline = stalled(Duration::from_secs(2));
    let dropped = Arc::new(());
    struct Counted(#[allow(dead_code, reason = "it counts")] Arc<()>);
    impl std::task::Wake for Counted {
        fn wake(self: Arc<Self>) {}
    }
    for _ in 0..1_000 {
        let waker: Waker = Arc::new(Counted(dropped.clone())).into();
        let mut flush = Box::pin(pipeline.flush(Duration::from_secs(3_600)));
        let mut task = TaskContext::from_waker(&waker);
        assert!(flush.as_mut().poll(&mut task).is_pending());
    }
    assert_eq!(Arc::strong_count(&dropped), 1, "wakers are kept");
}
