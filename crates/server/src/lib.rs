//! Ships OpenTelemetry traces to a server: an experiment of an MLflow tracking server, a table
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
//! Any other parameter is an error. OTLP over gRPC is not spoken. A URI never holds a secret.
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
//! Credentials and headers go to the host that is named for them: by `MLFLOW_TRACKING_URI` or
//! `OTEL_EXPORTER_OTLP_[TRACES_]ENDPOINT` beside them, or by
//! [`with_credential_host`](ServerLocationBuilder::with_credential_host) in code. Where none is named
//! they are not sent, and an answer of 401 or 403 then says what to set. Where they travel in plain HTTP
//! beyond this machine, one warning per host says so.
//! `MLFLOW_TRACKING_AUTH` and `MLFLOW_TRACKING_AWS_SIGV4` ask for something that is not spoken here,
//! and are an error rather than ignored.
//!
//! Credentials from code may change while locations are open:
//! [`Credentials`] come from a file that is read again, a function, an OAuth client or a provider of
//! the application. Certificate files are read again when they change.
//!
//! A location is one place with one lane, whoever made it. Two with equal URIs and different
//! credentials, headers or settings, in use at the same time, are therefore a configuration error,
//! said when the second is built: spans never go out with other credentials than those they were
//! given.
//!
//! # Tracking servers
//! MLflow 3.4 or later; asked for its version once per host. One request carries all spans of a
//! batch, with gzip if it is more than a packet and the server takes it. A span sent again replaces itself, so nothing is stored twice. Beyond that:
//!
//! - **A trace lives in one experiment.** The server stores spans of a known trace where the trace
//!   is, whatever it is asked for, and answers 200. So a trace whose id may exist (no local root in
//!   the batch, or spans that were replayed) is looked up before it is sent, once, with one request
//!   per batch; its spans are refused with `Conflict` if it is elsewhere, without naming that
//!   place. Between look-up and storing, another process can still be faster.
//! - **One bad span sinks a whole request there.** What is known to do so (session ids over 250
//!   characters, a cost that is no object, times beyond 2262, missing ids) is refused before it is
//!   sent; other requests the server rejects are halved until the offender is found. A 500 is
//!   treated the same way when it comes again, if the server can read its database otherwise.
//! - **Deleted experiments take spans**, unseen by anybody. Whether the experiment is still there is
//!   asked every 30 s of writing, and whenever the server objects; a name is then resolved anew.
//! - **Names.** The root span gets the attribute `mlflow.traceTag.mlflow.traceName`, without which
//!   the trace stays nameless: what the application set, else the root span's name.
//! - **Values of the whole trace** (tags, name, session, user) travel as attributes of the root
//!   where the server would read them as meant. Tags and names set earlier show while the trace
//!   runs. Metadata, client request id and previews, which OTLP cannot carry, follow once the local
//!   root is stored; what the server knows already is read first and kept.
//! - **Small differences** to the spans as given: a quoted `mlflow.spanType` loses its quotes, tags
//!   by which MLflow finds its own data are left out, bytes in a resource become base64 (they are a
//!   500 there), and a span without an end ends where it began (the server would make a negative
//!   duration of it).
//!
//! What the server itself drops, the kind, scope, trace state and flags of spans, is lost there.
//!
//! # Databricks
//! Spans go to `/api/2.0/otel/v1/traces` with the table in a header and the trace ids MLflow's client
//! gives them there. What an application set on a trace is written beside its spans once its root
//! has ended. Tokens of a service principal are shared by all locations of a host and renewed before
//! they end. Spans may be stored twice where an answer was lost: `at_least_once`. Written after the
//! requests of MLflow 3.17.2's client; no workspace was at hand to try it on.
//!
//! # Failures
//! What comes of an answer is decided by status, headers and MLflow's own name for the error, by one
//! table for each protocol; `docs/server.md` prints them. `Retry-After` is honoured as seconds and as
//! a date, up to an hour. Only a redirect by 307 or 308 to the same scheme, host and port is followed,
//! three times at most. Answers are read up to 1 MiB, and never repeat a secret in an error.

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
