//! Promise 15: what is wrong is said, once, with what to do about it.

use super::*;
use crate::faulty::{Act, permanent};
use crate::harness::RealFault;
use crate::world::{SOON, lazy, retry, until};
use opentelemetry::trace::Span as _;
use trace_destination_core::{Destination, DropReason, Error, ErrorKind, LocationUri, RetryPolicy};

/// An error must say what was being done, where, why, and what to do.
pub(crate) fn complete(error: &Error, at: &LocationUri) -> Verdict {
    ensure!(!error.operation().is_empty(), "no operation in {error:?}");
    ensure_eq!(error.location(), Some(at), "the location in {error:?}");
    ensure!(!error.cause().is_empty(), "no cause in {error:?}");
    ensure!(
        error.mend_hint().is_some_and(|m| !m.is_empty()),
        "no mend in {error:?}"
    );
    Ok(())
}

pub(crate) async fn permanent_failure_says_why_and_disturbs_nobody(w: Arc<World>) -> Verdict {
    for at_open in [true, false] {
        let (bad, good) = (w.place("bad").await?, w.place("good").await?);
        let rig = w.rig_with(|b| b.with_batch_limits(lazy()))?;
        if at_open {
            bad.control.set_open_error(Some(permanent()));
        } else {
            bad.control.set(Act::Fail(permanent()));
        }
        rig.spans_at(&bad, 1);
        rig.spans_at(&good, 5);
        let report = rig.try_flush().await?;
        let reported = report.location(bad.uri()).and_then(|l| l.error.clone());
        let reported = reported.ok_or_else(|| Failure::new("flush does not say why"))?;
        complete(&reported, bad.uri())?;
        ensure_eq!(
            reported.kind(),
            ErrorKind::PermissionDenied,
            "kind of the error"
        );
        ensure!(
            report.to_string().contains(reported.cause()),
            "the report's text lacks the cause"
        );
        let in_stats = rig.stats(&bad).and_then(|s| s.last_error);
        ensure!(in_stats.is_some(), "stats do not say why");
        let kept = report.location(bad.uri()).map(|l| (l.pending, l.lost));
        ensure_eq!(
            kept,
            Some((1, 0)),
            "spans pending and lost at the bad place"
        );
        ensure!(
            report
                .location(good.uri())
                .is_some_and(|l| l.error.is_none() && l.stored == 5),
            "the good place was disturbed"
        );
        bad.control.set_open_error(None);
        bad.control.set(Act::Pass);
        w.verify(&rig).await?;
    }
    Ok(())
}

pub(crate) async fn a_place_that_fails_for_good_keeps_its_spans_and_is_asked_again(
    w: Arc<World>,
) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| {
        b.with_retry(RetryPolicy {
            probe: Duration::from_millis(1500),
            ..retry()
        })
    })?;
    a.control.set(Act::Fail(permanent()));
    for round in 1..=4 {
        rig.spans_at(&a, 1);
        let report = rig.try_flush().await?;
        let kept = report
            .location(a.uri())
            .map(|l| (l.pending, l.dropped.total()));
        ensure_eq!(kept, Some((round, 0)), "spans pending and dropped");
    }
    let before = a.control.calls().len();
    a.control.set(Act::Pass);
    // By itself: nothing is sent and nothing is flushed meanwhile.
    until("it is asked again", || a.control.calls().len() > before).await?;
    rig.spans_at(&a, 5);
    w.verify(&rig).await
}

pub(crate) async fn a_place_that_fails_for_good_gives_up_in_the_end(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let rig = w.rig_with(|b| {
        b.with_retry(RetryPolicy {
            deadline: Duration::from_millis(200),
            ..retry()
        })
    })?;
    a.control.set(Act::Fail(permanent()));
    rig.start("lost", &a.context()).end();
    until("it is given up", || {
        rig.dropped(&a, DropReason::Failed) == 1
    })
    .await?;
    a.control.set(Act::Pass);
    rig.spans_at(&a, 5);
    w.verify(&rig).await
}

