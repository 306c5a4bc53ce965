//! Every variable that is read, declared once: `docs/environment.md` is generated from here, a test
//! walks them alone and in pairs, and typing errors are looked for among them.

/// A variable.
#[derive(Debug)]
#[cfg_attr(
    not(all(
        test,
        feature = "experiment",
        feature = "server",
        feature = "unity-catalog"
    )),
    allow(dead_code, reason = "for the documentation, which a test generates")
)]
pub(crate) struct Variable {
    pub(crate) name: &'static str,
    pub(crate) reader: Reader,
    pub(crate) value: Value,
    /// Where it is not set, or empty.
    pub(crate) unset: &'static str,
    pub(crate) meaning: &'static str,
    /// In what it differs from MLflow 3.17.2 and the OpenTelemetry specification 1.50.
    pub(crate) differs: &'static str,
}

/// What reads a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reader {
    /// `from_env()`, once.
    Destination,
    /// Every pipeline from the environment.
    Pipeline,
    /// Locations of a tracking server.
    Mlflow,
    /// Locations of an OTLP endpoint.
    Otlp,
    /// Databricks' ingest, and a workspace as a Unity Catalog server.
    Databricks,
    /// Databricks' ingest alone.
    Ingest,
    /// Tables.
    Table,
    /// Tables in object stores.
    Store,
    /// Whatever sends HTTP.
    Http,
    /// Where files of a user are looked for.
    Files,
}

#[cfg(all(
    test,
    feature = "experiment",
    feature = "server",
    feature = "unity-catalog"
))]
impl Reader {
    pub(crate) const ALL: [Self; 10] = [
        Self::Destination,
        Self::Pipeline,
        Self::Mlflow,
        Self::Otlp,
        Self::Databricks,
        Self::Ingest,
        Self::Table,
        Self::Store,
        Self::Http,
        Self::Files,
    ];

    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Destination => "Which destination: read once, by `from_env()`",
            Self::Pipeline => "The pipeline: read once, by `from_env()`",
            Self::Mlflow => "Tracking servers (`http:`, `https:`): read when a location is made",
            Self::Otlp => {
                "OTLP endpoints (`otlp+http:`, `otlp+https:`): read when a location is made"
            }
            Self::Databricks => {
                "Databricks (`databricks:`, and `uc:` on a workspace): read when a location is made"
            }
            Self::Ingest => "Databricks' ingest (`databricks:`) alone",
            Self::Table => "Tables (`uc:`): read when a location is made",
            Self::Store => "Object stores of tables (`uc:`): read when a location is made",
            Self::Http => "Whatever sends HTTP: read when the first connection is made",
            Self::Files => "Where the files of a user are",
        }
    }
}

/// What a value has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// Location URIs, or MLflow's own spellings.
    Destination,
    TrackingUri,
    Address,
    /// Any text, taken as it is.
    Text,
    /// A decimal number.
    Id,
    Ratio,
    Spans,
    Millis,
    Seconds,
    Bool,
    OneOf(&'static [&'static str]),
    Pem,
    File,
    Folder,
    Secret,
    /// `key=value,key=value`.
    Headers,
    StorageUrl,
    Proxy,
    Hosts,
    /// Any value is refused.
    Refused,
}

#[cfg(all(
    test,
    feature = "experiment",
    feature = "server",
    feature = "unity-catalog"
))]
impl Value {
    pub(crate) fn title(self) -> String {
        match self {
            Self::Destination => "location URIs, or an experiment id, or `catalog.schema[.prefix]`",
            Self::TrackingUri => "`sqlite:///…`, `http(s)://…`",
            Self::Address => "a web address",
            Self::Text => "text",
            Self::Id => "a decimal number",
            Self::Ratio => "a number from 0 to 1",
            Self::Spans => "a number of spans, at least 1",
            Self::Millis => "milliseconds, a whole number",
            Self::Seconds => "seconds, a whole number",
            Self::Bool => "`true`, `false`, `1`, `0`",
            Self::OneOf(words) => {
                let words: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
                return words.join(", ");
            }
            Self::Pem => "a PEM file",
            Self::File => "a file",
            Self::Folder => "a folder",
            Self::Secret => "a secret",
            Self::Headers => "`key=value,…`, percent-encoded; a secret",
            Self::StorageUrl => "a storage URL or folder",
            Self::Proxy => "`http://[user:password@]host:port`, `socks5://…`",
            Self::Hosts => "hosts, comma-separated",
            Self::Refused => "none: any value is an error",
        }
        .to_owned()
    }
}

