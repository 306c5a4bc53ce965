//! What a sink's encoder is asked to do while another batch is being written.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use std::any::Any;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use support::*;
use trace_destination_core::{
    BatchEncoder, BatchLimits, DropReason, PipelineBuilder, Span, TraceBatch, Transformed,
};

/// What the encoders here make of a batch: its number and how many spans they saw.
type Made = (u64, usize);

/// What a write found of a batch.
type Seen = (u64, Option<Made>);

fn made(batch: &TraceBatch) -> Made {
    (batch.id().sequence, batch.span_count())
}

/// Every span is a batch.
fn one_by_one() -> PipelineBuilder {
    quick().with_batch_limits(BatchLimits {
        spans: 1,
        ..unhurried()
    })
}

/// Counts up, and wakes those who wait for a number.
#[derive(Default)]
struct Count(Mutex<u64>, Condvar);

impl Count {
    fn set(&self, to: u64) {
        let mut at = self.0.lock().unwrap();
        *at = to.max(*at);
        self.1.notify_all();
    }

    /// Whether it came to `number`, for which a test waits no longer than for anything else.
    fn reaches(&self, number: u64) -> bool {
        let at = self.0.lock().unwrap();
        let waited = self.1.wait_timeout_while(at, PATIENCE, |at| *at < number);
        !waited.unwrap().1.timed_out()
    }
}

/// An encoder that counts up to the number of each batch.
fn counted_by(count: &Arc<Count>) -> impl Fn(&TraceBatch) -> Option<Made> + use<> {
    let count = count.clone();
    move |batch| {
        count.set(batch.id().sequence);
        Some(made(batch))
    }
}

#[test]
fn the_next_batch_is_encoded_while_one_is_written() {
    const BATCHES: u64 = 20;
    let encoded = Arc::new(Count::default());
    let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
    let place = Place::encoding("ahead", counted_by(&encoded), {
        let seen = seen.clone();
        move |_, batch| {
            let number = batch.id().sequence;
            let made = batch.encoded::<Made>().copied();
            seen.lock().unwrap().push((number, made));
            // Not before the one after it is encoded: it would wait forever if that were done
            // after this one.
            let overlaps = number == BATCHES || encoded.reaches(number + 1);
            assert!(overlaps, "batch {} was not encoded meanwhile", number + 1);
            Step::Do
        }
    });
    let pipeline = one_by_one().build().unwrap();
    let tracer = tracer(&pipeline);
    for i in 0..BATCHES {
        span_to(&tracer, &place.to(), format!("span-{i}"));
    }
    flush(&pipeline);
    assert_eq!(place.len(), BATCHES as usize);
    let seen = seen.lock().unwrap();
    assert_eq!(seen.len(), BATCHES as usize, "no batch was written twice");
    // The first was written at once, by a sink that had just been opened.
    for (number, made) in seen.iter().skip(1) {
        assert_eq!(*made, Some((*number, 1)));
    }
    settled(&pipeline);
}

#[test]
fn a_batch_that_comes_while_one_is_written_is_encoded_too() {
    let encoded = Arc::new(Count::default());
    let place = Place::encoding("late", counted_by(&encoded), |_, batch| {
        match batch.id().sequence {
            2 => Step::Sleep(Duration::from_millis(500)),
            _ => Step::Do,
        }
    });
    let pipeline = one_by_one().build().unwrap();
    let tracer = tracer(&pipeline);
    span_to(&tracer, &place.to(), "opens");
    flush(&pipeline);
    span_to(&tracer, &place.to(), "slow");
    eventually("the slow one is being written", || place.attempts() == 2);
    span_to(&tracer, &place.to(), "late");
    assert!(encoded.reaches(3));
    assert_eq!(place.len(), 1, "the slow one was still being written");
    flush(&pipeline);
    assert_eq!(place.names(), ["late", "opens", "slow"]);
}

#[test]
fn an_encoder_that_fails_or_panics_leaves_it_to_the_write() {
    for panics in [false, true] {
        let asked = Arc::new(AtomicUsize::new(0));
        let place = Place::encoding(
            "unable",
            {
                let asked = asked.clone();
                move |_| -> Option<Made> {
                    asked.fetch_add(1, Ordering::Relaxed);
                    assert!(!panics, "as told");
                    None
                }
            },
            |n, batch| {
                assert!(batch.encoded::<Made>().is_none());
                match n {
                    0 => Step::Sleep(Duration::from_millis(100)),
                    _ => Step::Do,
                }
            },
        );
        let pipeline = one_by_one().build().unwrap();
        let tracer = tracer(&pipeline);
        for i in 0..10 {
            span_to(&tracer, &place.to(), format!("span-{i}"));
        }
        flush(&pipeline);
        assert_eq!(place.len(), 10);
        assert!(asked.load(Ordering::Relaxed) > 0);
        settled(&pipeline);
    }
}

