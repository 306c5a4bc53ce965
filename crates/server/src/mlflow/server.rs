//! What is known of a tracking server: its version, and which trace is where on it.

use super::api::Api;
use crate::config::{OLDEST_MLFLOW, REMEMBERED_TRACES};
use crate::error::Fault;
use crate::generations::Generations;
use opentelemetry::trace::TraceId;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;
use trace_destination_core::ErrorKind;

/// Shared by all locations on the server.
pub(crate) struct Server {
    /// Asked for once; `Ok` if it takes OTLP.
    version: OnceCell<String>,
    workspaces: OnceCell<bool>,
    no_batch_get: AtomicBool,
    owners: Mutex<Generations<TraceId, Owner>>,
}

/// Where a trace is.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// The experiment's id.
    pub(crate) experiment: Arc<str>,
    /// Whether spans of it were stored; until then it is only claimed.
    pub(crate) stored: bool,
    /// Whether the end of its local root was stored.
    pub(crate) finished: bool,
    /// Whether the root of the whole trace was stored from here.
    pub(crate) root: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            version: OnceCell::new(),
            workspaces: OnceCell::new(),
            no_batch_get: AtomicBool::new(false),
            owners: Mutex::new(Generations::new(REMEMBERED_TRACES)),
        }
    }
}

impl Server {
    /// Checks, once, that this is an MLflow that takes OTLP and has the workspaces it is asked for.
    pub(crate) async fn check(&self, api: Api<'_>) -> Result<(), Fault> {
        let version = self.version.get_or_try_init(|| api.version()).await?;
        let old = match parse(version) {
            Some(found) => found < OLDEST_MLFLOW,
            None => {
                return Err(Fault::new(
                    ErrorKind::Unsupported,
                    format!(
                        "GET /version was not answered with a version but with `{}`: this is no MLflow tracking server",
                        api.host
                            .client
                            .said(version.lines().next().unwrap_or_default().as_bytes())
                    ),
                    "write the address of an MLflow tracking server; for other OTLP receivers write otlp+http://",
                ));
            }
        };
        // Whatever stands behind the numbers is the server's own word.
        let version = api.host.client.said(version.as_bytes());
        if old {
            return Err(Fault::new(
                ErrorKind::Unsupported,
                format!("the server is MLflow {version}, which takes no spans over OTLP"),
                format!(
                    "upgrade it to MLflow {}.{} or later",
                    OLDEST_MLFLOW.0, OLDEST_MLFLOW.1
                ),
            ));
        }
        if let Some(workspace) = api.workspace
            && !*self
                .workspaces
                .get_or_try_init(|| api.has_workspaces())
                .await?
        {
            return Err(Fault::new(
                ErrorKind::InvalidConfig,
                format!(
                    "workspace `{workspace}` is asked for, but the server (MLflow {version}) has no workspaces"
                ),
                "leave the workspace out, or enable workspaces on the server",
            ));
        }
        Ok(())
    }

    pub(crate) fn owners(&self) -> MutexGuard<'_, Generations<TraceId, Owner>> {
        self.owners.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn lacks_batch_get(&self) -> bool {
        self.no_batch_get.load(Ordering::Relaxed)
    }

    pub(crate) fn note_no_batch_get(&self) {
        self.no_batch_get.store(true, Ordering::Relaxed);
    }
}

/// Longest version that is taken for one, in bytes. Builds of one's own name a commit and a date.
const MAX_VERSION: usize = 128;

/// Major and minor number of a version such as `3.17.2`, `3.4.0rc1` or `4`. Whatever comes after
/// them makes no difference: a server is used however new it is.
fn parse(version: &str) -> Option<(u32, u32)> {
    if version.len() > MAX_VERSION {
        return None;
    }
    let number = |text: &str| -> Option<u32> {
        let digits = text.find(|c: char| !c.is_ascii_digit());
        text[..digits.unwrap_or(text.len())].parse().ok()
    };
    match version.split_once('.') {
        Some((major, rest)) => Some((major.parse().ok()?, number(rest)?)),
        None => Some((version.parse().ok()?, 0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, expected) in [
            ("3.17.2", Some((3, 17))),
            ("3.4.0rc1", Some((3, 4))),
            ("3.18.0", Some((3, 18))),
            ("3.100", Some((3, 100))),
            ("4", Some((4, 0))),
            ("4.0.0a1", Some((4, 0))),
            (
                "3.19.0.dev0+g0123456789abcdef0123456789abcdef01234567.d20261127",
                Some((3, 19)),
            ),
            ("2.9.2.dev0", Some((2, 9))),
            ("<html>3.4", None),
            ("OK", None),
            ("3.", None),
            ("3.x", None),
            (".4", None),
            ("4294967296.0", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
