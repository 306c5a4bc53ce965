//! An object store that belongs to somebody else, and answers what it likes: nothing ends the
//! process, takes more memory than a stated bound, takes for ever, or carries credentials elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stderr, reason = "the figures are for people")]

#[path = "../catalog_server/mod.rs"]
mod catalog_server;
#[path = "../lake/mod.rs"]
#[allow(unreachable_pub, reason = "other programs use it too")]
mod lake;
#[path = "../rest/support.rs"]
#[allow(dead_code, reason = "other programs use more of it")]
mod support;

mod answers;
mod conditions;
mod places;

use catalog_server::http::Reply;
use catalog_server::store::{Cloud, Script, Store};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use trace_destination_core::Error;
use trace_destination_unity_catalog::{StorageOptions, UnityCatalogLocation};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Memory that an answer may cost beyond what the test had before. The largest object that is read
/// has 64 MiB, and is held once by the server of this process too.
const BOUND: usize = 256 << 20;
/// Time it may cost.
const PATIENCE: Duration = Duration::from_secs(60);

/// One test at a time: the memory of the process is looked at, and all are of one table.
pub(crate) static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// A store with a table of three commits, and a way to it.
pub(crate) struct World {
    pub(crate) store: Store,
}

pub(crate) const LOG: &str = "/bucket/lake/main/traces/shop_otel_spans/_delta_log/";

impl World {
    pub(crate) async fn start() -> Self {
        let world = Self {
            store: Store::start(Cloud::S3),
        };
        world.store.contents().takes = ["KEY/hunter2-session".to_owned()].into();
        let location = world.location();
        for trace in 1..=2 {
            support::write(&location, trace).await.unwrap();
        }
        world
    }

    pub(crate) fn location(&self) -> UnityCatalogLocation {
        self.location_with(StorageOptions::new())
    }

    pub(crate) fn location_with(&self, options: StorageOptions) -> UnityCatalogLocation {
        let options = options
            .with_retry_timeout(Duration::from_millis(500))
            .with_option("timeout", "8s")
            .with_option("aws_endpoint_url", self.store.url())
            .with_option("aws_region", "here")
            .with_option("aws_allow_http", "true")
            .with_option("aws_access_key_id", "KEY")
            .with_option("aws_secret_access_key", "hunter2-secret")
            .with_option("aws_session_token", "hunter2-session");
        UnityCatalogLocation::builder()
            .with_name("main.traces.shop")
            .with_root("s3://bucket/lake")
            .with_storage(options)
            .build()
            .unwrap()
    }

    /// From now on the store answers so where there is an answer.
    pub(crate) fn say(
        &self,
        script: impl Fn(&catalog_server::http::Request) -> Option<Reply> + Send + 'static,
    ) {
        self.store.contents().script = Script(Some(Box::new(script)));
    }

    /// Opens the table and writes to it, within the bounds.
    pub(crate) async fn write(&self, name: &str) -> Result<(), Error> {
        let watch = Watch::start();
        let began = Instant::now();
        let location = self.location();
        let written = tokio::time::timeout(PATIENCE, support::write(&location, 3)).await;
        let peak = watch.stop();
        let written = written.unwrap_or_else(|_| panic!("{name}: not done in {PATIENCE:?}"));
        assert!(peak < BOUND, "{name}: {} MiB more than before", peak >> 20);
        if let Err(error) = &written {
            let text = format!("{error} {error:?}");
            assert!(!text.contains("hunter2"), "{name}: {text}");
            assert!(
                text.len() < 64 << 10,
                "{name}: {} bytes of error",
                text.len()
            );
            assert!(error.location().is_some(), "{name}: {error}");
            assert!(error.mend_hint().is_some(), "{name}: {error}");
        }
        eprintln!(
            "{name}: {:?}, {} KiB, {written:?}",
            began.elapsed(),
            peak >> 10
        );
        written
    }
}

/// Bytes that are allocated now.
fn held() -> usize {
    let stats = INSTRUMENTED_SYSTEM.stats();
    stats
        .bytes_allocated
        .saturating_sub(stats.bytes_deallocated)
}

/// Looks at the memory of this process all the time.
struct Watch {
    over: Arc<AtomicBool>,
    peak: Arc<AtomicUsize>,
    thread: std::thread::JoinHandle<()>,
    before: usize,
}

impl Watch {
    fn start() -> Self {
        let (over, peak) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (ends, most) = (over.clone(), peak.clone());
        let thread = std::thread::spawn(move || {
            while !ends.load(Ordering::Relaxed) {
                most.fetch_max(held(), Ordering::Relaxed);
                std::thread::sleep(Duration::from_micros(200));
            }
        });
        Self {
            over,
            peak,
            thread,
            before: held(),
        }
    }

    fn stop(self) -> usize {
        self.over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        let peak = self.peak.load(Ordering::Relaxed).max(held());
        peak.saturating_sub(self.before)
    }
}