pub(crate) async fn malformed_uris(w: Arc<World>) -> Verdict {
    for text in [
        "",
        "no-scheme",
        ":empty",
        "1digit:x",
        "http://user:hunter2@host",
        "http://host:99999",
        "http://host#hunter2",
        "memory:%zz-hunter2",
        "http://host?a=hunter2&a=2",
    ] {
        match text.parse::<LocationUri>() {
            Ok(uri) => return Err(Failure::new(format!("{text:?} was accepted as {uri}"))),
            Err(error) => {
                ensure_eq!(
                    error.kind(),
                    ErrorKind::InvalidConfig,
                    "kind of the error for {text:?}"
                );
                ensure!(error.mend_hint().is_some(), "no mend for {text:?}");
                let said = format!("{error} {error:?}");
                ensure!(!said.contains("hunter2"), "a secret is shown: {said}");
            }
        }
    }
    let a = w.place("a").await?;
    let uri: LocationUri = a.uri().to_string().parse()?;
    ensure_eq!(&uri, a.uri(), "the URI, printed and parsed");
    ensure_eq!(
        a.inner.to_string(),
        a.uri().to_string(),
        "the location, printed"
    );
    Ok(())
}

pub(crate) async fn equal_uris(w: Arc<World>) -> Verdict {
    for (one, other) in [
        (
            "HTTP://Host.Example:80/?b=2&a=1",
            "http://host.example?a=1&b=2",
        ),
        ("https://h:443", "https://h"),
        ("memory:a%2cb", "memory:a%2Cb"),
        ("memory:caf\u{e9}", "memory:caf%C3%A9"),
    ] {
        let (a, b): (LocationUri, LocationUri) = (one.parse()?, other.parse()?);
        ensure_eq!(a, b, "{one} and {other}");
    }
    for (one, other) in [
        ("http://h:443", "http://h"),
        ("http://localhost", "http://127.0.0.1"),
        ("memory:a", "memory:A"),
    ] {
        let (a, b): (LocationUri, LocationUri) = (one.parse()?, other.parse()?);
        ensure!(a != b, "{one} and {other} are taken for one place");
    }
    // In a list, a comma separates; one inside a URI is written `%2C`.
    let registry = trace_destination_core::Registry::new().with_scheme("memory", |uri| {
        let location = trace_destination_core::MemoryLocation::from_uri(uri)?;
        Ok(Arc::new(location) as Arc<dyn trace_destination_core::TraceLocation>)
    });
    let list = registry.destination("memory:b%2Cc, memory:a,memory:a")?;
    ensure_eq!(
        list.to_string(),
        "memory:a,memory:b%2Cc",
        "the list, printed"
    );
    ensure_eq!(
        registry.destination(&list.to_string())?,
        list,
        "the list, printed and parsed"
    );
    ensure!(
        registry.destination("discard")?.is_discard(),
        "`discard` is a place"
    );
    ensure!(
        registry.destination("unset")?.is_unset(),
        "`unset` is a place"
    );
    for wrong in ["memory:a,discard", "memory:a,,memory:b", "nowhere:a", ""] {
        match registry.destination(wrong) {
            Ok(found) => return Err(Failure::new(format!("{wrong:?} was accepted as {found}"))),
            Err(error) => ensure_eq!(error.kind(), ErrorKind::InvalidConfig, "kind for {wrong:?}"),
        }
    }
    // A place is found again by what its URI prints.
    let a = w.place("a").await?;
    let again: LocationUri = a.uri().as_str().parse()?;
    ensure_eq!(&again, a.uri(), "the URI of a place, parsed again");
    Ok(())
}

