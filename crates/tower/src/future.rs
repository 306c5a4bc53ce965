//! The future of a response.

use crate::body::ResponseBody;
use http::Response;
use pin_project_lite::pin_project;
use std::future::{Future, Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use trace_destination_core::{Destination, DestinationExt, WithDestination};

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
        Running { #[pin] future: WithDestination<F> },
        Answered { response: Ready<Response<B>> },
    }
}

impl<F, B> ResponseFuture<F, B> {
    pub(crate) fn running(future: F, destination: Destination) -> Self {
        Self {
            kind: Kind::Running {
                future: future.with_destination(destination),
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

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<ResponseBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (response, destination) = match self.project().kind.project() {
            KindProj::Running { mut future } => {
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
