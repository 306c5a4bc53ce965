//! What can go wrong here: the faults of every HTTP client, in the words of this backend.

use crate::status;
use std::borrow::Cow;
use trace_destination_core::{Error, ErrorKind};
use trace_destination_http::{Mends, Outcome, Refused, Transport};

pub(crate) use trace_destination_http::Fault;

/// The operations an error can name.
pub(crate) const BUILD: &str = "build server location";
pub(crate) const OPEN: &str = "open server location";
pub(crate) const WRITE: &str = "send traces";

/// A location that cannot be built.
pub(crate) fn invalid(cause: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidConfig, BUILD, cause.into())
}

/// Who has to change something, as far as an answer can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blame {
    /// A span in the request; the others may be fine.
    Data,
    /// The server failed, which a span can cause.
    Unclear,
    /// The server, the address, the credentials or what is between.
    Place,
}

/// What this crate asks of a fault.
pub(crate) trait FaultExt {
    /// The public error, for an operation of this crate.
    fn during(self, operation: &'static str) -> Error;
    /// Whose fault it is.
    fn blame(&self) -> Blame;
}

impl FaultExt for Fault {
    fn during(self, operation: &'static str) -> Error {
        self.error(operation, &Words)
    }

    fn blame(&self) -> Blame {
        match self.outcome() {
            Outcome::Resend | Outcome::Keep => Blame::Place,
            Outcome::Apart => Blame::Data,
            Outcome::Doubt | Outcome::ResendThenApart => Blame::Unclear,
        }
    }
}

/// What the reader of an error can do.
struct Words;

impl Mends for Words {
    fn answer(&self, refused: &Refused) -> Cow<'static, str> {
        match refused.row.kind {
            ErrorKind::Unauthenticated if refused.status == 407 => refused.row.mend.into(),
            ErrorKind::Unauthenticated if refused.has_no_credentials() => {
                "give credentials in the environment, such as MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or in code".into()
            }
            ErrorKind::Unauthenticated => format!(
                "the server did not accept {}; correct or renew it",
                refused.credentials
            )
            .into(),
            ErrorKind::PermissionDenied if refused.says.contains("Invalid Host header") => {
                "the server takes requests for other host names only: start it with MLFLOW_SERVER_ALLOWED_HOSTS naming this one".into()
            }
            _ => refused.row.mend.into(),
        }
    }

    fn transport(&self, class: Transport) -> &'static str {
        status::transport_mend(class)
    }

    fn token(&self) -> &'static str {
        "check DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, and the host"
    }
}
