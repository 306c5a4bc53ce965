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
}