use Reader as R;
use Value as V;

/// Every variable that is read.
#[rustfmt::skip]
pub(crate) const VARIABLES: &[Variable] = &[
    var("MLFLOW_TRACING_DESTINATION", R::Destination, V::Destination, "the tracking URI and experiment decide", "the destination of this process")
        .differs("a list of location URIs besides MLflow's spellings; `catalog.schema.prefix` too"),
    var("MLFLOW_TRACKING_URI", R::Destination, V::TrackingUri, "`sqlite:///mlflow.db` where only an experiment is given", "the store that experiments are in; also the host that `MLFLOW_TRACKING_…` credentials are for")
        .differs("`./mlruns` is never the default; `file:`, `databricks` and databases other than SQLite are errors"),
    var("MLFLOW_EXPERIMENT_NAME", R::Destination, V::Text, "`Default`, unless an id is given", "the experiment by name; created if absent"),
    var("MLFLOW_EXPERIMENT_ID", R::Destination, V::Id, "", "the experiment by id; has to exist. With a name, both have to be of one experiment"),
    var("MLFLOW_TRACE_ENABLE_OTLP_DUAL_EXPORT", R::Destination, V::Bool, "`false`", "sends every trace to the OTLP endpoint too"),
    var("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", R::Destination, V::Address, "the general one", "the whole address of the OTLP endpoint, for the dual export; also the host that OTLP headers are for")
        .differs("never chooses a destination by itself, as it does in MLflow"),
    var("OTEL_EXPORTER_OTLP_ENDPOINT", R::Destination, V::Address, "", "the base of the OTLP endpoint, to which `/v1/traces` is added, for the dual export; also the host that OTLP headers are for")
        .differs("never chooses a destination by itself, as it does in MLflow; no default address"),
    var("MLFLOW_TRACE_SAMPLING_RATIO", R::Pipeline, V::Ratio, "1", "the share of traces kept, by trace id; a destination's own ratio beats it")
        .differs("out of range is an error (MLflow: a warning, and 1); a trace from another process is decided by its id, unless `Pipeline::sampler` is used, which follows the parent as MLflow does"),
    var("MLFLOW_RUN_ID", R::Pipeline, V::Text, "no run", "the run that traces are linked to whose root span (one without a parent) is in this process"),
    var("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", R::Pipeline, V::Spans, "what each location prefers", "spans per batch")
        .differs("no default of 512; no queue to be smaller than"),
    var("OTEL_BSP_SCHEDULE_DELAY", R::Pipeline, V::Millis, "what each location prefers", "longest time a span waits for its batch")
        .differs("no default of 5,000"),
    var("MLFLOW_TRACKING_USERNAME", R::Mlflow, V::Text, "", "user for HTTP Basic; counts together with the password"),
    var("MLFLOW_TRACKING_PASSWORD", R::Mlflow, V::Secret, "", "password for HTTP Basic; counts together with the user"),
    var("MLFLOW_TRACKING_TOKEN", R::Mlflow, V::Secret, "", "bearer token, where user and password are not both set"),
    var("MLFLOW_TRACKING_AUTH", R::Mlflow, V::Refused, "", "another way to authenticate, which is not spoken here"),
    var("MLFLOW_TRACKING_AWS_SIGV4", R::Mlflow, V::Bool, "`false`", "signing for AWS, which is not spoken here")
        .differs("`true` is an error"),
    var("MLFLOW_TRACKING_INSECURE_TLS", R::Mlflow, V::Bool, "`false`", "takes any certificate of the server"),
    var("MLFLOW_TRACKING_SERVER_CERT_PATH", R::Mlflow, V::Pem, "the system's authorities", "the certificate authorities to trust"),
    var("MLFLOW_TRACKING_CLIENT_CERT_PATH", R::Mlflow, V::Pem, "", "this client's certificate and key"),
    var("MLFLOW_WORKSPACE", R::Mlflow, V::Text, "", "the workspace, where the URI names none"),
    var("MLFLOW_HTTP_REQUEST_TIMEOUT", R::Mlflow, V::Seconds, "60", "longest time of one request; 0 counts as 1")
        .differs("60 and not 120"),
    var("OTEL_EXPORTER_OTLP_TRACES_HEADERS", R::Otlp, V::Headers, "the general one", "headers of every request to the endpoint that is named beside it"),
    var("OTEL_EXPORTER_OTLP_HEADERS", R::Otlp, V::Headers, "", "headers of every request to the endpoint that is named beside it"),
    var("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", R::Otlp, V::OneOf(&["gzip", "none"]), "the general one", "how requests are compressed"),
    var("OTEL_EXPORTER_OTLP_COMPRESSION", R::Otlp, V::OneOf(&["gzip", "none"]), "`none`", "how requests are compressed"),
    var("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", R::Otlp, V::Millis, "the general one", "longest time of one request; 0 counts as unset"),
    var("OTEL_EXPORTER_OTLP_TIMEOUT", R::Otlp, V::Millis, "10,000", "longest time of one request; 0 counts as unset"),
    var("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", R::Otlp, V::Pem, "the general one", "the certificate authorities to trust"),
    var("OTEL_EXPORTER_OTLP_CERTIFICATE", R::Otlp, V::Pem, "the system's authorities", "the certificate authorities to trust"),
    var("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", R::Otlp, V::Pem, "the general one", "this client's certificate"),
    var("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", R::Otlp, V::Pem, "", "this client's certificate"),
    var("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", R::Otlp, V::Pem, "the general one", "the key of the client's certificate"),
    var("OTEL_EXPORTER_OTLP_CLIENT_KEY", R::Otlp, V::Pem, "", "the key of the client's certificate"),
    var("DATABRICKS_HOST", R::Databricks, V::Address, "that of the profile", "the workspace, with or without `https://`; the host that `DATABRICKS_…` credentials are for"),
    var("DATABRICKS_TOKEN", R::Databricks, V::Secret, "", "access token; beats the service principal"),
    var("DATABRICKS_CLIENT_ID", R::Databricks, V::Text, "", "id of a service principal; counts together with its secret"),
    var("DATABRICKS_CLIENT_SECRET", R::Databricks, V::Secret, "", "OAuth secret of the service principal"),
    var("DATABRICKS_CONFIG_FILE", R::Ingest, V::File, "`~/.databrickscfg`", "the file with profiles"),
    var("DATABRICKS_CONFIG_PROFILE", R::Ingest, V::Text, "`DEFAULT`", "the profile, where the URI names none; has to exist"),
    var("UNITY_CATALOG_ROOT", R::Table, V::StorageUrl, "`lakehouse`, unless a server is named", "the folder or place that is itself the catalog"),
    var("UNITY_CATALOG_URI", R::Table, V::Address, "`DATABRICKS_HOST`", "the Unity Catalog server; the host that `UNITY_CATALOG_…` credentials are for"),
    var("UNITY_CATALOG_TOKEN", R::Table, V::Secret, "", "bearer token; beats the OAuth client"),
    var("UNITY_CATALOG_CLIENT_ID", R::Table, V::Text, "", "id of an OAuth client; counts together with its secret"),
    var("UNITY_CATALOG_CLIENT_SECRET", R::Table, V::Secret, "", "secret of the OAuth client"),
    var("UNITY_CATALOG_TOKEN_URL", R::Table, V::Address, "`<server>/oidc/v1/token`", "where the OAuth client gets its tokens"),
    var("UNITY_CATALOG_STORAGE_ROOT", R::Table, V::StorageUrl, "that of the schema, else of the catalog", "below which new tables are put"),
    var("UNITY_CATALOG_TIMEOUT", R::Table, V::Seconds, "30", "longest time of one request to the server; 0 counts as 1"),
    var("UNITY_CATALOG_CA_FILE", R::Table, V::Pem, "the system's authorities", "the certificate authorities to trust"),
    var("UNITY_CATALOG_STORAGE_CREDENTIALS", R::Table, V::OneOf(&["vended", "own"]), "`vended`", "whose credentials open a table's storage: the catalog's or this process's"),
    var("UNITY_CATALOG_S3_SESSION_TOKEN", R::Table, V::OneOf(&["keep", "drop"]), "dropped where it never ends and an endpoint is configured", "what to do with the session token of vended S3 credentials"),
    var("UNITY_CATALOG_FILE_LOCATIONS", R::Table, V::Bool, "`false`", "whether a server may name local files as the place of a table"),
    store("AWS_ACCESS_KEY_ID", V::Secret), store("AWS_SECRET_ACCESS_KEY", V::Secret), store("AWS_SESSION_TOKEN", V::Secret),
    store("AWS_DEFAULT_REGION", V::Text), store("AWS_REGION", V::Text),
    store("AWS_ENDPOINT", V::Address), store("AWS_ENDPOINT_URL", V::Address), store("AWS_ENDPOINT_URL_S3", V::Address), store("AWS_ENDPOINT_URL_STS", V::Address),
    store("AWS_ALLOW_HTTP", V::Text), store("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", V::Text), store("AWS_UNSIGNED_PAYLOAD", V::Text),
    store("AWS_SKIP_SIGNATURE", V::Text), store("AWS_CONDITIONAL_PUT", V::Text), store("AWS_REQUEST_PAYER", V::Text),
    store("AWS_SERVER_SIDE_ENCRYPTION", V::Text), store("AWS_SSE_KMS_KEY_ID", V::Text), store("AWS_SSE_BUCKET_KEY_ENABLED", V::Text),
    store("AWS_WEB_IDENTITY_TOKEN_FILE", V::File), store("AWS_ROLE_ARN", V::Text), store("AWS_ROLE_SESSION_NAME", V::Text),
    store("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", V::Text), store("AWS_CONTAINER_CREDENTIALS_FULL_URI", V::Address), store("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", V::File),
    store("AZURE_STORAGE_ACCOUNT_NAME", V::Text), store("AZURE_STORAGE_ACCOUNT_KEY", V::Secret), store("AZURE_STORAGE_SAS_TOKEN", V::Secret),
    store("AZURE_STORAGE_SAS_KEY", V::Secret), store("AZURE_STORAGE_TOKEN", V::Secret), store("AZURE_STORAGE_USE_EMULATOR", V::Text),
    store("AZURE_STORAGE_ENDPOINT", V::Address), store("AZURE_ENDPOINT", V::Address), store("AZURE_ALLOW_HTTP", V::Text),
    store("AZURE_AUTHORITY_HOST", V::Address), store("AZURE_TENANT_ID", V::Text), store("AZURE_CLIENT_ID", V::Text),
    store("AZURE_CLIENT_SECRET", V::Secret), store("AZURE_FEDERATED_TOKEN_FILE", V::File), store("AZURE_IDENTITY_ENDPOINT", V::Address),
    store("AZURE_USE_AZURE_CLI", V::Text),
    store("GOOGLE_APPLICATION_CREDENTIALS", V::File), store("GOOGLE_SERVICE_ACCOUNT", V::File), store("GOOGLE_SERVICE_ACCOUNT_KEY", V::Secret),
    store("GOOGLE_BASE_URL", V::Address), store("GOOGLE_ALLOW_HTTP", V::Text), store("GOOGLE_SKIP_SIGNATURE", V::Text),
    var("HTTP_PROXY", R::Http, V::Proxy, "`ALL_PROXY`", "the proxy for `http:` addresses; `http_proxy` where it is not set"),
    var("HTTPS_PROXY", R::Http, V::Proxy, "`ALL_PROXY`", "the proxy for `https:` addresses; `https_proxy` where it is not set"),
    var("ALL_PROXY", R::Http, V::Proxy, "no proxy", "the proxy for both; `all_proxy` where it is not set"),
    var("NO_PROXY", R::Http, V::Hosts, "none", "hosts that are reached without a proxy; `no_proxy` where it is not set"),
    var("HOME", R::Files, V::Folder, "no such files", "the folder of `.mlflow/credentials` and `.databrickscfg`"),
];

