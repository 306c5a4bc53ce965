//! Many files and experiments at once: what is wrong with some costs the others nothing, and none
//! costs a thread.
//!
//! Threads are counted in processes of their own: this test binary again, running the ignored test
//! `program`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "how processes of the test talk")]

mod support;

use rusqlite::Connection;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::*;
use tempfile::TempDir;
use trace_destination_core::{Destination, Error, ErrorKind, Pipeline, Retry, TraceLocation};
use trace_destination_experiment::test_support::held_bytes;

const FOLDER: &str = "TEST_MANY_FOLDER";
const PART: &str = "TEST_MANY_PART";

fn spawn(dir: &Path, part: &str) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "program", "--ignored", "--nocapture"])
        .env(FOLDER, dir)
        .env(PART, part)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Runs a part to its end, alone, and prints what it prints.
fn outcome(dir: &Path, part: &str) {
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let output = spawn(dir, part).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!("{text}");
    assert!(output.status.success(), "{part}");
}

#[test]
#[ignore = "the part of other processes"]
fn program() {
    let dir = PathBuf::from(std::env::var(FOLDER).unwrap());
    let part = std::env::var(PART).unwrap();
    match part.split_once(' ').unwrap() {
        ("lock", names) => lock_all(&dir, names),
        ("store", size) => {
            let (files, experiments) = parse(size);
            store_all(&dir, files, experiments);
        }
        ("beside", size) => {
            let (files, experiments) = parse(size);
            beside_locked(&dir, files, experiments);
        }
        ("few", files) => store_in_turn(&dir, files.parse().unwrap()),
        ("crowded", _) => crowded(&dir),
        _ => unreachable!("no such part"),
    }
}

fn parse(size: &str) -> (usize, usize) {
    let (files, experiments) = size.split_once('x').unwrap();
    (files.parse().unwrap(), experiments.parse().unwrap())
}

/// Locks every file whose name begins with `prefix` until the other end of stdin is closed.
fn lock_all(dir: &Path, prefix: &str) {
    let mut locks = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with(prefix) && name.ends_with(".db") {
            let lock = Connection::open(&path).unwrap();
            lock.execute_batch("BEGIN IMMEDIATE").unwrap();
            locks.push(lock);
        }
    }
    println!("locked {}", locks.len());
    std::io::stdout().flush().unwrap();
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// The locks of another process, until it is dropped.
struct Locks(Child, BufReader<ChildStdout>);

impl Locks {
    fn hold(dir: &Path, prefix: &str, files: usize) -> Self {
        let mut child = spawn(dir, &format!("lock {prefix}"));
        let mut out = BufReader::new(child.stdout.take().unwrap());
        let locked = format!("locked {files}");
        assert!(out.by_ref().lines().any(|line| line.unwrap() == locked));
        Self(child, out)
    }
}

impl Drop for Locks {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.1.read_to_end(&mut Vec::new());
        self.0.wait().unwrap();
    }
}

fn ingest(pipeline: &Pipeline, destination: &Destination, trace: u128) {
    let (resource, scope) = (Arc::default(), Arc::default());
    let taken = pipeline.ingest(resource, scope, conversation(trace), destination);
    assert_eq!(taken.accepted, 2);
}

fn stored(pipeline: &Pipeline, destination: &str) -> u64 {
    let locations = pipeline.stats().locations;
    let of_it = locations
        .iter()
        .filter(|location| location.uri.to_string().contains(destination));
    of_it.map(|location| location.stored).sum()
}

/// A file in MLflow's shape with rollback journal, as `name`.
fn copies(dir: &Path, prefix: &str, number: usize) -> Vec<PathBuf> {
    let first = dir.join("template");
    drop(made_by_mlflow(&first, OLDEST));
    (0..number)
        .map(|n| {
            let path = dir.join(format!("{prefix}{n}.db"));
            std::fs::copy(&first, &path).unwrap();
            path
        })
        .collect()
}

