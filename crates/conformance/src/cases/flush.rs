//! Promises 11 and 12: what flush and shutdown say is so.

use super::*;
use crate::faulty::{Act, REFUSE, condemned, passing};
use crate::world::{SOON, lazy, on_thread, until};
use crate::writer::Writing;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::SdkTracerProvider;
use trace_destination_core::{DropReason, ErrorKind};

pub(crate) async fn covers_what_ended_before(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = Arc::new(w.rig_with(|b| b.with_batch_limits(lazy()))?);
    for round in 1..=5 {
        let (r, p) = (rig.clone(), a.clone());
        on_thread("four threads", move || {
            std::thread::scope(|scope| {
                for _ in 0..4 {
                    scope.spawn(|| r.spans_at(&p, 25));
                }
            });
        })
        .await?;
        let report = rig.flush().await?;
        ensure_eq!(
            report.location(a.uri()).map(|l| l.stored),
            Some(round * 100),
            "stored spans"
        );
        w.verify_stored().await?;
    }
    Ok(())
}

pub(crate) async fn reports_per_location(w: Arc<World>) -> Verdict {
    let (good, picky, broken) = (
        w.place("good").await?,
        w.place("picky").await?,
        w.place("broken").await?,
    );
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    picky.control.set(Act::RefuseMarked);
    broken.control.set(Act::Fail(condemned()));
    rig.spans_at(&good, 3);
    rig.spans_at(&picky, 2);
    let mut marked = rig.start("marked", &picky.context());
    marked.set_attribute(KeyValue::new(REFUSE, true));
    marked.end();
    rig.start("lost", &broken.context()).end();
    let open = rig.start("open", &good.context());
    let report = rig.flush().await?;
    let of = |place: &Place| {
        report
            .location(place.uri())
            .ok_or_else(|| Failure::new(format!("{} is not in the report", place.uri())))
    };
    let g = of(&good)?;
    ensure_eq!(
        (g.stored, g.pending, g.dropped.total(), g.open_spans),
        (3, 0, 0, 1),
        "the good place"
    );
    ensure!(
        g.error.is_none(),
        "the good place has an error: {:?}",
        g.error
    );
    let p = of(&picky)?;
    ensure_eq!(
        (p.stored, p.dropped.by(DropReason::Refused)),
        (2, 1),
        "the picky place"
    );
    ensure_eq!(
        p.error.as_ref().map(|e| e.kind()),
        Some(ErrorKind::InvalidSpan),
        "its error"
    );
    let b = of(&broken)?;
    ensure_eq!(
        (b.stored, b.dropped.by(DropReason::Failed)),
        (0, 1),
        "the broken place"
    );
    ensure_eq!(
        b.error.as_ref().map(|e| e.kind()),
        Some(ErrorKind::InvalidSpan),
        "its error"
    );
    ensure!(
        !report.all_stored(),
        "the report says that everything is stored"
    );
    good.end(open);
    w.verify(&rig).await
}

pub(crate) async fn deadline_reports_pending(w: Arc<World>) -> Verdict {
    let (stuck, good) = (w.place("stuck").await?, w.place("good").await?);
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    stuck.control.set(Act::Wait);
    // Opened before, so that the deadline is for writing alone.
    rig.spans_at(&good, 1);
    rig.flush().await?;
    rig.spans_at(&stuck, 4);
    rig.spans_at(&good, 2);
    let report = rig.pipeline.flush(Duration::from_secs(3)).await;
    ensure!(
        !report.is_complete(),
        "a flush of a stuck place was complete"
    );
    ensure!(
        report.timed_out,
        "the flush did not say that it ran out of time"
    );
    let of = |place: &Place| report.location(place.uri()).map(|l| (l.stored, l.pending));
    ensure_eq!(
        of(&stuck),
        Some((0, 4)),
        "stored and pending at the stuck place"
    );
    ensure_eq!(
        of(&good),
        Some((3, 0)),
        "stored and pending at the good place"
    );
    stuck.control.open_gate();
    w.verify(&rig).await
}

