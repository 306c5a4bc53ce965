//! A store that fails under the writers: nothing is lost, nothing is doubled.

use crate::faulty_store::{FaultyStore, Weather};
use crate::help::*;
use object_store::ObjectStore;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use trace_destination_core::{Error, Retry, TraceLocation as _, TraceSink};
use trace_destination_unity_catalog::UnityCatalogLocation;
use trace_destination_unity_catalog::test_support::wrapped;

const WRITERS: u128 = 3;
const BATCHES: u64 = 20;

async fn open_in_the_end(location: &UnityCatalogLocation) -> Box<dyn TraceSink> {
    for _ in 0..500 {
        match location.open().await {
            Ok(sink) => return sink,
            Err(e) => assert_eq!(e.retry(), Retry::Backoff, "{e:?}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("{location} cannot be opened");
}

/// Writes all batches as a lane does, closes and reopens now and then, and sends some again that
/// were stored already.
async fn write_all(location: UnityCatalogLocation, writer: u128) -> Result<(), Error> {
    let mut sink = open_in_the_end(&location).await;
    for sequence in 0..BATCHES {
        let batch = numbered(writer, sequence);
        persist(&*sink, &batch).await?;
        match (u64::try_from(writer).unwrap() + sequence) % 7 {
            1 => {
                sink.close().await?;
                sink = open_in_the_end(&location).await;
                persist(&*sink, &batch).await?;
            }
            3 => {
                persist(&*sink, &batch).await?;
            }
            _ => {}
        }
    }
    sink.close().await
}

async fn weathers(seed: u64, percent: u64, lag: Duration) {
    let dir = TempDir::new().unwrap();
    let weather = Weather::new(seed, percent, lag);
    let location = {
        let weather = weather.clone();
        let wrap = move |store: Arc<dyn ObjectStore>| -> Arc<dyn ObjectStore> {
            Arc::new(FaultyStore::new(store, weather.clone()))
        };
        wrapped(location(dir.path()), Arc::new(wrap))
    };
    let writing: Vec<_> = (1..=WRITERS)
        .map(|writer| tokio::spawn(write_all(location.clone(), writer)))
        .collect();
    for written in writing {
        written.await.unwrap().unwrap();
    }
    // Requests that are still on their way land now.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let folder = shop(dir.path());
    let writers: Vec<u128> = (1..=WRITERS).collect();
    assert_eq!(
        stored(&folder).await,
        expected(&writers, BATCHES),
        "seed {seed}"
    );
    // Every version there is, each batch in one of them.
    let log = commits(&folder);
    let versions: Vec<u64> = log.keys().copied().collect();
    let count = u64::try_from(WRITERS).unwrap() * BATCHES;
    assert_eq!(versions, (0..=count).collect::<Vec<_>>(), "seed {seed}");
    let tally = weather.tally();
    assert!(
        percent == 0
            || [
                tally.lost,
                tally.landed,
                tally.late,
                tally.throttled,
                tally.refused
            ]
            .iter()
            .all(|n| *n > 0),
        "{tally:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn faults_of_the_store_lose_and_double_nothing() {
    for seed in 1..=4 {
        weathers(seed, 15, Duration::ZERO).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_that_lag_behind_lose_and_double_nothing() {
    for seed in 11..=12 {
        weathers(seed, 10, Duration::from_millis(60)).await;
    }
}
