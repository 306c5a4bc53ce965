use super::*;
use crate::options::{Access, JournalMode, MissingExperiment, Synchronous};
use trace_destination_core::{BatchId, TraceBatch};

fn empty() -> TraceBatch {
    let id = BatchId {
        writer: uuid::Uuid::nil(),
        sequence: 0,
    };
    TraceBatch::new(id, Vec::new(), Vec::new())
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .max_blocking_threads(1)
        .enable_time()
        .build()
        .unwrap()
}

#[test]
fn a_runtime_that_ends_before_the_job_ran_leaves_the_store_usable() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("x.db");
    let target = Arc::new(Target {
        path: path.clone(),
        name: Some("a".into()),
        id: None,
        missing: MissingExperiment::Create,
        synchronous: Synchronous::Normal,
        artifact_root: None,
        access: Access::Owner,
        journal_mode: JournalMode::Keep,
    });
    let store = Process::current().store(&path);
    let first = runtime();
    let experiment = first.block_on(store.open(target)).unwrap();
    // The only thread for blocking work is busy, so the job waits and is dropped unrun.
    let (free, wait) = std::sync::mpsc::channel::<()>();
    first.spawn_blocking(move || wait.recv());
    let waiting = {
        let (store, experiment) = (store.clone(), experiment.clone());
        first.spawn(async move { store.write(&experiment, &empty()).await })
    };
    while lock(&store.queue).writes.is_empty() {
        std::thread::yield_now();
    }
    first.shutdown_background();
    free.send(()).unwrap();
    let answer = runtime().block_on(waiting);
    assert!(!matches!(answer, Ok(Ok(_))), "nothing can have been stored");
    while lock(&store.queue).draining {
        std::thread::yield_now();
    }
    runtime()
        .block_on(store.write(&experiment, &empty()))
        .unwrap();
}
