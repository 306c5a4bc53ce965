//! Points in time that cannot overflow. Durations come from settings and servers, and
//! `Duration::MAX` is a common way to write "never".

use std::time::{Duration, Instant};

/// Thirty years, which stands for "never"; tokio uses the same value for the far future.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// `from` plus `by`, where `by` is cut to thirty years.
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
