//! Response bodies.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use support::*;
use tower::{Layer, ServiceExt, service_fn};
use trace_destination_tower::{DestinationLayer, ResponseBody};

/// Two frames, trailers, then the end or an error; makes a span at each poll and when it is dropped.
struct Scripted {
    stage: Stage,
    tenant: &'static str,
    polls: u32,
    fails: bool,
    pending: bool,
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.stage.span("poll", self.tenant);
        self.pending = !self.pending;
        if self.pending {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.polls += 1;
        Poll::Ready(match (self.polls, self.fails) {
            (1 | 2, _) => Some(Ok(Frame::data(Bytes::from_static(b"data")))),
            (3, false) => {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Some(Ok(Frame::trailers(trailers)))
            }
            (3, true) => Some(Err("broken")),
            _ => None,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.polls > 3
    }

    fn size_hint(&self) -> SizeHint {
        let mut hint = SizeHint::new();
        hint.set_lower(u64::from(2u32.saturating_sub(self.polls)) * 4);
        hint.set_upper(100);
        hint
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.stage.span("drop", self.tenant);
    }
}

fn respond(stage: &Stage, tenant: &'static str, fails: bool) -> ResponseBody<Scripted> {
    let to = stage.to(tenant);
    let inner = stage.clone();
    let service =
        DestinationLayer::new(move |_| to.clone()).layer(service_fn(move |_: Request<()>| {
            let stage = inner.clone();
            async move {
                Ok::<_, Infallible>(Response::new(Scripted {
                    stage,
                    tenant,
                    polls: 0,
                    fails,
                    pending: false,
                }))
            }
        }));
    let response = service.oneshot(Request::new(())).now_or_never().unwrap();
    response.unwrap().into_body()
}

#[test]
fn frames_trailers_and_hints_are_those_of_the_body_inside() {
    let stage = Stage::new("body-frames");
    let mut body = respond(&stage, "a", false);
    assert_eq!(body.size_hint().lower(), 8);
    assert_eq!(body.size_hint().upper(), Some(100));
    block_on(async {
        for left in [4, 0] {
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), "data");
            assert_eq!(body.size_hint().lower(), left);
            assert!(!body.is_end_stream());
        }
        let trailers = body.frame().await.unwrap().unwrap();
        assert_eq!(trailers.into_trailers().unwrap()["grpc-status"], "0");
        assert!(body.frame().await.is_none());
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none(), "the end stays the end");
    });
    drop(body);
    stage.flush();
    let mut expected = vec!["drop"];
    expected.extend(["poll"; 10]);
    assert_eq!(stage.at("a"), expected);
    assert_eq!(stage.unrouted(), 0);
}

#[test]
fn errors_of_the_body_are_passed_on() {
    let stage = Stage::new("body-errors");
    let body = respond(&stage, "a", true);
    let error = block_on(body.collect()).unwrap_err();
    assert_eq!(error, "broken");
    stage.flush();
    assert_eq!(stage.at("a").len(), 7);
}

#[test]
fn bodies_of_many_tenants_polled_by_turns_on_one_thread() {
    let stage = Stage::new("body-turns");
    let tenants = ["a", "b", "c", "d", "e", "f", "g"];
    let mut bodies: Vec<_> = tenants.map(|tenant| respond(&stage, tenant, false)).into();
    // In the scope of yet another tenant.
    let _around = stage.to("around").enter();
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for turn in 0..8 {
        for body in &mut bodies {
            let polled = Pin::new(body).poll_frame(&mut cx);
            assert_eq!(polled.is_pending(), turn % 2 == 0);
        }
        stage.span("between", "around");
    }
    drop(bodies);
    stage.flush();
    for tenant in tenants {
        assert_eq!(stage.at(tenant).len(), 9, "{tenant}");
    }
    assert_eq!(stage.at("around"), ["between"; 8]);
}

#[test]
fn a_body_dropped_halfway_on_another_thread() {
    let stage = Stage::new("body-dropped");
    let mut body = respond(&stage, "a", false);
    block_on(async { body.frame().await.unwrap().unwrap() });
    std::thread::spawn(move || drop(body)).join().unwrap();
    drop(respond(&stage, "b", false)); // never polled
    stage.flush();
    assert_eq!(stage.at("a"), ["drop", "poll", "poll"]);
    assert_eq!(stage.at("b"), ["drop"]);
    assert_eq!(stage.unrouted(), 0);
}

#[test]
fn hints_of_bodies_without_a_stream() {
    let stage = Stage::new("body-hints");
    let to = stage.to("a");
    let layer = DestinationLayer::new(move |_| to.clone());
    let full = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello"))))
    }));
    let empty = layer.layer(service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    }));
    let full = full.oneshot(Request::new(())).now_or_never().unwrap();
    let empty = empty.oneshot(Request::new(())).now_or_never().unwrap();
    // So that hyper sends a Content-Length and no chunks.
    assert_eq!(full.unwrap().body().size_hint().exact(), Some(5));
    assert!(empty.unwrap().body().is_end_stream());
    assert!(ResponseBody::<Empty<Bytes>>::default().is_end_stream());
}
