//! The process of the suite that gets killed: writes to a real server.

use clap::Args;
use std::sync::Arc;
use trace_destination::LocationUri;
use trace_destination_conformance::writer;
use trace_destination_server::ServerLocation;

/// `live-server-writer`: used by the suite on real servers, not by people. Credentials come
/// from the environment.
#[derive(Args, Debug)]
pub(crate) struct LiveServerWriter {
    /// Where to write.
    #[arg(long)]
    uri: LocationUri,
}

/// Writes until it is killed.
pub(crate) fn run(options: &LiveServerWriter) -> Result<(), String> {
    let location = ServerLocation::from_uri(&options.uri).map_err(|e| e.to_string())?;
    writer::run(Arc::new(location)).map_err(|f| f.to_string())
}
