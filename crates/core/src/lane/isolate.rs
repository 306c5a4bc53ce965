//! Calling a sink so that it can neither hold up the pipeline nor unwind into it.

use crate::error::{Error, ErrorKind};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

/// How long a sink may take to close before it is dropped as it is.
const CLOSING: Duration = Duration::from_secs(10);

/// Closes a sink; its error is for the log only.
pub(crate) async fn close(sink: Box<dyn crate::TraceSink>, blocking: bool) -> Result<(), Error> {
    let close = pin!(async { sink.close().await });
    match tokio::time::timeout(CLOSING, isolated(close, "close location", blocking)).await {
        Ok(closed) => closed,
        Err(_) => Err(Error::new(
            ErrorKind::Timeout,
            "close location",
            format!("no answer in {CLOSING:?}, dropped as it is"),
        )),
    }
}

/// Polls a future of a sink so that it can neither hold up a worker by blocking nor unwind into
/// the pipeline. One that is not `blocking` is polled as it is: giving it a thread of its own for
/// the moment of a poll costs more than the poll, and thousands at once as many threads.
pub(super) fn isolated<T, F>(future: F, operation: &'static str, blocking: bool) -> Isolated<F>
where
    F: Future<Output = Result<T, Error>> + Unpin,
{
    Isolated {
        future,
        operation,
        blocking,
    }
}

pub(super) struct Isolated<F> {
    future: F,
    operation: &'static str,
    blocking: bool,
}

impl<T, F: Future<Output = Result<T, Error>> + Unpin> Future for Isolated<F> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let operation = self.operation;
        let blocking = self.blocking;
        let future = Pin::new(&mut self.future);
        let poll = || std::panic::catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        let polled = match blocking {
            // Hands the worker's other tasks to another thread for as long as this poll takes.
            true => tokio::task::block_in_place(poll),
            false => poll(),
        };
        polled.unwrap_or_else(|panic| {
            Poll::Ready(Err(Error::new(
                ErrorKind::Internal,
                operation,
                format!(
                    "the sink panicked: {}",
                    crate::transform::panic_text(&*panic)
                ),
            )
            .retryable()
            .mend("this is a defect of the sink; the batch is tried again")))
        })
    }
}
