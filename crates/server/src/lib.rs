//! Sends OpenTelemetry traces to a server: an experiment of an MLflow tracking server, a table
//! behind Databricks' OTLP ingest, or any OTLP/HTTP endpoint.
//!
//! ```text
//!  lane ─ sink ─┐ validate, claim,          ┌ host (per address and credentials) ┐
//!  lane ─ sink ─┼─ encode, gzip ──────────► │ one pool, 8 requests at a time     ├──► POST /v1/traces
//!  lane ─ sink ─┘                           │ version, experiments, trace owners │    REST beside it
//!                                           └────────────────────────────────────┘
//! ```
//!
//! # Start
//! ```
//! use trace_destination_core::{Destination, LocationUri};
//! use trace_destination_server::ServerLocation;
//!
//! let uri: LocationUri = "http://127.0.0.1:5000?experiment_name=checkout".parse()?;
//! // Credentials and TLS settings come from the environment; `builder()` takes them from code.
//! let destination = Destination::new(ServerLocation::from_uri(&uri)?);
//! # Ok::<(), trace_destination_core::Error>(())
//! ```
//!
//! # URIs
//! | URI | place |
//! |---|---|
//! | `http(s)://host:5000/base?experiment_name=…` | an experiment, created if absent unless `create=false` |
//! | `http(s)://host:5000?experiment_id=7` | an experiment that exists; with a name too, both must agree |
//! | `…&workspace=team` | the same in a workspace of the server |
//! | `otlp+http(s)://host:4318` | an OTLP endpoint; a path is used as it is, without one it is `/v1/traces` |
//! | `databricks://profile?table=catalog.schema.prefix_otel_spans` | a table; without a profile, `databricks://?table=…` |
//!
//! Any other parameter is an error. OTLP over gRPC is not supported. A URI never holds a secret.
//!
//! # Environment
//! Read by [`ServerLocation::from_uri`] and [`ServerLocationBuilder::with_env`].
//!
//! | for | variable | meaning |
//! |---|---|---|
//! | MLflow | `MLFLOW_TRACKING_USERNAME`, `_PASSWORD` | HTTP Basic, if both are set; else |
//! | | `MLFLOW_TRACKING_TOKEN` | a bearer token; else |
//! | | `~/.mlflow/credentials` | user and password in `[mlflow]` |
//! | | `MLFLOW_TRACKING_SERVER_CERT_PATH` | PEM file with the certificate authorities to trust |
//! | | `MLFLOW_TRACKING_CLIENT_CERT_PATH` | PEM file with a client certificate and its key |
//! | | `MLFLOW_TRACKING_INSECURE_TLS` | `true`: take any certificate |
//! | | `MLFLOW_WORKSPACE` | the workspace, where the URI names none |
//! | | `MLFLOW_HTTP_REQUEST_TIMEOUT` | seconds for one request; 60 |
//! | OTLP | `OTEL_EXPORTER_OTLP_[TRACES_]HEADERS` | `key=value,…`, percent-encoded |
//! | | `…COMPRESSION` | `gzip` or `none` (unless set) |
//! | | `…TIMEOUT` | milliseconds for one request; 10,000 |
//! | | `…CERTIFICATE`, `…CLIENT_CERTIFICATE`, `…CLIENT_KEY` | PEM files |
//! | Databricks | `DATABRICKS_HOST`, and `DATABRICKS_TOKEN` or `DATABRICKS_CLIENT_ID` with `DATABRICKS_CLIENT_SECRET` | where no profile is named |
//! | | `DATABRICKS_CONFIG_PROFILE`, `DATABRICKS_CONFIG_FILE` | a profile, and the file instead of `~/.databrickscfg` |
//! | all | `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY` | as `reqwest` reads them |
//!
//! Credentials and headers of the environment go only to the host that is named for them: by
//! `MLFLOW_TRACKING_URI` or `OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT`, or in code by
//! [`with_credential_host`](ServerLocationBuilder::with_credential_host). If none is named, they
//! are not sent, and an answer of 401 or 403 says what to set. If they travel in plain HTTP beyond
//! this machine, the log has one warning per host. `MLFLOW_TRACKING_AUTH` and
//! `MLFLOW_TRACKING_AWS_SIGV4` ask for ways to authenticate that are not supported; they are an
//! error rather than ignored.
//!
//! Credentials from code may change while locations are open: [`Credentials`] come from a file that
//! is read again, a function, an OAuth client or a provider of the application. Certificate files
//! are read again when they change.
//!
//! A location is identified by its URI alone. Two locations with equal URIs and different
//! credentials, headers or settings cannot be in use at the same time: building the second is an
//! `InvalidConfig` error. So spans are never sent with other credentials than those of their
//! location.
//!
//! # Tracking servers
//! MLflow 3.4 or later; the version is requested once per host. One request carries all spans of a
//! batch, compressed with gzip if it is larger than a packet and the server accepts that. A span
//! that is sent again replaces itself, so nothing is stored twice. Beyond that:
//!
//! - **A trace exists in one experiment.** If a trace already exists in another experiment, the server
//!   adds the spans there and answers 200. So before spans of a trace that may already exist are sent
//!   (no local root in the batch, or replayed spans), the sink looks the trace up, with one request per
//!   batch. If the trace is elsewhere, its spans are refused with `Conflict`, without naming the other
//!   experiment. Between look-up and write, another process can still create the trace.
//! - **One bad span makes the server reject a whole request.** Spans that are known to do so (session ids
//!   over 250 characters, a cost that is not an object, times beyond 2262, missing ids) are refused
//!   before they are sent. Other rejected requests are halved until the bad span is found. A repeated 500
//!   is treated in the same way, if the server can otherwise read its database.
//! - **Deleted experiments accept spans** that nobody can see. So the sink checks every 30 s of writing,
//!   and whenever the server objects, that the experiment still exists; if not, the name is resolved
//!   again.
//! - **Names.** The root span gets the attribute `mlflow.traceTag.mlflow.traceName`, without which the
//!   trace has no name: the name that the application set, else that of the root span.
//! - **Trace-level values** (tags, name, session, user) are sent as attributes of the root span, if the
//!   server reads them from there. Tags and names that are set earlier are visible while the trace runs.
//!   Metadata, client request id and previews, which OTLP cannot carry, follow once the local root is
//!   stored; values that the server already has are read first and kept.
//! - **Small changes** to the spans: a quoted `mlflow.spanType` loses its quotes, tags by which MLflow
//!   finds its own data are left out, bytes in a resource become base64 (the server answers 500 to them),
//!   and a span without an end ends when it began (the server would compute a negative duration).
//!
//! The server drops the kind, instrumentation scope, trace state and flags of spans.
//!
//! # Databricks
//! Spans go to `/api/2.0/otel/v1/traces`, with the table in a header and trace ids in the form of
//! MLflow's client. Trace-level values are written beside the spans once the root has ended. Tokens
//! of a service principal are shared by all locations of a host and renewed before they expire.
//! Spans may be stored twice if an answer was lost: `AtLeastOnce`. Modelled on the requests of
//! MLflow 3.17.2's client; **not tried on a real workspace**.
//!
//! # Failures
//! One table for each protocol decides by status, headers and MLflow's own name for the error what
//! follows an answer; `docs/server.md` in the repository shows them. `Retry-After` is honoured as
//! seconds and as a date, up to an hour. Redirects are followed only with 307 or 308 to the same
//! scheme, host and port, at most three times. Answers are read up to 1 MiB, and secrets in them
//! are masked in errors.

mod access;
mod address;
mod builder;
mod client;
mod config;
mod databricks;
mod encode;
mod environment;
mod error;
mod export;
mod generations;
mod holes;
mod host;
mod keys;
mod later;
mod location;
mod mlflow;
mod options;
mod otlp;
mod status;
mod target;
mod transport;
mod validate;

pub use builder::ServerLocationBuilder;
pub use config::*;
pub use location::ServerLocation;
pub use options::MissingExperiment;
pub use trace_destination_http::{Credential, CredentialProvider, Credentials, OAuthClient};
pub use transport::Compression;
