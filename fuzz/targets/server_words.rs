#![no_main]
//! What a server says, beside a secret that is in the first line: what is shown of it is one short
//! line without the secret, and times are within their bounds.
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use trace_destination_http::{
    LONGEST_DELAY, LONGEST_LIFE, encoded, error_code, message, origin, redacted, retry_after, said,
    scrub, shorten, token_life,
};

fuzz_target!(|bytes: &[u8]| {
    let end = bytes
        .iter()
        .position(|b| *b == b'\n')
        .unwrap_or(bytes.len());
    let (secret, words) = (&bytes[..end], &bytes[(end + 1).min(bytes.len())..]);
    let text = String::from_utf8_lossy(words);
    if let Ok(secret) = std::str::from_utf8(secret) {
        let secret = secret.trim();
        // Shorter ones are masked as words only; the mask itself is no secret.
        let is_plain = secret
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./+=".contains(&b));
        if (8..1000).contains(&secret.len()) && is_plain && !secret.contains("secret") {
            let shown = said(words, [secret]);
            assert!(!shown.contains(secret), "{shown}");
            let shown = scrub(&text, [secret]);
            assert!(!shown.contains(secret), "{shown}");
            let told = said(&message(words), [secret]);
            assert!(!told.contains(secret), "{told}");
            let address = format!("https://u:{secret}@h/p?x={secret}&{secret}#{secret}");
            let shown = redacted(&address, &[]);
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    let shown = said(words, []);
    assert!(
        shown.len() < 400 && !shown.chars().any(char::is_control),
        "{shown:?}"
    );
    assert!(shorten(&text).len() < 400);
    if let Some(code) = error_code(words) {
        assert!(
            code.len() < 400 && !code.chars().any(char::is_control),
            "{code:?}"
        );
    }
    let now = "2026-11-27T08:00:00Z".parse().expect("a time");
    let delay = retry_after(&text, now);
    assert!(delay.is_none_or(|delay| delay <= LONGEST_DELAY));
    assert_eq!(delay, retry_after(&format!(" {text}\t"), now));
    let life = token_life(serde_json::from_slice::<Value>(words).ok().as_ref());
    assert!(life <= LONGEST_LIFE);
    let name = encoded(&text);
    assert!(name.is_ascii() && !name.contains(['/', '?', '#', '&', ' ']));
    assert!(text.starts_with(origin(&text)));
    let _ = redacted(&text, &["x"]);
});
