//! Runs the service until it is told to end, and fails if a trace was lost.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is a program")]

use std::error::Error;
use std::process::ExitCode;
use tokio::net::TcpListener;
use trace_destination::{FlushReport, Pipeline, Template};

/// Where it listens, and where the traces of a tenant go. A file of this folder, unless set.
const ADDRESS: (&str, &str) = ("ADDRESS", "127.0.0.1:8080");
const TRACES: (&str, &str) = ("TRACES", "sqlite:///service.db?experiment_name={tenant}");

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(report) => {
            println!("{report}");
            match report.all_stored() {
                true => ExitCode::SUCCESS,
                false => ExitCode::FAILURE,
            }
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<FlushReport, Box<dyn Error + Send + Sync>> {
    let traces = Template::new(&setting(TRACES)?)?;
    // Only what a request says about its tenant counts; what has no tenant yet waits for one.
    let pipeline = Pipeline::builder().strict().build()?;
    example_service::subscribe(&pipeline)?;
    let listener = TcpListener::bind(setting(ADDRESS)?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    example_service::run(listener, pipeline, traces, told_to_end()).await
}

fn setting((name, default): (&str, &str)) -> Result<String, std::env::VarError> {
    match std::env::var(name) {
        Err(std::env::VarError::NotPresent) => Ok(default.to_owned()),
        given => given,
    }
}

/// Ctrl-C, or what an orchestrator sends.
async fn told_to_end() {
    let interrupted = async {
        if let Err(error) = tokio::signal::ctrl_c().await {
            eprintln!("cannot wait for Ctrl-C: {error}");
            std::future::pending().await
        }
    };
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        match signal(SignalKind::terminate()) {
            Ok(mut terminated) => {
                tokio::select! {
                    () = interrupted => {}
                    _ = terminated.recv() => {}
                }
            }
            Err(error) => {
                eprintln!("cannot wait for SIGTERM: {error}");
                interrupted.await;
            }
        }
    }
    #[cfg(not(unix))]
    interrupted.await;
}
