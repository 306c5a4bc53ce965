//! Storage credentials that a catalog gives out for a table, or for the place of a new one.

use super::answer::{Ask, Fault, FaultExt as _};
use super::client::{Answer, Client};
use crate::storage::{Keys, Secret, StorageOptions, Vended, Vendor, can_be_sent};
use async_trait::async_trait;
use jiff::Timestamp;
use percent_encoding::percent_decode_str;
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{Error, ErrorKind};
use trace_destination_http::LONGEST_LIFE;
use url::Url;

/// How long credentials count that are over by this machine's clock, where the server does not say
/// what time it is: the clock is likely wrong.
const DOUBTFUL: Duration = Duration::from_secs(60);

/// For what credentials are asked.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// Reading and writing a table, by its id.
    Table(String),
    /// Creating a table at a place.
    Place,
}

/// Asks a catalog for the credentials of one place.
#[derive(Debug)]
pub(super) struct CatalogVendor {
    pub(super) client: Arc<Client>,
    pub(super) purpose: Purpose,
    pub(super) location: Url,
    pub(super) options: StorageOptions,
}

#[async_trait]
impl Vendor for CatalogVendor {
    async fn vend(&self) -> Result<Vended, Error> {
        let (ask, path, body) = match &self.purpose {
            Purpose::Table(id) => (
                Ask::TableKeys,
                "/temporary-table-credentials",
                json!({"table_id": id, "operation": "READ_WRITE"}),
            ),
            Purpose::Place => (
                Ask::PathKeys,
                "/temporary-path-credentials",
                json!({"url": self.location.as_str(), "operation": "PATH_CREATE_TABLE"}),
            ),
        };
        let answer = self.client.post(path, &body).await;
        answer
            .and_then(|answer| vended(answer, &self.options))
            .map_err(|fault| {
                let error = fault.during(ask);
                let cause = format!("for `{}`: {}", self.location, error.cause());
                renamed(error, cause)
            })
    }
}

/// The same error with another cause.
fn renamed(error: Error, cause: String) -> Error {
    use trace_destination_core::Retry;
    let mut named = Error::new(error.kind(), error.operation().to_owned(), cause);
    if let Some(mend) = error.mend_hint() {
        named = named.mend(mend.to_owned());
    }
    named = match error.retry() {
        Retry::Never => named,
        Retry::Backoff => named.retryable(),
        Retry::After(delay) => named.retry_after(delay),
    };
    match std::error::Error::source(&error).is_some() {
        true => named.caused_by(error),
        false => named,
    }
}

/// `TemporaryCredentials` of the API. What is null or absent is not given out.
#[derive(Deserialize)]
struct Temporary {
    aws_temp_credentials: Option<Aws>,
    azure_user_delegation_sas: Option<Sas>,
    gcp_oauth_token: Option<Token>,
    /// Milliseconds since the epoch; absent for credentials that do not end.
    expiration_time: Option<i64>,
}

