//! A wrapper around a location that a test controls: it fails, stalls, blocks or refuses on
//! command, passes everything else on, and records its calls.

use async_trait::async_trait;
use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use trace_destination_core::{
    BatchEncoder, BatchId, Capabilities, Error, ErrorKind, LocationUri, Refusal, SpanGroup,
    TraceBatch, TraceLocation, TraceSink, Written,
};

/// What a [`Faulty`] location does with one call.
#[derive(Clone, Debug)]
pub enum Act {
    /// Passes the call on.
    Pass,
    /// Fails before anything is stored.
    Fail(Error),
    /// Stores the batch and fails afterwards: the outcome is unknown to the caller.
    StoreThenFail(Error),
    /// Panics.
    Panic,
    /// Waits, leaving its thread free, until [`Control::open_gate`]; then passes the call on.
    Wait,
    /// Blocks its thread until [`Control::open_gate`]; then passes the call on.
    Block,
    /// Refuses the spans that carry the attribute [`REFUSE`], and passes the others on.
    RefuseMarked,
}

/// Spans with this attribute are refused under [`Act::RefuseMarked`].
pub const REFUSE: &str = "conformance.refuse";

/// One finished call of `write`.
#[derive(Clone, Debug)]
pub struct Call {
    /// Identity of the batch.
    pub id: BatchId,
    /// Number of spans in it.
    pub spans: usize,
    /// When the call began.
    pub began: Instant,
    /// When it returned.
    pub ended: Instant,
    /// Whether it returned `Ok`.
    pub ok: bool,
}

/// A wrapper around a location that misbehaves on command. `Display` and the URI are those of the
/// location inside.
#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn TraceLocation>,
    control: Control,
}

/// Controls a [`Faulty`] location. Cheap to clone.
#[derive(Clone)]
pub struct Control(Arc<Shared>);

type Hook = Arc<dyn Fn(&TraceBatch) + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    blocked: Condvar,
    gate: tokio::sync::watch::Sender<bool>,
}

struct State {
    /// Acts for the next calls of `write`, before `then`.
    script: VecDeque<Act>,
    then: Act,
    open_error: Option<Error>,
    hook: Option<Hook>,
    calls: Vec<Call>,
    waiting: usize,
    writing: usize,
    most_writing: usize,
    unknown_outcomes: usize,
    sent: usize,
    opens: usize,
    closes: usize,
}

impl Faulty {
    /// Wraps a location. Until told otherwise, the wrapper passes everything on.
    pub fn new(inner: Arc<dyn TraceLocation>) -> Self {
        Self {
            inner,
            control: Control(Arc::new(Shared {
                state: Mutex::new(State {
                    script: VecDeque::new(),
                    then: Act::Pass,
                    open_error: None,
                    hook: None,
                    calls: Vec::new(),
                    waiting: 0,
                    writing: 0,
                    most_writing: 0,
                    unknown_outcomes: 0,
                    sent: 0,
                    opens: 0,
                    closes: 0,
                }),
                blocked: Condvar::new(),
                gate: tokio::sync::watch::channel(false).0,
            })),
        }
    }

    /// The handle that controls it.
    pub fn control(&self) -> &Control {
        &self.control
    }
}

impl Control {
    fn state(&self) -> MutexGuard<'_, State> {
        // A sink may panic on purpose, but never while it holds this lock.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what every later call of `write` does.
    pub fn set(&self, act: Act) {
        let mut state = self.state();
        state.script.clear();
        state.then = act;
    }

    /// Sets what the next calls of `write` do, one act each; then the act of [`set`](Self::set)
    /// applies again.
    pub fn script(&self, acts: impl IntoIterator<Item = Act>) {
        self.state().script.extend(acts);
    }

    /// Makes every later `open` fail, or succeed again.
    pub fn set_open_error(&self, error: Option<Error>) {
        self.state().open_error = error;
    }

    /// Sets a function that is called at the start of every `write`, on the thread that runs it.
    pub fn set_hook(&self, hook: impl Fn(&TraceBatch) + Send + Sync + 'static) {
        self.state().hook = Some(Arc::new(hook));
    }

    /// Lets all calls that wait or block continue, and all later ones.
    pub fn open_gate(&self) {
        {
            let _state = self.state();
            self.0.gate.send_replace(true);
        }
        self.0.blocked.notify_all();
    }

    /// Makes calls wait again.
    pub fn close_gate(&self) {
        self.0.gate.send_replace(false);
    }

    /// The finished calls so far.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Number of spans in calls that returned `Ok`, without refused ones.
    pub fn sent(&self) -> usize {
        self.state().sent
    }

    /// Number of calls that wait or block at this moment.
    pub fn waiting(&self) -> usize {
        self.state().waiting
    }

    /// The largest number of concurrent calls so far.
    pub fn most_writing(&self) -> usize {
        self.state().most_writing
    }

    /// Number of calls that stored their batch and then returned an error.
    pub fn unknown_outcomes(&self) -> usize {
        self.state().unknown_outcomes
    }

    /// How often the location was opened.
    pub fn opens(&self) -> usize {
        self.state().opens
    }

    /// How often a sink was closed.
    pub fn closes(&self) -> usize {
        self.state().closes
    }

    async fn wait(&self) {
        self.state().waiting += 1;
        let waiting = Leave(self);
        let mut gate = self.0.gate.subscribe();
        // The sender lives in `self`, so this ends only when the gate opens.
        let _ = gate.wait_for(|open| *open).await;
        drop(waiting);
    }

    fn block(&self) {
        let mut state = self.state();
        state.waiting += 1;
        while !*self.0.gate.borrow() {
            state = self
                .0
                .blocked
                .wait_timeout(state, Duration::from_millis(50))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        state.waiting -= 1;
    }
}

/// Uncounts a waiting call when dropped, also if its future is cancelled.
struct Leave<'a>(&'a Control);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.state().waiting -= 1;
    }
}

