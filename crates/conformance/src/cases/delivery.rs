//! Promises 6 to 9: spans reach their places, whatever the places do.

use super::*;
use crate::faulty::{Act, REFUSE, condemned, passing, throttled};
use crate::harness::RealFault;
use crate::world::{lazy, on_thread, retry, until};
use crate::writer::Writing;
use opentelemetry::trace::{Span as _, TraceContextExt as _};
use opentelemetry::{Context, KeyValue};
use std::sync::Mutex;
use std::time::Instant;
use trace_destination_core::{BatchLimits, DropReason, ErrorKind, RetryPolicy};

pub(crate) async fn passing_failures_are_retried(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    a.control.script(vec![Act::Fail(passing()); 3]);
    rig.spans_at(&a, 10);
    w.verify(&rig).await?;
    let calls = a.control.calls();
    ensure!(calls.len() >= 4, "only {} attempts", calls.len());
    for call in &calls[1..4] {
        ensure_eq!(call.id, calls[0].id, "id of a later attempt");
        ensure_eq!(call.spans, calls[0].spans, "size of a later attempt");
    }
    ensure_eq!(rig.stats(&a).map(|s| s.retries), Some(3), "retries");
    Ok(())
}

pub(crate) async fn panicking_sink_is_survived(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    a.control
        .script([Act::Panic, Act::Fail(passing()), Act::Panic]);
    rig.spans_at(&a, 10);
    w.verify(&rig).await
}

pub(crate) async fn server_delays_are_honoured(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let delay = Duration::from_millis(700);
    a.control.script([Act::Fail(throttled(delay))]);
    rig.spans_at(&a, 3);
    until("the place was tried", || !a.control.calls().is_empty()).await?;
    w.verify(&rig).await?;
    let calls = a.control.calls();
    let waited = calls[1].began.duration_since(calls[0].ended);
    ensure!(waited >= delay, "the second attempt came after {waited:?}");
    Ok(())
}

pub(crate) async fn flush_skips_the_own_backoff(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let long = Duration::from_secs(300);
    let rig = w.rig_with(|b| {
        b.with_retry(RetryPolicy {
            deadline: 4 * long,
            initial: long,
            max: long,
            ..retry()
        })
    })?;
    a.control.script([Act::Fail(passing())]);
    rig.spans_at(&a, 3);
    until("the lane waits", || {
        rig.stats(&a).is_some_and(|s| s.retries == 1)
    })
    .await?;
    // Without the skip this would run into its deadline.
    w.verify(&rig).await
}

pub(crate) async fn retry_deadline(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| {
        b.with_retry(RetryPolicy {
            deadline: Duration::from_millis(500),
            ..retry()
        })
    })?;
    // Opened before, so that the time goes into attempts.
    rig.spans_at(&a, 1);
    rig.flush().await?;
    let opened = a.control.calls().len();
    a.control.set(Act::Fail(passing()));
    let began = Instant::now();
    rig.start("given up", &a.context()).end();
    until("it is given up", || {
        rig.dropped(&a, DropReason::RetryDeadline) == 1
    })
    .await?;
    ensure!(
        began.elapsed() >= Duration::from_millis(400),
        "it was given up too early"
    );
    ensure!(
        a.control.calls().len() >= opened + 2,
        "it was tried only once"
    );
    let error = rig.stats(&a).and_then(|s| s.last_error);
    ensure_eq!(
        error.map(|e| e.kind()),
        Some(ErrorKind::Unavailable),
        "the last error"
    );
    // It recovers: what comes now is stored.
    a.control.set(Act::Pass);
    rig.spans_at(&a, 3);
    w.verify(&rig).await
}

pub(crate) async fn a_condemned_batch_is_not_retried_and_condemns_no_other(
    w: Arc<World>,
) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    a.control.set(Act::Fail(condemned()));
    for _ in 0..4 {
        rig.start("lost", &a.context()).end();
    }
    rig.flush().await?;
    ensure_eq!(a.control.calls().len(), 1, "attempts");
    ensure_eq!(
        rig.dropped(&a, DropReason::Failed),
        4,
        "spans dropped as failed"
    );
    a.control.set(Act::Pass);
    rig.spans_at(&a, 4);
    w.verify(&rig).await
}

pub(crate) async fn one_bad_span_is_refused_alone(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    a.control.set(Act::RefuseMarked);
    for i in 0..30 {
        let mut span = rig.start("span", &a.context());
        if i % 10 == 3 {
            span.set_attribute(KeyValue::new(REFUSE, true));
            span.end();
        } else {
            a.end(span);
        }
    }
    w.verify(&rig).await?;
    ensure_eq!(a.control.calls().len(), 1, "calls");
    ensure_eq!(rig.dropped(&a, DropReason::Refused), 3, "refused spans");
    let error = rig.stats(&a).and_then(|s| s.last_error);
    ensure_eq!(
        error.map(|e| e.kind()),
        Some(ErrorKind::InvalidSpan),
        "the last error"
    );
    Ok(())
}