#[derive(Deserialize)]
struct Aws {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

#[derive(Deserialize)]
struct Sas {
    sas_token: String,
}

#[derive(Deserialize)]
struct Token {
    oauth_token: String,
}

fn vended(answer: Answer, options: &StorageOptions) -> Result<Vended, Fault> {
    // The text may hold secrets: an error does not repeat it.
    let given: Temporary = answer.json().ok_or_else(|| {
        Fault::new(
            ErrorKind::Unsupported,
            "the server answered with something else than credentials",
            "check the server's version and the address",
        )
    })?;
    let life = match given.expiration_time {
        // Some servers write 0 for what does not end.
        None | Some(0) => None,
        Some(end) => Some(life(end, answer.date)?),
    };
    let keys = if let Some(aws) = given.aws_temp_credentials {
        let token = aws.session_token.filter(|t| !t.is_empty());
        Keys::Aws {
            key_id: aws.access_key_id,
            secret: Secret::new(aws.secret_access_key),
            token: token
                .filter(|_| !options.drops_session_token(life.is_some()))
                .map(Secret::new),
        }
    } else if let Some(sas) = given.azure_user_delegation_sas {
        Keys::Azure(pairs(&sas.sas_token))
    } else if let Some(token) = given.gcp_oauth_token {
        Keys::Gcp(Secret::new(token.oauth_token))
    } else {
        Keys::None
    };
    let sent = match &keys {
        Keys::Aws {
            key_id,
            secret,
            token,
        } => {
            let token = token.as_ref().map_or("", Secret::expose);
            vec![key_id, secret.expose(), token]
        }
        Keys::Gcp(token) => vec![token.expose()],
        // Encoded in the query.
        Keys::Azure(_) | Keys::None => Vec::new(),
    };
    if !sent.into_iter().all(can_be_sent) {
        return Err(Fault::new(
            ErrorKind::Unsupported,
            "the server gave out credentials with line breaks or other characters that cannot be sent",
            "correct the credentials in the server's configuration",
        ));
    }
    Ok(Vended { keys, life })
}

/// How long credentials last that end at a moment of the server's clock: measured by the same clock,
/// so that this machine's may be wrong. That clock shows whole seconds, which is less than the margin
/// by which they are renewed.
fn life(end: i64, date: Option<Timestamp>) -> Result<Duration, Fault> {
    let now = date.unwrap_or_else(Timestamp::now).as_millisecond();
    let left = end.saturating_sub(now);
    match u64::try_from(left) {
        // Renewed once a day at least, whatever the server writes.
        Ok(left) if left > 0 => Ok(Duration::from_millis(left).min(LONGEST_LIFE)),
        _ if date.is_none() => Ok(DOUBTFUL),
        _ => Err(Fault::passing(
            ErrorKind::Unauthenticated,
            format!(
                "the credentials given out were over already, by {} s of the server's own clock",
                left.unsigned_abs() / 1000
            ),
            "it is tried again; check the clocks of the catalog server and of what gives it credentials",
        )),
    }
}

/// The pairs of a shared access signature.
fn pairs(sas: &str) -> Vec<(String, Secret)> {
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    sas.trim_start_matches('?')
        .split('&')
        .filter_map(|pair| pair.trim().split_once('='))
        .map(|(name, value)| (decode(name), Secret::new(decode(value))))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn credentials_that_cannot_be_sent_are_refused_and_not_shown() {
        for given in [
            json!({"aws_temp_credentials": {"access_key_id": "hunter2\n", "secret_access_key": "s"}}),
            json!({"aws_temp_credentials": {"access_key_id": "ü-hunter2", "secret_access_key": "s"}}),
            json!({"aws_temp_credentials": {
                "access_key_id": "id", "secret_access_key": "s", "session_token": "hunter2\r\nx: y",
            }}),
            json!({"gcp_oauth_token": {"oauth_token": "hunter2\u{0}"}}),
        ] {
            let error = at(given, None).unwrap_err();
            assert!(error.mend_hint().is_some(), "{error}");
            assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        }
    }

    fn at(body: Value, date: Option<&str>) -> Result<Vended, Error> {
        let date = date.map(|d| d.parse().unwrap());
        with(body, date, &StorageOptions::new())
    }

    fn with(
        body: Value,
        date: Option<Timestamp>,
        options: &StorageOptions,
    ) -> Result<Vended, Error> {
        vended(Answer::of(&body, date), options).map_err(|f| f.during(Ask::TableKeys))
    }

    fn aws(end: Value) -> Value {
        json!({
            "aws_temp_credentials": {
                "access_key_id": "id", "secret_access_key": "secret", "session_token": "token",
            },
            "azure_user_delegation_sas": null,
            "expiration_time": end,
            "url": "s3://b/t",
            "something_new": {"x": 1},
        })
    }

    const NOW: &str = "2026-11-22T08:00:00Z";
    const NOW_MS: i64 = 1_795_334_400_000;

    #[test]
    fn each_cloud() {
        assert_eq!(NOW.parse::<Timestamp>().unwrap().as_millisecond(), NOW_MS);
        let hour = at(aws(json!(NOW_MS + 3_600_000)), Some(NOW)).unwrap();
        assert_eq!(hour.life, Some(Duration::from_secs(3600)));
        assert_eq!(
            hour.keys,
            Keys::Aws {
                key_id: "id".into(),
                secret: Secret::new("secret"),
                token: Some(Secret::new("token")),
            }
        );
        let sas = json!({"azure_user_delegation_sas": {"sas_token": "?sv=2022&sig=a%2Fb%3D"}});
        let sas = at(sas, None).unwrap();
        assert_eq!(sas.life, None, "without an end it never ends");
        let expected = vec![
            ("sv".to_owned(), Secret::new("2022")),
            ("sig".to_owned(), Secret::new("a/b=")),
        ];
        assert_eq!(sas.keys, Keys::Azure(expected));
        let gcp = at(json!({"gcp_oauth_token": {"oauth_token": "ya29"}}), None).unwrap();
        assert_eq!(gcp.keys, Keys::Gcp(Secret::new("ya29")));
        let file = at(json!({"url": "file:///t"}), Some(NOW)).unwrap();
        assert_eq!((file.keys, file.life), (Keys::None, None));
    }

    #[test]
    fn the_servers_clock_counts() {
        // This machine's clock is years away from the server's.
        let vended = at(aws(json!(600_000)), Some("1970-01-01T00:00:00Z")).unwrap();
        assert_eq!(vended.life, Some(Duration::from_secs(600)));
        let error = at(aws(json!(NOW_MS - 35_000)), Some(NOW)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthenticated);
        assert!(error.to_string().contains("by 35 s"), "{error}");
        assert!(error.mend_hint().unwrap().contains("clocks"), "{error}");
        // Far beyond what any clock can add up.
        for (end, date) in [(i64::MAX, Some(NOW)), (i64::MAX, None)] {
            assert_eq!(at(aws(json!(end)), date).unwrap().life, Some(LONGEST_LIFE));
        }
        assert!(at(aws(json!(i64::MIN)), Some(NOW)).is_err());
        // Without one, credentials that seem over are tried.
        let vended = at(aws(json!(NOW_MS - 10_i64.pow(12))), None).unwrap();
        assert_eq!(vended.life, Some(DOUBTFUL));
    }

    #[test]
    fn session_tokens_that_no_store_issued() {
        let token = |body: Value, options: &StorageOptions| {
            let now = NOW.parse().unwrap();
            match with(body, Some(now), options).unwrap().keys {
                Keys::Aws { token, .. } => token.is_some(),
                other => panic!("{other:?}"),
            }
        };
        let plain = StorageOptions::new();
        let minio = StorageOptions::new().with_option("aws_endpoint_url", "http://127.0.0.1:9000");
        let ends = || aws(json!(NOW_MS + 60_000));
        assert!(token(aws(Value::Null), &plain));
        assert!(!token(aws(Value::Null), &minio));
        assert!(token(ends(), &minio), "a token that ends was issued");
        use crate::storage::SessionToken;
        let keep = minio.clone().with_session_token(SessionToken::Keep);
        assert!(token(aws(Value::Null), &keep));
        let drop = plain.with_session_token(SessionToken::Drop);
        assert!(!token(ends(), &drop));
    }

    #[test]
    fn nonsense_is_refused_without_being_repeated() {
        let error = at(json!({"gcp_oauth_token": "ya29-secret"}), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(!format!("{error} {error:?}").contains("secret"));
    }
}
