//! The HTTP client that the backends share. **Internal**: it is published because they depend on
//! it, and its API may change in any release. The backends re-export what applications need.
//!
//! Every answer of a server is hostile input, and every credential of an application is secret. The
//! rules that follow are implemented here, once:
//!
//! | rule | where |
//! |---|---|
//! | no answer is read beyond a bound; the length that a server claims is not used | [`Client::send`], [`Answer`] |
//! | times that a server gives are cut to a limit, and cannot overflow | [`retry_after`], [`token_life`] |
//! | a redirect is followed on the same origin only, with method and body unchanged | [`Client::send`] |
//! | credentials are sent to one origin, and can change while a location is open | [`Credentials`] |
//! | no secret is in an error, a log line or `Debug` | [`Secret`], [`said`], [`redacted`] |
//! | a host that hangs holds its own permits, not those of others | [`Pool`] |
//! | equal URIs are used with equal settings | [`Claims`] |
//! | one table defines the meaning of every status, for code and documentation | [`StatusTable`] |
//! | every failure becomes one public error | [`Fault`] |
//!
//! Each backend has its own table of statuses and suggested fixes.

mod address;
mod bounded;
mod claims;
mod client;
mod credentials;
mod failure;
mod fault;
mod file;
#[cfg(fuzzing)]
pub mod fuzzing;
mod oauth;
mod pool;
mod proxy;
mod secret;
mod status;
mod times;
mod tls;
mod weak;

pub use address::{encoded, is_loopback, origin, redacted, warn_of_plain};
pub use bounded::{Answer, error_code, json, message};
pub use claims::{Claims, InUse};
pub use client::{Client, Request};
pub use credentials::{Credential, CredentialProvider, Credentials};
pub use failure::{Failure, TokenFault, Transport};
pub use fault::{Fault, Mends, Refused};
pub use oauth::OAuthClient;
pub use pool::{Pool, Wire};
pub use proxy::check_proxy;
pub use secret::{Secret, said, scrub, shorten};
pub use status::{Outcome, Row, StatusTable};
pub use times::{LONGEST_DELAY, LONGEST_LIFE, USUAL_LIFE, retry_after, token_life};
pub use tls::Tls;
pub use weak::WeakMap;
