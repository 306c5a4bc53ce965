//! Whether a destination can be written, asked before there is anything to write.

use crate::clock::later;
use crate::contain::caught;
use crate::delivery_thread;
use crate::destination::Destination;
use crate::error::{Error, ErrorKind};
use crate::lane;
use crate::location::TraceLocation;
use crate::process::PerProcess;
use crate::uri::LocationUri;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock, mpsc};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::time::timeout_at;

/// How long a check may take unless it is told otherwise: as a flush.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long after its deadline a location is given up that blocks its thread.
const GRACE: Duration = Duration::from_millis(250);
/// Threads for what checked locations spawn.
const WORKERS: usize = 2;

const OPERATION: &str = "check location";

/// Where checks run. It stays for as long as the process does: what is shared with a running
/// pipeline, such as the queue of a file, may be served from here for a while.
static RUNTIME: PerProcess<OnceLock<Runtime>> = PerProcess::new();

/// A check under way, or about to be: await it, or [`wait`](Check::wait) for it. Made by
/// [`Destination::check`].
///
/// It begins when it is first polled, needs no runtime of its caller, and is over shortly after its
/// timeout, whatever a location does. Dropping it gives up the report; what has begun ends by the
/// timeout.
#[must_use = "await it or call `wait`: nothing is checked otherwise"]
pub struct Check {
    legs: Vec<Leg>,
    timeout: Duration,
    begun: Option<oneshot::Receiver<CheckReport>>,
}

type Leg = (Arc<dyn TraceLocation>, LocationUri);

impl Destination {
    /// Asks each location whether it can be written: opens its place, proves the credentials where
    /// that takes a request, and closes it again. No span is written. For the start of a program,
    /// where a wrong configuration is best told.
    ///
    /// What is missing and is to be created, as an experiment, a table or a file, is created, as
    /// the first write would. A pipeline that writes to the same place meanwhile goes on.
    ///
    /// ```
    /// # use trace_destination_core::{Destination, MemoryLocation};
    /// let destination = Destination::new(MemoryLocation::new("checked"));
    /// let report = destination.check().wait();
    /// assert!(report.is_ok(), "{report}");
    /// ```
    pub fn check(&self) -> Check {
        let legs = self.legs();
        let legs = legs.map(|legs| legs.locations().iter().cloned().zip(legs.uris().to_vec()));
        Check {
            legs: legs.into_iter().flatten().collect(),
            timeout: TIMEOUT,
            begun: None,
        }
    }
}

impl Check {
    /// Longest time of the whole check; 30 s.
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Blocks this thread until there is a report. Works inside a runtime too.
    pub fn wait(mut self) -> CheckReport {
        let legs = std::mem::take(&mut self.legs);
        let unanswered = without_answer(&legs);
        let (give, given) = mpsc::sync_channel(1);
        begin(legs, self.timeout, move |report| {
            let _ = give.send(report);
        });
        let patience = self.timeout.saturating_add(2 * GRACE);
        given.recv_timeout(patience).unwrap_or(unanswered)
    }
}

impl Future for Check {
    type Output = CheckReport;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CheckReport> {
        let this = &mut *self;
        let given = this.begun.get_or_insert_with(|| {
            let (give, given) = oneshot::channel();
            begin(this.legs.clone(), this.timeout, move |report| {
                let _ = give.send(report);
            });
            given
        });
        let polled = Pin::new(given).poll(cx);
        polled.map(|report| report.unwrap_or_else(|_| without_answer(&this.legs)))
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("locations", &uris(&self.legs))
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// What a [`Check`] found.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CheckReport {
    /// Every location of the destination, sorted by URI; none for
    /// [`discard`](Destination::discard) and [`unset`](Destination::unset).
    pub locations: Vec<LocationCheck>,
}

/// What a [`Check`] found at one location.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LocationCheck {
    /// The location.
    pub uri: LocationUri,
    /// What would keep spans from being stored now. [`Error::retry`] tells whether the pipeline
    /// would try again by itself.
    pub error: Option<Error>,
}

impl CheckReport {
    /// Whether every location can be written.
    pub fn is_ok(&self) -> bool {
        self.errors().next().is_none()
    }

    /// What is wrong, by location.
    pub fn errors(&self) -> impl Iterator<Item = &Error> {
        self.locations.iter().filter_map(|l| l.error.as_ref())
    }

