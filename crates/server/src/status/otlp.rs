//! OTLP/HTTP. The specification lists 429, 502, 503 and 504 as the answers after which the same
//! request may be sent again, since an endpoint has no way to recognise a span it has already.
//! Here the others are of three kinds. Those that say that the request was not processed (a
//! redirect, missing rights, a wrong path) are about the place: nothing of the request is stored
//! there, so asking again doubles nothing. Those that are about the request condemn spans, once each
//! was refused alone. And a 500 may come after a part was stored: see [`Outcome::Doubt`].

use trace_destination_core::ErrorKind as K;
use trace_destination_http::{Outcome, Row, StatusTable};

pub(super) const TABLE: StatusTable = StatusTable(&[
    Row::new(
        &[429..=429],
        K::Throttled,
        Outcome::Resend,
        "it is sent again when the endpoint allows; give it more room, or send less",
    ),
    Row::new(
        &[502..=502, 503..=503],
        K::Unavailable,
        Outcome::Resend,
        "it is sent again; look into the endpoint's log if it stays",
    ),
    Row::new(
        &[504..=504],
        K::Timeout,
        Outcome::Resend,
        "it is sent again; look into the endpoint's log if it stays",
    ),
    Row::new(
        &[400..=400, 422..=422],
        K::InvalidSpan,
        Outcome::Apart,
        "correct what the endpoint objects to in the span's attributes",
    ),
    Row::new(
        &[413..=413],
        K::InvalidSpan,
        Outcome::Apart,
        "make the span smaller, or raise the limit that the endpoint or a proxy has for a request",
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
        "check host and path of the address; there is no endpoint for traces there",
    ),
    Row::new(
        &[408..=408],
        K::Timeout,
        Outcome::Keep,
        "the endpoint gave up waiting for the request; check the network, and the proxies before it",
    ),
    Row::new(
        &[425..=425],
        K::Throttled,
        Outcome::Keep,
        "the endpoint takes no early data; check the proxies before it",
    ),
    Row::new(
        &[406..=406, 415..=415],
        K::Unsupported,
        Outcome::Keep,
        "check that it takes OTLP in protobuf, and the proxies before it; it was tried without compression too",
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
    Row::new(
        &[500..=500],
        K::Unavailable,
        Outcome::Doubt,
        "look into the endpoint's log; an empty request is answered in the same way",
    ),
    Row::new(
        &[507..=507],
        K::StorageFull,
        Outcome::Keep,
        "make room on the endpoint's disk",
    ),
    Row::new(
        &[501..=501, 505..=505],
        K::Unsupported,
        Outcome::Keep,
        "check the endpoint's version and the address",
    ),
    Row::new(
        &[500..=599],
        K::Unavailable,
        Outcome::Keep,
        "look into the endpoint's log, and those of the proxies before it",
    ),
]);
