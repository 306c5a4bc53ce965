//! Running the program that writes: on files, on made traces, and on batches between which it is
//! killed.

use super::super::process::{self, Group};
use super::{Unity, servers};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Longer than the program itself has patience.
const TIMEOUT: Duration = Duration::from_secs(280);
const POLL: Duration = Duration::from_millis(5);

/// The ids of a span, as they are stored.
pub(super) type Ids = (String, String);

/// How to run the program: where to write, and its environment.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    program: PathBuf,
    home: PathBuf,
    logs: PathBuf,
    uri: String,
    environment: Vec<(&'static str, String)>,
}

impl Writer {
    pub(super) fn new(unity: &Unity, uri: &str) -> Self {
        Self {
            program: unity.writer.clone(),
            home: unity.home.join("home"),
            logs: unity.home.join("logs"),
            uri: uri.to_owned(),
            environment: Vec::new(),
        }
    }

    pub(super) fn with_env(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.environment.push((name, value.into()));
        self
    }

    /// With the credentials of the store's user, and the store at an address.
    pub(super) fn with_store(self, endpoint: &str) -> Self {
        self.with_endpoint(endpoint)
            .with_env("AWS_ACCESS_KEY_ID", servers::KEY)
            .with_env("AWS_SECRET_ACCESS_KEY", servers::SECRET)
    }

    /// With the store at an address, and no credentials.
    pub(super) fn with_endpoint(self, endpoint: &str) -> Self {
        self.with_env("AWS_ENDPOINT_URL", endpoint)
            .with_env("AWS_ALLOW_HTTP", "true")
            .with_env("AWS_REGION", "us-east-1")
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = process::clean_command(&self.program, &self.home);
        command.arg(&self.uri).args(arguments).stdin(Stdio::piped());
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// Writes OTLP requests, each to the end.
    pub(super) fn files(&self, name: &str, requests: &[Vec<u8>]) -> Result<(), String> {
        let mut arguments = vec!["files".to_owned()];
        for (i, request) in requests.iter().enumerate() {
            let file = self.logs.join(format!("{name}-{i}.binpb"));
            fs::write(&file, request).map_err(|e| format!("write {}: {e}", file.display()))?;
            arguments.push(file.display().to_string());
        }
        self.run(name, &arguments).map(drop)
    }

    /// Runs it to its end; gives what it prints, or what it says went wrong.
    pub(super) fn run<S: AsRef<OsStr>>(
        &self,
        name: &str,
        arguments: &[S],
    ) -> Result<String, String> {
        let mut running = self.start(name, arguments)?;
        match running.group.wait(TIMEOUT)? {
            Some(status) if status.success() => running.printed(),
            Some(status) => Err(format!(
                "a writer ended with {status}: {}",
                process::tail(&running.err)
            )),
            None => Err(format!(
                "a writer did not end within {} s: {}",
                TIMEOUT.as_secs(),
                process::tail(&running.err)
            )),
        }
    }

    fn start<S: AsRef<OsStr>>(&self, name: &str, arguments: &[S]) -> Result<Running, String> {
        let file = |extension: &str| -> Result<(PathBuf, File), String> {
            let path = self.logs.join(format!("writer-{name}.{extension}"));
            let file =
                File::create(&path).map_err(|e| format!("create {}: {e}", path.display()))?;
            Ok((path, file))
        };
        let ((out, stdout), (err, stderr)) = (file("out")?, file("err")?);
        let mut command = self.command(arguments);
        let group = Group::spawn(command.stdout(stdout).stderr(stderr))?;
        Ok(Running { group, out, err })
    }

    /// Writes batches 1 to `last` of a writer, killed so often while it does and started again, each
    /// time from the last batch it said is stored, so that one comes twice for certain.
    pub(super) fn killed(
        &self,
        name: &str,
        batches: &Batches,
        writer: u64,
        kills: u32,
    ) -> Result<(), String> {
        let mut random = StdRng::seed_from_u64(writer);
        let mut first = 1;
        let deadline = Instant::now() + TIMEOUT;
        for life in 0..=kills {
            let arguments = [writer, first, batches.last, batches.spans].map(|n| n.to_string());
            let mut all = vec!["batches".to_owned()];
            all.extend(arguments);
            let mut running = self.start(&format!("{name}-{writer}-{life}"), &all)?;
            // How many it may store before it is killed, and how long into the next.
            let share = u64::from(life + 1) * batches.last / u64::from(kills + 1);
            let until = share.saturating_sub(random.random_range(0..4)).max(first);
            let further = Duration::from_millis(random.random_range(0..60));
            loop {
                if let Some(status) = running.group.ended()? {
                    let stored = running.stored()?;
                    if status.success() && stored == batches.last {
                        return Ok(());
                    }
                    return Err(format!(
                        "writer {writer} ended with {status} after batch {stored}: {}",
                        process::tail(&running.err)
                    ));
                }
                if Instant::now() > deadline {
                    return Err(format!(
                        "writer {writer} is slow, at batch {}: {}",
                        running.stored()?,
                        process::tail(&running.err)
                    ));
                }
                if life < kills && running.stored()? >= until {
                    std::thread::sleep(further);
                    running.group.kill()?;
                    first = running.stored()?.max(1);
                    break;
                }
                std::thread::sleep(POLL);
            }
        }
        Err(format!(
            "writer {writer} was killed before it came to its end"
        ))
    }
}

/// A writer at work.
struct Running {
    group: Group,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    fn printed(&self) -> Result<String, String> {
        fs::read_to_string(&self.out).map_err(|e| format!("read {}: {e}", self.out.display()))
    }

    /// The last batch it said is stored. A line that was cut by a kill says nothing.
    fn stored(&self) -> Result<u64, String> {
        let text = self.printed()?;
        let lines = text.split_inclusive('\n').filter(|l| l.ends_with('\n'));
        let mut numbers = lines.filter_map(|l| l.trim().strip_prefix("stored ")?.parse().ok());
        Ok(numbers.next_back().unwrap_or(0))
    }
}

/// Batches that each of some writers writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Batches {
    pub(super) writers: u64,
    pub(super) last: u64,
    pub(super) spans: u64,
}

impl Batches {
    /// The spans they hold, as the program that writes makes them.
    pub(super) fn ids(&self) -> BTreeSet<Ids> {
        let mut ids = BTreeSet::new();
        for writer in 1..=self.writers {
            for trace in 1..=self.last {
                for span in 1..=self.spans {
                    let trace_id = u128::from(writer) << 64 | u128::from(trace);
                    let span_id = trace << 16 | span;
                    ids.insert((format!("{trace_id:032x}"), format!("{span_id:016x}")));
                }
            }
        }
        ids
    }
}

/// The URI of a table in a folder or a place in a store that is its own catalog.
pub(super) fn uri(root: &str, prefix: &str) -> String {
    format!("uc://main.traces.{prefix}?root={root}")
}

/// Where that table is.
pub(super) fn table(root: &Path, prefix: &str) -> String {
    root.join("main/traces")
        .join(format!("{prefix}_otel_spans"))
        .display()
        .to_string()
}
