//! The scope of a future or stream: the destination is overlaid on the context of each poll.

use crate::destination::Destination;
use crate::scope::guard::guards;
use crate::scope::{in_scope, with_current};
use futures_core::Stream;
use opentelemetry::{Context, ContextGuard};
use pin_project_lite::pin_project;
use std::cell::RefCell;
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

thread_local! {
    /// The innermost future or stream that this thread polls. A context that is attached inside, as
    /// `tracing-opentelemetry` does for a span that was entered before, hides its destination
    /// without meaning to.
    static AROUND: RefCell<Option<Around>> = const { RefCell::new(None) };
}

struct Around {
    destination: Destination,
    /// How many scopes were entered on this thread by then.
    guards: usize,
}

/// A context that was attached for one poll.
struct Overlay {
    /// None where the destination is there already.
    _context: Option<ContextGuard>,
    /// What was around before, if that was another. A poll ends before the one around it does, so
    /// what is put back is right whatever happens inside.
    outside: Option<Option<Around>>,
}

impl Drop for Overlay {
    fn drop(&mut self) {
        if let Some(outside) = self.outside.take() {
            // Dropped outside of the cell. The future that is polled has a clone, so it is not the
            // last.
            drop(AROUND.try_with(|around| around.replace(outside)));
        }
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

/// Attaches the current context with `destination` in it, unless it is there already or the thread
/// has no context any more.
fn overlay(destination: &Destination) -> Option<Overlay> {
    let inside = with_current(|cx| match in_scope(cx) {
        Some(there) if there.same(destination) => None,
        _ => Some(destination.in_context(cx)),
    })?;
    let guards = guards();
    let is_here = |around: &Around| around.guards == guards && around.destination.same(destination);
    let outside = AROUND.try_with(|around| {
        let known = around.borrow().as_ref().is_some_and(is_here);
        (!known).then(|| {
            around.replace(Some(Around {
                destination: destination.clone(),
                guards,
            }))
        })
    });
    let (context, outside) = (inside.map(Context::attach), outside.ok().flatten());
    (context.is_some() || outside.is_some()).then_some(Overlay {
        _context: context,
        outside,
    })
}

/// Applies `f` to the destination of the innermost future or stream that this thread polls, whatever
/// context was attached inside it; not where a scope was entered inside it, which that context may
/// hide.
pub(crate) fn with_around<T>(f: impl FnOnce(&Destination) -> T) -> Option<T> {
    let around = AROUND.try_with(|around| {
        let around = around.borrow();
        let innermost = around.as_ref().filter(|around| around.guards == guards());
        innermost.map(|around| around.destination.clone())
    });
    around.ok().flatten().as_ref().map(f)
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
