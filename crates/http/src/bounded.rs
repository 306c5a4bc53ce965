//! Answers of servers, read up to a bound.

use crate::failure::Failure;
use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName};
use serde::de::DeserializeOwned;

/// An answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The headers, which the HTTP client bounds.
    pub headers: HeaderMap,
    /// The body, up to the bound.
    pub body: Bytes,
    /// Whether the body was longer than the bound.
    pub is_cut: bool,
}

impl Answer {
    /// A header's value, if it is text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

/// Reads an answer's body up to `limit` bytes. The length that the server claims is not used to
/// allocate memory.
pub(crate) async fn read(mut response: reqwest::Response, limit: usize) -> Result<Answer, Failure> {
    let status = response.status().as_u16();
    let headers = std::mem::take(response.headers_mut());
    let mut body = Vec::new();
    let mut is_cut = false;
    while let Some(chunk) = response.chunk().await.map_err(Failure::of)? {
        let room = limit.saturating_sub(body.len());
        body.extend_from_slice(&chunk[..chunk.len().min(room)]);
        if chunk.len() > room {
            is_cut = true;
            break;
        }
    }
    Ok(Answer {
        status,
        headers,
        body: body.into(),
        is_cut,
    })
}

/// Parses JSON. `None` if it does not fit the type, or is nested deeper than 128 levels. Fields
/// that the type does not have are skipped.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    // serde_json ends at 128 levels (`Deserializer::disable_recursion_limit` is not called).
    serde_json::from_slice(body).ok()
}

/// The message in the JSON of an error, or the whole text. Not redacted yet: see
/// [`said`](crate::said).
pub fn message(body: &[u8]) -> Vec<u8> {
    #[derive(serde::Deserialize)]
    struct Told {
        message: Option<Words>,
        detail: Option<Words>,
        error_description: Option<Words>,
        error: Option<Words>,
    }
    let told: Option<Told> = match body.len() > LONGEST_ERROR {
        true => None,
        false => json(body),
    };
    match told {
        Some(t) => {
            let words = [t.message, t.detail, t.error_description, t.error];
            match words.into_iter().flatten().next() {
                Some(Words::Text(text)) => text.into_bytes(),
                Some(Words::Other(other)) => other.to_string().into_bytes(),
                None => body.to_vec(),
            }
        }
        None if body.trim_ascii_start().starts_with(b"<") => b"a page of HTML".to_vec(),
        None => body.to_vec(),
    }
}

/// The server's own name for an error in its JSON, as MLflow, Databricks and Unity Catalog write
/// it; shortened.
pub fn error_code(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Named {
        error_code: String,
    }
    let named: Named = json(body)?;
    Some(crate::secret::shorten(&named.error_code))
}

/// Largest JSON of an error that is decoded, in bytes: a value takes many times the memory of its
/// text.
const LONGEST_ERROR: usize = 64 << 10;

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Words {
    Text(String),
    Other(serde_json::Value),
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn depth_has_a_bound() {
        for (open, close) in [("[", "]"), (r#"{"a":"#, "}")] {
            let nested = |n: usize| format!("{}1{}", open.repeat(n), close.repeat(n));
            assert!(json::<Value>(nested(100).as_bytes()).is_some());
            assert!(json::<Value>(nested(100_000).as_bytes()).is_none());
            // Also where it is passed over, and where it is not closed.
            let field = format!(r#"{{"b":{},"message":"m"}}"#, nested(1000));
            let _ = message(field.as_bytes());
            assert!(json::<Value>(open.repeat(1_000_000).as_bytes()).is_none());
        }
    }

    #[test]
    fn what_an_error_says() {
        for (body, expected) in [
            (r#"{"message":"m","error":"e"}"#, "m"),
            (r#"{"message":null,"error":"e"}"#, "e"),
            (r#"{"detail":[{"loc":"x"}]}"#, r#"[{"loc":"x"}]"#),
            (r#"{"other":1}"#, r#"{"other":1}"#),
            (" <html>", "a page of HTML"),
            ("plain", "plain"),
            ("", ""),
        ] {
            assert_eq!(message(body.as_bytes()), expected.as_bytes());
        }
    }
}
