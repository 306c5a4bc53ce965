use super::*;
use std::path::Path;
use trace_destination_core::ErrorKind;
use trace_destination_http::Outcome::{self, Apart, Doubt, Keep, Resend, ResendThenApart};
use trace_destination_testkit::check_page;

fn docs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/server.md")
}

/// What has no status of its own.
const NO_STATUS: &[(&str, Outcome, &str)] =
    &[("success, but a web page", Keep, crate::otlp::MEND_WEB_PAGE)];

#[test]
fn the_documentation_prints_the_tables() {
    for (name, dialect) in [("otlp", Dialect::Otlp), ("mlflow", Dialect::Mlflow)] {
        let table = dialect.table().markdown(NO_STATUS, transport_mend);
        if let Err(differs) = check_page(&docs(), &format!("answers of {name}"), &table) {
            panic!("{differs}");
        }
    }
}

/// The rows that matter most, written out a second time.
#[test]
fn the_tables() {
    use Dialect::{Databricks, Mlflow, Otlp};
    use ErrorKind as K;
    #[rustfmt::skip]
    let rows = [
        (Otlp, 429, None, K::Throttled, Resend),
        (Otlp, 502, None, K::Unavailable, Resend),
        (Otlp, 503, None, K::Unavailable, Resend),
        (Otlp, 504, None, K::Timeout, Resend),
        (Otlp, 100, None, K::Unsupported, Keep),
        (Otlp, 301, None, K::Unsupported, Keep),
        (Otlp, 308, None, K::Unsupported, Keep),
        (Otlp, 400, None, K::InvalidSpan, Apart),
        (Otlp, 401, None, K::Unauthenticated, Keep),
        (Otlp, 403, None, K::PermissionDenied, Keep),
        (Otlp, 404, None, K::NotFound, Keep),
        (Otlp, 405, None, K::Unsupported, Keep),
        (Otlp, 407, None, K::Unauthenticated, Keep),
        (Otlp, 408, None, K::Timeout, Keep),
        (Otlp, 409, None, K::Unsupported, Keep),
        (Otlp, 413, None, K::InvalidSpan, Apart),
        (Otlp, 415, None, K::Unsupported, Keep),
        (Otlp, 418, None, K::Unsupported, Keep),
        (Otlp, 421, None, K::Unsupported, Keep),
        (Otlp, 422, None, K::InvalidSpan, Apart),
        (Otlp, 425, None, K::Throttled, Keep),
        (Otlp, 500, None, K::Unavailable, Doubt),
        (Otlp, 501, None, K::Unsupported, Keep),
        (Otlp, 507, None, K::StorageFull, Keep),
        (Otlp, 520, None, K::Unavailable, Keep),
        (Otlp, 999, None, K::Unsupported, Keep),
        (Mlflow, 301, None, K::Unsupported, Keep),
        (Mlflow, 400, Some("INVALID_PARAMETER_VALUE"), K::InvalidSpan, Apart),
        (Mlflow, 404, Some("RESOURCE_DOES_NOT_EXIST"), K::NotFound, Keep),
        (Mlflow, 408, None, K::Timeout, Resend),
        (Mlflow, 409, Some("ABORTED"), K::Locked, Resend),
        (Mlflow, 425, None, K::Throttled, Resend),
        (Mlflow, 429, None, K::Throttled, Resend),
        (Databricks, 429, None, K::Throttled, Resend),
        (Mlflow, 500, Some("INTERNAL_ERROR"), K::Unavailable, ResendThenApart),
        (Mlflow, 500, Some("FEATURE_DISABLED"), K::InvalidConfig, Keep),
        (Mlflow, 501, None, K::Unsupported, Keep),
        (Mlflow, 503, None, K::Unavailable, Resend),
        (Mlflow, 507, None, K::StorageFull, Resend),
        (Mlflow, 520, None, K::Unavailable, Resend),
    ];
    for (dialect, status, code, kind, outcome) in rows {
        let row = dialect.table().row(status, code).unwrap();
        assert_eq!(
            (row.kind, row.outcome),
            (kind, outcome),
            "{dialect:?} {status}"
        );
        assert!(row.mend.len() > 10);
    }
    for status in [200, 202, 204, 299] {
        assert!(Otlp.table().row(status, None).is_none());
    }
}

/// OTLP lists four answers after which the same request may be sent again, and no others.
#[test]
fn otlp_resends_what_its_specification_lists() {
    let resent = (0..1000).filter(|status| {
        let row = Dialect::Otlp.table().row(*status, None);
        row.is_some_and(|row| matches!(row.outcome, Resend | ResendThenApart))
    });
    assert_eq!(resent.collect::<Vec<u16>>(), [429, 502, 503, 504]);
}

/// These kinds tell the pipeline that a batch is at fault and not its place, so that it is dropped:
/// only what is about spans may be called so.
#[test]
fn no_answer_about_the_place_condemns_a_batch() {
    for dialect in [Dialect::Otlp, Dialect::Mlflow, Dialect::Databricks] {
        for status in 0..1000 {
            let Some(row) = dialect.table().row(status, None) else {
                continue;
            };
            let condemns = matches!(row.kind, ErrorKind::InvalidSpan | ErrorKind::Conflict);
            assert_eq!(condemns, row.outcome == Apart, "{dialect:?} {status}");
        }
    }
}
