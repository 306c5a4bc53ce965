//! What happens to a request without a destination.

use http::Response;
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};
use trace_destination_core::{Destination, Error};

/// Why a request has no destination.
///
/// `Display` is for logs: the text of an error holds the template with the place it leads to, which
/// is nothing that a client should read.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Unresolved {
    /// The function gave none: the request is nobody's, such as a health check.
    Absent,
    /// The function failed, for example because the name of the tenant does not fit the template.
    Failed(Error),
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("the request has no destination"),
            Self::Failed(error) => write!(f, "the request has no destination: {error}"),
        }
    }
}

/// What decides about requests without a destination: [`RunUnset`], or the function given to
/// [`DestinationLayer::on_unresolved`](crate::DestinationLayer::on_unresolved).
pub trait OnUnresolved<B> {
    /// `Continue` with the destination in whose scope the request runs, or `Break` with the response
    /// that the client gets.
    fn on_unresolved(&self, why: Unresolved) -> ControlFlow<Response<B>, Destination>;
}

impl<B, F> OnUnresolved<B> for F
where
    F: Fn(Unresolved) -> ControlFlow<Response<B>, Destination>,
{
    fn on_unresolved(&self, why: Unresolved) -> ControlFlow<Response<B>, Destination> {
        self(why)
    }
}

/// Runs the request in the scope of [`Destination::unset`], whatever scope is around the layer. Its
/// traces are decided by the levels below: unrouted in a `strict()` pipeline, else the global's or
/// the environment's.
///
/// Where the function failed, the error is logged as a warning, at most one a minute for each
/// layer.
#[derive(Clone, Debug, Default)]
pub struct RunUnset {
    /// When the next warning is due: milliseconds since the first request of the process.
    next_warning: Arc<AtomicU64>,
}

const BETWEEN_WARNINGS: Duration = Duration::from_secs(60);

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl RunUnset {
    /// Whether a warning is due now; true for one caller at a time.
    fn may_warn(&self, now: Duration) -> bool {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let due = self.next_warning.load(Ordering::Relaxed);
        let next = millis(now + BETWEEN_WARNINGS);
        millis(now) >= due
            && self
                .next_warning
                .compare_exchange(due, next, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}

impl<B> OnUnresolved<B> for RunUnset {
    fn on_unresolved(&self, why: Unresolved) -> ControlFlow<Response<B>, Destination> {
        if let Unresolved::Failed(error) = why
            && self.may_warn(START.elapsed())
        {
            tracing::warn!(
                target: "trace_destination",
                "a request runs without a destination: {error}"
            );
        }
        ControlFlow::Continue(Destination::unset())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_warning_a_minute() {
        let policy = RunUnset::default();
        let clone = policy.clone();
        let at = Duration::from_secs;
        assert!(policy.may_warn(at(0)));
        assert!(!policy.may_warn(at(0)));
        assert!(!clone.may_warn(at(59)), "clones are one layer");
        assert!(clone.may_warn(at(60)));
        assert!(!policy.may_warn(at(61)));
        assert!(RunUnset::default().may_warn(at(61)), "another layer");
    }
}
