//! What a catalog's answers mean to the reader of an error, and what can be done about them.

use std::borrow::Cow;
use trace_destination_core::{Error, ErrorKind};
use trace_destination_http::{Mends, Refused, Transport};

pub(super) use trace_destination_http::Fault;

/// What is asked of a catalog; what an error says was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    LookUp,
    Place,
    Register,
    TableKeys,
    PathKeys,
}

impl Ask {
    fn operation(self) -> &'static str {
        match self {
            Self::LookUp => "look up table in Unity Catalog",
            Self::Place => "find a place for a new table in Unity Catalog",
            Self::Register => "register table in Unity Catalog",
            Self::TableKeys | Self::PathKeys => "get storage credentials from Unity Catalog",
        }
    }
}

/// What this module asks of a fault.
pub(super) trait FaultExt {
    /// The public error, for what was asked.
    fn during(self, ask: Ask) -> Error;
}

impl FaultExt for Fault {
    fn during(self, ask: Ask) -> Error {
        self.error(ask.operation(), &Words(ask))
    }
}

/// What the reader of an error can do.
struct Words(Ask);

impl Mends for Words {
    fn answer(&self, refused: &Refused) -> Cow<'static, str> {
        mend(self.0, refused).into()
    }

    fn transport(&self, class: Transport) -> &'static str {
        transport_mend(class)
    }

    fn token(&self) -> &'static str {
        "check the OAuth client's id and secret, and where it gets its tokens"
    }
}

/// What to set, where the environment has credentials that were not sent.
pub(super) const WITHHELD: &str = "UNITY_CATALOG_TOKEN or UNITY_CATALOG_CLIENT_ID is set and was not sent, since UNITY_CATALOG_URI does not name this server: set UNITY_CATALOG_URI to its address, or give a token in code";

/// What the reader can do where there is no answer.
pub(super) fn transport_mend(class: Transport) -> &'static str {
    match class {
        Transport::UntrustedCertificate => {
            "name its authority with UNITY_CATALOG_CA_FILE, or in code, and use the host name it was issued for"
        }
        Transport::Alert | Transport::Tls => {
            "check that the port speaks TLS, or write http:// for one that does not"
        }
        Transport::Unmakeable => "check the address and the proxy variables",
        Transport::Timeout => {
            "it is tried again; check the network, or give it more time with UNITY_CATALOG_TIMEOUT"
        }
        Transport::Refused => "it is tried again; start the server, or correct host and port",
        Transport::Connect => "it is tried again; check host, port and network",
        Transport::Broken => {
            "it is tried again; check the server and what is between, and that a port that speaks TLS has https://"
        }
        Transport::NotHttp => {
            "it is tried again; check the port, and that one that speaks TLS has https://"
        }
        Transport::Proxy => {
            "it is tried again; start the proxy, correct its variable, or name the server's host in NO_PROXY"
        }
        Transport::ProxyRefused => {
            "it is tried again; allow the host at the proxy, or name it in NO_PROXY"
        }
        Transport::ProxyCredentials => {
            "give the proxy its user and password in HTTPS_PROXY or HTTP_PROXY, or name the host in NO_PROXY"
        }
    }
}

/// What the reader can do about an answer.
fn mend(ask: Ask, refused: &Refused) -> &'static str {
    use ErrorKind as K;
    let code = refused.code.as_deref().unwrap_or_default();
    match (refused.row.kind, ask) {
        (K::NotFound, _) if code.starts_with("CATALOG") => {
            "create the catalog, or correct its name in the location"
        }
        (K::NotFound, _) if code.starts_with("SCHEMA") => {
            "create the schema, or correct its name in the location"
        }
        (K::NotFound, Ask::TableKeys) => "the table was dropped meanwhile; it is looked up anew",
        (K::NotFound, _) if code.is_empty() => {
            "check the address: no Unity Catalog of version 0.5 or later answers there"
        }
        (K::Unauthenticated, _) if refused.status == 407 => refused.row.mend,
        (K::Unauthenticated, _) if refused.has_no_credentials() => {
            "set UNITY_CATALOG_TOKEN, or DATABRICKS_TOKEN for a workspace, or give a token in code"
        }
        (K::Unauthenticated, _) => {
            "the token is wrong or over: set a new one in UNITY_CATALOG_TOKEN or DATABRICKS_TOKEN, or use an OAuth client, whose tokens are renewed"
        }
        (K::PermissionDenied, _) if code.starts_with("EXTERNAL_ACCESS") => {
            "have a metastore admin turn on external data access"
        }
        (K::PermissionDenied, _) if refused.says.contains("Invalid access token") => {
            "the open-source server takes only tokens it issued: exchange the identity provider's at /api/1.0/unity-control/auth/tokens"
        }
        (K::PermissionDenied, Ask::LookUp | Ask::Place) => {
            "grant USE CATALOG and USE SCHEMA, and SELECT and MODIFY on the table"
        }
        (K::PermissionDenied, Ask::Register) => {
            "grant USE CATALOG, USE SCHEMA and CREATE TABLE, and CREATE EXTERNAL TABLE on the external location over the table's place"
        }
        (K::PermissionDenied, Ask::TableKeys) => {
            "grant USE CATALOG and USE SCHEMA, SELECT and MODIFY on the table, and on Databricks EXTERNAL USE SCHEMA"
        }
        (K::PermissionDenied, Ask::PathKeys) => {
            "grant CREATE EXTERNAL TABLE on an external location over the place (on Databricks EXTERNAL USE LOCATION too), or have the table created"
        }
        (K::InvalidConfig, Ask::TableKeys | Ask::PathKeys) => {
            "give the server credentials for this bucket (an external location, or its s3, adls or gcs properties), or set UNITY_CATALOG_STORAGE_CREDENTIALS=own and use this process's"
        }
        (K::InvalidConfig, Ask::Register) => {
            "check the server's version (0.5 or later knows VARIANT columns) and the storage root"
        }
        _ => refused.row.mend,
    }
}

#[cfg(test)]
mod tests {
    use super::super::status::TABLE;
    use super::*;
    use trace_destination_core::Retry;

    #[test]
    fn every_answer_has_a_mend() {
        for ask in [
            Ask::LookUp,
            Ask::Place,
            Ask::Register,
            Ask::TableKeys,
            Ask::PathKeys,
        ] {
            for (status, code) in [
                (404, Some("CATALOG_NOT_FOUND")),
                (404, Some("SCHEMA_NOT_FOUND")),
                (404, None),
                (401, Some("UNAUTHENTICATED")),
                (403, Some("PERMISSION_DENIED")),
                (400, Some("FAILED_PRECONDITION")),
                (400, Some("LOCATION_OVERLAP")),
                (429, None),
                (500, None),
                (302, None),
                (418, None),
            ] {
                let refused = Refused {
                    status,
                    row: TABLE.row(status, code).unwrap(),
                    retry: Retry::Never,
                    code: code.map(str::to_owned),
                    says: "said".into(),
                    asked: "GET /x at http://h".into(),
                    credentials: "no credentials",
                    withheld: None,
                };
                let error = Fault::Answer(refused).during(ask);
                let text = error.to_string();
                assert!(error.mend_hint().is_some_and(|m| m.len() > 10), "{text}");
                assert!(
                    text.contains("GET /x at http://h was answered with"),
                    "{text}"
                );
            }
        }
    }
}
