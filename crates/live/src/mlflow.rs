//! One installed MLflow: its Python API through a script, and its server on loopback.

use super::process::{self, Group};
use super::stored::Spans;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Opening, upgrading and reading a file with some thousand spans takes seconds; this is the
/// bound beyond which something hangs.
const SCRIPT_TIMEOUT: Duration = Duration::from_secs(300);
const START_TIMEOUT: Duration = Duration::from_secs(180);
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// An MLflow in a virtual environment.
#[derive(Debug)]
pub(super) struct Mlflow {
    root: PathBuf,
    scripts: PathBuf,
    folder: PathBuf,
    /// Numbers the logs.
    calls: AtomicU32,
}

impl Mlflow {
    pub(super) fn new(root: &Path, scripts: &Path, folder: &Path) -> Self {
        Self {
            root: root.to_owned(),
            scripts: scripts.to_owned(),
            folder: folder.to_owned(),
            calls: AtomicU32::new(0),
        }
    }

    /// The folder of the environment.
    pub(super) fn home(&self) -> &Path {
        &self.folder
    }

    pub(super) fn python(&self) -> PathBuf {
        self.folder.join("bin").join("python")
    }

    /// The installed version.
    pub(super) fn version(&self) -> Result<String, String> {
        text(&self.script(&["version"])?, "/version")
    }

    /// Lets MLflow create the file, or upgrade it; gives the schema revision it then has.
    pub(super) fn open(&self, db: &Path) -> Result<String, String> {
        text(
            &self.script(&["new", "--db", &db.to_string_lossy()])?,
            "/revision/0",
        )
    }

    /// Everything in a file: `api` as MLflow's Python API shows it after opening (and so
    /// upgrading) the file, and `rows` as they are in the database then.
    pub(super) fn dump(&self, db: &Path) -> Result<Value, String> {
        self.script(&["dump", "--db", &db.to_string_lossy()])
    }

    /// As [`Mlflow::dump`], with trace-level values only.
    pub(super) fn dump_infos(&self, db: &Path) -> Result<Value, String> {
        self.script(&["dump", "--infos", "--db", &db.to_string_lossy()])
    }

    /// The database rows alone, without MLflow touching the file.
    pub(super) fn rows(&self, db: &Path) -> Result<Value, String> {
        self.script(&["rows", "--db", &db.to_string_lossy()])
    }

    /// A certificate for `localhost` and its key, signed by itself, as PEM files in a folder.
    pub(super) fn certificate(&self, folder: &Path) -> Result<(PathBuf, PathBuf), String> {
        self.script(&["certificate", "--folder", &folder.to_string_lossy()])?;
        Ok((folder.join("certificate.pem"), folder.join("key.pem")))
    }

    /// Everything a server shows through MLflow's Python API.
    pub(super) fn dump_server(&self, server: &Server) -> Result<Value, String> {
        self.script(&["dump", "--url", &server.url()])
    }

    /// As [`Mlflow::dump_server`], with trace-level values only.
    pub(super) fn dump_server_infos(&self, server: &Server) -> Result<Value, String> {
        self.script(&["dump", "--infos", "--url", &server.url()])
    }

    /// The spans that MLflow's search shows of a file, by the name of their experiment.
    pub(super) fn search(&self, db: &Path) -> Result<BTreeMap<String, Spans>, String> {
        let answer = self.script(&["search", "--db", &db.to_string_lossy()])?;
        serde_json::from_value(answer).map_err(|e| format!("the script's answer: {e}"))
    }

    /// Creates an experiment on a server; gives its id.
    pub(super) fn experiment(&self, server: &Server, name: &str) -> Result<String, String> {
        let answer = self.script(&["experiment", "--url", &server.url(), "--name", name])?;
        text(&answer, "/experiment_id")
    }