pub(crate) async fn works_everywhere(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = Arc::new(w.rig_with(|b| b.with_batch_limits(lazy()))?);
    let complete = |report: trace_destination_core::FlushReport| {
        ensure!(report.is_complete(), "not complete: {report}");
        Ok(())
    };
    // Awaited and blocking, on the current-thread runtime of this case.
    rig.spans_at(&a, 3);
    complete(rig.pipeline.flush(SOON).await)?;
    rig.spans_at(&a, 3);
    complete(rig.pipeline.flush(SOON).wait())?;
    // On plain threads, many at once.
    let (r, p) = (rig.clone(), a.clone());
    on_thread("flushes on plain threads", move || {
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    r.spans_at(&p, 3);
                    assert!(r.pipeline.flush(SOON).wait().is_complete());
                });
            }
        });
    })
    .await?;
    // In tasks of a multi-thread runtime, awaited and blocking, more than it has workers.
    let (r, p) = (rig.clone(), a.clone());
    on_thread("flushes on a multi-thread runtime", move || -> Verdict {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build()?;
        let tasks: Vec<_> = (0..6)
            .map(|i| {
                let (r, p) = (r.clone(), p.clone());
                runtime.spawn(async move {
                    r.spans_at(&p, 3);
                    let flush = r.pipeline.flush(SOON);
                    if i % 2 == 0 {
                        flush.await
                    } else {
                        flush.wait()
                    }
                })
            })
            .collect();
        for task in tasks {
            complete(runtime.block_on(task)?)?;
        }
        Ok(())
    })
    .await??;
    // Dropping a flush harms nothing.
    rig.spans_at(&a, 1);
    drop(rig.pipeline.flush(SOON));
    w.verify(&rig).await
}

pub(crate) async fn through_the_provider(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    rig.spans_at(&a, 3);
    rig.provider.force_flush()?;
    w.verify_stored().await?;
    // Shutting one provider down stores what it made and leaves the pipeline to the others.
    let other = SdkTracerProvider::builder()
        .with_span_processor(rig.pipeline.processor())
        .build();
    a.end(
        other
            .tracer("other")
            .start_with_context("span", &a.context()),
    );
    other.shutdown()?;
    w.verify_stored().await?;
    rig.spans_at(&a, 3);
    w.verify(&rig).await
}

pub(crate) async fn shutdown_is_final_and_idempotent(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    rig.spans_at(&a, 3);
    rig.spans_at(&b, 2);
    let open = rig.start("ends too late", &a.context());
    let report = rig.pipeline.shutdown(SOON).await;
    ensure!(report.is_complete(), "shutdown was not complete: {report}");
    for place in [&a, &b] {
        ensure_eq!(
            place.control.closes(),
            place.control.opens(),
            "closed sinks"
        );
        ensure!(place.control.opens() > 0, "no sink was opened");
    }
    w.verify_stored().await?;
    drop(open);
    rig.start("started too late", &a.context()).end();
    ensure_eq!(
        rig.dropped(&a, DropReason::Shutdown),
        2,
        "spans dropped as shutdown"
    );
    let again = rig.pipeline.shutdown(SOON).await;
    ensure_eq!(
        again.location(a.uri()).map(|l| l.stored),
        Some(3),
        "stored, said again"
    );
    ensure!(
        rig.pipeline.flush(SOON).wait().is_complete(),
        "spans are pending after shutdown"
    );
    ensure!(
        rig.pipeline.shutdown(SOON).wait().is_complete(),
        "spans are pending after shutdown"
    );
    w.verify_stored().await?;
    w.verify_counters(&rig)
}

pub(crate) async fn shutdown_is_bounded_by_its_deadline(w: Arc<World>) -> Verdict {
    let (waiting, blocking, good) = (
        w.place("waiting").await?,
        w.place("blocking").await?,
        w.place("good").await?,
    );
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    // Opened before, so that the deadline is for writing alone.
    rig.spans_at(&good, 1);
    rig.flush().await?;
    waiting.control.set(Act::Wait);
    blocking.control.set(Act::Block);
    for place in [&waiting, &blocking] {
        for _ in 0..3 {
            let mut span = rig.start("too late", &place.context());
            place.allow(span.span_context());
            span.end();
        }
    }
    rig.spans_at(&good, 2);
    let report = tokio::time::timeout(SOON, rig.pipeline.shutdown(Duration::from_secs(3)))
        .await
        .map_err(|_| Failure::new("shutdown hangs on a stuck place"))?;
    ensure_eq!(
        report.location(good.uri()).map(|l| l.stored),
        Some(3),
        "stored at the good place"
    );
    ensure!(
        report
            .location(waiting.uri())
            .is_some_and(|l| l.stored == 0),
        "the stuck place stored something"
    );
    until("what was cut off is counted as dropped", || {
        rig.dropped(&waiting, DropReason::Shutdown) == 3
    })
    .await?;
    blocking.control.open_gate();
    until("what blocked is settled", || {
        rig.stats(&blocking)
            .is_some_and(|s| s.stored + s.dropped.total() == 3)
    })
    .await?;
    w.verify_stored().await?;
    w.verify_counters(&rig)
}

