//! A Unity Catalog server in this process, as strict as the open-source one (0.6): what that checks
//! is checked, in the same order and with the same codes. Tests can require a token, have it give
//! credentials out, and let it fail as they wish.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test uses a part of it, and helpers fail as tests do"
)]

mod columns;
pub mod http;
pub mod store;

use http::{Reply, Request, Server};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use url::Url;

const API: &str = "/api/2.1/unity-catalog";
const TOKENS: &str = "/oidc/v1/token";

/// A running server. Ends with this value.
#[derive(Debug)]
pub struct UnityServer {
    server: Server,
    state: Arc<Mutex<State>>,
}

/// Another creator.
pub type Faster = Box<dyn FnMut(&mut State) + Send>;
/// Gives credentials out for a place.
pub type Vend = Box<dyn FnMut(&str) -> Value + Send>;

/// What the server knows and how it behaves.
#[derive(Default)]
pub struct State {
    /// Storage roots by name of catalog.
    pub catalogs: BTreeMap<String, Option<String>>,
    /// Storage roots by `catalog.schema`.
    pub schemas: BTreeMap<String, Option<String>>,
    /// As they are answered, by full name.
    pub tables: BTreeMap<String, Value>,
    /// Tokens that are taken; any request passes where there are none.
    pub tokens: BTreeSet<String>,
    /// OAuth client and secret, and how many tokens it was given; their life in seconds.
    pub oauth: Option<(String, String, u64)>,
    pub issued: usize,
    /// Paths (after the API's) whose requests are answered with 403.
    pub denied: Vec<&'static str>,
    /// The next answers to requests whose path contains a text, before anything else.
    pub script: Vec<(&'static str, Reply)>,
    /// What runs before a table is created: another creator that is faster.
    pub before_create: Option<Faster>,
    /// Gives credentials out for a place, beside `url`; without it none are for a bucket.
    pub vend: Option<Vend>,
    /// How far the server's clock is ahead, in seconds.
    pub clock: i64,
    /// Leaves out the header that tells the time.
    pub no_date: bool,
    next_id: u64,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// An answer that is no success.
#[derive(Debug)]
pub(crate) struct Refusal(u16, &'static str, String);

impl Refusal {
    fn invalid(message: impl Into<String>) -> Self {
        Self(400, "INVALID_ARGUMENT", message.into())
    }

    fn internal(message: impl Into<String>) -> Self {
        Self(500, "INTERNAL", message.into())
    }

    fn denied() -> Self {
        Self(403, "PERMISSION_DENIED", "Access denied.".into())
    }

    pub(crate) fn reply(&self) -> Reply {
        error(self.0, self.1, &self.2)
    }
}

/// An error as the server writes it.
pub fn error(status: u16, code: &str, message: &str) -> Reply {
    Reply::json(
        status,
        &json!({
            "error_code": code,
            "message": message,
            "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": code}],
        }),
    )
}

impl UnityServer {
    /// A server with the catalog `main` and its schema `traces`, neither with a storage root.
    pub fn start() -> Self {
        let mut state = State::default();
        state.catalogs.insert("main".into(), None);
        state.schemas.insert("main.traces".into(), None);
        let state = Arc::new(Mutex::new(state));
        let answers = state.clone();
        Self {
            server: Server::start(move |request| answers.lock().unwrap().answer(request)),
            state,
        }
    }

    /// The same, with a folder as storage root of the catalog.
    pub fn with_root(folder: &Path) -> Self {
        let server = Self::start();
        let root = Url::from_file_path(folder).unwrap().to_string();
        server.state().catalogs.insert("main".into(), Some(root));
        server
    }

