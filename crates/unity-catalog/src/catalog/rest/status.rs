//! What a catalog's answers mean: by its own name for an error first, since the statuses of the
//! open-source server are odd (a table that exists already is a 400). Names are those of the
//! open-source server (0.6, `ErrorCode.java`) and, where it has none of its own, of Databricks' REST
//! API. Everything that is asked of a catalog may be asked again: it looks things up, and what became
//! of a registration is looked up too.

use trace_destination_core::ErrorKind as K;
use trace_destination_http::{Outcome, Row, StatusTable};

const AGAIN: &str = "it is tried again; look into the server's log if it stays";
const THROTTLED: &str = "it is tried again when the server allows";
const CREDENTIALS: &str = "set a token in UNITY_CATALOG_TOKEN, or DATABRICKS_TOKEN for a workspace, or renew the one that is set";
const RIGHTS: &str =
    "grant USE CATALOG, USE SCHEMA, and SELECT and MODIFY on the table, or CREATE TABLE to make it";
const MISSING: &str = "create what is missing, or correct its name in the location";
const VERSION: &str = "look into the server's log, and check its version and the address";
const CONFIGURE: &str = "correct the location's name, its storage root or the server's own storage";
const ADDRESS: &str = "check host, port and path of the address, and the proxies before it";

pub(super) const TABLE: StatusTable = StatusTable(&[
    Row::new(&[], K::Locked, Outcome::Resend, AGAIN).of_codes(&[
        "ABORTED",
        "COMMIT_VERSION_CONFLICT",
        "RESOURCE_CONFLICT",
    ]),
    Row::new(&[], K::Throttled, Outcome::Resend, THROTTLED).of_codes(&[
        "RESOURCE_EXHAUSTED",
        "REQUEST_LIMIT_EXCEEDED",
        "TOO_MANY_REQUESTS",
    ]),
    Row::new(&[], K::Timeout, Outcome::Resend, AGAIN).of_codes(&["DEADLINE_EXCEEDED"]),
    Row::new(&[], K::Unavailable, Outcome::Resend, AGAIN).of_codes(&[
        "TEMPORARILY_UNAVAILABLE",
        "UNAVAILABLE",
        "INTERNAL",
        "INTERNAL_ERROR",
        "DATA_LOSS",
    ]),
    Row::new(&[], K::Unauthenticated, Outcome::Keep, CREDENTIALS).of_codes(&["UNAUTHENTICATED"]),
    Row::new(&[], K::PermissionDenied, Outcome::Keep, RIGHTS).of_codes(&[
        "PERMISSION_DENIED",
        "EXTERNAL_ACCESS_DISABLED_ON_METASTORE",
    ]),
    Row::new(&[], K::Unsupported, Outcome::Keep, VERSION).of_codes(&[
        "UNIMPLEMENTED",
        "NOT_IMPLEMENTED",
        "FEATURE_DISABLED",
        "UNSUPPORTED_TABLE_FORMAT",
    ]),
    Row::new(
        &[],
        K::Conflict,
        Outcome::Keep,
        "name a storage root below an external location and outside managed storage: UNITY_CATALOG_STORAGE_ROOT or with_storage_root",
    )
    .of_codes(&["LOCATION_OVERLAP"]),
    Row::new(&[], K::InvalidConfig, Outcome::Keep, CONFIGURE).of_codes(&[
        "INVALID_ARGUMENT",
        "INVALID_PARAMETER_VALUE",
        "MALFORMED_REQUEST",
        "BAD_REQUEST",
        "FAILED_PRECONDITION",
        "INVALID_STATE",
        "OUT_OF_RANGE",
    ]),
    Row::new(
        &[],
        K::Conflict,
        Outcome::Keep,
        "use another name, or drop what exists under this one",
    )
    .of_codes(&["*ALREADY_EXISTS"]),
    Row::new(&[], K::NotFound, Outcome::Keep, MISSING)
        .of_codes(&["*NOT_FOUND", "*DOES_NOT_EXIST"]),
    Row::new(&[400..=400, 422..=422], K::InvalidConfig, Outcome::Keep, CONFIGURE),
    Row::new(&[401..=401], K::Unauthenticated, Outcome::Keep, CREDENTIALS),
    Row::new(
        &[407..=407],
        K::Unauthenticated,
        Outcome::Keep,
        "give the proxy its user and password in HTTPS_PROXY or HTTP_PROXY, or name the host in NO_PROXY",
    ),
    Row::new(&[403..=403], K::PermissionDenied, Outcome::Keep, RIGHTS),
    Row::new(&[404..=404, 410..=410], K::NotFound, Outcome::Keep, MISSING),
    Row::new(&[408..=408, 504..=504], K::Timeout, Outcome::Resend, AGAIN),
    Row::new(&[409..=409], K::Locked, Outcome::Resend, AGAIN),
    Row::new(&[425..=425, 429..=429], K::Throttled, Outcome::Resend, THROTTLED),
    Row::new(&[405..=405, 411..=411, 421..=421], K::Unsupported, Outcome::Keep, ADDRESS),
    Row::new(
        &[300..=399],
        K::Unsupported,
        Outcome::Keep,
        "write the address the server redirects to",
    ),
    Row::new(&[501..=501, 505..=505], K::Unsupported, Outcome::Keep, VERSION),
    Row::new(&[500..=599], K::Unavailable, Outcome::Resend, AGAIN),
]);

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use trace_destination_testkit::check_page;

    #[test]
    fn the_documentation_prints_the_table() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/server.md");
        let no_status = [(
            "success, but no JSON",
            Outcome::Keep,
            "check the address: this is no Unity Catalog",
        )];
        let table = TABLE.markdown(&no_status, super::super::answer::transport_mend);
        if let Err(differs) = check_page(&page, "answers of unity-catalog", &table) {
            panic!("{differs}");
        }
    }

    #[test]
    fn codes_count_before_statuses() {
        use Outcome::{Keep, Resend};
        #[rustfmt::skip]
        let table = [
            (404, Some("TABLE_NOT_FOUND"), K::NotFound, Keep),
            (404, Some("SCHEMA_DOES_NOT_EXIST"), K::NotFound, Keep),
            (400, Some("CATALOG_NOT_FOUND"), K::NotFound, Keep),
            (400, Some("TABLE_ALREADY_EXISTS"), K::Conflict, Keep),
            (409, Some("ALREADY_EXISTS"), K::Conflict, Keep),
            (400, Some("RESOURCE_ALREADY_EXISTS"), K::Conflict, Keep),
            (409, Some("ABORTED"), K::Locked, Resend),
            (400, Some("INVALID_ARGUMENT"), K::InvalidConfig, Keep),
            (400, Some("FAILED_PRECONDITION"), K::InvalidConfig, Keep),
            (400, Some("LOCATION_OVERLAP"), K::Conflict, Keep),
            (401, Some("UNAUTHENTICATED"), K::Unauthenticated, Keep),
            (403, Some("PERMISSION_DENIED"), K::PermissionDenied, Keep),
            (400, Some("EXTERNAL_ACCESS_DISABLED_ON_METASTORE"), K::PermissionDenied, Keep),
            (429, Some("RESOURCE_EXHAUSTED"), K::Throttled, Resend),
            (500, Some("INTERNAL"), K::Unavailable, Resend),
            (501, Some("UNIMPLEMENTED"), K::Unsupported, Keep),
            (503, Some("TEMPORARILY_UNAVAILABLE"), K::Unavailable, Resend),
            (400, Some("SOMETHING_NEW"), K::InvalidConfig, Keep),
            (500, Some("SOMETHING_NEW"), K::Unavailable, Resend),
            (301, None, K::Unsupported, Keep),
            (401, None, K::Unauthenticated, Keep),
            (403, None, K::PermissionDenied, Keep),
            (404, None, K::NotFound, Keep),
            (405, None, K::Unsupported, Keep),
            (407, None, K::Unauthenticated, Keep),
            (408, None, K::Timeout, Resend),
            (413, None, K::Unsupported, Keep),
            (415, None, K::Unsupported, Keep),
            (421, None, K::Unsupported, Keep),
            (425, None, K::Throttled, Resend),
            (429, None, K::Throttled, Resend),
            (502, None, K::Unavailable, Resend),
            (504, None, K::Timeout, Resend),
            (507, None, K::Unavailable, Resend),
        ];
        for (status, code, kind, outcome) in table {
            let row = TABLE.row(status, code).unwrap();
            assert_eq!(
                (row.kind, row.outcome),
                (kind, outcome),
                "{status} {code:?}"
            );
        }
        assert!(TABLE.row(204, Some("INTERNAL")).is_none());
    }

    /// No answer of a catalog is about spans.
    #[test]
    fn nothing_is_lost_to_a_bad_moment() {
        for status in 0..1000 {
            assert!(
                TABLE
                    .row(status, None)
                    .is_none_or(|row| !row.outcome.may_cost())
            );
        }
        assert!(TABLE.0.iter().all(|row| !row.outcome.may_cost()));
    }
}
