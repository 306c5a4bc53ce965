//! Failures that last, made with real servers: each is one clear error, visible in stats and in the
//! flush report, and disturbs no other location.

use super::load::{self, Book, Load, To};
use super::real;
use crate::mlflow::{Mlflow, PASSWORD, Server, Serving, USER};
use crate::proxy::{Fault, Proxy};
use crate::{CaseResult, Live, process};
use opentelemetry::Context;
use opentelemetry::trace::{Span as _, Tracer, TracerProvider};
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use trace_destination::{
    Destination, Error, ErrorKind, FlushReport, LocationState, LocationUri, Pipeline, TraceLocation,
};
use trace_destination_server::{ServerLocation, ServerLocationBuilder};

const FLUSH: Duration = Duration::from_secs(60);
/// For locations that are tried again and again.
const SHORT: Duration = Duration::from_secs(3);

/// A location where something is wrong, and what must be said of it.
struct Wrong {
    what: &'static str,
    location: ServerLocation,
    kind: ErrorKind,
    /// Part of the error's text.
    says: &'static str,
    /// It may recover by itself, rather than looking wrong for good.
    retried: bool,
}

fn at(uri: &str) -> Result<ServerLocationBuilder, String> {
    let uri: LocationUri = uri.parse().map_err(|e: Error| e.to_string())?;
    Ok(ServerLocation::builder().with_uri(&uri))
}

fn built(builder: ServerLocationBuilder) -> Result<ServerLocation, String> {
    builder.build().map_err(|e| e.to_string())
}

/// Servers that are right, each for somebody else.
struct Others {
    basic_auth: Server,
    other_host: Server,
    tls: Server,
}

fn start(mlflow: &Mlflow, folder: &Path, tls: (&Path, &Path)) -> Result<Others, String> {
    let serve = |name: &str, serving: Serving| mlflow.serve_with(&folder.join(name), &serving);
    std::thread::scope(|scope| {
        let basic_auth = scope.spawn(|| {
            let basic_auth = true;
            serve(
                "basic.db",
                Serving {
                    basic_auth,
                    ..Serving::default()
                },
            )
        });
        let other_host = scope.spawn(|| {
            let allowed_hosts = Some("mlflow.example".to_owned());
            serve(
                "host.db",
                Serving {
                    allowed_hosts,
                    ..Serving::default()
                },
            )
        });
        let tls = Some((tls.0.to_owned(), tls.1.to_owned()));
        let tls = serve(
            "tls.db",
            Serving {
                tls,
                ..Serving::default()
            },
        );
        let joined = |t: std::thread::ScopedJoinHandle<'_, Result<Server, String>>| {
            t.join()
                .unwrap_or_else(|_| Err("starting a server panicked".into()))
        };
        Ok(Others {
            basic_auth: joined(basic_auth)?,
            other_host: joined(other_host)?,
            tls: tls?,
        })
    })
}

