//! Secrets, and the redaction of servers' texts before they are shown.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use std::fmt;

/// A secret: compared and sent, never printed.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Secret(String);

/// Shown in place of a secret.
pub(crate) const MASK: &str = "[secret]";
/// Secrets shorter than this are masked as whole words only; inside words they would mask too much.
const SHORTEST_INSIDE: usize = 6;
/// Largest text of a server that is searched for secrets, in bytes; much less of it is shown.
const LONGEST_SAID: usize = 4 << 10;
/// Largest text of a server that is shown, in bytes.
const LONGEST_SHOWN: usize = 300;

impl Secret {
    /// A secret text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for sending it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(MASK)
    }
}

/// Masks secrets in texts of stores and servers, which repeat what they were sent: as it is,
/// percent-encoded, in Base64 or inside JSON.
pub fn scrub<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    mask(text, &all_forms(secrets))
}

/// Every spelling of the secrets, the longest first: masking a part of a secret would hide the rest
/// from the search.
fn all_forms<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut forms: Vec<String> = secrets
        .into_iter()
        .map(str::trim)
        .filter(|secret| !secret.is_empty())
        .flat_map(forms)
        .collect();
    forms.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
    forms.dedup();
    forms
}

fn mask(text: &str, forms: &[String]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut before: Option<char> = None;
    while let Some(next) = rest.chars().next() {
        let found = forms
            .iter()
            .find(|form| rest.starts_with(form.as_str()) && stands_alone(form, before, rest));
        match found {
            Some(form) => {
                out.push_str(MASK);
                before = form.chars().next_back();
                rest = &rest[form.len()..];
            }
            None => {
                out.push(next);
                before = Some(next);
                rest = &rest[next.len_utf8()..];
            }
        }
    }
    out
}

fn forms(secret: &str) -> [String; 4] {
    let quoted = serde_json::Value::from(secret).to_string();
    [
        secret.to_owned(),
        utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
        STANDARD.encode(secret),
        quoted.trim_matches('"').to_owned(),
    ]
}

fn stands_alone(form: &str, before: Option<char>, rest: &str) -> bool {
    let after = rest[form.len()..].chars().next();
    let free = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
    form.len() >= SHORTEST_INSIDE || (free(before) && free(after))
}

/// A server's text as an error may repeat it: one line, without control characters and secrets, and
/// shortened. Secrets are masked first, because a part of a cut secret would not be recognised.
pub fn said<'a>(words: &[u8], secrets: impl IntoIterator<Item = &'a str>) -> String {
    // A few blanks are cheap to skip; a whole answer of blanks is not.
    let words = &words[..words.len().min(16 * LONGEST_SAID)];
    let line = one_line(&String::from_utf8_lossy(words), LONGEST_SAID);
    let forms = all_forms(secrets);
    let mut said = mask(&line, &forms);
    if line.len() > LONGEST_SAID || words.len() == 16 * LONGEST_SAID {
        // The cut may have divided a secret.
        let longest = forms.first().map_or(0, String::len);
        let end = said.floor_char_boundary(said.len().saturating_sub(longest));
        said.truncate(end);
    }
    shorten(&said)
}

/// Shortens a server's text, so that an HTML page does not end up in a log line.
pub fn shorten(text: &str) -> String {
    one_line(text, LONGEST_SHOWN)
}

fn one_line(text: &str, longest: usize) -> String {
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().filter(|c| !c.is_control()));
        if line.len() > longest {
            line.truncate(line.floor_char_boundary(longest));
            line.push('…');
            break;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new("hunter22")), MASK);
        for (text, secrets, expected) in [
            (
                "token hunter22 expired",
                vec!["hunter22"],
                "token [secret] expired",
            ),
            ("xhunter22x", vec!["hunter22"], "x[secret]x"),
            // A short one is a word, or it is left.
            (
                "pin 12 of 1234, a an",
                vec!["12", "a"],
                "pin [secret] of 1234, [secret] an",
            ),
            // The longer of two is taken out whole.
            (
                "hunter22hunter",
                vec!["hunter", "hunter22"],
                "[secret][secret]",
            ),
            ("secret", vec!["secret", "[secret]"], "[secret]"),
            ("a%2Fb%3Dcdef", vec!["a/b=cdef"], "[secret]"),
            ("Basic dTpodW50ZXIy", vec!["u:hunter2"], "Basic [secret]"),
            (
                r#"{"m":"a\"bcdef"}"#,
                vec!["a\"bcdef"],
                r#"{"m":"[secret]"}"#,
            ),
            ("nothing", vec!["", " "], "nothing"),
            ("häßlich", vec!["ßlich"], "hä[secret]"),
        ] {
            assert_eq!(scrub(text, secrets.iter().copied()), expected, "{text}");
        }
    }

    #[test]
    fn a_servers_words_are_one_short_line_without_secrets() {
        assert_eq!(said(b" a\n\tb\x00 ", []), "a b");
        // Hidden behind control characters, and cut where it would be shortened.
        assert_eq!(said(b"hun\x01ter22", ["hunter22"]), MASK);
        let long = format!("{} hunter22", "x".repeat(294));
        assert!(!said(long.as_bytes(), ["hunter22"]).contains("hun"));
        // The first half of a secret, where what is looked at ends.
        for (blank, secret) in [(" ", "s".repeat(900)), ("\u{1}", "s".repeat(20))] {
            for before in [4090, 65_530] {
                let cut = format!("{}{secret}", blank.repeat(before));
                assert!(!said(cut.as_bytes(), [&*secret]).contains("ss"), "{before}");
                let cut = format!("{}{}{secret}", secret.repeat(4), blank.repeat(before));
                assert!(!said(cut.as_bytes(), [&*secret]).contains("ss"), "{before}");
            }
        }
        let endless = vec![b'x'; 1 << 20];
        assert!(said(&endless, ["hunter22"]).len() < 400);
        assert!(said(&[0xff; 4096], []).len() < 400);
    }
}
