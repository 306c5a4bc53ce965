//! Programs that fork after they have written: what the parent has open is no use to the child, and
//! what the child does is no harm to the parent.
//!
//! The program is this test binary again, running the ignored test `program`, so that the process
//! that forks has no threads but its own.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use fork::{Fork, fork, waitpid};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::*;
use tempfile::TempDir;
use trace_destination_core::{Destination, Error, Pipeline, TraceLocation, TraceSink};

const FILE: &str = "TEST_FORKED_FILE";
const PART: &str = "TEST_FORKED_PART";
/// Traces of two spans that each process writes after the fork.
const TRACES: u64 = 60;

#[derive(Clone, Copy)]
enum Who {
    First = 1,
    Parent,
    Child,
    Grandchild,
}

fn base(who: Who) -> u128 {
    (who as u128) << 32
}

async fn write_all(sink: &dyn TraceSink, who: Who) {
    for i in 0..TRACES {
        let spans = conversation(base(who) + u128::from(i));
        assert!(persist(sink, &batch(spans)).await.refused.is_empty());
    }
}

/// What a process does that was just forked: opens, writes, closes.
fn write_anew(path: &Path, who: Who) -> Result<(), Error> {
    let location = at(path, "a");
    run(async {
        let sink = location.open().await?;
        write_all(&*sink, who).await;
        sink.close().await
    })
}

/// Ends a child that hangs, which nobody else would.
fn not_for_ever() {
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(60));
        std::process::exit(99);
    });
}

/// Ends a child. Not by `exit`: it takes a lock of the standard library that a thread of the parent
/// may have held when this process was forked.
fn end(code: i32) -> ! {
    let mut shell = std::process::Command::new("sh");
    let error = shell.args(["-c", &format!("exit {code}")]).exec();
    panic!("the child cannot end: {error}");
}

/// Runs as a child and ends there, whatever happens.
fn in_child(run: impl FnOnce()) -> i32 {
    match fork().unwrap() {
        Fork::Parent(child) => child,
        Fork::Child => {
            not_for_ever();
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
            end(i32::from(done.is_err()))
        }
    }
}

