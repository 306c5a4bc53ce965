//! Asking destinations whether they can be written, from wherever a program starts.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod support;

use std::time::{Duration, Instant};
use support::{Place, Step, flush, settled};
use trace_destination_core::{
    Check, CheckReport, Destination, Error, ErrorKind, MemoryLocation, Pipeline, Retry,
};

const SOON: Duration = Duration::from_millis(200);
/// Far beyond what a check may take, and far below what a test that hangs would.
const LATE: Duration = Duration::from_secs(20);

fn refused() -> Error {
    Error::new(ErrorKind::PermissionDenied, "open store", "not for you").mend("ask for it")
}

fn kinds(report: &CheckReport) -> Vec<Option<ErrorKind>> {
    let errors = report.locations.iter().map(|l| l.error.as_ref());
    errors.map(|e| e.map(Error::kind)).collect()
}

/// The same check from everywhere.
fn everywhere(check: impl Fn() -> Check) -> Vec<CheckReport> {
    let current = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let many = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    vec![
        check().wait(),
        current.block_on(async { check().await }),
        current.block_on(async { check().wait() }),
        many.block_on(async { check().await }),
        many.block_on(async { tokio::spawn(check()).await.unwrap() }),
        many.block_on(async { check().wait() }),
        // No runtime at all.
        without_runtime(check()),
    ]
}

/// Awaits on a thread without a runtime.
fn without_runtime(check: Check) -> CheckReport {
    use std::task::{Context, Poll, Wake, Waker};
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(std::sync::Arc::new(Unpark(std::thread::current())));
    let mut check = std::pin::pin!(check);
    loop {
        match check.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(report) => return report,
            Poll::Pending => std::thread::park_timeout(LATE),
        }
    }
}

#[test]
fn each_location_gets_its_verdict_wherever_it_is_asked() {
    let (good, bad) = (
        Place::new("good"),
        Place::on_open("bad", |_| Step::Fail(refused())),
    );
    let both = Destination::all([good.to(), bad.to()]).unwrap();
    let reports = everywhere(|| both.check());
    for report in &reports {
        assert_eq!(kinds(report), [Some(ErrorKind::PermissionDenied), None]);
        assert!(!report.is_ok());
        let text = report.to_string();
        assert_eq!(
            text,
            "open store at script:bad: not for you (ask for it)\nscript:good: ready"
        );
        assert!(report.clone().into_result().is_err());
    }
    // What was opened is closed, and nothing was written.
    let asked = u32::try_from(reports.len()).unwrap();
    assert_eq!((good.opens(), good.closes()), (asked, asked));
    assert_eq!((bad.opens(), bad.closes()), (asked, 0));
    assert_eq!(good.attempts(), 0);
}

#[test]
fn what_is_no_place_is_ready() {
    for to in [Destination::discard(), Destination::unset()] {
        let report = to.check().wait();
        assert!(report.is_ok() && report.locations.is_empty());
    }
    assert!(
        Destination::new(MemoryLocation::new("c"))
            .check()
            .wait()
            .is_ok()
    );
}

#[test]
fn a_check_is_over_in_time_whatever_a_location_does() {
    for (name, step) in [
        ("hangs", (|| Step::Hang) as fn() -> Step),
        ("blocks", || Step::Block(LATE)),
    ] {
        let place = Place::on_open(name, move |_| step());
        for report in everywhere(|| place.to().check().with_timeout(SOON)) {
            assert_eq!(kinds(&report), [Some(ErrorKind::Timeout)], "{report}");
            assert!(report.to_string().contains("within 200ms"), "{report}");
        }
    }
    let began = Instant::now();
    let slow = Place::new("check-closes-slowly");
    let report = slow.to().check().with_timeout(SOON).wait();
    assert!(began.elapsed() < LATE, "{report}");
}

#[test]
fn a_location_that_panics_is_an_error() {
    let place = Place::on_open("panics", |_| Step::Panic);
    for report in everywhere(|| place.to().check()) {
        assert_eq!(kinds(&report), [Some(ErrorKind::Internal)]);
        let error = report.into_result().unwrap_err();
        assert_eq!(error.retry(), Retry::Never);
        assert!(error.location().is_some(), "{error}");
    }
}

#[test]
fn dropping_a_check_ends_it() {
    let place = Place::on_open("dropped", |_| Step::Hang);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(async {
        let check = place.to().check().with_timeout(SOON);
        assert!(
            tokio::time::timeout(Duration::from_millis(20), check)
                .await
                .is_err()
        );
    });
    // Not begun, it asks nothing.
    drop(Place::new("never").to().check());
}

/// A pipeline that writes to the place keeps its sink.
#[test]
fn a_running_pipeline_is_not_disturbed() {
    use opentelemetry::trace::{Tracer, TracerProvider};
    let place = Place::new("busy");
    let pipeline = Pipeline::builder().strict().build().unwrap();
    let tracer = opentelemetry_sdk::trace::SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build()
        .tracer("t");
    for _ in 0..5 {
        let _scope = place.to().enter();
        drop(tracer.start("span"));
        assert!(place.to().check().wait().is_ok());
        flush(&pipeline);
    }
    let at = &pipeline.stats().locations[0];
    assert_eq!((at.stored, at.retries), (5, 0));
    assert!(at.last_error.is_none());
    // One sink of the pipeline's, and one of each check.
    assert_eq!((place.opens(), place.closes()), (6, 5));
    settled(&pipeline);
}