/// What tenants call themselves when they want to be somebody else, or somewhere else, and names
/// that are taken for each other where a place folds.
const NAMES: [&str; 60] = [
    "acme",
    "Acme",
    "ACME",
    "acme ",
    "acme.",
    "acme-wal",
    "kraft",
    "Kraft",
    "\u{212a}raft",
    "\u{ff4b}raft",
    "k\u{301}raft",
    "stra\u{df}e",
    "strasse",
    "\u{130}",
    "i\u{307}",
    "\u{131}",
    "i",
    "\u{e9}",
    "e\u{301}",
    "",
    " ",
    ".",
    "..",
    "../x",
    "/",
    "//x",
    "a/b",
    "a%2Fb",
    "a\\b",
    "a\0b",
    "a\nb",
    "a\u{202e}b",
    "a\u{200b}b",
    "ab",
    "a.b",
    "a.b.c",
    "a#b",
    "a%23b",
    "a?root=evil",
    "a?mode=memory",
    "a&create=false",
    "a%26create=false",
    "a&experiment_id=0",
    "a&experiment_name=acme",
    "a,memory:evil",
    "a%2Cmemory:evil",
    "a,discard",
    "discard",
    "unset",
    "Default",
    "default",
    "mlflow_experiment_trace",
    "_delta_log",
    "-",
    "@",
    "a@b",
    "h:80",
    "{tenant}",
    "%7Btenant%7D",
    "'; DROP TABLE spans;--",
];

pub(crate) async fn names_of_tenants(w: Arc<World>) -> Verdict {
    let template = w.harness().template().await?;
    let rig = w.rig()?;
    let fill = |name: &str| template.destination([("tenant", name)]);
    let long = "x".repeat(9000);
    let mut places = Vec::new();
    for name in NAMES.into_iter().chain([long.as_str()]) {
        match fill(name) {
            Ok(destination) => {
                let [location] = destination.locations() else {
                    return Err(Failure::new(format!("{name:?} gives {destination}")));
                };
                let again: LocationUri = location.uri().to_string().parse()?;
                ensure_eq!(&again, location.uri(), "the URI of {name:?}, parsed again");
                places.push((name, w.adopt(location.clone())));
            }
            Err(error) => {
                ensure_eq!(error.kind(), ErrorKind::InvalidName, "kind for {name:?}");
                let said = error.to_string();
                ensure!(said.contains("{tenant}"), "{said} does not name the hole");
                ensure!(error.mend_hint().is_some(), "no mend in {said}");
            }
        }
    }
    ensure!(places.len() > 1, "only {} names are taken", places.len());
    ensure!(
        fill("").is_err() && fill(&long).is_err(),
        "an empty or endless name is taken"
    );
    // One span each: a place that two names give holds a foreign one.
    for (_, place) in &places {
        rig.spans_at(place, 1);
    }
    w.verify(&rig).await
}

pub(crate) async fn misconfigured_places(w: Arc<World>) -> Verdict {
    let good = w.place("good").await?;
    let wrong = w.harness().misconfigured().await?;
    ensure!(
        !wrong.is_empty(),
        "the harness names no wrong configuration"
    );
    let mut names = Vec::new();
    for m in wrong {
        let during = |f: Failure| f.during(&m.what);
        match &m.location {
            Err(error) => {
                ensure_eq!(error.kind(), m.expected, "{}: kind of {error}", m.what);
                ensure!(
                    error.mend_hint().is_some(),
                    "{}: no mend in {error}",
                    m.what
                );
            }
            Ok(location) => {
                let rig = w.rig()?;
                let destination = Destination::from_location(location.clone());
                rig.start(
                    "wrong",
                    &destination.in_context(&opentelemetry::Context::new()),
                )
                .end();
                rig.spans_at(&good, 2);
                let uri = location.uri();
                until(&format!("{}: an error is known", m.what), || {
                    let stats = rig.pipeline.stats();
                    stats.location(uri).is_some_and(|l| l.last_error.is_some())
                })
                .await?;
                let patience = if m.retried {
                    Duration::from_millis(500)
                } else {
                    SOON
                };
                let report = rig.pipeline.flush(patience).await;
                let l = report
                    .location(uri)
                    .ok_or_else(|| Failure::new(format!("{}: not in the report", m.what)))?;
                let error = l
                    .error
                    .as_ref()
                    .ok_or_else(|| Failure::new(format!("{}: no error in the report", m.what)))?;
                complete(error, uri).map_err(during)?;
                ensure_eq!(error.kind(), m.expected, "{}: kind of {error}", m.what);
                ensure_eq!(l.stored, 0, "{}: stored spans", m.what);
                // Kept, unless the answer condemns the span itself.
                let pending_or_dropped = l.pending + l.dropped.total();
                ensure_eq!(pending_or_dropped, 1, "{}: spans not stored", m.what);
                ensure!(
                    m.retried || !report.timed_out,
                    "{}: the flush waited for it",
                    m.what
                );
                until(&format!("{}: the good place is stored", m.what), || {
                    rig.stored(&good) == 2
                })
                .await?;
                m.untouched.check().map_err(during)?;
            }
        }
        names.push(m.what.clone());
    }
    w.note(names.join(", "));
    w.verify_stored().await
}

