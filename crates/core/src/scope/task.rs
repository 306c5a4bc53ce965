//! The scope of a future or stream: the destination is overlaid on the context of each poll.

use crate::destination::Destination;
use crate::scope::{is_entered, with_current};
use futures_core::Stream;
use opentelemetry::ContextGuard;
use pin_project_lite::pin_project;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll};

/// Scoping for futures and streams.
pub trait DestinationExt: Sized {
    /// Everything this future or stream does, dropping it included, happens with `destination` as
    /// the context-local one.
    ///
    /// Only the destination is overlaid: the rest of the context is whatever is current at each
    /// poll, so spans entered around the future stay parents. It does not reach into tasks that the
    /// future spawns; give those a scope of their own, or their context with OpenTelemetry's
    /// `with_current_context`.
    ///
    /// ```
    /// use trace_destination_core::{Destination, DestinationExt, MemoryLocation};
    ///
    /// # async fn handle() {}
    /// # async fn example() {
    /// let tenant = Destination::new(MemoryLocation::new("tenant-a"));
    /// handle().with_destination(tenant).await;
    /// # }
    /// ```
    fn with_destination(self, destination: Destination) -> WithDestination<Self> {
        WithDestination {
            inner: Some(self),
            destination,
        }
    }
}

impl<T> DestinationExt for T {}

pin_project! {
    /// A future or stream with its own destination; made by [`DestinationExt::with_destination`].
    #[derive(Debug)]
    #[must_use = "futures and streams do nothing unless polled"]
    pub struct WithDestination<T> {
        // An option only so that it can be dropped inside the scope.
        #[pin]
        inner: Option<T>,
        destination: Destination,
    }

    impl<T> PinnedDrop for WithDestination<T> {
        fn drop(this: Pin<&mut Self>) {
            let mut this = this.project();
            let _scope = overlay(this.destination);
            this.inner.set(None);
        }
    }
}

/// Attaches the current context with `destination` in it, unless it is there already or the thread
/// has no context any more.
fn overlay(destination: &Destination) -> Option<ContextGuard> {
    with_current(|cx| match is_entered(cx, destination) {
        true => None,
        false => Some(destination.in_context(cx)),
    })
    .flatten()
    .map(opentelemetry::Context::attach)
}

impl<F: Future> Future for WithDestination<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<F::Output> {
        self.in_scope(|inner| inner.poll(task))
    }
}

impl<S: Stream> Stream for WithDestination<S> {
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Option<S::Item>> {
        self.in_scope(|inner| inner.poll_next(task))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.inner.as_ref().map_or((0, Some(0)), Stream::size_hint)
    }
}

impl<T> WithDestination<T> {
    /// The destination of this future or stream.
    pub fn destination(&self) -> &Destination {
        &self.destination
    }

    /// What is inside.
    pub fn get_ref(&self) -> &T {
        match &self.inner {
            Some(inner) => inner,
            None => unreachable!("the inner value is taken only on drop"),
        }
    }

    /// Runs `f` on what is inside, in the scope of the destination: for what is polled through a
    /// trait other than `Future` and `Stream`, such as `http_body::Body`.
    ///
    /// ```
    /// use trace_destination_core::{Destination, DestinationExt, MemoryLocation, current};
    ///
    /// let tenant = Destination::new(MemoryLocation::new("tenant-a"));
    /// let mut items = std::pin::pin!(vec![1, 2].with_destination(tenant.clone()));
    /// let polled = items.as_mut().in_scope(|mut items| (items.pop(), current()));
    /// assert_eq!(polled, (Some(2), Some(tenant)));
    /// assert_eq!(current(), None);
    /// ```
    pub fn in_scope<R>(self: Pin<&mut Self>, f: impl FnOnce(Pin<&mut T>) -> R) -> R {
        let this = self.project();
        let _scope = overlay(this.destination);
        match this.inner.as_pin_mut() {
            Some(inner) => f(inner),
            None => unreachable!("the inner value is taken only on drop"),
        }
    }
}