/// The longest a batch at a healthy file takes, from its span's end to its storing, while `bad`
/// locations have something to write.
fn worst_beside(bad: &[Destination], healthy: &Path) -> Duration {
    let pipeline = Pipeline::builder().build().unwrap();
    let good = Destination::new(at(healthy, "good"));
    let mut trace = 1u128 << 64;
    let mut round = |expected: &mut u64| {
        trace += 1;
        ingest(&pipeline, &good, trace);
        *expected += 2;
        let began = Instant::now();
        while stored(&pipeline, "good") < *expected {
            assert!(began.elapsed() < Duration::from_secs(30), "kept out");
            std::thread::sleep(Duration::from_millis(5));
        }
        began.elapsed()
    };
    let mut expected = 0;
    round(&mut expected);
    for (n, destination) in bad.iter().enumerate() {
        ingest(&pipeline, destination, n as u128 + 1);
    }
    let worst = (0..5).map(|_| round(&mut expected)).max().unwrap();
    assert_eq!(stored(&pipeline, "bad"), 0, "they were not locked");
    let report = pipeline.shutdown(Duration::from_secs(1)).wait();
    drop(report);
    worst
}

/// A batch waits a second to grow; beyond that, all is delay. Machines that run tests may be slow.
const PROMPT: Duration = Duration::from_secs(10);

fn beside_locked(dir: &Path, files: usize, experiments: usize) {
    let bad = copies(dir, "bad", files);
    let locks = Locks::hold(dir, "bad", files);
    let bad: Vec<_> = (0..files * experiments)
        .map(|n| Destination::new(at(&bad[n % files], &format!("bad{n}"))))
        .collect();
    let peaks = Peaks::watch();
    let worst = worst_beside(&bad, &dir.join("good.db"));
    let (threads, _) = peaks.end();
    println!("worst {worst:?}, threads {threads}");
    assert!(worst < PROMPT, "{worst:?}");
    assert!(threads <= MOST_THREADS, "{threads} threads");
    drop(locks);
}

#[test]
fn a_thousand_new_experiments_in_one_locked_file() {
    outcome(TempDir::new().unwrap().path(), "beside 1x1000");
}

#[test]
fn six_hundred_locked_files() {
    outcome(TempDir::new().unwrap().path(), "beside 600x1");
}

/// What a process of 10,000 tenants may take.
const MOST_THREADS: u64 = 64;

/// What `/proc/self/status` has under a name.
fn status(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    let value = line.split_whitespace().nth(1).unwrap();
    value.parse().unwrap()
}

/// The most threads and open files of this process while it is watched.
struct Peaks {
    done: Arc<AtomicBool>,
    watcher: JoinHandle<(u64, u64)>,
}

impl Peaks {
    fn watch() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let ends = done.clone();
        let watcher = std::thread::spawn(move || {
            let (mut threads, mut files) = (0, 0);
            while !ends.load(Ordering::Relaxed) {
                threads = threads.max(status("Threads:"));
                files = files.max(std::fs::read_dir("/proc/self/fd").unwrap().count() as u64);
                std::thread::sleep(Duration::from_millis(2));
            }
            (threads, files)
        });
        Self { done, watcher }
    }

    fn end(self) -> (u64, u64) {
        self.done.store(true, Ordering::Relaxed);
        self.watcher.join().unwrap()
    }
}

/// Stores a trace in each of many experiments, and prints the most threads and files it took.
fn store_all(dir: &Path, files: usize, experiments: usize) {
    let peaks = Peaks::watch();
    let pipeline = Pipeline::builder().build().unwrap();
    let destinations: Vec<_> = (0..files * experiments)
        .map(|n| {
            let path = dir.join(format!("{}.db", n % files));
            Destination::new(at(&path, &format!("e{}", n / files)))
        })
        .collect();
    for round in 0..2u128 {
        for (n, destination) in destinations.iter().enumerate() {
            ingest(&pipeline, destination, (round << 64) + n as u128 + 1);
        }
        let report = pipeline.flush(Duration::from_secs(240)).wait();
        assert!(report.all_stored(), "{report}");
    }
    let held = held_bytes();
    let report = pipeline.shutdown(Duration::from_secs(60)).wait();
    assert!(report.all_stored(), "{report}");
    let (threads, opened) = peaks.end();
    println!("threads {threads}, files {opened}, held {held}");
    assert!(threads <= MOST_THREADS, "{threads} threads");
}