pub(crate) async fn repetition_keeps_the_guarantee(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    for _ in 0..3 {
        a.control
            .script([Act::StoreThenFail(passing()), Act::StoreThenFail(passing())]);
        let cx = Context::new().with_span(rig.start("root", &a.context()));
        rig.spans_at(&a, 5);
        a.end(rig.start("child", &cx));
        a.expect(cx.span().span_context());
        cx.span().end();
        rig.flush().await?;
    }
    ensure!(a.control.unknown_outcomes() >= 3, "no outcome was unknown");
    // The books allow doubles only where the backend declares at_least_once.
    w.verify(&rig).await
}

pub(crate) async fn repetition_after_reopening(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    // A sink that panics or fails for good is opened anew, and the batch may come again.
    a.control.script([
        Act::StoreThenFail(passing()),
        Act::Panic,
        Act::StoreThenFail(passing()),
    ]);
    rig.spans_at(&a, 10);
    w.verify(&rig).await?;
    ensure!(a.control.opens() >= 2, "the sink was not opened again");
    Ok(())
}

pub(crate) async fn batches_come_one_at_a_time_in_sequence(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = Arc::new(w.rig_with(|b| {
        b.with_batch_limits(BatchLimits {
            spans: 7,
            ..crate::world::quick()
        })
    })?);
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    a.control.set_hook(move |batch| {
        if let Ok(mut log) = log.lock() {
            log.push(batch.id());
        }
        std::thread::yield_now();
    });
    let (r, p) = (rig.clone(), a.clone());
    on_thread("four threads", move || {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| r.spans_at(&p, 100));
            }
        });
    })
    .await?;
    w.verify(&rig).await?;
    ensure_eq!(a.control.most_writing(), 1, "writes under way at once");
    let seen = seen.lock().map_or_else(|_| Vec::new(), |seen| seen.clone());
    ensure!(seen.len() >= 400 / 7, "only {} batches", seen.len());
    for pair in seen.windows(2) {
        ensure_eq!(pair[0].writer, pair[1].writer, "the writer");
        ensure!(
            pair[0].sequence < pair[1].sequence,
            "sequence {} after {}",
            pair[1].sequence,
            pair[0].sequence
        );
    }
    Ok(())
}

pub(crate) async fn real_place_recovers(w: Arc<World>) -> Verdict {
    let (a, other) = (w.place("a").await?, w.place("other").await?);
    let rig = w.rig()?;
    rig.spans_at(&a, 5);
    rig.flush().await?;
    w.harness()
        .inflict(&*a.inner, RealFault::Unavailable)
        .await?;
    rig.spans_at(&a, 5);
    until("a write failed", || {
        rig.stats(&a).is_some_and(|s| s.retries > 0)
    })
    .await?;
    rig.spans_at(&other, 5);
    until("another place is stored meanwhile", || {
        rig.stored(&other) == 5
    })
    .await?;
    w.harness().inflict(&*a.inner, RealFault::Heal).await?;
    w.verify(&rig).await
}

pub(crate) async fn several_processes_share_a_place(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    let mut others = Vec::new();
    for _ in 0..3 {
        let command = w.harness().writer(&*a.inner);
        let command = command.ok_or_else(|| Failure::new("the harness gave no writer"))?;
        others.push(Writing::start(command)?);
    }
    // Our own share, until each of the others has stored something too.
    let (pause, enough) = match w.harness().scale().part {
        1 => (Duration::from_millis(10), 200),
        _ => (Duration::from_millis(100), 20),
    };
    for _ in 0..400 {
        rig.spans_at(&a, 5);
        tokio::time::sleep(pause).await;
        if others.iter().all(|other| other.promised() > enough) {
            break;
        }
    }
    rig.flush().await?;
    let mut stored = 0;
    for other in others {
        ensure!(
            other.promised() > 0,
            "a process stored nothing beside the others"
        );
        for (trace, span) in other.kill()? {
            a.expect_ids(trace, span);
            stored += 1;
        }
    }
    // What a process had written but not yet promised when it was killed may be there as well.
    let found = w.stored(&a).await?;
    let mut count = std::collections::HashMap::new();
    for s in &found.spans {
        *count.entry((s.span.trace_id, s.span.span_id)).or_insert(0) += 1;
    }
    let lost = a
        .expected_ids()
        .iter()
        .filter(|key| !count.contains_key(key))
        .count();
    ensure_eq!(lost, 0, "spans lost between the processes");
    ensure!(
        count.values().all(|n| *n == 1),
        "spans are doubled between the processes"
    );
    w.note(format!(
        "{stored} spans by 3 other processes, {} by this one",
        rig.stored(&a)
    ));
    w.verify_counters(&rig)
}