pub(crate) async fn real_place_breaks(w: Arc<World>) -> Verdict {
    let (a, good) = (w.place("a").await?, w.place("good").await?);
    let rig = w.rig()?;
    rig.spans_at(&a, 3);
    rig.flush().await?;
    w.harness().inflict(&*a.inner, RealFault::Broken).await?;
    let mut kept = rig.start("kept", &a.context());
    a.allow(kept.span_context());
    kept.end();
    rig.spans_at(&good, 3);
    let report = rig.try_flush().await?;
    let error = report.location(a.uri()).and_then(|l| l.error.clone());
    let error = error.ok_or_else(|| Failure::new("flush does not say why"))?;
    complete(&error, a.uri())?;
    let left = report
        .location(a.uri())
        .map(|l| l.pending + l.dropped.total());
    ensure_eq!(left, Some(1), "spans not stored");
    w.harness().inflict(&*a.inner, RealFault::Heal).await?;
    let before = rig.stored(&a);
    for _ in 0..200 {
        let mut span = rig.start("perhaps", &a.context());
        a.allow(span.span_context());
        span.end();
        rig.try_flush().await?;
        if rig.stored(&a) > before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    ensure!(rig.stored(&a) > before, "the mended place was never probed");
    w.verify(&rig).await
}

pub(crate) async fn two_legs_in_one_store(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let sibling = w.sibling(&a).await?;
    let other = w.place("other").await?;
    let both = Destination::all([a.destination.clone(), sibling.destination.clone()]);
    let Err(error) = both else {
        return Err(Failure::new("two legs in one store were accepted"));
    };
    ensure_eq!(error.kind(), ErrorKind::InvalidConfig, "kind of the error");
    for place in [&a, &sibling] {
        ensure!(
            error.to_string().contains(place.uri().as_str()),
            "{error} does not name {}",
            place.uri()
        );
    }
    let apart = Destination::all([a.destination.clone(), other.destination.clone()]);
    ensure!(apart.is_ok(), "two legs in two stores were refused");
    Ok(())
}

pub(crate) async fn second_segment_in_one_store_is_refused(w: Arc<World>) -> Verdict {
    let a = w.place("a").await?;
    let sibling = w.sibling(&a).await?;
    let rig = w.rig()?;
    let incoming = remote(0xdeca_fbad, 0x1);
    a.end(rig.start("first segment", &a.destination.in_context(&incoming)));
    rig.flush().await?;
    for _ in 0..2 {
        rig.start("second segment", &sibling.destination.in_context(&incoming))
            .end();
    }
    // A trace of its own in the same batch is stored.
    rig.spans_at(&sibling, 3);
    let report = rig.flush().await?;
    let l = report
        .location(sibling.uri())
        .ok_or_else(|| Failure::new("the sibling is not in the report"))?;
    ensure_eq!(
        (l.stored, l.dropped.by(DropReason::Refused)),
        (3, 2),
        "stored and refused"
    );
    let error = l
        .error
        .as_ref()
        .ok_or_else(|| Failure::new("flush does not say why"))?;
    ensure_eq!(error.kind(), ErrorKind::Conflict, "kind of {error}");
    complete(error, sibling.uri())?;
    names_nobody_else(&error.to_string(), &sibling, &a)?;
    a.end(rig.start("more of the first", &a.destination.in_context(&incoming)));
    w.verify(&rig).await
}
