//! Promise 8: whatever a location does, wherever it is called, it does to itself alone.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use async_trait::async_trait;
use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::panic_any;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context as TaskContext, Wake, Waker};
use std::time::{Duration, Instant};
use support::*;
use trace_destination_core::{
    BatchEncoder, BatchLimits, Capabilities, Destination, DropReason, EnvSource, Error, ErrorKind,
    FlushReport, Guarantee, LocationUri, Pipeline, Span, TraceBatch, TraceLocation, TraceSink,
    Transformed, Written,
};

/// Bad neighbours of one healthy location.
const BAD: usize = 64;
const DEADLINE: Duration = Duration::from_secs(1);
/// What a flush may take beyond its deadline: the grace of a second, and a loaded machine.
const BEYOND: Duration = Duration::from_secs(4);

/// Where foreign code runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Capabilities,
    Uri,
    Open,
    Encoder,
    Encode,
    Write,
    Close,
    /// Destructors: of the sink, of what the future of a write holds, of the encoder, of what it
    /// made, of the error that a write returned, of the location.
    DropSink,
    DropFuture,
    DropEncoder,
    DropEncoded,
    DropError,
    DropLocation,
}

/// What it does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Panic,
    /// With a payload that panics when it is dropped, with a payload that does.
    NestedPanic,
    Block,
    Never,
    /// Tasks of its own, one of which panics and one never ends.
    Spawn,
}

struct Bomb(u32);

impl Drop for Bomb {
    fn drop(&mut self) {
        if let Some(left) = self.0.checked_sub(1) {
            panic_any(Bomb(left));
        }
    }
}

impl How {
    fn act(self) {
        match self {
            Self::Panic => panic!("as told"),
            Self::NestedPanic => panic_any(Bomb(4)),
            Self::Block => std::thread::sleep(Duration::from_secs(3_600)),
            Self::Spawn => {
                tokio::spawn(async { panic!("as told") });
                tokio::task::spawn_blocking(|| std::thread::sleep(Duration::from_secs(3_600)));
                tokio::spawn(std::future::pending::<()>());
            }
            Self::Never => {}
        }
    }
}

#[derive(Clone, Copy, Debug)]
struct Script {
    call: Call,
    how: How,
    /// How often it does so before it does what it should.
    times: u32,
}

/// A location that misbehaves as told.
#[derive(Clone)]
struct Rogue {
    uri: LocationUri,
    script: Script,
    done: Arc<AtomicU32>,
    stored: Arc<AtomicU32>,
}

impl Rogue {
    fn new(name: &str, script: Script) -> Self {
        Self {
            uri: LocationUri::from_parts("rogue", None, name, []).unwrap(),
            script,
            done: Arc::default(),
            stored: Arc::default(),
        }
    }

    fn is(&self, call: Call) -> bool {
        self.script.call == call && self.done.fetch_add(1, Ordering::SeqCst) < self.script.times
    }

    fn at(&self, call: Call) {
        if self.is(call) {
            self.script.how.act();
        }
    }

    async fn at_async(&self, call: Call) {
        if self.is(call) {
            self.script.how.act();
            if self.script.how == How::Never {
                std::future::pending::<()>().await;
            }
        }
    }

    fn on_drop(&self, call: Call) -> OnDrop {
        OnDrop(self.clone(), call)
    }
}

/// Misbehaves when it is dropped.
struct OnDrop(Rogue, Call);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.0.at(self.1);
    }
}

impl fmt::Debug for OnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDrop")
    }
}

impl fmt::Display for OnDrop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDrop")
    }
}

impl std::error::Error for OnDrop {}

/// The location itself, apart from what its sinks share, so that it can be dropped.
struct Located(
    Rogue,
    #[allow(dead_code, reason = "for its destructor")] OnDrop,
);

impl fmt::Debug for Located {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("nobody has to print it")
    }
}

impl fmt::Display for Located {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("nobody has to print it")
    }
}

#[async_trait]
impl TraceLocation for Located {
    fn uri(&self) -> &LocationUri {
        self.0.at(Call::Uri);
        &self.0.uri
    }

