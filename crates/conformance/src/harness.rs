//! What a backend brings to be tested: fresh locations, and a way to read them back.

use crate::failure::Failure;
use async_trait::async_trait;
use std::fmt::Debug;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{
    Error, ErrorKind, Resource, Scope, SpanRecord, Template, TraceLocation, TraceUpdate,
};

/// A backend under test. It brings locations and a way to read them back, and no list of cases: the
/// suite chooses the cases by what [`Harness::declares`] returns.
///
/// The suite injects most faults itself, in a wrapper around the location ([`crate::Faulty`]), so a
/// harness with the three required methods is tested for delivery, isolation and budgets. To pass
/// the whole suite it also needs [`misconfigured`](Harness::misconfigured), with at least one wrong
/// configuration, and [`keeps`](Harness::keeps), unless the location stores spans completely. The
/// other methods add cases that only the real place can show.
///
/// All methods are called from several cases at once, and from runtimes of any flavour.
#[async_trait]
pub trait Harness: Debug + Send + Sync + 'static {
    /// The column in the report, e.g. `experiment`.
    fn name(&self) -> &str;

    /// A location that nobody has written to, in a store of its own if the backend has exclusive
    /// stores. `hint` is short, consists of letters, digits and `-`, and need not be unique.
    ///
    /// # Errors
    /// If the harness cannot make one; the case fails with the error.
    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure>;

    /// A location as from [`Harness::fresh_location`], in another store than each of `others`,
    /// which the same case got before. For harnesses with few real stores: they choose one here,
    /// and return in [`Harness::scale`] how many there are.
    ///
    /// # Errors
    /// As for [`Harness::fresh_location`].
    async fn apart(
        &self,
        hint: &str,
        others: &[Arc<dyn TraceLocation>],
    ) -> Result<Arc<dyn TraceLocation>, Failure> {
        let _ = others;
        self.fresh_location(hint).await
    }

    /// How much load the locations can take.
    fn scale(&self) -> Scale {
        Scale::default()
    }

    /// Everything stored at a location, in any order, read by a path that shares no code with
    /// the sink. A place that does not exist yet holds nothing.
    ///
    /// # Errors
    /// If what is there cannot be read; the case fails with it.
    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure>;

    /// What the harness can do beyond the required methods, and thus which further cases apply.
    fn declares(&self) -> Declares {
        Declares::default()
    }

    /// What this backend keeps of a span. Remove or rewrite what it documents not to store as
    /// given, and return the rest. The suite compares the result with what was read back, field by
    /// field, and lists in the report which fields were not compared. The default keeps everything.
    fn keeps(&self, span: StoredSpan) -> StoredSpan {
        span
    }

    /// Another fresh location in the same store as `location`. Needed if
    /// [`Capabilities::exclusive_store`](trace_destination_core::Capabilities) is set.
    ///
    /// # Errors
    /// As for [`Harness::fresh_location`].
    async fn sibling(
        &self,
        location: &dyn TraceLocation,
    ) -> Result<Arc<dyn TraceLocation>, Failure> {
        Err(Failure::new(format!(
            "no sibling of {location} was declared"
        )))
    }

    /// Another location, with another URI, that is the same place. Called only after `location` has
    /// been written, and only if declared.
    ///
    /// # Errors
    /// As for [`Harness::fresh_location`].
    async fn alias(&self, location: &dyn TraceLocation) -> Result<Arc<dyn TraceLocation>, Failure> {
        Err(Failure::new(format!(
            "no other name of {location} was declared"
        )))
    }

    /// Makes the real place fail, until [`RealFault::Heal`]. Called only for declared faults.
    ///
    /// # Errors
    /// If the fault cannot be inflicted.
    async fn inflict(&self, location: &dyn TraceLocation, fault: RealFault) -> Result<(), Failure> {
        Err(Failure::new(format!(
            "{fault:?} at {location} was not declared"
        )))
    }

    /// Wrong configurations, at least one. The suite checks that each is reported as an error of
    /// the expected kind, which names the location and a suggested fix, that locations beside it go
    /// on, and that nothing is left behind. The case `input::misconfigured_places` fails if the
    /// list is empty.
    ///
    /// # Errors
    /// If a wrong configuration cannot be set up.
    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        Ok(Vec::new())
    }

    /// The MLflow run that traces of a place can be linked to; `None` where the place knows its runs
    /// and the harness has made none.
    fn run_id(&self) -> Option<&str> {
        Some("run-1")
    }

    /// A template with one variable, `tenant`, in a store that nobody has written to. Needed if
    /// [`Declares::templates`] is set.
    ///
    /// # Errors
    /// As for [`Harness::fresh_location`].
    async fn template(&self) -> Result<Template, Failure> {
        Err(Failure::new("a template was not declared"))
    }

    /// A command that runs [`crate::writer::run`] against `location` in another process, which the
    /// suite kills while it writes. `None` if locations do not outlive their process.
    fn writer(&self, location: &dyn TraceLocation) -> Option<Command> {
        let _ = location;
        None
    }
}