    /// The same, answering one request after the other, each after a while.
    #[allow(dead_code, reason = "not every program has a use for it")]
    pub fn slow(folder: &Path, answer: std::time::Duration) -> Self {
        let Self { server, state } = Self::with_root(folder);
        drop(server);
        let answers = state.clone();
        let server = Server::start(move |request| {
            let mut state = answers.lock().unwrap();
            std::thread::sleep(answer);
            state.answer(request)
        });
        Self { server, state }
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Requests so far whose path contains a text.
    pub fn requests_to(&self, part: &str) -> Vec<Request> {
        let mut all = self.server.requests();
        all.retain(|r| r.path().contains(part));
        all
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Reply {
        let path = request.path();
        let scripted = self.script.iter().position(|(part, _)| path.contains(part));
        let reply = match scripted {
            Some(i) => self.script.remove(i).1,
            None => match self.route(request, &path) {
                Ok(body) => Reply::json(200, &body),
                Err(refusal) => refusal.reply(),
            },
        };
        match self.no_date {
            true => reply,
            false => {
                let now = Timestamp::now() + SignedDuration::from_secs(self.clock);
                let date = jiff::fmt::rfc2822::DateTimePrinter::new();
                reply.with_header("date", date.timestamp_to_rfc9110_string(&now).unwrap())
            }
        }
    }

    fn route(&mut self, request: &Request, path: &str) -> Result<Value, Refusal> {
        if path == TOKENS {
            return self.token(request);
        }
        let Some(path) = path.strip_prefix(API) else {
            return Err(Refusal(404, "NOT_FOUND", format!("no such path: {path}")));
        };
        self.authenticate(request)?;
        if self.denied.iter().any(|denied| path.starts_with(denied)) {
            return Err(Refusal::denied());
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        match (request.method.as_str(), parts.as_slice()) {
            ("GET", ["catalogs", name]) => match self.catalogs.get(*name) {
                Some(root) => Ok(json!({"name": name, "storage_root": root, "id": "c"})),
                None => Err(missing("CATALOG", "Catalog", name)),
            },
            ("GET", ["schemas", name]) => {
                self.schema(name)?;
                let root = self.schemas.get(*name).cloned().flatten();
                Ok(json!({"full_name": name, "storage_root": root, "schema_id": "s"}))
            }
            ("GET", ["tables", name]) => {
                self.schema(name.rsplit_once('.').map_or("", |(schema, _)| schema))?;
                let table = self.tables.get(*name).cloned();
                table.ok_or_else(|| missing("TABLE", "Table", name))
            }
            ("POST", ["tables"]) => self.create(&request.json()),
            ("POST", ["temporary-table-credentials"]) => {
                let body = request.json();
                let id = body["table_id"].as_str().unwrap_or_default();
                if id.len() != 36 {
                    return Err(Refusal::invalid(format!("Invalid UUID string: {id}")));
                }
                let table = self.tables.values().find(|t| t["table_id"] == id);
                let table = table.ok_or_else(|| missing("TABLE", "Table", id))?;
                match body["operation"].as_str() {
                    Some("READ" | "READ_WRITE") => {}
                    _ => return Err(Refusal::invalid("Privileges cannot be null or empty.")),
                }
                let url = table["storage_location"].as_str().unwrap().to_owned();
                self.credentials(&url)
            }
            ("POST", ["temporary-path-credentials"]) => {
                let body = request.json();
                let url = normalize(body["url"].as_str().unwrap_or_default())?;
                match body["operation"].as_str() {
                    Some("PATH_CREATE_TABLE") if self.is_overlapping(&url) => {
                        return Err(Refusal::denied());
                    }
                    Some("PATH_READ" | "PATH_READ_WRITE" | "PATH_CREATE_TABLE") => {}
                    _ => return Err(Refusal::invalid("Privileges cannot be null or empty.")),
                }
                self.credentials(&url)
            }
            _ => Err(Refusal(404, "NOT_FOUND", format!("no such path: {path}"))),
        }
    }

    fn token(&mut self, request: &Request) -> Result<Value, Refusal> {
        use base64::Engine as _;
        let Some((id, secret, life)) = self.oauth.clone() else {
            return Err(Refusal(404, "NOT_FOUND", "no such path".into()));
        };
        let pair = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{secret}"));
        let asked = String::from_utf8_lossy(&request.body);
        let is_grant = asked.contains("grant_type=client_credentials");
        if request.header("authorization") != Some(&format!("Basic {pair}")) || !is_grant {
            // OAuth servers have errors of their own.
            return Err(Refusal(
                401,
                "invalid_client",
                "Client authentication failed".into(),
            ));
        }
        self.issued += 1;
        let token = format!("issued-{}", self.issued);
        self.tokens.insert(token.clone());
        Ok(json!({"access_token": token, "token_type": "Bearer", "expires_in": life}))
    }

    fn is_strict(&self) -> bool {
        !self.tokens.is_empty() || self.oauth.is_some()
    }

    fn authenticate(&self, request: &Request) -> Result<(), Refusal> {
        if !self.is_strict() {
            return Ok(());
        }
        let sent = request.header("authorization");
        let Some(token) = sent.and_then(|h| h.strip_prefix("Bearer ")) else {
            return Err(Refusal(
                401,
                "UNAUTHENTICATED",
                "No authorization found.".into(),
            ));
        };
        match self.tokens.contains(token) {
            true => Ok(()),
            false => Err(Refusal(
                401,
                "UNAUTHENTICATED",
                "Invalid access token.".into(),
            )),
        }
    }

    fn schema(&self, full_name: &str) -> Result<(), Refusal> {
        let catalog = full_name.split('.').next().unwrap_or_default();
        if !self.catalogs.contains_key(catalog) {
            return Err(missing("CATALOG", "Catalog", catalog));
        }
        match self.schemas.contains_key(full_name) {
            true => Ok(()),
            false => Err(missing("SCHEMA", "Schema", full_name)),
        }
    }

    /// Whether a place is, contains or is below that of a table.
    fn is_overlapping(&self, url: &str) -> bool {
        let below = |a: &str, b: &str| a == b || a.starts_with(&format!("{b}/"));
        // Without authorization nobody looks.
        self.is_strict()
            && self.tables.values().any(|table| {
                let other = table["storage_location"].as_str().unwrap_or_default();
                below(url, other) || below(other, url)
            })
    }

    fn create(&mut self, body: &Value) -> Result<Value, Refusal> {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        let name = text("name");
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_@-".contains(c);
        if name.is_empty() || name.len() > 255 || !name.chars().all(is_name) {
            return Err(Refusal::invalid(
                "Name cannot contain a period, space, forward-slash, or control characters",
            ));
        }
        let Some(columns) = body["columns"].as_array() else {
            return Err(Refusal::internal(
                "Cannot invoke \"java.util.List.stream()\"",
            ));
        };
        let columns = columns.iter().map(columns::check);
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let schema = format!("{}.{}", text("catalog_name"), text("schema_name"));
        self.schema(&schema)?;
        if let Some(mut faster) = self.before_create.take() {
            faster(self);
        }
        let full_name = format!("{schema}.{name}");
        if self.tables.contains_key(&full_name) {
            let message = format!("Table already exists: {full_name}");
            return Err(Refusal(400, "TABLE_ALREADY_EXISTS", message));
        }
        if body["table_type"] != "EXTERNAL" || body["data_source_format"] != "DELTA" {
            return Err(Refusal::invalid("only external Delta tables are made here"));
        }
        let location = normalize(&text("storage_location"))?;
        let url = Url::parse(&location).unwrap();
        if url.scheme() != "file" && url.path().trim_matches('/').is_empty() {
            return Err(Refusal::invalid(
                "External table storage location must include a non-empty path prefix",
            ));
        }
        if location.contains("__unitystorage") {
            return Err(Refusal::invalid("the location is in managed storage"));
        }
        if self.is_overlapping(&location) {
            return Err(Refusal::denied());
        }
        let properties = body["properties"].as_object().cloned().unwrap_or_default();
        if properties
            .values()
            .any(|v| v.as_str().is_none_or(|v| v.len() > 255))
        {
            return Err(Refusal::internal(
                "Value too long for column \"PROPERTY_VALUE\"",
            ));
        }
        let table = json!({
            "name": name,
            "catalog_name": text("catalog_name"),
            "schema_name": text("schema_name"),
            "table_type": "EXTERNAL",
            "data_source_format": "DELTA",
            "columns": columns,
            "storage_location": location,
            "comment": body["comment"],
            "properties": properties,
            "owner": null,
            "created_at": 1_700_000_000_000_u64,
            "updated_at": 1_700_000_000_000_u64,
            "table_id": self.fresh_id(),
            "view_dependencies": null,
        });
        self.tables.insert(full_name, table.clone());
        Ok(table)
    }

    /// Registers a table without asking anybody.
    pub fn put(&mut self, full_name: &str, location: &str, kind: &str, format: &str) {
        let table = json!({
            "table_type": kind,
            "data_source_format": format,
            "storage_location": location,
            "columns": [],
            "table_id": self.fresh_id(),
        });
        self.tables.insert(full_name.to_owned(), table);
    }

    fn fresh_id(&mut self) -> String {
        self.next_id += 1;
        format!("00000000-0000-4000-8000-{:012}", self.next_id)
    }

    fn credentials(&mut self, url: &str) -> Result<Value, Refusal> {
        let mut given = json!({
            "aws_temp_credentials": null,
            "azure_user_delegation_sas": null,
            "gcp_oauth_token": null,
            "expiration_time": null,
            "url": url,
        });
        if url.starts_with("file:") {
            return Ok(given);
        }
        let Some(vend) = &mut self.vend else {
            let message = "S3 bucket configuration not found.";
            return Err(Refusal(400, "FAILED_PRECONDITION", message.into()));
        };
        let Value::Object(more) = vend(url) else {
            panic!("credentials are an object");
        };
        given.as_object_mut().unwrap().extend(more);
        Ok(given)
    }
}

fn missing(code: &str, what: &str, name: &str) -> Refusal {
    let code = match code {
        "CATALOG" => "CATALOG_NOT_FOUND",
        "SCHEMA" => "SCHEMA_NOT_FOUND",
        _ => "TABLE_NOT_FOUND",
    };
    Refusal(404, code, format!("{what} not found: {name}"))
}

/// A place as the server stores it (`NormalizedURL`).
fn normalize(path: &str) -> Result<String, Refusal> {
    if !path.contains('/') {
        return Err(Refusal::invalid(format!("Ambiguous path: {path}")));
    }
    let path = path.trim_end_matches('/');
    if path.starts_with('/') {
        return Ok(format!("file://{path}"));
    }
    match path.split_once(':') {
        Some(("s3" | "gs" | "abfs" | "abfss", _)) => Ok(path.to_owned()),
        Some(("file", rest)) => Ok(format!("file:///{}", rest.trim_start_matches('/'))),
        Some((scheme, _)) => Err(Refusal::invalid(format!(
            "Unsupported URI scheme: {scheme}"
        ))),
        None => Err(Refusal::invalid(format!("Unsupported path: {path}"))),
    }
}
