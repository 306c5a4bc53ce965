//! The destination of the process. Alone in its program: nothing else may set it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer};
use support::*;
use trace_destination_core::{Destination, Pipeline, clear_global, current, global, set_global};

#[test]
fn set_replace_and_clear_while_traces_are_open() {
    let pipeline = Pipeline::builder().build().unwrap();
    let tracer = tracer(&pipeline);
    let (a, b) = (Place::new("process-a"), Place::new("process-b"));
    assert_eq!((global(), current()), (None, None));
    let before = Context::new().with_span(tracer.start("before"));

    assert_eq!(set_global(a.to()), None);
    assert_eq!((global(), current()), (Some(a.to()), Some(a.to())));
    let first = Context::new().with_span(tracer.start("first"));

    assert_eq!(set_global(b.to()), Some(a.to()));
    let second = Context::new().with_span(tracer.start("second"));
    {
        let _scope = Destination::discard().enter();
        assert_eq!(current(), Some(Destination::discard()));
        let _scope = Destination::unset().enter();
        assert_eq!(current(), Some(b.to()));
    }
    assert_eq!(clear_global(), Some(b.to()));
    assert_eq!((clear_global(), global(), current()), (None, None, None));
    for cx in [&before, &first, &second] {
        drop(tracer.start_with_context("child", cx));
    }
    drop((before, first, second, tracer.start("after")));
    flush(&pipeline);
    assert_eq!(a.names(), ["child", "first"]);
    assert_eq!(b.names(), ["child", "second"]);
    assert_eq!(pipeline.stats().unrouted, 3);
    settled(&pipeline);
}
