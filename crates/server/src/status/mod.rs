//! What an answer means, per protocol: one table each, which the code obeys, a test walks and
//! `docs/server.md` prints.

mod mlflow;
mod otlp;

use trace_destination_http::{StatusTable, Transport};

/// Whose rules an answer follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// MLflow's tracking server (3.17.2), and proxies before it.
    Mlflow,
    /// OTLP/HTTP (specification 1.9, "OTLP/HTTP Response" and "Retryable Response Codes").
    Otlp,
    /// Databricks' REST API, whose errors are those of MLflow's.
    Databricks,
}

impl Dialect {
    pub(crate) fn table(self) -> StatusTable {
        match self {
            Self::Mlflow | Self::Databricks => mlflow::TABLE,
            Self::Otlp => otlp::TABLE,
        }
    }
}

/// Statuses after which a compressed request is sent once as it is: what a server that cannot read
/// gzip answers. 415 is the one that RFC 9110, section 15.5.16, has for it. Where an answer leaves
/// spans in doubt, empty requests have to show first that it is about gzip.
pub(crate) const PERHAPS_GZIP: [u16; 4] = [400, 406, 415, 500];

const PROXY: &str = "it is tried again; start the proxy, correct its variable, or name the server's host in NO_PROXY";
const PROXY_CREDENTIALS: &str = "give the proxy its user and password in HTTPS_PROXY or HTTP_PROXY, or name the host in NO_PROXY";

/// What the reader can do about a certificate or an address, where there is no answer.
pub(crate) fn transport_mend(class: Transport) -> &'static str {
    match class {
        Transport::UntrustedCertificate => {
            "name its authority with MLFLOW_TRACKING_SERVER_CERT_PATH or OTEL_EXPORTER_OTLP_CERTIFICATE, or in code, and use the host name it was issued for"
        }
        Transport::Alert => {
            "it may ask for a client certificate: name one with MLFLOW_TRACKING_CLIENT_CERT_PATH, or in code"
        }
        Transport::Tls => "check that the port speaks TLS, or write http:// for one that does not",
        Transport::Unmakeable => "check the address, the headers and the proxy variables",
        Transport::Timeout => "it is tried again; check the network, or give it more time",
        Transport::Refused => "it is tried again; start the server, or correct host and port",
        Transport::Connect => "it is tried again; check host, port and network",
        Transport::Broken => {
            "it is tried again; check the server and what is between, and that a port that speaks TLS has https://"
        }
        Transport::NotHttp => {
            "it is tried again; check the port: one that speaks TLS wants https://, and gRPC (usually 4317) is not spoken here, but OTLP over HTTP (usually 4318)"
        }
        Transport::Proxy => PROXY,
        Transport::ProxyRefused => {
            "it is tried again; allow the host at the proxy, or name it in NO_PROXY"
        }
        Transport::ProxyCredentials => PROXY_CREDENTIALS,
    }
}

#[cfg(test)]
mod tests;
