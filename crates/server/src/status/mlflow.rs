//! MLflow's tracking server (3.17.2), and Databricks. A span that is sent again replaces itself there,
//! so more may be sent again than OTLP allows.

use trace_destination_core::ErrorKind as K;
use trace_destination_http::{Outcome, Row, StatusTable};

pub(super) const TABLE: StatusTable = StatusTable(&[
    // What it answers with a 500 that no repetition mends.
    Row::new(
        &[500..=500],
        K::InvalidConfig,
        Outcome::Keep,
        "leave out what the server does not have, such as a workspace, or turn it on there",
    )
    .of_codes(&["FEATURE_DISABLED"]),
    Row::new(
        &[408..=408, 504..=504],
        K::Timeout,
        Outcome::Resend,
        "it is sent again; look into the server's log if it stays",
    ),
    // Another writer was in the way (ABORTED, RESOURCE_CONFLICT).
    Row::new(
        &[409..=409],
        K::Locked,
        Outcome::Resend,
        "it is sent again; look into the server's log if it stays",
    ),
    Row::new(
        &[425..=425, 429..=429],
        K::Throttled,
        Outcome::Resend,
        "it is sent again when the server allows; give it more room, or send less",
    ),
    Row::new(
        &[507..=507],
        K::StorageFull,
        Outcome::Resend,
        "make room on the server's disk; it is sent again",
    ),
    Row::new(
        &[400..=400, 422..=422],
        K::InvalidSpan,
        Outcome::Apart,
        "correct what the server objects to in the span's attributes",
    ),
    Row::new(
        &[413..=413],
        K::InvalidSpan,
        Outcome::Apart,
        "make the span smaller, or raise the limit that the server or a proxy has for a request",
    ),
    Row::new(
        &[401..=401],
        K::Unauthenticated,
        Outcome::Keep,
        "give credentials, or correct or renew those that were not accepted",
    ),
    Row::new(
        &[407..=407],
        K::Unauthenticated,
        Outcome::Keep,
        "give the proxy its user and password in HTTPS_PROXY or HTTP_PROXY, or name the host in NO_PROXY",
    ),
    Row::new(
        &[403..=403],
        K::PermissionDenied,
        Outcome::Keep,
        "give this user the right to write there, or use other credentials",
    ),
    Row::new(
        &[404..=404, 410..=410],
        K::NotFound,
        Outcome::Keep,
        "check host and path of the address; the experiment, table or endpoint is not there",
    ),
    Row::new(
        &[406..=406, 415..=415],
        K::Unsupported,
        Outcome::Keep,
        "check that the address is the server's, and the proxies before it; it was tried without compression too",
    ),
    Row::new(
        &[405..=405, 411..=411, 421..=421],
        K::Unsupported,
        Outcome::Keep,
        "check host, port and path of the address, and the proxies before it",
    ),
    Row::new(
        &[300..=399],
        K::Unsupported,
        Outcome::Keep,
        "write the address the server redirects to",
    ),
    // A span the server stumbles over is answered so too, every time.
    Row::new(
        &[500..=500],
        K::Unavailable,
        Outcome::ResendThenApart,
        "it is sent again; look into the server's log if it stays",
    ),
    Row::new(
        &[501..=501, 505..=505],
        K::Unsupported,
        Outcome::Keep,
        "check the server's version and the address",
    ),
    Row::new(
        &[500..=599],
        K::Unavailable,
        Outcome::Resend,
        "it is sent again; look into the server's log if it stays",
    ),
]);
