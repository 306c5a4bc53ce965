//! The HTTP client that the backends share. **Internal**: published because they depend on it, with
//! an API that may change in any release. What applications need is re-exported by the backends.
//!
//! Everything a server answers is hostile input, and everything an application confides is secret.
//! The rules that follow from it are kept here, once:
//!
//! | rule | where |
//! |---|---|
//! | no answer is read beyond a bound; no length a server claims is believed | [`Client::send`], [`Answer`] |
//! | no time a server gives is taken beyond a cap, and none overflows | [`retry_after`], [`token_life`] |
//! | a redirect is followed on the same origin only, with method and body unchanged | [`Client::send`] |
//! | credentials are sent to one origin, and can change beneath an open location | [`Credentials`] |
//! | no secret is in an error, a log line or `Debug` | [`Secret`], [`said`], [`redacted`] |
//! | a host that hangs holds its own permits and nobody else's | [`Pool`] |
//! | equal URIs are reached in one way | [`Claims`] |
//! | a table gives every status its meaning, to code and documentation alike | [`StatusTable`] |
//! | a failure becomes one public error, whoever met it | [`Fault`] |
//!
//! Which status means what, and what mends it, stands in a table of each backend's own.

mod address;
mod bounded;
mod claims;
mod client;
mod credentials;
mod failure;
mod fault;
mod file;
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
pub use failure::{Failure, Transport};
pub use fault::{Fault, Mends, Refused};
pub use oauth::{OAuthClient, TokenFault};
pub use pool::{Pool, Wire};
pub use proxy::check_proxy;
pub use secret::{Secret, said, scrub, shorten};
pub use status::{Outcome, Row, StatusTable};
pub use times::{LONGEST_DELAY, LONGEST_LIFE, USUAL_LIFE, retry_after, token_life};
pub use tls::Tls;
pub use weak::WeakMap;