    fn capabilities(&self) -> Capabilities {
        self.0.at(Call::Capabilities);
        Capabilities::new(Guarantee::AtLeastOnce)
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        self.0.at_async(Call::Open).await;
        let on_drop = self.0.on_drop(Call::DropSink);
        Ok(Box::new(RogueSink(self.0.clone(), on_drop)))
    }
}

struct RogueSink(
    Rogue,
    #[allow(dead_code, reason = "for its destructor")] OnDrop,
);

#[async_trait]
impl TraceSink for RogueSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let _on_drop = self.0.on_drop(Call::DropFuture);
        self.0.at_async(Call::Write).await;
        let _ = batch.encoded::<OnDrop>();
        tokio::task::yield_now().await;
        if self.0.script.call == Call::DropError {
            let source = self.0.on_drop(Call::DropError);
            return Err(Error::new(ErrorKind::InvalidSpan, "write", "no").caused_by(source));
        }
        let spans = batch.span_count() as u32;
        self.0.stored.fetch_add(spans, Ordering::SeqCst);
        Ok(Written::default())
    }

    fn encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        self.0.at(Call::Encoder);
        let on_drop = self.0.on_drop(Call::DropEncoder);
        Some(Arc::new(RogueEncoder(self.0.clone(), on_drop)))
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.0.at_async(Call::Close).await;
        Ok(())
    }
}

struct RogueEncoder(
    Rogue,
    #[allow(dead_code, reason = "for its destructor")] OnDrop,
);

impl BatchEncoder for RogueEncoder {
    fn encode(&self, _: &TraceBatch) -> Option<Arc<dyn Any + Send + Sync>> {
        self.0.at(Call::Encode);
        Some(Arc::new(self.0.on_drop(Call::DropEncoded)))
    }
}

/// Backtraces of thousands of panics would take longer than everything else.
static QUIET: LazyLock<()> = LazyLock::new(|| {
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let expected = info.payload().is::<Bomb>() || info.payload_as_str() == Some("as told");
        if !expected {
            loud(info);
        }
    }));
});

/// Small batches, so that some wait while another is written.
fn small() -> BatchLimits {
    BatchLimits {
        spans: 4,
        age: Duration::from_millis(5),
        ..BatchLimits::default()
    }
}

fn within(what: &str, call: impl FnOnce() -> FlushReport) -> FlushReport {
    let began = Instant::now();
    let report = call();
    let took = began.elapsed();
    assert!(took < DEADLINE + BEYOND, "{what} took {took:?}");
    report
}

/// The healthy neighbour of many that misbehave in one way loses nothing and waits for nothing.
fn contained(call: Call, how: How) {
    LazyLock::force(&QUIET);
    let what = format!("{call:?} {how:?}");
    let script = Script {
        call,
        how,
        times: u32::MAX,
    };
    let mut pipeline = quick().with_batch_limits(small());
    if call == Call::Capabilities {
        // With batch limits of the pipeline's own no location would be asked.
        pipeline = Pipeline::builder().strict();
    }
    let pipeline = pipeline
        .with_idle_close(Duration::from_millis(200))
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    let healthy = Place::new(&what);
    let bad: Vec<_> = (0..BAD)
        .map(|i| Rogue::new(&format!("{what}-{i}"), script))
        .collect();
    for _ in 0..10 {
        for rogue in &bad {
            let located = Located(rogue.clone(), rogue.on_drop(Call::DropLocation));
            let destination = Destination::new(located);
            span_to(&tracer, &destination, "bad");
        }
        for _ in 0..100 {
            span_to(&tracer, &healthy.to(), "good");
        }
    }
    let report = within(&what, || pipeline.flush(DEADLINE).wait());
    assert_eq!(
        report.location(healthy.uri()).unwrap().stored,
        1_000,
        "{what}: {report}"
    );
    balanced(&pipeline);
    span_to(&tracer, &healthy.to(), "later");
    eventually(&what, || healthy.len() == 1_001);
    // Long enough for idle sinks to be closed.
    std::thread::sleep(Duration::from_millis(400));
    span_to(&tracer, &healthy.to(), "after");
    eventually(&what, || healthy.len() == 1_002);

    within(&what, || pipeline.shutdown(DEADLINE).wait());
    balanced(&pipeline);
    let stats = healthy.stats(&pipeline);
    assert_eq!((stats.stored, stats.dropped.total()), (1_002, 0), "{what}");
    let all = pipeline.stats();
    let accepted: u64 = all.locations.iter().map(|l| l.accepted).sum();
    assert_eq!(accepted, 1_002 + 10 * BAD as u64, "{what}");
    // The report comes before what waits is dropped.
    eventually("nobody waits after a shutdown", || {
        pipeline.stats().locations.iter().all(|l| l.queued == 0)
    });
    balanced(&pipeline);
    let began = Instant::now();
    drop((tracer, pipeline));
    assert!(began.elapsed() < BEYOND, "{what}: the last handle");
}

