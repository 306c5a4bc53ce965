//! Real MLflow servers as the conformance suite sees them. Each is a store of its own; there are
//! few, because each is a Python process, and places share them.

use super::read_back;
use crate::mlflow::{PASSWORD, Server, Serving, USER};
use crate::proxy::{Fault, Proxy};
use crate::{Live, Stop, process};
use async_trait::async_trait;
use rusqlite::{Connection, OpenFlags, OptionalExtension};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use trace_destination::{Error, ErrorKind, LocationUri, TraceLocation};
use trace_destination_conformance::{
    Declares, Failure, Harness, Misconfigured, RealFault, Scale, Stored, StoredSpan, Untouched,
};
use trace_destination_server::ServerLocation;

/// The columns of the matrix.
pub(super) const PLAIN: &str = "mlflow-server";
pub(super) const BASIC_AUTH: &str = "basic-auth";

/// As many as a set of three legs needs.
const SERVERS: usize = 3;
const JOBS: usize = 2;
/// Heavy cases do so much less than against a stand-in: MLflow stores some hundred spans a second.
const PART: usize = 50;
/// How long a database may be busy with its server's writing.
const BUSY: Duration = Duration::from_secs(30);

/// A few real servers, each behind a proxy.
#[derive(Debug)]
pub(super) struct RealServers {
    servers: Vec<Real>,
    basic_auth: bool,
    next: AtomicUsize,
    /// This program, which is also the writer that gets killed.
    program: PathBuf,
    home: PathBuf,
}

#[derive(Debug)]
struct Real {
    db: PathBuf,
    proxy: Proxy,
    _server: Server,
}

impl RealServers {
    pub(super) fn start(live: &Live, basic_auth: bool) -> Result<Self, Stop> {
        let name = if basic_auth { BASIC_AUTH } else { PLAIN };
        let folder = live.work(name)?;
        let mlflow = live.mlflow()?;
        let serving = Serving {
            basic_auth,
            remembers: basic_auth,
            ..Serving::default()
        };
        let start = |n: usize| -> Result<Real, String> {
            let db = folder.join(format!("{n}.db"));
            let server = mlflow.serve_with(&db, &serving)?;
            Ok(Real {
                proxy: Proxy::start(server.port())?,
                _server: server,
                db,
            })
        };
        let servers = std::thread::scope(|scope| {
            let start = &start;
            let all: Vec<_> = (0..SERVERS)
                .map(|n| scope.spawn(move || start(n)))
                .collect();
            let joined = all.into_iter().map(|t| t.join());
            let results = joined.map(|r| r.unwrap_or_else(|_| Err("starting panicked".into())));
            results.collect::<Result<Vec<_>, String>>()
        })?;
        Ok(Self {
            servers,
            basic_auth,
            next: AtomicUsize::new(0),
            program: live.program.clone(),
            home: live.root.join("home"),
        })
    }

    fn number(&self) -> usize {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// The server a location is on.
    fn of(&self, location: &dyn TraceLocation) -> Result<&Real, Failure> {
        let uri = location.uri().as_str();
        self.servers
            .iter()
            .find(|s| uri.starts_with(&format!("{}?", s.proxy.url())))
            .ok_or_else(|| Failure::new(format!("{uri} is on none of the servers")))
    }

    fn at(&self, uri: &str) -> Result<Arc<dyn TraceLocation>, Error> {
        let uri: LocationUri = uri.parse()?;
        let mut builder = ServerLocation::builder().with_uri(&uri);
        if self.basic_auth {
            builder = builder.with_basic_auth(USER, PASSWORD);
        }
        Ok(Arc::new(builder.build()?))
    }

    fn on(&self, server: &Real, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        let (url, n) = (server.proxy.url(), self.number());
        Ok(self.at(&format!("{url}?experiment_name={hint}-{n}"))?)
    }
}

fn name_of(location: &dyn TraceLocation) -> Result<&str, Failure> {
    location
        .uri()
        .query("experiment_name")
        .ok_or_else(|| Failure::new(format!("{location} names no experiment")))
}

impl Real {
    fn open(&self) -> Result<Connection, Failure> {
        let db = Connection::open_with_flags(&self.db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(BUSY)?;
        Ok(db)
    }

    fn experiment_id(&self, name: &str) -> Result<Option<i64>, Failure> {
        let sql = "SELECT experiment_id FROM experiments WHERE name = ?1";
        let found = self.open()?.query_row(sql, [name], |row| row.get(0));
        Ok(found.optional()?)
    }
}

#[async_trait]
impl Harness for RealServers {
    fn name(&self) -> &str {
        match self.basic_auth {
            true => BASIC_AUTH,
            false => PLAIN,
        }
    }

    fn scale(&self) -> Scale {
        Scale::small(JOBS, SERVERS, PART)
    }

    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure> {
        self.apart(hint, &[]).await
    }

    async fn apart(
        &self,
        hint: &str,
        others: &[Arc<dyn TraceLocation>],
    ) -> Result<Arc<dyn TraceLocation>, Failure> {
        let mut used = vec![0; self.servers.len()];
        for other in others {
            for (server, used) in self.servers.iter().zip(&mut used) {
                let url = format!("{}?", server.proxy.url());
                *used += usize::from(other.uri().as_str().starts_with(&url));
            }
        }
        // Of those this case uses least, another one each time.
        let first = self.number();
        let least = (0..self.servers.len())
            .map(|i| (first + i) % self.servers.len())
            .min_by_key(|i| used[*i]);
        self.on(&self.servers[least.unwrap_or_default()], hint)
    }

