//! Points in time that cannot overflow: every duration here may come from a setting or a server,
//! and `Duration::MAX` is how people write "never".

use std::time::{Duration, Instant};

/// Long enough to mean never; what tokio takes for the far future too.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// `from` plus `by`, or the far future.
pub(crate) fn later(from: Instant, by: Duration) -> Instant {
    from.checked_add(by.min(FAR)).unwrap_or(from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_is_far_away() {
        let now = Instant::now();
        assert_eq!(
            later(now, Duration::from_secs(1)),
            now + Duration::from_secs(1)
        );
        assert_eq!(later(now, Duration::MAX), now + FAR);
    }
}