    /// The id of an experiment that is there.
    pub(super) fn experiment_id(&self, server: &Server, name: &str) -> Result<String, String> {
        let answer = self.script(&[
            "experiment",
            "--url",
            &server.url(),
            "--name",
            name,
            "--existing",
        ])?;
        text(&answer, "/experiment_id")
    }

    /// Posts OTLP requests to a server, in order; anything but success is an error.
    pub(super) fn post(
        &self,
        server: &Server,
        experiment: &str,
        files: &[PathBuf],
    ) -> Result<(), String> {
        let mut command = self.post_command(server, experiment, files);
        let answer = process::run_json(&mut command, &self.log("post"), SCRIPT_TIMEOUT)?;
        check_answers(&answer, files)
    }

    /// The command behind [`Mlflow::post`], for posting while something else goes on.
    pub(super) fn post_command(
        &self,
        server: &Server,
        experiment: &str,
        files: &[PathBuf],
    ) -> Command {
        let mut command = self.script_command();
        command
            .args(["post", "--url", &server.url(), "--experiment", experiment])
            .args(files);
        command
    }

    /// Starts a server on a file.
    pub(super) fn serve(&self, db: &Path) -> Result<Server, String> {
        self.serve_with(db, &Serving::default())
    }

    /// Starts a server on a file, in other ways than the usual one.
    pub(super) fn serve_with(&self, db: &Path, serving: &Serving) -> Result<Server, String> {
        let log = self.log("server").with_extension("log");
        // Another process may take the port between choosing and binding: a second try.
        let mut last = String::new();
        for _ in 0..2 {
            match self.try_serve(db, serving, &log) {
                Ok(server) => return Ok(server),
                Err(e) => last = e,
            }
        }
        Err(last)
    }

