//! Text that is never shown.

use std::fmt;

/// A secret: compared and sent, never printed.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Secret(String);

impl Secret {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Takes secrets out of what somebody else said: stores and servers repeat what they were sent.
pub(crate) fn scrub<'a>(text: String, secrets: impl IntoIterator<Item = &'a str>) -> String {
    // A short secret would blank out ordinary words.
    const SHORTEST: usize = 6;
    secrets
        .into_iter()
        .filter(|s| s.len() >= SHORTEST)
        .fold(text, |text, secret| match text.contains(secret) {
            true => text.replace(secret, "[secret]"),
            false => text,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter22")), "[secret]");
        let said = scrub("token hunter22 expired, a".into(), ["hunter22", "a", ""]);
        assert_eq!(said, "token [secret] expired, a");
    }
}