pub(super) fn errors(live: &mut Live) -> CaseResult {
    let folder = live.work("server_errors")?;
    let (certificate, key) = live.mlflow()?.certificate(&folder)?;
    let others = start(live.mlflow()?, &folder, (&certificate, &key))?;
    let (db, proxy) = real(live)?;
    proxy.heal();
    let url = proxy.url();
    // A web server that is no tracking server: everything is answered with a page.
    let page = Proxy::start(others.basic_auth.port())?;
    page.everything(true);
    page.set(Fault::Page);
    let closed = process::free_port()?;
    let tls = others.tls.url().replace("http:", "https:");
    let wrong = |what, builder, kind, says, retried| -> Result<Wrong, String> {
        Ok(Wrong {
            what,
            location: built(builder)?,
            kind,
            says,
            retried,
        })
    };
    let basic = others.basic_auth.url();
    let all = [
        wrong(
            "a wrong password",
            at(&format!("{basic}?experiment_name=wrong"))?.with_basic_auth(USER, "guessed"),
            ErrorKind::Unauthenticated,
            "did not accept user and password",
            false,
        )?,
        wrong(
            "a token where passwords are wanted",
            at(&format!("{basic}?experiment_name=token"))?.with_bearer_token("guessed"),
            ErrorKind::Unauthenticated,
            "did not accept the token",
            false,
        )?,
        wrong(
            "no credentials",
            at(&format!("{basic}?experiment_name=none"))?,
            ErrorKind::Unauthenticated,
            "MLFLOW_TRACKING_USERNAME",
            false,
        )?,
        wrong(
            "an unknown experiment id",
            at(&format!("{url}?experiment_id=987654"))?,
            ErrorKind::NotFound,
            "no experiment 987654",
            false,
        )?,
        wrong(
            "an unknown experiment id behind basic-auth",
            at(&format!("{basic}?experiment_id=987654"))?.with_basic_auth(USER, PASSWORD),
            ErrorKind::NotFound,
            "no experiment 987654",
            false,
        )?,
        wrong(
            "a host name the server does not answer to",
            at(&format!("{}?experiment_name=x", others.other_host.url()))?,
            ErrorKind::PermissionDenied,
            "MLFLOW_SERVER_ALLOWED_HOSTS",
            false,
        )?,
        wrong(
            "a certificate nobody vouches for",
            at(&format!("{tls}?experiment_name=untrusted"))?,
            ErrorKind::Unauthenticated,
            "certificate is not trusted",
            false,
        )?,
        wrong(
            "TLS to a port without",
            at(&format!(
                "{}?experiment_name=x",
                basic.replace("http:", "https:")
            ))?,
            ErrorKind::InvalidConfig,
            "TLS handshake failed",
            false,
        )?,
        wrong(
            "a plain web server",
            at(&format!("{}?experiment_name=x", page.url()))?,
            ErrorKind::Unsupported,
            "no MLflow tracking server",
            false,
        )?,
        wrong(
            "a port nobody listens on",
            at(&format!("http://127.0.0.1:{closed}?experiment_name=x"))?,
            ErrorKind::Unavailable,
            "nothing listens",
            true,
        )?,
    ];
    let pipeline = Pipeline::builder()
        .strict()
        .build()
        .map_err(|e| e.to_string())?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(pipeline.processor())
        .build();
    let tracer = provider.tracer("errors");
    for w in &all {
        let destination = Destination::new(w.location.clone());
        tracer
            .start_with_context("lost", &destination.in_context(&Context::new()))
            .end();
    }
    // Locations that are right, on the same servers and on another.
    let vouched =
        at(&format!("{tls}?experiment_name=vouched"))?.with_certificate_authorities(&certificate);
    let allowed = at(&format!("{basic}?experiment_name=allowed"))?.with_basic_auth(USER, PASSWORD);
    let good = [
        To::new("errors-good", load::location(&url, "errors-good", FLUSH)?),
        To::new("vouched", built(vouched)?),
        To::new("allowed", built(allowed)?),
    ];
    let book = Arc::new(Book::default());
    let load = Load {
        tasks: 3,
        traces: 20,
        spans_per_trace: 4,
        pause: Duration::from_millis(10),
    };
    load::run(
        &pipeline,
        &good,
        &book,
        load,
        &Arc::new(AtomicBool::new(false)),
    )?;
    let report = pipeline.flush(SHORT).wait();
    for w in &all {
        check(w, &report, &pipeline)?;
    }
    // The flush above was short for the sake of what never comes; the good ones get their time.
    pipeline.flush(SHORT).wait();
    let stats = pipeline.stats();
    for to in &good {
        let uri = to.destination.locations()[0].uri();
        let found = stats
            .location(uri)
            .ok_or_else(|| format!("{uri} is unknown"))?;
        if (found.stored, found.dropped.total(), found.retries) != (80, 0, 0)
            || found.last_error.is_some()
        {
            return Err(format!("{uri} was disturbed: {found:?}").into());
        }
    }
    let mut found = 0;
    for (file, experiment) in [
        (db.to_owned(), "errors-good"),
        (folder.join("tls.db"), "vouched"),
        (folder.join("basic.db"), "allowed"),
    ] {
        found += load::verify_one(&file, &book, experiment)?;
    }
    if found != 240 {
        return Err(format!("{found} spans are in the databases").into());
    }
    for server in [others.basic_auth, others.other_host, others.tls] {
        server.stop()?;
    }
    let names: Vec<_> = all.iter().map(|w| w.what).collect();
    Ok(format!(
        "{}; 240 spans to three locations beside them, undisturbed",
        names.join(", ")
    ))
}

/// One error, complete, the same in both places.
fn check(w: &Wrong, report: &FlushReport, pipeline: &Pipeline) -> Result<(), String> {
    let uri = w.location.uri();
    let wrong = |text: String| format!("{}: {text}", w.what);
    let line = report
        .location(uri)
        .ok_or_else(|| wrong("it is not in the report".into()))?;
    let error = line
        .error
        .as_ref()
        .ok_or_else(|| wrong("the report has no error".into()))?;
    let text = error.to_string();
    if error.kind() != w.kind || !text.contains(w.says) {
        return Err(wrong(format!("{:?}: {text}", error.kind())));
    }
    if error.location() != Some(uri) || error.mend_hint().is_none() || error.operation().is_empty()
    {
        return Err(wrong(format!("the error is not complete: {error:?}")));
    }
    if !report.to_string().contains(error.cause()) {
        return Err(wrong("the report's text lacks the cause".into()));
    }
    if text.contains("guessed") || format!("{error:?}").contains("guessed") {
        return Err(wrong("a secret is shown".into()));
    }
    // Kept in case the place is mended, whatever is wrong with it.
    if (line.stored, line.pending, line.dropped.total()) != (0, 1, 0) {
        return Err(wrong(format!("{line:?}")));
    }
    let stats = pipeline.stats();
    let state = stats.location(uri).map(|l| l.state);
    let expected = match w.retried {
        true => LocationState::Retrying,
        false => LocationState::Failing,
    };
    if state != Some(expected) {
        return Err(wrong(format!("it is {state:?}")));
    }
    let last = stats.location(uri).and_then(|l| l.last_error.as_ref());
    if last.map(Error::kind) != Some(w.kind) {
        return Err(wrong(format!("stats say {last:?}")));
    }
    Ok(())
}