/// How much load the suite puts on a backend: all of it on a stand-in, less on a slow real place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scale {
    /// Number of cases that run at once; 6. They wait for timers most of the time.
    pub jobs: usize,
    /// Number of stores that one case may use for one trace; 20. At least 3, for a destination with
    /// three locations.
    pub stores: usize,
    /// Divisor for heavy cases: they write, or kill, this part of the usual number; 1.
    pub part: usize,
    /// Factor for the time limits of a case and of each flush in it; 1.
    pub patience: u32,
}

impl Default for Scale {
    fn default() -> Self {
        Self {
            jobs: 6,
            stores: 20,
            part: 1,
            patience: 1,
        }
    }
}

impl Scale {
    /// The scale of a slow real place: so many cases at once, so many stores, the given part of the
    /// load, and five times the usual time limits.
    pub fn small(jobs: usize, stores: usize, part: usize) -> Self {
        Self {
            jobs: jobs.max(1),
            stores: stores.max(3),
            part: part.max(1),
            patience: 5,
        }
    }
}

/// What a harness can do beyond the required methods.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Declares {
    /// [`Harness::inflict`] can make the place fail in a way that passes.
    pub unavailable: bool,
    /// [`Harness::inflict`] can make the place fail until somebody repairs it.
    pub broken: bool,
    /// [`Harness::alias`] names a place in another way.
    pub alias: bool,
    /// Places have a home for trace-level values, and [`Harness::read_back`] returns
    /// [`Stored::updates`]. Elsewhere they are looked for on the root spans.
    pub trace_values: bool,
    /// [`Harness::read_back`] returns resource and instrumentation scope of each span.
    pub groups: bool,
    /// URIs of locations may have holes for names, and [`Harness::template`] returns a template.
    pub templates: bool,
}

impl Declares {
    /// Declares that [`Harness::inflict`] understands [`RealFault::Unavailable`].
    #[must_use]
    pub fn with_unavailable(mut self) -> Self {
        self.unavailable = true;
        self
    }

    /// Declares that [`Harness::inflict`] understands [`RealFault::Broken`].
    #[must_use]
    pub fn with_broken(mut self) -> Self {
        self.broken = true;
        self
    }

    /// Declares that [`Harness::alias`] returns a second name of a place.
    #[must_use]
    pub fn with_alias(mut self) -> Self {
        self.alias = true;
        self
    }

    /// Declares that trace-level values are kept and can be read back.
    #[must_use]
    pub fn with_trace_values(mut self) -> Self {
        self.trace_values = true;
        self
    }

    /// Declares that a template of this backend may have holes.
    #[must_use]
    pub fn with_templates(mut self) -> Self {
        self.templates = true;
        self
    }

    /// Declares that resource and instrumentation scope can be read back.
    #[must_use]
    pub fn with_groups(mut self) -> Self {
        self.groups = true;
        self
    }
}

/// A fault of the real place, rather than of the wrapper around its location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RealFault {
    /// Writes fail with an error that is worth retrying: locked, unreachable, throttled.
    Unavailable,
    /// Writes fail with an error that is not worth retrying: wrong file, table gone, permission
    /// revoked.
    Broken,
    /// Everything works again.
    Heal,
}

/// Everything that was read back from a location.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    /// Every stored span, one entry per row: a span stored twice appears twice.
    pub spans: Vec<StoredSpan>,
    /// Trace-level values, merged per trace; empty unless declared.
    pub updates: Vec<TraceUpdate>,
}

/// A span as it was read back.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredSpan {
    /// The span.
    pub span: SpanRecord,
    /// The resource that produced it; the default unless [`Declares::groups`].
    pub resource: Resource,
    /// The instrumentation scope that produced it; the default unless [`Declares::groups`].
    pub scope: Scope,
}

impl From<SpanRecord> for StoredSpan {
    fn from(span: SpanRecord) -> Self {
        Self {
            span,
            resource: Resource::default(),
            scope: Scope::default(),
        }
    }
}

/// A wrong configuration, and the error that it must lead to.
#[derive(Debug)]
pub struct Misconfigured {
    /// What is wrong, for the report, e.g. `a file that is not SQLite`.
    pub what: String,
    /// The location if its text can be parsed, otherwise the error of parsing it.
    pub location: Result<Arc<dyn TraceLocation>, Error>,
    /// The expected kind of the error.
    pub expected: ErrorKind,
    /// Whether the error is worth retrying, such as that of a locked file. A flush then waits for
    /// the location until its deadline; otherwise it returns at once, with the spans still pending.
    pub retried: bool,
    /// Called at the end. Returns an error if something was written or left behind.
    pub untouched: Untouched,
}

/// A check that nothing was written to a wrong place.
pub struct Untouched(Box<dyn Fn() -> Result<(), Failure> + Send + Sync>);

impl Untouched {
    /// A check by this function.
    pub fn new(check: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) -> Self {
        Self(Box::new(check))
    }

    /// No check, for a configuration that names no place that could have been touched.
    pub fn nowhere() -> Self {
        Self::new(|| Ok(()))
    }

    /// Runs the check.
    ///
    /// # Errors
    /// What was written or left behind.
    pub fn check(&self) -> Result<(), Failure> {
        (self.0)()
    }
}

impl Debug for Untouched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Untouched")
    }
}

/// Longest time a harness may take to make a location or to read one back.
pub const HARNESS_PATIENCE: Duration = Duration::from_secs(60);
