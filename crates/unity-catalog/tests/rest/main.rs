//! Tables governed by a Unity Catalog server, which here is the strict stand-in of this process.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

#[path = "../catalog_server/mod.rs"]
mod catalog_server;
#[path = "../lake/mod.rs"]
#[allow(unreachable_pub, reason = "other programs use it too")]
mod lake;

mod annotations;
mod auth;
mod bad_moment;
mod create;
mod errors;
mod support;