    fn try_serve(&self, db: &Path, serving: &Serving, log: &Path) -> Result<Server, String> {
        let port = match serving.port {
            Some(port) => port,
            None => process::free_port()?,
        };
        let output = File::create(log).map_err(|e| format!("create {}: {e}", log.display()))?;
        let errors = output
            .try_clone()
            .map_err(|e| format!("share {}: {e}", log.display()))?;
        let artifacts = db.with_extension("artifacts");
        let mut command = self.command();
        command
            // The server ends with this process, however that ends.
            .stdin(Stdio::piped())
            .arg(self.scripts.join("tether.py"))
            .arg(self.python())
            .args([
                "-m",
                "mlflow",
                "server",
                "--host",
                "127.0.0.1",
                "--workers",
                "1",
            ])
            .args(["--port", &port.to_string()])
            .arg("--backend-store-uri")
            .arg(format!("sqlite:///{}", db.display()))
            .arg("--artifacts-destination")
            .arg(artifacts)
            .stdout(output)
            .stderr(errors);
        if let Some(hosts) = &serving.allowed_hosts {
            command.args(["--allowed-hosts", hosts]);
        }
        if let Some((certificate, key)) = &serving.tls {
            let options = format!(
                "--ssl-certfile {} --ssl-keyfile {}",
                certificate.display(),
                key.display()
            );
            command.args(["--uvicorn-opts", &options]);
        }
        if serving.basic_auth {
            let config = db.with_extension("auth.ini");
            let users = db.with_extension("auth.db");
            fs::write(&config, auth_config(&users, serving.remembers))
                .map_err(|e| format!("write {}: {e}", config.display()))?;
            command
                .args(["--app-name", "basic-auth"])
                .env("MLFLOW_AUTH_CONFIG_PATH", config)
                .env("MLFLOW_FLASK_SERVER_SECRET_KEY", "only for this run");
        }
        let mut group = Group::spawn(&mut command)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = group.ended()? {
                return Err(format!(
                    "the MLflow server ended with {status}\n{}",
                    process::tail(log)
                ));
            }
            // What speaks TLS is there once it listens: uvicorn does so when it is ready.
            let ready = match serving.tls {
                Some(_) => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok(),
                None => healthy(port),
            };
            if ready {
                return Ok(Server { group, port });
            }
            if Instant::now() > deadline {
                return Err(format!(
                    "the MLflow server does not answer after {} s\n{}",
                    START_TIMEOUT.as_secs(),
                    process::tail(log)
                ));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn script(&self, arguments: &[&str]) -> Result<Value, String> {
        let mut command = self.script_command();
        command.args(arguments);
        process::run_json(&mut command, &self.log(arguments[0]), SCRIPT_TIMEOUT)
    }

    fn script_command(&self) -> Command {
        let mut command = self.command();
        command.arg(self.scripts.join("mlflow_store.py"));
        command
    }

    fn command(&self) -> Command {
        let mut command = process::clean_command(&self.python(), &self.root.join("home"));
        command
            .env("MLFLOW_DISABLE_TELEMETRY", "true")
            .env("DO_NOT_TRACK", "true")
            // The job runners are a dozen processes that no case needs.
            .env("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false");
        command
    }

    /// The stem of a log's path.
    pub(super) fn log(&self, what: &str) -> PathBuf {
        let number = self.calls.fetch_add(1, Ordering::Relaxed);
        let name = self
            .folder
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        self.root
            .join("logs")
            .join(format!("{}-{number:02}-{what}", name.replace('.', "_")))
    }
}

/// How a server is started, beyond its file.
#[derive(Clone, Debug, Default)]
pub(super) struct Serving {
    /// This port instead of a free one.
    pub(super) port: Option<u16>,
    /// The host names it answers to.
    pub(super) allowed_hosts: Option<String>,
    /// The app `basic-auth`, with [`USER`] and [`PASSWORD`] as its administrator.
    pub(super) basic_auth: bool,
    /// It remembers for a minute which passwords are right: checking one takes longer than storing
    /// spans. (It then answers a bearer token with 500 instead of 401.)
    pub(super) remembers: bool,
    /// Certificate and key: it speaks TLS.
    pub(super) tls: Option<(PathBuf, PathBuf)>,
}

/// The administrator of servers with `basic-auth`.
pub(super) const USER: &str = "conformance";
pub(super) const PASSWORD: &str = "a password of this run";

/// The settings of `basic-auth`.
fn auth_config(users: &Path, remembers: bool) -> String {
    format!(
        "[mlflow]\ndefault_permission = READ\ndatabase_uri = sqlite:///{}\n\
         admin_username = {USER}\nadmin_password = {PASSWORD}\nauth_cache_ttl_seconds = {}\n",
        users.display(),
        if remembers { 60 } else { 0 }
    )
}

/// A running server; ends on drop.
#[derive(Debug)]
pub(super) struct Server {
    group: Group,
    port: u16,
}

impl Server {
    pub(super) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// `kill -9`, now.
    pub(super) fn kill(mut self) -> Result<(), String> {
        self.group.kill()
    }

    /// Ends the server as an operator would.
    pub(super) fn stop(self) -> Result<(), String> {
        self.group.stop()
    }
}

/// Whether every request of a `post` was accepted.
pub(super) fn check_answers(answer: &Value, files: &[PathBuf]) -> Result<(), String> {
    let answers = answer["answers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if answers.len() != files.len() {
        return Err(format!(
            "{} of {} requests were answered",
            answers.len(),
            files.len()
        ));
    }
    for (answer, file) in answers.iter().zip(files) {
        if answer["status"] != 200 {
            return Err(format!(
                "the server answered {} with {answer}",
                file.display()
            ));
        }
    }
    Ok(())
}

fn healthy(port: u16) -> bool {
    let probe = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
        stream.write_all(b"GET /health HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer.starts_with(b"HTTP/1.1 200") || answer.starts_with(b"HTTP/1.0 200"))
    };
    probe().unwrap_or(false)
}

fn text(value: &Value, pointer: &str) -> Result<String, String> {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .map(str::to_owned)
        .ok_or_else(|| format!("the script's answer has no text at {pointer}: {value}"))
}
