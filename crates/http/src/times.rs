//! Times that servers give, cut to a limit.

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use serde_json::Value;
use std::time::Duration;

/// Longest delay that is accepted from a server; a longer one is assumed to be a mistake.
pub const LONGEST_DELAY: Duration = Duration::from_secs(3600);
/// Longest accepted life of a token or credential. Renewing too early costs only a request.
pub const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// Assumed life of a token whose answer states none: one hour, as most servers use.
pub const USUAL_LIFE: Duration = Duration::from_secs(3600);

/// `Retry-After` as a delay of at most [`LONGEST_DELAY`]: seconds, or a date (RFC 9110, section
/// 10.2.3). `None` where it is neither.
pub fn retry_after(text: &str, now: Timestamp) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // A number that does not fit 64 bits is a long time too.
        let seconds = text.parse().unwrap_or(u64::MAX);
        return Some(Duration::from_secs(seconds).min(LONGEST_DELAY));
    }
    let date = DateTimeParser::new().parse_timestamp(text).ok()?;
    let delay = Duration::try_from(date.duration_since(now)).unwrap_or_default();
    Some(delay.min(LONGEST_DELAY))
}

/// `expires_in` of a token (RFC 6749, section 5.1) as a life of at most [`LONGEST_LIFE`]. Some
/// servers write it as text or with a fraction. An absent value or one that is no number counts as
/// [`USUAL_LIFE`], a negative one as zero.
pub fn token_life(expires_in: Option<&Value>) -> Duration {
    let seconds = match expires_in {
        Some(Value::Number(number)) => number.as_f64(),
        Some(Value::String(text)) => text.trim().parse::<f64>().ok(),
        _ => None,
    };
    match seconds.filter(|s| !s.is_nan()) {
        None => USUAL_LIFE,
        Some(seconds) => {
            let seconds = seconds.clamp(0.0, LONGEST_LIFE.as_secs_f64());
            Duration::try_from_secs_f64(seconds).unwrap_or(LONGEST_LIFE)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn delays() {
        let now = "2026-11-22T08:49:00Z".parse().unwrap();
        for (text, expected) in [
            (" 3 ", Some(3)),
            ("0", Some(0)),
            ("Sun, 22 Nov 2026 08:49:05 GMT", Some(5)),
            // A date that is over asks for no delay.
            ("Sat, 21 Nov 2026 08:49:05 GMT", Some(0)),
            ("Wed, 29 Dec 9999 23:59:59 GMT", Some(3600)),
            // Beyond what a clock shows.
            ("Fri, 31 Dec 9999 23:59:59 GMT", None),
            ("999999999999", Some(3600)),
            ("18446744073709551615", Some(3600)),
            ("99999999999999999999999999999999", Some(3600)),
            ("soon", None),
            ("-1", None),
            ("1e3", None),
            ("", None),
        ] {
            let expected = expected.map(Duration::from_secs);
            assert_eq!(retry_after(text, now), expected, "{text:?}");
        }
    }

    #[test]
    fn lives() {
        let day = 24.0 * 3600.0;
        for (value, seconds) in [
            (json!(3599), 3599.0),
            (json!("3599"), 3599.0),
            (json!(0), 0.0),
            (json!(0.5), 0.5),
            (json!(-1), 0.0),
            (json!(-1e300), 0.0),
            (json!(u64::MAX), day),
            (json!(1e300), day),
            (json!("inf"), day),
            (json!("NaN"), 3600.0),
            (json!("soon"), 3600.0),
            (json!(null), 3600.0),
            (json!({"a": 1}), 3600.0),
        ] {
            let life = token_life(Some(&value));
            assert_eq!(life, Duration::from_secs_f64(seconds), "{value}");
            // What the callers do with it.
            assert!(tokio::time::Instant::now().checked_add(life).is_some());
        }
        assert_eq!(token_life(None), USUAL_LIFE);
    }
}