pub(crate) async fn open_spans_are_counted_at_shutdown(w: Arc<World>) -> Verdict {
    let (a, b) = (w.place("a").await?, w.place("b").await?);
    let rig = w.rig()?;
    let open = [
        rig.start("open", &a.context()),
        rig.start("open", &a.destination.in_context(&remote(0x99, 0x1))),
        rig.start("open", &b.context()),
    ];
    rig.spans_at(&a, 1);
    let report = rig.pipeline.shutdown(SOON).await;
    let of = |place: &Place| report.location(place.uri()).map(|l| l.open_spans);
    ensure_eq!((of(&a), of(&b)), (Some(2), Some(1)), "open spans");
    drop(open);
    w.verify_stored().await
}

pub(crate) async fn guard_flushes_on_drop(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
    {
        let _guard = rig.pipeline.flush_guard(SOON);
        rig.spans_at(&a, 5);
    }
    w.verify_stored().await?;
    w.verify(&rig).await
}

pub(crate) async fn stored_is_said_after_the_sink_said_so(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    a.control.set(Act::Wait);
    rig.spans_at(&a, 5);
    until("the sink is stuck", || a.control.waiting() > 0).await?;
    let report = rig.pipeline.flush(Duration::from_millis(200)).await;
    ensure_eq!(
        report.location(a.uri()).map(|l| (l.stored, l.pending)),
        Some((0, 5)),
        "stored and pending while the sink has not returned"
    );
    ensure_eq!(rig.stored(&a), 0, "stored according to stats");
    a.control.set(Act::Fail(passing()));
    a.control.open_gate();
    a.control
        .script([Act::Fail(passing()), Act::Fail(passing())]);
    a.control.set(Act::Pass);
    w.verify(&rig).await
}

pub(crate) async fn stored_is_readable_at_once(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig()?;
    for _ in 0..20 {
        rig.spans_at(&a, 7);
        let report = rig.flush().await?;
        let found = w.stored(&a).await?.spans.len() as u64;
        ensure_eq!(
            report.location(a.uri()).map(|l| l.stored),
            Some(found),
            "stored, as reported"
        );
    }
    w.verify(&rig).await
}

/// Rounds of starting a writer and killing it.
const KILLS: u64 = 50;

pub(crate) async fn stored_survives_kill(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let mut promised = 0;
    let scale = w.harness().scale();
    let kills = (KILLS / scale.part as u64).max(10);
    for round in 0..kills {
        let command = w.harness().writer(&*a.inner);
        let command = command.ok_or_else(|| Failure::new("the harness gave no writer"))?;
        let other = Writing::start(command)?;
        // From before its first flush to well into its work.
        let life = Duration::from_millis(30 + (round * 37) % 300);
        tokio::time::sleep(life * scale.patience).await;
        for (trace, span) in other.kill()? {
            a.expect_ids(trace, span);
            promised += 1;
        }
        if round % 10 == 9 {
            let found = w.stored(&a).await?;
            let found: std::collections::HashSet<_> = found
                .spans
                .iter()
                .map(|s| (s.span.trace_id, s.span.span_id))
                .collect();
            let lost = a
                .expected_ids()
                .iter()
                .filter(|key| !found.contains(key))
                .count();
            ensure_eq!(
                lost,
                0,
                "spans that flush reported stored and that are gone"
            );
        }
    }
    ensure!(promised > 0, "no writer lived long enough to flush");
    // The place is whole: it can be written and read on.
    let rig = w.rig()?;
    rig.spans_at(&a, 5);
    rig.flush().await?;
    let found = w.stored(&a).await?.spans.len();
    ensure!(
        found >= a.expected(),
        "{found} spans found, {} expected",
        a.expected()
    );
    w.note(format!(
        "{promised} spans promised over {kills} kills, all there"
    ));
    Ok(())
}