fn ten_thousand(files: usize, experiments: usize) {
    let dir = TempDir::new().unwrap();
    let began = Instant::now();
    outcome(dir.path(), &format!("store {files}x{experiments}"));
    println!("{files} files: {:?}", began.elapsed());
    let spans: i64 = (0..files)
        .map(|n| count(&dir.path().join(format!("{n}.db")), "spans"))
        .sum();
    assert_eq!(spans, (files * experiments * 4) as i64);
}

#[test]
fn ten_thousand_experiments_of_one_file() {
    ten_thousand(1, 10_000);
}

#[test]
fn ten_thousand_experiments_of_five_hundred_files() {
    ten_thousand(500, 20);
}

/// Runs a part in a process that may open few files.
fn limited(dir: &Path, files: u32, part: &str) {
    let output = Command::new("sh")
        .args(["-c", "ulimit -n $0 && exec \"$@\"", &files.to_string()])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "program", "--ignored", "--nocapture"])
        .env(FOLDER, dir)
        .env(PART, part)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
}

/// Three hundred files would take nine hundred descriptors.
#[test]
fn more_files_than_the_process_may_open() {
    for (limit, files) in [(300, 300), (64, 120), (40, 40)] {
        let dir = TempDir::new().unwrap();
        limited(dir.path(), limit, &format!("few {files}"));
        for n in 0..files {
            let path = dir.path().join(format!("{n}.db"));
            assert_eq!(count(&path, "spans"), 4, "{limit}: {n}");
            let log = path.with_extension("db-wal");
            assert!(!log.exists(), "{n} was left open");
        }
    }
}

/// The application has taken all files but a few, after the limit of connections was set.
#[test]
fn an_application_that_takes_the_files_for_itself() {
    let dir = TempDir::new().unwrap();
    limited(dir.path(), 128, "crowded files");
}

/// Stores two traces in each of many files.
fn store_in_turn(dir: &Path, files: u128) {
    let pipeline = Pipeline::builder().build().unwrap();
    let destinations: Vec<_> = (0..files)
        .map(|n| Destination::new(at(&dir.join(format!("{n}.db")), "a")))
        .collect();
    for round in 0..2u128 {
        for (n, destination) in destinations.iter().enumerate() {
            ingest(&pipeline, destination, (round << 64) + n as u128 + 1);
        }
        let report = pipeline.flush(Duration::from_secs(240)).wait();
        assert!(report.all_stored(), "{report}");
    }
    let report = pipeline.shutdown(Duration::from_secs(60)).wait();
    assert!(report.all_stored(), "{report}");
}

fn crowded(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_time()
        .build()
        .unwrap();
    let opened = |n: u32| {
        let location = at(&dir.join(format!("{n}.db")), "a");
        runtime.block_on(async {
            let sink = location.open().await?;
            sink.write(&batch(conversation(u128::from(n) + 1))).await?;
            Ok::<_, Error>(sink)
        })
    };
    let mut taken = Vec::new();
    let mut leave = |files: usize| {
        while let Ok(file) = std::fs::File::open("/dev/null") {
            taken.push(file);
        }
        taken.truncate(taken.len() - files);
    };
    let mut open: Vec<_> = (0..10).map(|n| opened(n).unwrap()).collect();
    // One after the other gives way.
    leave(1);
    open.extend((10..25).map(|n| opened(n).unwrap()));
    for sink in open {
        runtime.block_on(sink.close()).unwrap();
    }
    for files in 0..3 {
        leave(files);
        let Err(error) = opened(30) else {
            panic!("there was no room");
        };
        let text = error.to_string();
        assert_eq!(error.retry(), Retry::Backoff, "{text}");
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
        assert!(text.contains("128") && text.contains("ulimit -n"), "{text}");
    }
    leave(6);
    let last = opened(30).unwrap();
    runtime.block_on(last.close()).unwrap();
    for n in (0..25).chain([30]) {
        assert_eq!(count(&dir.join(format!("{n}.db")), "spans"), 2);
    }
}
