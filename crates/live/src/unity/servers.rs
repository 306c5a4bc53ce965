//! The servers: Unity Catalog, and a store that speaks S3. Both on loopback, in folders of their
//! own, and gone when the case is over.

use super::super::process::{self, Group};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(90);
const PROBE: Duration = Duration::from_secs(5);

/// The store's one user. It is no secret: the store lives for minutes, on loopback.
pub(super) const KEY: &str = "live-tests";
pub(super) const SECRET: &str = "live-tests-secret";

/// A running server; ends on drop.
#[derive(Debug)]
pub(super) struct Server {
    _group: Group,
    pub(super) port: u16,
}

impl Server {
    /// Starts a command that makes a server on a port and waits until `GET <probe>` succeeds.
    fn start(
        tether: &Path,
        python: &Path,
        log: &Path,
        probe: &str,
        command: impl Fn(u16) -> Command,
    ) -> Result<Self, String> {
        let mut last = String::new();
        // Another process may take the port between choosing and binding: a second try.
        for _ in 0..2 {
            let port = process::free_port()?;
            match Self::try_start(
                &mut tethered(tether, python, &command(port)),
                port,
                log,
                probe,
            ) {
                Ok(server) => return Ok(server),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn try_start(
        command: &mut Command,
        port: u16,
        log: &Path,
        probe: &str,
    ) -> Result<Self, String> {
        let output = File::create(log).map_err(|e| format!("create {}: {e}", log.display()))?;
        let errors = output
            .try_clone()
            .map_err(|e| format!("share {}: {e}", log.display()))?;
        command.stdin(Stdio::piped()).stdout(output).stderr(errors);
        let mut group = Group::spawn(command)?;
        let deadline = Instant::now() + START;
        loop {
            if let Some(status) = group.ended()? {
                return Err(format!(
                    "a server ended with {status}\n{}",
                    process::tail(log)
                ));
            }
            if answers(port, probe) {
                return Ok(Self {
                    _group: group,
                    port,
                });
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "a server does not answer after {} s\n{}",
                    START.as_secs(),
                    process::tail(log)
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

/// The same command, ended when this process ends, however that happens.
fn tethered(tether: &Path, python: &Path, command: &Command) -> Command {
    let mut all = process::clean_command(python, Path::new("/"));
    all.arg(tether)
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            all.env(name, value);
        }
    }
    if let Some(folder) = command.get_current_dir() {
        all.current_dir(folder).env("HOME", folder);
    }
    all
}

/// What starting a server takes.
#[derive(Debug)]
pub(super) struct Starter<'a> {
    pub(super) tether: PathBuf,
    pub(super) python: &'a Path,
    /// A folder for the server alone.
    pub(super) folder: PathBuf,
    pub(super) log: PathBuf,
}

impl Starter<'_> {
    /// MinIO on one folder.
    pub(super) fn minio(&self, program: &Path) -> Result<Server, String> {
        Server::start(
            &self.tether,
            self.python,
            &self.log,
            "/minio/health/ready",
            |port| {
                let mut command = Command::new(program);
                command
                    .args([
                        "server",
                        "--quiet",
                        "--address",
                        &format!("127.0.0.1:{port}"),
                    ])
                    .arg(self.folder.join("data"))
                    .current_dir(&self.folder)
                    .env("MINIO_ROOT_USER", KEY)
                    .env("MINIO_ROOT_PASSWORD", SECRET)
                    .env("MINIO_BROWSER", "off")
                    .env("MINIO_UPDATE", "off");
                command
            },
        )
    }

    /// The Unity Catalog server, with an empty database and without authorization. `properties` are
    /// added to its configuration.
    pub(super) fn unity_catalog(
        &self,
        jars: &Path,
        serve: &Path,
        properties: &str,
    ) -> Result<Server, String> {
        let conf = self.folder.join("etc/conf");
        fs::create_dir_all(&conf)
            .and_then(|()| fs::create_dir_all(self.folder.join("etc/db")))
            .and_then(|()| {
                fs::write(
                    conf.join("server.properties"),
                    format!("server.env=dev\nserver.authorization=disable\n{properties}"),
                )
            })
            .and_then(|()| {
                fs::write(
                    conf.join("hibernate.properties"),
                    "hibernate.connection.driver_class=org.h2.Driver\n\
                     hibernate.connection.url=jdbc:h2:file:./etc/db/h2db;DB_CLOSE_DELAY=-1\n\
                     hibernate.hbm2ddl.auto=update\n",
                )
            })
            .map_err(|e| format!("configure the server in {}: {e}", conf.display()))?;
        Server::start(&self.tether, self.python, &self.log, "/", |port| {
            let mut command = Command::new("java");
            command
                .args(["-Xmx384m", "-XX:TieredStopAtLevel=1", "-cp"])
                .arg(format!("{}/*", jars.display()))
                .arg(serve)
                .arg(port.to_string())
                .current_dir(&self.folder);
            command
        })
    }
}

/// The store as the scripts take it.
pub(super) fn s3(server: &Server) -> Value {
    json!({"endpoint": server.url(), "key": KEY, "secret": SECRET})
}

fn answers(port: u16, path: &str) -> bool {
    let probe = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PROBE))?;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer)?;
        Ok(&answer == b"HTTP/1.1 200")
    };
    probe().unwrap_or(false)
}