    async fn sibling(
        &self,
        location: &dyn TraceLocation,
    ) -> Result<Arc<dyn TraceLocation>, Failure> {
        self.on(self.of(location)?, "sibling")
    }

    /// The experiment by its id.
    async fn alias(&self, location: &dyn TraceLocation) -> Result<Arc<dyn TraceLocation>, Failure> {
        let (server, name) = (self.of(location)?, name_of(location)?);
        let id = server.experiment_id(name)?;
        let id = id.ok_or_else(|| Failure::new(format!("{location} is not there")))?;
        Ok(self.at(&format!("{}?experiment_id={id}", server.proxy.url()))?)
    }

    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure> {
        let db = self.of(location)?.open()?;
        read_back::experiment(&db, name_of(location)?)
    }

    /// A server links to runs it has, and none was made.
    fn run_id(&self) -> Option<&str> {
        None
    }

    fn declares(&self) -> Declares {
        Declares::default()
            .with_unavailable()
            .with_broken()
            .with_alias()
            .with_trace_values()
    }

    fn keeps(&self, stored: StoredSpan) -> StoredSpan {
        read_back::kept(stored)
    }

    async fn inflict(&self, location: &dyn TraceLocation, fault: RealFault) -> Result<(), Failure> {
        let (server, name) = (self.of(location)?, name_of(location)?);
        let id = server.experiment_id(name)?;
        let id = id.ok_or_else(|| Failure::new(format!("{location} is not there")))?;
        let fault = match fault {
            RealFault::Unavailable => Fault::Status(503, None),
            RealFault::Broken => Fault::Status(403, None),
            RealFault::Heal => Fault::Pass,
        };
        server.proxy.set_for(&id.to_string(), fault);
        Ok(())
    }

    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        let server = &self.servers[0];
        let url = server.proxy.url();
        let mut all = Vec::new();
        let mut add = |what: &str, location, expected, retried, untouched| {
            all.push(Misconfigured {
                what: what.to_owned(),
                location,
                expected,
                retried,
                untouched,
            });
        };
        add(
            "an experiment id that does not exist",
            self.at(&format!("{url}?experiment_id=999999")),
            ErrorKind::NotFound,
            false,
            Untouched::nowhere(),
        );
        let db = server.db.clone();
        add(
            "a name that may not be created",
            self.at(&format!("{url}?experiment_name=never-made&create=false")),
            ErrorKind::NotFound,
            false,
            not_made(db, "never-made"),
        );
        add(
            "a name and an id that disagree",
            self.at(&format!("{url}?experiment_name=other&experiment_id=0")),
            ErrorKind::Conflict,
            false,
            Untouched::nowhere(),
        );
        add(
            "a workspace on a server without any",
            self.at(&format!("{url}?experiment_name=x&workspace=team")),
            ErrorKind::InvalidConfig,
            false,
            Untouched::nowhere(),
        );
        let closed = process::free_port().map_err(Failure::new)?;
        add(
            "a port nobody listens on",
            self.at(&format!("http://127.0.0.1:{closed}?experiment_name=x")),
            ErrorKind::Unavailable,
            true,
            Untouched::nowhere(),
        );
        // Past the proxy, whose answer to something that is no HTTP is none.
        let tls = format!("https://127.0.0.1:{}", server.proxy.upstream());
        add(
            "a port that does not speak TLS",
            self.at(&format!("{tls}?experiment_name=x")),
            ErrorKind::InvalidConfig,
            false,
            Untouched::nowhere(),
        );
        if self.basic_auth {
            for (what, name, password) in [
                (
                    "a wrong password",
                    "wrong-password",
                    Some("not the password"),
                ),
                ("no credentials", "no-credentials", None),
            ] {
                let uri: LocationUri = format!("{url}?experiment_name={name}").parse()?;
                let mut builder = ServerLocation::builder().with_uri(&uri);
                if let Some(password) = password {
                    builder = builder.with_basic_auth(USER, password);
                }
                add(
                    what,
                    builder.build().map(|l| Arc::new(l) as _),
                    ErrorKind::Unauthenticated,
                    false,
                    not_made(server.db.clone(), name),
                );
            }
        }
        Ok(all)
    }

    fn writer(&self, location: &dyn TraceLocation) -> Option<Command> {
        let mut command = process::clean_command(&self.program, &self.home);
        command
            .args(["live-server-writer", "--uri"])
            .arg(location.uri().as_str());
        if self.basic_auth {
            // Credentials are for the server that is named beside them.
            let uri = location.uri();
            let host = format!("{}://{}", uri.scheme(), uri.authority().unwrap_or_default());
            command
                .env("MLFLOW_TRACKING_URI", host)
                .env("MLFLOW_TRACKING_USERNAME", USER)
                .env("MLFLOW_TRACKING_PASSWORD", PASSWORD);
        }
        Some(command)
    }
}

/// A check that an experiment was not made.
fn not_made(db: PathBuf, name: &'static str) -> Untouched {
    Untouched::new(move || {
        let db = Connection::open_with_flags(&db, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        db.busy_timeout(BUSY)?;
        let sql = "SELECT count(*) FROM experiments WHERE name = ?1";
        match db.query_row(sql, [name], |row| row.get::<_, i64>(0))? {
            0 => Ok(()),
            n => Err(Failure::new(format!("{n} experiments were made"))),
        }
    })
}