/// Uncounts a call when dropped, also if its future is cancelled or it panics.
struct Writing<'a> {
    control: &'a Control,
    id: BatchId,
    spans: usize,
    began: Instant,
    ok: bool,
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        let mut state = self.control.state();
        state.writing -= 1;
        state.calls.push(Call {
            id: self.id,
            spans: self.spans,
            began: self.began,
            ended: Instant::now(),
            ok: self.ok,
        });
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({:?})", self.inner)
    }
}

impl fmt::Debug for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Control")
            .field("then", &state.then)
            .field("calls", &state.calls.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TraceLocation for Faulty {
    fn uri(&self) -> &LocationUri {
        self.inner.uri()
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        // The wrapper may be told to block, whatever the location inside declares.
        capabilities.blocking = true;
        capabilities
    }

    async fn open(&self) -> Result<Box<dyn TraceSink>, Error> {
        let error = {
            let mut state = self.control.state();
            state.opens += 1;
            state.open_error.clone()
        };
        if let Some(error) = error {
            return Err(error.at(self.uri()));
        }
        Ok(Box::new(FaultySink {
            inner: self.inner.open().await?,
            uri: self.uri().clone(),
            control: self.control.clone(),
        }))
    }

    async fn check(&self) -> Result<(), Error> {
        let error = self.control.state().open_error.clone();
        match error {
            Some(error) => Err(error.at(self.uri())),
            None => self.inner.check().await,
        }
    }
}

struct FaultySink {
    inner: Box<dyn TraceSink>,
    uri: LocationUri,
    control: Control,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl TraceSink for FaultySink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let (act, hook) = {
            let mut state = self.control.state();
            state.writing += 1;
            state.most_writing = state.most_writing.max(state.writing);
            let act = state.script.pop_front();
            (
                act.unwrap_or_else(|| state.then.clone()),
                state.hook.clone(),
            )
        };
        let mut writing = Writing {
            control: &self.control,
            id: batch.id(),
            spans: batch.span_count(),
            began: Instant::now(),
            ok: false,
        };
        if let Some(hook) = hook {
            hook(batch);
        }
        let result = match act {
            Act::Pass => self.inner.write(batch).await,
            Act::Fail(error) => Err(error.at(&self.uri)),
            Act::StoreThenFail(error) => match self.inner.write(batch).await {
                Ok(_) => {
                    self.control.state().unknown_outcomes += 1;
                    Err(error.at(&self.uri))
                }
                Err(real) => Err(real),
            },
            Act::Panic => panic!("this sink panics on purpose"),
            Act::Wait => {
                self.control.wait().await;
                self.inner.write(batch).await
            }
            Act::Block => {
                self.control.block();
                self.inner.write(batch).await
            }
            Act::RefuseMarked => self.write_unmarked(batch).await,
        };
        if let Ok(written) = &result {
            writing.ok = true;
            self.control.state().sent += batch.span_count() - written.refused.len();
        }
        result
    }

    fn encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        self.inner.encoder()
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.control.state().closes += 1;
        self.inner.close().await
    }
}

impl FaultySink {
    async fn write_unmarked(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let marked = |span: &trace_destination_core::Span| span.attributes().get(REFUSE).is_some();
        let refused: Vec<usize> = (0..)
            .zip(batch.spans())
            .filter_map(|(i, span)| marked(span).then_some(i))
            .collect();
        // Positions of the spans passed on, so that the inner sink's refusals keep their meaning.
        let passed: Vec<usize> = (0..batch.span_count())
            .filter(|i| !refused.contains(i))
            .collect();
        let groups: Vec<SpanGroup> = batch
            .groups()
            .iter()
            .map(|group| SpanGroup {
                resource: group.resource.clone(),
                scope: group.scope.clone(),
                spans: group.spans.iter().filter(|s| !marked(s)).cloned().collect(),
            })
            .filter(|group| !group.spans.is_empty())
            .collect();
        let mut written = if groups.is_empty() && batch.updates().is_empty() {
            Written::default()
        } else {
            let rest = TraceBatch::new(batch.id(), groups, batch.updates().to_vec());
            self.inner.write(&rest).await?
        };
        for refusal in &mut written.refused {
            refusal.index = passed[refusal.index];
        }
        written.refused.extend(refused.into_iter().map(|index| {
            Refusal {
                index,
                error: Error::new(
                    ErrorKind::InvalidSpan,
                    "store span",
                    format!("it carries the attribute `{REFUSE}`"),
                )
                .at(&self.uri)
                .mend("leave the attribute out"),
            }
        }));
        Ok(written)
    }
}

/// An error that is worth retrying with backoff.
pub fn passing() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "write batch",
        "the place does not answer, as the test asked",
    )
    .mend("wait")
    .retryable()
}

/// An error that is worth retrying after a delay.
pub fn throttled(delay: Duration) -> Error {
    Error::new(
        ErrorKind::Throttled,
        "write batch",
        "the place asks to slow down, as the test asked",
    )
    .mend("wait")
    .retry_after(delay)
}

/// An error about the batch alone: the location may well take the next one.
pub fn condemned() -> Error {
    Error::new(
        ErrorKind::InvalidSpan,
        "write batch",
        "the place does not take this batch, as the test asked",
    )
    .mend("send another one")
}

/// An error that is not worth retrying until somebody repairs the place.
pub fn permanent() -> Error {
    Error::new(
        ErrorKind::PermissionDenied,
        "write batch",
        "the place refuses, as the test asked",
    )
    .mend("grant the permission")
}
