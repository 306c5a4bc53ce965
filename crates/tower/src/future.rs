//! The future of a response.

use crate::body::ResponseBody;
use http::Response;
use pin_project_lite::pin_project;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trace_destination_core::{Destination, DestinationExt, WithDestination, bind_current_trace};

pin_project! {
    /// The future of [`DestinationService`](crate::DestinationService): polled and dropped in the
    /// scope of the request's destination.
    ///
    /// # Panics
    /// As most futures, if it is polled after it has completed.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, B> {
        #[pin]
        kind: Kind<F, B>,
    }
}

pin_project! {
    #[derive(Debug)]
    #[project = KindProj]
    enum Kind<F, B> {
        Running {
            #[pin]
            future: WithDestination<F>,
            polled: bool,
        },
        Answered { response: Ready<Response<B>> },
    }
}

impl<F, B> ResponseFuture<F, B> {
    pub(crate) fn running(future: F, destination: Destination) -> Self {
        Self {
            kind: Kind::Running {
                future: future.with_destination(destination),
                polled: false,
            },
        }
    }

    /// The request is not passed on.
    pub(crate) fn answered(response: Response<B>) -> Self {
        Self {
            kind: Kind::Answered {
                response: ready(response),
            },
        }
    }
}

/// Binds the trace of the span around the layer, where it is undecided: a request whose service makes
/// no span is stored too. When it is dropped, after the first poll and also while a panic unwinds, so
/// that an inner layer that was reached in that poll goes first.
struct Decide(Destination);

impl Drop for Decide {
    fn drop(&mut self) {
        // Nothing is to be done where there is no such span, or its trace is bound.
        let _ = bind_current_trace(&self.0);
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (response, destination) = match self.project().kind.project() {
            KindProj::Running { mut future, polled } => {
                let first = !std::mem::replace(polled, true);
                let _decide = first.then(|| Decide(future.destination().clone()));
                let response = ready!(future.as_mut().poll(cx))?;
                (response, future.destination().clone())
            }
            KindProj::Answered { response } => {
                let response = ready!(Pin::new(response).poll(cx));
                (response, Destination::unset())
            }
        };
        Poll::Ready(Ok(response.map(|body| ResponseBody::new(body, destination))))
    }
}