#[test]
#[ignore = "the part of the program that forks"]
fn program() {
    let path = std::env::var(FILE).unwrap();
    let path = Path::new(&path);
    let part = std::env::var(PART).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap();
    match part.as_str() {
        "idle" | "leaves" | "drops" | "grandchild" => {
            let sink = runtime.block_on(at(path, "a").open()).unwrap();
            runtime.block_on(write_all(&*sink, Who::First));
            let mut sink = Some(sink);
            let child = in_child(|| {
                if part == "drops" {
                    drop(sink.take());
                }
                if part == "grandchild" {
                    // The child itself uses nothing, so that all is left to its own child.
                    let grandchild = in_child(|| write_anew(path, Who::Grandchild).unwrap());
                    write_anew(path, Who::Child).unwrap();
                    assert_eq!(waitpid(grandchild).unwrap(), 0);
                    return;
                }
                write_anew(path, Who::Child).unwrap();
                if let Some(inherited) = sink.take() {
                    // Used by mistake, it says what it is; closed, it leaves the file alone.
                    let refused = run(inherited.write(&batch(conversation(7)))).unwrap_err();
                    assert!(refused.to_string().contains("forked"), "{refused}");
                    run(inherited.close()).unwrap();
                }
            });
            let sink = sink.take().unwrap();
            if part != "leaves" {
                runtime.block_on(write_all(&*sink, Who::Parent));
            }
            // With `leaves` long before the child is done: the parent thinks it is the last.
            runtime.block_on(sink.close()).unwrap();
            assert_eq!(waitpid(child).unwrap(), 0);
        }
        "pipeline" => {
            let destination = Destination::new(at(path, "a"));
            let ingest = |pipeline: &Pipeline, trace: u128| {
                let (resource, scope) = (Arc::default(), Arc::default());
                let taken = pipeline.ingest(resource, scope, conversation(trace), &destination);
                assert_eq!(taken.accepted, 2);
            };
            let write = |pipeline: &Pipeline, who: Who| {
                for i in 0..TRACES {
                    ingest(pipeline, base(who) + u128::from(i));
                    if i % 7 == 0 {
                        let report = pipeline.flush(Duration::from_secs(20)).wait();
                        assert!(report.all_stored(), "{report}");
                    }
                }
                let report = pipeline.shutdown(Duration::from_secs(20)).wait();
                assert!(report.all_stored(), "{report}");
            };
            let pipeline = Pipeline::builder().build().unwrap();
            ingest(&pipeline, base(Who::First));
            assert!(pipeline.flush(Duration::from_secs(20)).wait().all_stored());
            let child = in_child(|| {
                let own = Pipeline::builder().build().unwrap();
                write(&own, Who::Child);
            });
            write(&pipeline, Who::Parent);
            assert_eq!(waitpid(child).unwrap(), 0);
        }
        "busy" => {
            // Forks at moments when threads of the parent are inside SQLite.
            let sink = runtime.block_on(at(path, "a").open()).unwrap();
            let sink: Arc<dyn TraceSink> = sink.into();
            let other = path.with_extension("other.db");
            let (mut worked, mut refused) = (0, 0);
            for round in 0..12u64 {
                let busy = {
                    let sink = sink.clone();
                    runtime.spawn(async move {
                        for i in 0..40 {
                            let trace = u128::from((round + 10) * 1000 + i) << 40;
                            sink.write(&batch(conversation(trace))).await.unwrap();
                        }
                    })
                };
                std::thread::sleep(Duration::from_millis(5 + 3 * round));
                let child = match fork().unwrap() {
                    Fork::Parent(child) => child,
                    Fork::Child => {
                        not_for_ever();
                        // The file that was in use works or is refused; there is no third.
                        let code = match write_anew(path, Who::Child) {
                            Ok(()) => 10,
                            Err(e) if e.to_string().contains("forked") => 11,
                            Err(e) => panic!("{e:?}"),
                        };
                        // Nobody has used this one.
                        let other = write_anew(&other, Who::Child);
                        assert!(other.is_ok() || code == 11, "{other:?}");
                        end(code)
                    }
                };
                let status = waitpid(child).unwrap();
                match status >> 8 {
                    10 => worked += 1,
                    11 => refused += 1,
                    _ => panic!("round {round}: the child ended with {status:#x}"),
                }
                runtime.block_on(busy).unwrap();
            }
            println!("worked {worked}, refused {refused}");
        }
        _ => unreachable!("no such part"),
    }
}

fn start(path: &Path, part: &str) -> String {
    let began = Instant::now();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "program", "--ignored", "--nocapture"])
        .env(FILE, path)
        .env(PART, part)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    while child.try_wait().unwrap().is_none() {
        if began.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("{part}: it hangs");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{part}: {:?}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Spans of a process, by the upper half of its trace ids.
fn spans_of(path: &Path, who: Who) -> i64 {
    let prefix = format!("{:024x}", who as u8);
    let sql = format!("SELECT count(*) FROM spans WHERE trace_id LIKE 'tr-{prefix}%'");
    texts(path, &sql)[0].parse().unwrap()
}

#[test]
fn parent_and_child_store_everything() {
    let all = TRACES as i64 * 2;
    for (part, first, parent, grandchild) in [
        ("idle", all, all, 0),
        ("leaves", all, 0, 0),
        ("drops", all, all, 0),
        ("grandchild", all, all, all),
        ("pipeline", 2, all, 0),
    ] {
        for round in 0..3 {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("x.db");
            start(&path, part);
            let found = [Who::First, Who::Parent, Who::Child, Who::Grandchild]
                .map(|who| spans_of(&path, who));
            assert_eq!(found, [first, parent, all, grandchild], "{part} {round}");
            assert_sound(&path);
            let log = path.with_extension("db-wal");
            assert!(
                !log.exists(),
                "{part} {round}: the last one took it for another's"
            );
        }
    }
}

#[test]
fn a_fork_in_the_middle_of_a_write_neither_hangs_nor_damages() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    println!("{}", start(&path, "busy"));
    let found: i64 = texts(
        &path,
        "SELECT count(*) FROM spans WHERE trace_id LIKE 'tr-0000000000000%0000000000'",
    )[0]
    .parse()
    .unwrap();
    assert!(found >= 12 * 40 * 2, "{found}");
    assert_sound(&path);
}