#[test]
fn what_was_encoded_is_there_on_every_attempt_and_made_once() {
    let asked = Arc::new(AtomicUsize::new(0));
    let place = Place::encoding(
        "again",
        {
            let asked = asked.clone();
            move |batch| {
                asked.fetch_add(1, Ordering::Relaxed);
                Some(made(batch))
            }
        },
        |n, batch| {
            let number = batch.id().sequence;
            match (n, number) {
                (0, _) => Step::Sleep(Duration::from_millis(200)),
                (1..5, 2) => {
                    assert_eq!(batch.encoded(), Some(&(2_u64, 1_usize)));
                    Step::Fail(shaky())
                }
                _ => Step::Do,
            }
        },
    );
    let pipeline = one_by_one().build().unwrap();
    let tracer = tracer(&pipeline);
    span_to(&tracer, &place.to(), "one");
    span_to(&tracer, &place.to(), "two");
    flush(&pipeline);
    assert_eq!((place.attempts(), place.len()), (6, 2));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

#[test]
fn the_hook_comes_before_the_encoder_and_once() {
    let hooked = Arc::new(AtomicU64::new(0));
    let counts = hooked.clone();
    let place = Place::encoding(
        "hooked",
        |batch: &TraceBatch| {
            for span in batch.spans() {
                assert_ne!(span.name(), "secret");
                assert_eq!(span.to_record().attributes.len(), 1, "as the hook left it");
            }
            Some(made(batch))
        },
        |n, batch| {
            if let Some((_, spans)) = batch.encoded::<Made>() {
                assert_eq!(*spans, batch.span_count());
            }
            match n {
                0 => Step::Sleep(Duration::from_millis(100)),
                _ => Step::Do,
            }
        },
    );
    let hook = move |_: &_, span: &mut Span| {
        counts.fetch_add(1, Ordering::Relaxed);
        let record = span.record_mut();
        record
            .attributes
            .push(trace_destination_core::Attribute::new("seen", true));
        match record.name == "secret" {
            true => Transformed::Drop,
            false => Transformed::Keep,
        }
    };
    let pipeline = quick()
        .with_batch_limits(BatchLimits {
            spans: 2,
            ..unhurried()
        })
        .with_transform(hook)
        .build()
        .unwrap();
    let tracer = tracer(&pipeline);
    for _ in 0..10 {
        span_to(&tracer, &place.to(), "kept");
        span_to(&tracer, &place.to(), "secret");
    }
    flush(&pipeline);
    assert_eq!(place.len(), 10);
    assert_eq!(hooked.load(Ordering::Relaxed), 20);
    let stats = place.stats(&pipeline);
    assert_eq!(stats.dropped.by(DropReason::Transform), 10);
    settled(&pipeline);
}

#[test]
fn encoders_of_many_places_do_not_all_work_at_once() {
    const PLACES: usize = 40;
    let (at_once, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let places: Vec<_> = (0..PLACES)
        .map(|i| {
            let (at_once, most) = (at_once.clone(), most.clone());
            Place::encoding(
                &format!("busy-{i}"),
                move |batch| {
                    let now = at_once.fetch_add(1, Ordering::SeqCst) + 1;
                    most.fetch_max(now, Ordering::SeqCst);
                    std::thread::sleep(Duration::from_millis(2));
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    Some(made(batch))
                },
                |_, _| Step::Sleep(Duration::from_millis(3)),
            )
        })
        .collect();
    let pipeline = one_by_one().build().unwrap();
    let tracer = tracer(&pipeline);
    for i in 0..20 {
        for place in &places {
            span_to(&tracer, &place.to(), format!("span-{i}"));
        }
    }
    flush(&pipeline);
    assert!(places.iter().all(|p| p.len() == 20));
    let most = most.load(Ordering::SeqCst);
    assert!((1..=2).contains(&most), "{most} at once");
    settled(&pipeline);
}

#[test]
fn a_shutdown_amid_encoding_accounts_for_every_span() {
    let place = Place::encoding(
        "cut short",
        |batch| {
            std::thread::sleep(Duration::from_millis(300));
            Some(made(batch))
        },
        |n, _| match n {
            0 => Step::Do,
            _ => Step::Hang,
        },
    );
    let pipeline = one_by_one().build().unwrap();
    let tracer = tracer(&pipeline);
    for i in 0..10 {
        span_to(&tracer, &place.to(), format!("span-{i}"));
    }
    eventually("one is stored and one hangs", || place.attempts() == 2);
    let report = pipeline.shutdown(Duration::from_millis(50)).wait();
    assert!(!report.is_complete());
    settled(&pipeline);
    let stats = place.stats(&pipeline);
    assert_eq!(
        (stats.stored, stats.dropped.by(DropReason::Shutdown)),
        (1, 9)
    );
}

/// Makes something large of each batch.
struct Weighs(usize);

impl BatchEncoder for Weighs {
    fn encode(&self, _: &TraceBatch) -> Option<Arc<dyn Any + Send + Sync>> {
        Some(Arc::new(vec![0_u8; self.0]))
    }

    fn encoded_bytes(&self, encoded: &(dyn Any + Send + Sync)) -> usize {
        encoded.downcast_ref::<Vec<u8>>().map_or(0, Vec::len)
    }
}

#[test]
fn what_encoders_made_counts_until_its_batch_is_done() {
    const SIZE: usize = 3 << 20;
    let pipeline = one_by_one().build().unwrap();
    let tracer = tracer(&pipeline);
    let place = Place::made(
        "weighs",
        Some(Arc::new(Weighs(SIZE))),
        |_, _| Step::Do,
        |_, _| Step::Sleep(Duration::from_millis(20)),
    );
    let mut most = 0;
    for _ in 0..40 {
        span_to(&tracer, &place.to(), "a");
        std::thread::sleep(Duration::from_millis(5));
        most = most.max(pipeline.stats().bytes);
    }
    assert!(most > SIZE, "{most}");
    flush(&pipeline);
    eventually("it is freed", || pipeline.stats().bytes == 0);
    settled(&pipeline);
}
