//! The body of a response, polled in the scope of the request's destination.

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use std::pin::Pin;
use std::task::{Context, Poll};
use trace_destination_core::{Destination, DestinationExt, WithDestination};

pin_project! {
    /// A response body whose frames are made in the scope of the request's destination, to the last
    /// one, trailers included. The body is dropped in that scope too, so that what ends when a
    /// client disconnects ends there.
    ///
    /// Frames, errors, [`size_hint`](Body::size_hint) and [`is_end_stream`](Body::is_end_stream) are
    /// those of the body inside.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        inner: WithDestination<B>,
    }
}

impl<B> ResponseBody<B> {
    pub(crate) fn new(body: B, destination: Destination) -> Self {
        Self {
            inner: body.with_destination(destination),
        }
    }

    /// The body inside.
    pub fn get_ref(&self) -> &B {
        self.inner.get_ref()
    }
}

impl<B: Default> Default for ResponseBody<B> {
    /// The default of the body inside, without a destination: what layers around this one answer
    /// with when they answer by themselves.
    fn default() -> Self {
        Self::new(B::default(), Destination::unset())
    }
}

#[deny(clippy::missing_trait_methods)]
impl<B: Body> Body for ResponseBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.in_scope(|body| body.poll_frame(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.get_ref().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.get_ref().size_hint()
    }
}
