//! What a backend brings to be tested: fresh places, and a way to look into them from outside.

use crate::failure::Failure;
use async_trait::async_trait;
use std::fmt::Debug;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use trace_destination_core::{
    Error, ErrorKind, Resource, Scope, SpanRecord, Template, TraceLocation, TraceUpdate,
};

/// A backend under test. It brings places and eyes, never a list of cases: the suite chooses the
/// cases by what [`Harness::declares`] says.
///
/// The suite injects most faults itself, in a wrapper around the location ([`crate::Faulty`]), so
/// a harness with the three required methods is already tested for delivery, isolation and budget.
/// The other methods add what only the real place can show.
///
/// All methods are called from several cases at once, and from runtimes of any flavour.
#[async_trait]
pub trait Harness: Debug + Send + Sync + 'static {
    /// The column in the report, e.g. `experiment`.
    fn name(&self) -> &str;

    /// A location nobody has written to yet, in a store of its own where the backend has
    /// exclusive stores. `hint` is short, made of letters, digits and `-`, and need not be unique.
    ///
    /// # Errors
    /// Whatever keeps the harness from making one; the case fails with it.
    async fn fresh_location(&self, hint: &str) -> Result<Arc<dyn TraceLocation>, Failure>;

    /// A location as from [`Harness::fresh_location`], in another store than each of `others`, which
    /// the same case was given before. For harnesses that have few stores, all real: they choose
    /// the right one here, and say in [`Harness::scale`] how many there are.
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

    /// How much may be asked of the places.
    fn scale(&self) -> Scale {
        Scale::default()
    }

    /// Everything stored at a location, in any order, read by a path that shares no code with
    /// the sink. A place that does not exist yet holds nothing.
    ///
    /// # Errors
    /// If what is there cannot be read; the case fails with it.
    async fn read_back(&self, location: &dyn TraceLocation) -> Result<Stored, Failure>;

    /// What else the harness can do, and so which further cases apply.
    fn declares(&self) -> Declares {
        Declares::default()
    }

    /// What this backend keeps of a span: takes away or rewrites what it documents not to store
    /// as given. The suite compares the result with what was read back, field by field, and lists
    /// in the report which fields were not compared.
    fn keeps(&self, span: StoredSpan) -> StoredSpan {
        span
    }

    /// Another fresh location in the same store as `location`; needed where
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

    /// Another location, with another URI, that is the same place; asked for only after
    /// `location` has been written, and only where [`Harness::declares`] says so.
    ///
    /// # Errors
    /// As for [`Harness::fresh_location`].
    async fn alias(&self, location: &dyn TraceLocation) -> Result<Arc<dyn TraceLocation>, Failure> {
        Err(Failure::new(format!(
            "no other name of {location} was declared"
        )))
    }

    /// Does something to the real place, until [`RealFault::Heal`]. Only faults that
    /// [`Harness::declares`] names are asked for.
    ///
    /// # Errors
    /// If the fault cannot be inflicted.
    async fn inflict(&self, location: &dyn TraceLocation, fault: RealFault) -> Result<(), Failure> {
        Err(Failure::new(format!(
            "{fault:?} at {location} was not declared"
        )))
    }

    /// Wrong configurations, each of which must be reported as an error that says what to do.
    ///
    /// # Errors
    /// If a wrong place cannot be set up.
    async fn misconfigured(&self) -> Result<Vec<Misconfigured>, Failure> {
        Ok(Vec::new())
    }

    /// The MLflow run that traces of a place can be linked to; `None` where the place knows its runs
    /// and the harness has made none.
    fn run_id(&self) -> Option<&str> {
        Some("run-1")
    }

    /// A template with one variable, `tenant`, in a store nobody has written to; needed where
    /// [`Declares::templates`] is set.
    ///
    /// # Errors
    /// As for [`Harness::fresh_location`].
    async fn template(&self) -> Result<Template, Failure> {
        Err(Failure::new("a template was not declared"))
    }

    /// A command that runs [`crate::writer::run`] against `location` in another process, to be
    /// killed in the middle. `None` where places do not outlive their process.
    fn writer(&self, location: &dyn TraceLocation) -> Option<Command> {
        let _ = location;
        None
    }
}

/// How much the suite asks of a backend: all of it of a stand-in, less of a real place that is slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Scale {
    /// Cases under way at once; 6. Most of them wait for timers most of the time.
    pub jobs: usize,
    /// Stores one case may use for one trace; 20. Never below 3: a set of three legs has to work.
    pub stores: usize,
    /// Heavy cases write, or kill, this part of what they usually do; 1, which is all of it.
    pub part: usize,
    /// A case, and each flush in it, may take so many times as long as usual; 1.
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
    /// A place that is real and slow: this many stores, the given part of the load, and five times
    /// the patience.
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
    /// [`Harness::inflict`] can make the place fail until somebody mends it.
    pub broken: bool,
    /// [`Harness::alias`] names a place in another way.
    pub alias: bool,
    /// Places have a home for trace-level values, and [`Harness::read_back`] returns
    /// [`Stored::updates`]. Elsewhere they are looked for on the root spans.
    pub trace_values: bool,
    /// Resource and scope of a span come back with it.
    pub groups: bool,
    /// Names may stand in the URIs of places, and [`Harness::template`] brings a template.
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

    /// Declares that a place can be named in two ways.
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

    /// Declares that resource and scope can be read back.
    #[must_use]
    pub fn with_groups(mut self) -> Self {
        self.groups = true;
        self
    }
}

/// Something done to the real place rather than to its wrapper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RealFault {
    /// Writes fail with an error that is worth retrying: locked, unreachable, throttled.
    Unavailable,
    /// Writes fail with an error that is not: wrong file, table gone, permission taken away.
    Broken,
    /// Everything works again.
    Heal,
}

/// What was found at a location.
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
    /// The entity that produced it; the default unless [`Declares::groups`].
    pub resource: Resource,
    /// The instrumentation that produced it; the default unless [`Declares::groups`].
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

/// A wrong configuration and what must come of it.
#[derive(Debug)]
pub struct Misconfigured {
    /// What is wrong, e.g. `a file that is not SQLite`.
    pub what: String,
    /// The location, where its text can be parsed; otherwise the error of parsing it.
    pub location: Result<Arc<dyn TraceLocation>, Error>,
    /// The kind of error that must come of it.
    pub expected: ErrorKind,
    /// Whether the pipeline should go on trying (a locked file) or fail the spans at once.
    pub retried: bool,
    /// Called afterwards; an error means that something was written or left behind.
    pub untouched: Untouched,
}

/// A check that nothing was written to a wrong place.
pub struct Untouched(Box<dyn Fn() -> Result<(), Failure> + Send + Sync>);

impl Untouched {
    /// A check of any kind.
    pub fn new(check: impl Fn() -> Result<(), Failure> + Send + Sync + 'static) -> Self {
        Self(Box::new(check))
    }

    /// Nothing to check: there is no place that could have been touched.
    pub fn nowhere() -> Self {
        Self::new(|| Ok(()))
    }

    /// Runs the check.
    ///
    /// # Errors
    /// What was found.
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