const fn var(
    name: &'static str,
    reader: Reader,
    value: Value,
    unset: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable {
        name,
        reader,
        value,
        unset,
        meaning,
        differs: "",
    }
}

const fn store(name: &'static str, value: Value) -> Variable {
    var(name, Reader::Store, value, "", "")
}

impl Variable {
    const fn differs(mut self, how: &'static str) -> Self {
        self.differs = how;
        self
    }
}

/// Variables of MLflow's tracing that are not read, each with why or what to do: set, they are
/// warned of once (MLflow 3.17.2, `mlflow/environment_variables.py`).
pub(crate) const UNREAD: &[(&str, &str)] = &[
    (
        "MLFLOW_ASYNC_TRACE_LOGGING_MAX_INTERVAL_MILLIS",
        "set OTEL_BSP_SCHEDULE_DELAY, in milliseconds",
    ),
    (
        "MLFLOW_ASYNC_TRACE_LOGGING_MAX_QUEUE_SIZE",
        "memory is bounded in bytes instead: `with_budget`",
    ),
    (
        "MLFLOW_ASYNC_TRACE_LOGGING_MAX_SPAN_BATCH_SIZE",
        "set OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    ),
    (
        "MLFLOW_ASYNC_TRACE_LOGGING_MAX_WORKERS",
        "delivery has threads of its own",
    ),
    (
        "MLFLOW_ASYNC_TRACE_LOGGING_RETRY_TIMEOUT",
        "call `with_retry`",
    ),
    (
        "MLFLOW_ENABLE_ASYNC_TRACE_LOGGING",
        "traces are always stored in the background; `flush` waits",
    ),
    (
        "MLFLOW_ENABLE_OTEL_GENAI_SEMCONV",
        "attributes are sent as they are",
    ),
    (
        "MLFLOW_ENABLE_OTLP_EXPORTER",
        "name the endpoint in MLFLOW_TRACING_DESTINATION as otlp+http://host:4318",
    ),
    (
        "MLFLOW_TRACE_BUFFER_MAX_SIZE",
        "memory is bounded in bytes instead: `with_budget`",
    ),
    (
        "MLFLOW_TRACE_BUFFER_TTL_SECONDS",
        "call `with_max_trace_age`",
    ),
    (
        "MLFLOW_TRACE_EXTRACT_ATTACHMENTS",
        "attributes are stored as they are",
    ),
    (
        "MLFLOW_TRACE_MAX_ATTACHMENT_SIZE",
        "attributes are stored as they are",
    ),
    (
        "MLFLOW_TRACE_PROPAGATE_TO_OTEL_CONTEXT",
        "traces are OpenTelemetry's already",
    ),
    (
        "MLFLOW_TRACE_TIMEOUT_CHECK_INTERVAL_SECONDS",
        "call `with_max_trace_age`",
    ),
    ("MLFLOW_TRACE_TIMEOUT_SECONDS", "call `with_max_trace_age`"),
    (
        "MLFLOW_TRACE_USE_ISOLATED_RANDOM_ID_GENERATOR",
        "give the tracer provider an id generator",
    ),
    (
        "MLFLOW_TRACKING_DIR",
        "set MLFLOW_TRACKING_URI to sqlite:///…; MLflow's file store is not written",
    ),
    (
        "MLFLOW_USE_BATCH_SPAN_PROCESSOR",
        "batches are always made; see `with_batch_limits`",
    ),
    (
        "MLFLOW_USE_DEFAULT_TRACER_PROVIDER",
        "the program makes its tracer provider",
    ),
];

/// Variables that begin as those of tracing do and are for others: servers and readers of traces.
pub(crate) const OF_OTHERS: &[&str] = &[
    "MLFLOW_TRACE_ARCHIVAL_CONFIG",
    "MLFLOW_TRACE_DELETE_MAX_WORKERS",
    "MLFLOW_TRACE_ROLLUPS_MAX_PARTITIONS_PER_RUN",
    "MLFLOW_TRACE_ROLLUPS_MAX_WORKERS",
    "MLFLOW_TRACE_ROLLUPS_SCHEDULE",
    "MLFLOW_TRACING_SQL_WAREHOUSE_ID",
    "MLFLOW_WORKSPACE_STORE_URI",
    "MLFLOW_RUN_CONTEXT",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_BLRP_SCHEDULE_DELAY",
    "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
];
