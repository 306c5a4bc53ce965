//! What every error has in common: one line of a bounded length, an advice, and no secret.
#![allow(dead_code, reason = "not every target uses all of it")]

use std::error::Error as _;
use trace_destination_core::Error;

/// A secret that inputs may repeat. No error may.
pub const SECRET: &str = "hunter22-hunter22";

/// About what somebody else said.
pub fn check(error: &Error, secrets: &[&str]) {
    let said = error.to_string();
    assert!(said.len() < 4096, "{} bytes: {said:.200}", said.len());
    check_own(error, secrets);
}

/// About what the application or its user said, which may be as long as they like.
pub fn check_own(error: &Error, secrets: &[&str]) {
    let said = error.to_string();
    assert!(!said.chars().any(char::is_control), "{said:?}");
    let mut all = format!("{said} {error:?} {}", error.mend_hint().unwrap_or_default());
    let mut source = error.source();
    while let Some(beneath) = source {
        all.push_str(&beneath.to_string());
        source = beneath.source();
    }
    for secret in secrets {
        assert!(!all.contains(secret), "{all}");
    }
}