    /// The first error, for `?`.
    ///
    /// # Errors
    /// What is wrong at the first location at which something is.
    pub fn into_result(self) -> Result<(), Error> {
        match self.locations.into_iter().find_map(|l| l.error) {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, location) in self.locations.iter().enumerate() {
            let end = if i > 0 { "\n" } else { "" };
            match &location.error {
                Some(error) => write!(f, "{end}{error}")?,
                None => write!(f, "{end}{}: ready", location.uri)?,
            }
        }
        Ok(())
    }
}

fn uris(legs: &[Leg]) -> Vec<&LocationUri> {
    legs.iter().map(|(_, uri)| uri).collect()
}

fn report<'a>(found: impl IntoIterator<Item = (&'a LocationUri, Option<Error>)>) -> CheckReport {
    let locations = found.into_iter().map(|(uri, error)| LocationCheck {
        error: error.map(|error| match error.location() {
            Some(_) => error,
            None => error.at(uri),
        }),
        uri: uri.clone(),
    });
    CheckReport {
        locations: locations.collect(),
    }
}

fn without_answer(legs: &[Leg]) -> CheckReport {
    let error = Error::new(
        ErrorKind::Internal,
        OPERATION,
        "the check ended without an answer",
    )
    .mend("report this defect");
    report(legs.iter().map(|(_, uri)| (uri, Some(error.clone()))))
}

fn no_runtime(cause: String) -> Error {
    Error::new(ErrorKind::Internal, OPERATION, cause)
        .mend("see the limits of this process for threads and memory")
}

/// Starts a check; `tell` gets the report.
fn begin(legs: Vec<Leg>, timeout: Duration, tell: impl FnOnce(CheckReport) + Send + 'static) {
    let place = RUNTIME.get();
    let failed = |error: Error| report(legs.iter().map(|(_, uri)| (uri, Some(error.clone()))));
    let runtime = match runtime(&place.1) {
        Ok(runtime) => runtime,
        Err(error) => return tell(failed(error)),
    };
    let deadline = later(Instant::now(), timeout);
    let check = |(location, uri): Leg| {
        let location = lane::contained(location, &uri);
        let handle = runtime.handle().clone();
        // A thread for each: a location may block it.
        let running = runtime.spawn_blocking(move || {
            handle.block_on(timeout_at(deadline.into(), lane::check(&*location)))
        });
        (uri, running)
    };
    let uris: Vec<LocationUri> = legs.iter().map(|(_, uri)| uri.clone()).collect();
    let started = caught(|| legs.into_iter().map(check).collect::<Vec<_>>());
    let running = match started {
        Ok(running) => running,
        Err(panic) => {
            let error = no_runtime(format!("no thread could be started: {panic}"));
            return tell(report(uris.iter().map(|uri| (uri, Some(error.clone())))));
        }
    };
    runtime.spawn(async move {
        let given_up = later(deadline, GRACE);
        let mut found = Vec::new();
        for (uri, running) in running {
            let error = match timeout_at(given_up.into(), running).await {
                Ok(Ok(Ok(Ok(())))) => None,
                Ok(Ok(Ok(Err(error)))) => Some(error),
                Ok(Err(ended)) => Some(no_runtime(ended.to_string())),
                Ok(Ok(Err(_))) | Err(_) => Some(
                    Error::new(
                        ErrorKind::Timeout,
                        OPERATION,
                        format!("there was no answer within {timeout:?}"),
                    )
                    .mend("see whether the place is reachable from here, or give the check longer"),
                ),
            };
            found.push((uri, error));
        }
        tell(report(
            found.iter().map(|(uri, error)| (uri, error.clone())),
        ));
    });
}

fn runtime(place: &OnceLock<Runtime>) -> Result<&Runtime, Error> {
    if let Some(runtime) = place.get() {
        return Ok(runtime);
    }
    let made = caught(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .thread_name("trace-check")
            .on_thread_start(delivery_thread::enter)
            .enable_all()
            .build()
    });
    match made {
        Ok(Ok(runtime)) => {
            // Another thread may have been first; its runtime counts, and this one ends unused.
            if let Err(unused) = place.set(runtime) {
                unused.shutdown_background();
            }
        }
        Ok(Err(error)) => {
            return Err(no_runtime("no runtime could be started".into()).caused_by(error));
        }
        Err(panic) => return Err(no_runtime(format!("no runtime could be started: {panic}"))),
    }
    place
        .get()
        .ok_or_else(|| no_runtime("no runtime could be started".into()))
}
