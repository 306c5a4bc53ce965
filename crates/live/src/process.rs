//! Child processes that cannot outlive the case that started them.

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const POLL: Duration = Duration::from_millis(10);
/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(5);
/// How much of a log an error repeats.
const TAIL_BYTES: usize = 1500;

/// A command with a known environment: no proxies, no MLflow settings, no home of the user.
pub(super) fn clean_command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in ["PATH", "TMPDIR"] {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
        .env("HOME", home)
        .env("LANG", "C.UTF-8")
        .env("PYTHONNOUSERSITE", "1")
        .env("PYTHONUTF8", "1")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONWARNINGS", "ignore")
        .current_dir(home)
        .stdin(Stdio::null());
    command
}

/// A process and all its children: a process group of its own, killed and reaped on drop.
#[derive(Debug)]
pub(super) struct Group {
    child: Child,
    ended: Option<ExitStatus>,
}

impl Group {
    pub(super) fn spawn(command: &mut Command) -> Result<Self, String> {
        let child = command
            .process_group(0)
            .spawn()
            .map_err(|e| format!("start {}: {e}", command.get_program().display()))?;
        Ok(Self { child, ended: None })
    }

    /// Its standard input and output, once, where both are piped.
    pub(super) fn pipes(&mut self) -> Option<(ChildStdin, ChildStdout)> {
        Some((self.child.stdin.take()?, self.child.stdout.take()?))
    }

    /// The exit status, if the process ended by itself.
    pub(super) fn ended(&mut self) -> Result<Option<ExitStatus>, String> {
        if self.ended.is_none() {
            self.ended = self
                .child
                .try_wait()
                .map_err(|e| format!("wait for a child process: {e}"))?;
        }
        Ok(self.ended)
    }

    /// Waits for the process to end by itself; `None` if it did not in time.
    pub(super) fn wait(&mut self, timeout: Duration) -> Result<Option<ExitStatus>, String> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(POLL);
        }
    }

    /// `kill -9` for the whole group, now.
    pub(super) fn kill(&mut self) -> Result<(), String> {
        self.signal(Signal::KILL);
        self.ended = Some(
            self.child
                .wait()
                .map_err(|e| format!("reap a child process: {e}"))?,
        );
        Ok(())
    }

    /// Asks the group to end and waits; what does not is killed on drop.
    pub(super) fn stop(mut self) -> Result<(), String> {
        self.signal(Signal::TERM);
        self.wait(GRACE)?;
        Ok(())
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = Pid::from_raw(self.child.id().cast_signed()) {
            // Nobody left in the group is what was wanted.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Also when the leader ended: its children may not have.
        self.signal(Signal::KILL);
        if self.ended.is_none() {
            let _ = self.child.wait();
        }
    }
}

/// Runs a command to its end, with its output in `<log>.out` and `<log>.err`.
pub(super) fn run(command: &mut Command, log: &Path, timeout: Duration) -> Result<PathBuf, String> {
    let out = log.with_extension("out");
    let err = log.with_extension("err");
    let file =
        |path: &Path| File::create(path).map_err(|e| format!("create {}: {e}", path.display()));
    command.stdout(file(&out)?).stderr(file(&err)?);
    let mut group = Group::spawn(command)?;
    let name = || {
        let args: Vec<_> = command
            .get_args()
            .take(3)
            .map(|a| a.to_string_lossy())
            .collect();
        format!("{} {}", command.get_program().display(), args.join(" "))
    };
    match group.wait(timeout)? {
        Some(status) if status.success() => Ok(out),
        Some(status) => Err(format!("{} ended with {status}\n{}", name(), tail(&err))),
        None => Err(format!(
            "{} did not end within {} s\n{}",
            name(),
            timeout.as_secs(),
            tail(&err)
        )),
    }
}

/// Runs a command that answers with JSON on its standard output.
pub(super) fn run_json(
    command: &mut Command,
    log: &Path,
    timeout: Duration,
) -> Result<Value, String> {
    let out = run(command, log, timeout)?;
    let bytes = fs::read(&out).map_err(|e| format!("read {}: {e}", out.display()))?;
    serde_json::from_slice(&bytes).map_err(|e| format!("{} is not JSON: {e}", out.display()))
}

/// The end of a log.
pub(super) fn tail(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_default();
    let start = text.len().saturating_sub(TAIL_BYTES);
    String::from_utf8_lossy(&text[start..]).trim().to_owned()
}

/// A loopback port that was free a moment ago.
pub(super) fn free_port() -> Result<u16, String> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|l| l.local_addr())
        .map(|a| a.port())
        .map_err(|e| format!("find a free loopback port: {e}"))
}
