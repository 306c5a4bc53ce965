//! Names and limits: the parts of a location URI, environment variables, defaults.

use std::time::Duration;

/// The schemes of the location URIs this crate understands.
pub const SCHEMES: [&str; 5] = ["http", "https", "otlp+http", "otlp+https", "databricks"];

/// URI parameter: the experiment's name. Created if absent, unless [`CREATE_PARAM`] says no.
pub const EXPERIMENT_NAME_PARAM: &str = "experiment_name";
/// URI parameter: the experiment's id, a decimal number. It must exist.
pub const EXPERIMENT_ID_PARAM: &str = "experiment_id";
/// URI parameter: `true` (default) to create an absent experiment, or `false`.
pub const CREATE_PARAM: &str = "create";
/// URI parameter: the workspace on a server that has several.
pub const WORKSPACE_PARAM: &str = "workspace";
/// URI parameter of `databricks:`: the table that spans go to, `catalog.schema.table`.
pub const TABLE_PARAM: &str = "table";

/// Environment variable: the tracking server, which is the host its credentials are for.
pub const TRACKING_URI_VAR: &str = "MLFLOW_TRACKING_URI";
/// Environment variable: user name for HTTP Basic; counts together with [`PASSWORD_VAR`].
pub const USERNAME_VAR: &str = "MLFLOW_TRACKING_USERNAME";
/// Environment variable: password for HTTP Basic.
pub const PASSWORD_VAR: &str = "MLFLOW_TRACKING_PASSWORD";
/// Environment variable: bearer token, where user and password are not both set.
pub const TOKEN_VAR: &str = "MLFLOW_TRACKING_TOKEN";
/// Environment variable: another way to authenticate; any value is refused here.
pub const AUTH_VAR: &str = "MLFLOW_TRACKING_AUTH";
/// Environment variable: signing for AWS; `true` is refused here.
pub const SIGV4_VAR: &str = "MLFLOW_TRACKING_AWS_SIGV4";
/// Environment variable: `true` takes any certificate of the server.
pub const INSECURE_TLS_VAR: &str = "MLFLOW_TRACKING_INSECURE_TLS";
/// Environment variable: PEM file with the certificate authorities to trust.
pub const SERVER_CERT_VAR: &str = "MLFLOW_TRACKING_SERVER_CERT_PATH";
/// Environment variable: PEM file with this client's certificate and key.
pub const CLIENT_CERT_VAR: &str = "MLFLOW_TRACKING_CLIENT_CERT_PATH";
/// Environment variable: the workspace, where the URI names none.
pub const WORKSPACE_VAR: &str = "MLFLOW_WORKSPACE";
/// Environment variable: seconds for one request; 60 unless set.
pub const TIMEOUT_VAR: &str = "MLFLOW_HTTP_REQUEST_TIMEOUT";
/// Environment variable: the home folder, for `~/.mlflow/credentials` and `~/.databrickscfg`.
pub const HOME_VAR: &str = "HOME";

/// Environment variable: the Databricks workspace's address.
pub const DATABRICKS_HOST_VAR: &str = "DATABRICKS_HOST";
/// Environment variable: a Databricks access token.
pub const DATABRICKS_TOKEN_VAR: &str = "DATABRICKS_TOKEN";
/// Environment variable: id of a Databricks service principal.
pub const DATABRICKS_CLIENT_ID_VAR: &str = "DATABRICKS_CLIENT_ID";
/// Environment variable: OAuth secret of a Databricks service principal.
pub const DATABRICKS_CLIENT_SECRET_VAR: &str = "DATABRICKS_CLIENT_SECRET";
/// Environment variable: the file with profiles; `~/.databrickscfg` unless set.
pub const DATABRICKS_CONFIG_FILE_VAR: &str = "DATABRICKS_CONFIG_FILE";
/// Environment variable: the profile, where the URI names none.
pub const DATABRICKS_PROFILE_VAR: &str = "DATABRICKS_CONFIG_PROFILE";

/// Environment variables of the OpenTelemetry specification, "OpenTelemetry Protocol Exporter":
/// each counts as `OTEL_EXPORTER_OTLP_TRACES_…` first, else as `OTEL_EXPORTER_OTLP_…`.
pub const OTLP_VAR_PREFIXES: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_", "OTEL_EXPORTER_OTLP_"];
/// Environment variable: the endpoint, which is the host its headers are for; before it counts
/// `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`.
pub const OTLP_ENDPOINT_VAR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Headers as `key=value,…`, percent-encoded; after one of [`OTLP_VAR_PREFIXES`].
pub const OTLP_HEADERS: &str = "HEADERS";
/// `gzip` or `none`; after one of [`OTLP_VAR_PREFIXES`].
pub const OTLP_COMPRESSION: &str = "COMPRESSION";
/// Milliseconds for one request, 10,000 unless set; after one of [`OTLP_VAR_PREFIXES`].
pub const OTLP_TIMEOUT: &str = "TIMEOUT";
/// PEM file with certificate authorities; after one of [`OTLP_VAR_PREFIXES`].
pub const OTLP_CERTIFICATE: &str = "CERTIFICATE";
/// PEM file with this client's certificate; after one of [`OTLP_VAR_PREFIXES`].
pub const OTLP_CLIENT_CERTIFICATE: &str = "CLIENT_CERTIFICATE";
/// PEM file with this client's key; after one of [`OTLP_VAR_PREFIXES`].
pub const OTLP_CLIENT_KEY: &str = "CLIENT_KEY";

/// Where OTLP/HTTP receivers listen, and where gRPC ones do.
pub(crate) const OTLP_GRPC_PORT: u16 = 4317;
/// The path of traces below an OTLP endpoint (OTLP specification 1.9).
pub(crate) const OTLP_TRACES_PATH: &str = "/v1/traces";

/// Longest time of one request to a tracking server. MLflow itself waits up to 20 s for a locked
/// database before it answers 503.
pub(crate) const MLFLOW_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest time of one request to an OTLP endpoint, as the OpenTelemetry specification has it.
pub(crate) const OTLP_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests under way to one host.
pub(crate) const CONCURRENCY: usize = 8;
/// Bytes of an answer that are read; the rest says nothing.
pub(crate) const MAX_ANSWER: usize = 1 << 20;

/// Longest experiment name MLflow takes (`MAX_EXPERIMENT_NAME_LENGTH`, 3.17.2), in characters.
pub(crate) const MAX_EXPERIMENT_NAME: usize = 500;
/// First MLflow that takes spans over OTLP into its tracking store.
pub(crate) const OLDEST_MLFLOW: (u32, u32) = (3, 4);
/// How long an experiment counts as still there without asking.
pub(crate) const RECHECK: Duration = Duration::from_secs(30);
/// Traces whose place is remembered, per host and generation of the memory.
pub(crate) const REMEMBERED_TRACES: usize = 16_384;
/// Attempts of one batch that end in a 500 before it is taken apart to find the span that causes
/// them.
pub(crate) const PATIENCE_WITH_500: u32 = 3;
/// Attempts of one batch after which a server's failure, or a refusal by one that refuses empty
/// requests too, is taken for the fault of the spans it comes with. With the pauses between two
/// attempts this is at least six seconds.
pub(crate) const SURE: u32 = 8;
/// How long a server counts as one that reads no gzip.
pub(crate) const GZIP_REFUSED_FOR: Duration = Duration::from_secs(600);
/// Spans that fail one by one, without any that is taken, before a 500 counts as the server's own
/// trouble.
pub(crate) const HOPELESS: u32 = 8;