macro_rules! table {
    ($($name:ident: $call:ident $how:ident;)*) => {
        $(#[test] fn $name() { contained(Call::$call, How::$how); })*
    };
}

table! {
    capabilities_panic: Capabilities Panic;
    capabilities_nested_panic: Capabilities NestedPanic;
    uri_panic: Uri Panic;
    uri_nested_panic: Uri NestedPanic;
    open_panic: Open Panic;
    open_nested_panic: Open NestedPanic;
    open_block: Open Block;
    open_never: Open Never;
    open_spawn: Open Spawn;
    encoder_panic: Encoder Panic;
    encoder_nested_panic: Encoder NestedPanic;
    encoder_block: Encoder Block;
    encode_panic: Encode Panic;
    encode_nested_panic: Encode NestedPanic;
    encode_block: Encode Block;
    write_panic: Write Panic;
    write_nested_panic: Write NestedPanic;
    write_block: Write Block;
    write_never: Write Never;
    write_spawn: Write Spawn;
    close_panic: Close Panic;
    close_nested_panic: Close NestedPanic;
    close_block: Close Block;
    close_never: Close Never;
    sink_drop_panic: DropSink Panic;
    sink_drop_nested_panic: DropSink NestedPanic;
    sink_drop_block: DropSink Block;
    future_drop_panic: DropFuture Panic;
    future_drop_nested_panic: DropFuture NestedPanic;
    future_drop_block: DropFuture Block;
    encoder_drop_panic: DropEncoder Panic;
    encoder_drop_nested_panic: DropEncoder NestedPanic;
    encoder_drop_block: DropEncoder Block;
    encoded_drop_panic: DropEncoded Panic;
    encoded_drop_nested_panic: DropEncoded NestedPanic;
    encoded_drop_block: DropEncoded Block;
    error_drop_panic: DropError Panic;
    error_drop_nested_panic: DropError NestedPanic;
    location_drop_panic: DropLocation Panic;
    location_drop_nested_panic: DropLocation NestedPanic;
}

#[test]
fn what_misbehaves_for_a_while_goes_on_and_stores_everything() {
    LazyLock::force(&QUIET);
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let calls = [
        Call::Capabilities,
        Call::Open,
        Call::Encoder,
        Call::Encode,
        Call::Write,
        Call::DropSink,
        Call::DropEncoder,
        Call::DropEncoded,
    ];
    let mut all = Vec::new();
    for call in calls {
        for how in [How::Panic, How::NestedPanic] {
            let script = Script {
                call,
                how,
                times: 3,
            };
            let rogue = Rogue::new(&format!("{call:?}-{how:?}"), script);
            let located = Located(rogue.clone(), rogue.on_drop(Call::DropLocation));
            all.push((rogue, Destination::new(located)));
        }
    }
    for _ in 0..50 {
        for (_, to) in &all {
            span_to(&tracer, to, "a");
        }
    }
    flush(&pipeline);
    for (rogue, _) in &all {
        let stored = rogue.stored.load(Ordering::SeqCst);
        assert_eq!(stored, 50, "{:?}", rogue.script);
    }
    settled(&pipeline);
}

#[test]
fn futures_whose_destructors_block_or_panic_when_they_are_cancelled() {
    // Cancelled at the deadline of a shutdown: they hold something that misbehaves.
    struct Stuck(How);
    impl Drop for Stuck {
        fn drop(&mut self) {
            self.0.act();
        }
    }
    LazyLock::force(&QUIET);
    for how in [How::Panic, How::NestedPanic, How::Block] {
        struct Cancelled(LocationUri, How);
        impl fmt::Debug for Cancelled {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        impl fmt::Display for Cancelled {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
        #[async_trait]
        impl TraceLocation for Cancelled {
            fn uri(&self) -> &LocationUri {
                &self.0
            }
            fn capabilities(&self) -> Capabilities {
                Capabilities::new(Guarantee::AtLeastOnce)
            }
            async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
                let _stuck = Stuck(self.1);
                std::future::pending().await
            }
        }
        let pipeline = quick().build().unwrap();
        let tracer = tracer(&pipeline);
        for i in 0..BAD {
            let uri = LocationUri::from_parts("cancelled", None, &i.to_string(), []).unwrap();
            span_to(&tracer, &Destination::new(Cancelled(uri, how)), "a");
        }
        let healthy = Place::new(&format!("cancelled-{how:?}"));
        span_to(&tracer, &healthy.to(), "a");
        let report = within("shutdown", || pipeline.shutdown(DEADLINE).wait());
        assert_eq!(report.location(healthy.uri()).unwrap().stored, 1);
        assert_eq!(healthy.closes(), 1);
        if how == How::Block {
            balanced(&pipeline);
        } else {
            settled(&pipeline);
        }
        for l in pipeline.stats().locations {
            let lost = l.dropped.by(DropReason::Shutdown) + l.in_flight;
            assert_eq!(l.stored + lost, 1, "{l:?}");
        }
    }
}

#[test]
fn a_location_whose_capabilities_panic_has_defaults_and_says_so() {
    LazyLock::force(&QUIET);
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let tracer = tracer(&pipeline);
    let script = Script {
        call: Call::Capabilities,
        how: How::NestedPanic,
        times: u32::MAX,
    };
    let rogue = Rogue::new("defaults", script);
    let located = || Destination::new(Located(rogue.clone(), rogue.on_drop(Call::DropLocation)));
    let both = Destination::all([located(), Place::new("beside").to()]).unwrap();
    span_to(&tracer, &both, "a");
    let error = stats_of(&pipeline, &rogue.uri)
        .last_error
        .unwrap()
        .to_string();
    assert!(
        error.contains("rogue:defaults") && error.contains("mend its `capabilities`"),
        "{error}"
    );
    flush(&pipeline);
    assert_eq!(rogue.stored.load(Ordering::SeqCst), 1);
}

#[test]
fn a_location_whose_uri_panics_fails_to_open_and_says_so() {
    LazyLock::force(&QUIET);
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let script = Script {
        call: Call::Uri,
        how: How::Panic,
        times: u32::MAX,
    };
    let rogue = Rogue::new("nameless", script);
    let to = Destination::new(Located(rogue.clone(), rogue.on_drop(Call::DropLocation)));
    assert_eq!(to.to_string(), "unnamed:location");
    assert_eq!(to, to.clone());
    span_to(&tracer, &to, "a");
    let report = pipeline.flush(PATIENCE).wait();
    let text = report.to_string();
    assert!(
        text.contains("as told") && text.contains("mend its `uri`"),
        "{text}"
    );
    settled(&pipeline);
}

#[test]
fn wakers_that_block_or_panic_hold_up_no_flush() {
    struct Rude(How);
    impl Wake for Rude {
        fn wake(self: Arc<Self>) {
            self.0.act();
        }
    }
    LazyLock::force(&QUIET);
    let pipeline = quick().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::on_write("wakers", |_, _| Step::Sleep(Duration::from_millis(50)));
    let mut kept = Vec::new();
    for round in 0..8 {
        for how in [How::Panic, How::NestedPanic, How::Block] {
            span_to(&tracer, &place.to(), "a");
            let mut flush = Box::pin(pipeline.flush(PATIENCE));
            let waker: Waker = Arc::new(Rude(how)).into();
            let _ = flush.as_mut().poll(&mut TaskContext::from_waker(&waker));
            kept.push(flush);
        }
        span_to(&tracer, &place.to(), "a");
        let report = within("flush", || pipeline.flush(PATIENCE).wait());
        assert!(report.all_stored(), "round {round}: {report}");
    }
    // Those whose deadline comes are woken by another thread than the one that answers.
    let hanging = Place::on_write("wakers-hang", |_, _| Step::Hang);
    span_to(&tracer, &hanging.to(), "a");
    for how in [How::Panic, How::NestedPanic, How::Block] {
        let mut flush = Box::pin(pipeline.flush(Duration::from_millis(10)));
        let waker: Waker = Arc::new(Rude(how)).into();
        let _ = flush.as_mut().poll(&mut TaskContext::from_waker(&waker));
        kept.push(flush);
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let report = within("awaited", || runtime.block_on(pipeline.flush(DEADLINE)));
    assert!(report.timed_out);
    within("shutdown", || runtime.block_on(pipeline.shutdown(DEADLINE)));
    eventually("delivery has ended", || {
        let mut task = TaskContext::from_waker(Waker::noop());
        pin!(pipeline.flush(DEADLINE)).poll(&mut task).is_ready()
    });
}

#[test]
fn a_hook_that_panics_with_anything_drops_that_span_alone() {
    LazyLock::force(&QUIET);
    struct Hook;
    impl trace_destination_core::SpanTransform for Hook {
        fn transform(&self, _: &LocationUri, span: &mut Span) -> Transformed {
            match span.name() {
                "panic" => How::Panic.act(),
                "nested" => How::NestedPanic.act(),
                _ => {}
            }
            Transformed::Keep
        }
    }
    impl Drop for Hook {
        fn drop(&mut self) {
            How::NestedPanic.act();
        }
    }
    let pipeline = quick().with_transform(Hook).build().unwrap();
    let tracer = tracer(&pipeline);
    let places: Vec<_> = (0..BAD).map(|i| Place::new(&format!("hook-{i}"))).collect();
    for place in &places {
        for name in ["a", "panic", "b", "nested", "c"] {
            span_to(&tracer, &place.to(), name);
        }
    }
    flush(&pipeline);
    for place in &places {
        assert_eq!(place.names(), ["a", "b", "c"]);
        assert_eq!(place.stats(&pipeline).dropped.by(DropReason::Transform), 2);
    }
    settled(&pipeline);
    pipeline.shutdown(PATIENCE).wait();
    drop((tracer, pipeline));
}

#[test]
fn configuration_code_that_panics_is_an_error() {
    LazyLock::force(&QUIET);
    #[derive(Debug)]
    struct Env;
    impl EnvSource for Env {
        fn var(&self, _: &str) -> Result<Option<String>, Error> {
            panic_any(Bomb(4))
        }
    }
    let error = Pipeline::builder().with_env(&Env).unwrap_err().to_string();
    assert!(error.contains("panicked"), "{error}");

    struct Rude;
    impl opentelemetry::metrics::InstrumentProvider for Rude {
        fn u64_observable_counter(
            &self,
            _: opentelemetry::metrics::AsyncInstrumentBuilder<
                '_,
                opentelemetry::metrics::ObservableCounter<u64>,
                u64,
            >,
        ) -> opentelemetry::metrics::ObservableCounter<u64> {
            panic_any(Bomb(4))
        }
    }
    let meter = opentelemetry::metrics::Meter::new(Arc::new(Rude));
    let error = quick().with_meter(meter).build().unwrap_err().to_string();
    assert!(error.contains("meter panicked"), "{error}");
}
