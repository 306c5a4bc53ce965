//! The program itself: how it ends.
#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Ended with the test, however that ends.
struct Program {
    child: Child,
    address: String,
    output: BufReader<std::process::ChildStdout>,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Program {
    fn start(folder: &Path, traces: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_example-service"))
            .current_dir(folder)
            .env("ADDRESS", "127.0.0.1:0")
            .env("TRACES", traces)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on http://");
        Self {
            child,
            address: address.unwrap().to_owned(),
            output,
        }
    }

    /// The first line of the answer.
    fn ask(&self, path: &str, token: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap_or_default().to_owned()
    }

    /// How it ends when it is told to, and what it printed.
    fn end(mut self) -> (ExitStatus, String) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).unwrap();
        let mut printed = String::new();
        self.output.read_to_string(&mut printed).unwrap();
        (self.child.wait().unwrap(), printed)
    }
}

#[test]
fn it_ends_well_if_every_trace_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let program = Program::start(dir.path(), "sqlite:///service.db?experiment_name={tenant}");
    for _ in 0..3 {
        assert!(program.ask("/answer", "token-07").contains("200"));
        assert!(program.ask("/events", "token-11").contains("200"));
        assert!(program.ask("/answer", "nobody's").contains("401"));
        assert!(program.ask("/health", "").contains("200"));
    }
    let (status, printed) = program.end();
    assert!(status.success(), "{status}: {printed}");
    for stored in [
        "experiment_name=tenant-07: 12 stored",
        "experiment_name=tenant-11: 15 stored",
    ] {
        assert!(printed.contains(stored), "{printed}");
    }
    assert!(dir.path().join("service.db").exists());
}

#[test]
fn it_fails_if_a_trace_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the folder of tenant-07 should be.
    std::fs::write(dir.path().join("tenant-07"), "in the way").unwrap();
    let program = Program::start(dir.path(), "sqlite:///{tenant}/mlflow.db?experiment_name=x");
    assert!(
        program.ask("/answer", "token-07").contains("200"),
        "its clients are served"
    );
    assert!(program.ask("/answer", "token-11").contains("200"));
    let (status, printed) = program.end();
    assert_eq!(status.code(), Some(1), "{printed}");
    assert!(printed.contains("4 unrouted"), "{printed}");
    assert!(
        printed.contains("/tenant-11/mlflow.db?experiment_name=x: 4 stored"),
        "{printed}"
    );
}
