//! The pipeline's log, through `tracing`: changes of state, from a thread of its own, each line at
//! most once per interval and location. If many locations have the same problem, one line sums them
//! up. A subscriber that panics or blocks affects only this thread.

mod table;

use crate::contain::caught;
use crate::delivery_thread;
use crate::error::Error;
use crate::process::Process;
use crate::stats::DropReason;
use crate::uri::LocationUri;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use table::{Event, Lines, Table};

/// How long a flush waits for pending lines before it is answered, so that a program that ends
/// after the flush has logged them. After a subscriber took longer, later flushes do not wait until
/// it is done.
const PATIENCE: Duration = Duration::from_millis(200);

/// The kind of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum What {
    Retrying,
    /// A location seems wrong for good, or spans were lost. One kind, because one follows from the
    /// other.
    Failing,
    Recovered,
    Refused,
    Untold,
    Overflow,
    Closing,
    Unrouted,
    UnroutedStrict,
    IgnoredScopes,
    UnscopedRoots,
    Unfinished,
    DeliveryDied,
}

pub(crate) struct Log(Arc<Inner>);

struct Inner {
    process: Process,
    state: Mutex<State>,
    /// Notified when an event is pushed, and when the thread has no line to emit.
    changed: Condvar,
}

#[derive(Default)]
struct State {
    table: Table,
    /// The thread that emits lines runs. It ends when no line is left.
    running: bool,
    /// The thread is inside the subscriber.
    telling: bool,
    /// Which lines are to be emitted without waiting for others to join them.
    hurry: Hurry,
    /// A flush waited for the subscriber, and it was not done in time.
    stuck: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Hurry {
    #[default]
    No,
    /// Lines that the interval does not hold back.
    Due,
    /// All lines.
    All,
}

impl Default for Log {
    fn default() -> Self {
        Self(Arc::new(Inner {
            process: Process::current(),
            state: Mutex::default(),
            changed: Condvar::new(),
        }))
    }
}

impl Log {
    /// An attempt failed and will be repeated.
    pub(crate) fn retrying(&self, uri: &LocationUri, error: &Error) {
        self.push(Event::new(What::Retrying, uri).because(error));
    }

    /// A location seems wrong for good.
    pub(crate) fn failing(&self, uri: &LocationUri, error: &Error) {
        let mut event = Event::new(What::Failing, uri).because(error);
        event.failing = true;
        self.push(event);
    }

    pub(crate) fn recovered(&self, uri: &LocationUri) {
        self.push(Event::new(What::Recovered, uri));
    }

    pub(crate) fn lost(&self, uri: &LocationUri, spans: u64, reason: DropReason, error: &Error) {
        let mut event = Event::new(What::Failing, uri).because(error).of(spans);
        event.reason = Some(reason);
        self.push(event);
    }

    pub(crate) fn refused(&self, uri: &LocationUri, spans: u64, error: &Error) {
        self.push(Event::new(What::Refused, uri).because(error).of(spans));
    }

    /// Trace-level values were lost.
    pub(crate) fn untold(&self, uri: &LocationUri, error: &Error) {
        self.push(Event::new(What::Untold, uri).because(error));
    }

    /// Spans were dropped because a budget was exhausted. Returns true: the line is emitted now, or
    /// later together with others.
    pub(crate) fn overflow(&self, uri: &LocationUri, spans: u64) -> bool {
        self.push(Event::new(What::Overflow, uri).of(spans));
        true
    }

    /// Closing a sink failed.
    pub(crate) fn closing(&self, uri: &LocationUri, error: &Error) {
        self.push(Event::new(What::Closing, uri).because(error));
    }

    /// Spans had no destination; `example` is the name of one. The line depends on `strict`,
    /// because a strict pipeline has no level but the context.
    pub(crate) fn unrouted(&self, spans: u64, example: Option<&str>, strict: bool) {
        let what = match strict {
            true => What::UnroutedStrict,
            false => What::Unrouted,
        };
        let mut event = Event::of_pipeline(what, spans);
        event.span = example.map(str::to_owned);
        self.push(event);
    }

    pub(crate) fn ignored_scopes(&self, scopes: u64) {
        self.push(Event::of_pipeline(What::IgnoredScopes, scopes));
    }

    /// Roots with a context of their own went to the global destination or the environment's.
    pub(crate) fn unscoped_roots(&self, roots: u64) {
        self.push(Event::of_pipeline(What::UnscopedRoots, roots));
    }

    /// A flush guard's flush left `spans` pending, at so many locations.
    pub(crate) fn unfinished(&self, locations: u64, spans: u64, error: Option<&Error>) {
        let mut event = Event::of_pipeline(What::Unfinished, spans);
        event.locations = locations;
        event.error = error.cloned();
        self.push(event);
    }

    pub(crate) fn delivery_died(&self, error: &Error) {
        let mut event = Event::of_pipeline(What::DeliveryDied, 0);
        event.error = Some(error.clone());
        self.push(event);
    }

    fn push(&self, event: Event) {
        let mut state = self.0.state();
        state.table.push(event, Instant::now());
        if std::mem::replace(&mut state.running, true) {
            drop(state);
            self.0.changed.notify_all();
            return;
        }
        let inner = self.0.clone();
        let thread = std::thread::Builder::new().name("trace-delivery".to_owned());
        // If no thread can be started, the next event tries again.
        state.running = thread.spawn(move || inner.run()).is_ok();
    }

    /// Waits at most [`PATIENCE`] until pending lines are emitted. `all` includes those that the
    /// interval holds back.
    pub(crate) fn settle(&self, all: bool) {
        let mut state = self.0.state();
        if !state.running || state.stuck {
            return;
        }
        let hurry = if all { Hurry::All } else { Hurry::Due };
        state.hurry = state.hurry.max(hurry);
        self.0.changed.notify_all();
        let told = |state: &mut State| state.running && (state.hurry != Hurry::No || state.telling);
        let (mut state, waited) = self
            .0
            .changed
            .wait_timeout_while(state, PATIENCE, told)
            .unwrap_or_else(PoisonError::into_inner);
        state.stuck = waited.timed_out();
    }

    /// Whether this process is a forked child, in which nothing is logged.
    pub(crate) fn is_inherited(&self) -> bool {
        !self.0.process.is_current()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        delivery_thread::enter();
        while let Some(lines) = self.next() {
            for event in lines {
                // The subscriber is the application's code, on a thread of the pipeline.
                let _ = caught(|| tell(&event));
            }
        }
    }

    /// Waits for lines that are due; `None` if no event is pending, and the thread ends.
    fn next(&self) -> Option<Lines> {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            let hurry = state.hurry;
            let lines = state.table.take_due(now, hurry);
            state.telling = !lines.is_empty();
            if state.telling {
                return Some(lines);
            }
            state.hurry = Hurry::No;
            state.stuck = false;
            let next = state.table.next_due(now);
            state.running = next.is_some();
            self.changed.notify_all();
            state = self
                .changed
                .wait_timeout(state, next?.saturating_duration_since(now))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// Hands a line to the subscriber.
fn tell(event: &Event) {
    let Event {
        what,
        failing,
        locations,
        ..
    } = *event;
    let location = event.uri.as_ref().map(tracing::field::display);
    let error = event.error.as_ref().map(tracing::field::display);
    let reason = event.reason.map(DropReason::as_str);
    let spans = (event.spans > 0).then_some(event.spans);
    let several = (locations > 1).then_some(locations);
    let one_of = match several {
        Some(_) if location.is_some() => " (at several locations, of which one is named)",
        _ => "",
    };
    macro_rules! line {
        ($level:ident, $text:literal) => {
            tracing::$level!(
                location,
                locations = several,
                spans,
                reason,
                error,
                concat!($text, "{}"),
                one_of
            )
        };
    }
    match what {
        What::Retrying => line!(warn, "storing traces failed, will be tried again"),
        What::Failing if failing => {
            line!(
                error,
                "traces cannot be stored; spans are kept as far as there is room, and tried again"
            );
        }
        What::Failing => line!(error, "spans were dropped"),
        What::Recovered => line!(info, "traces are being stored again"),
        What::Refused => line!(warn, "spans were refused"),
        What::Untold => line!(warn, "values set on a trace are not stored; its spans are"),
        What::Overflow => line!(warn, "spans were dropped: the byte budget is exhausted"),
        What::Closing => line!(warn, "closing a location failed"),
        What::Unrouted => tracing::warn!(
            spans,
            example = event.span,
            "spans have no destination and are not stored; set one for the process with `set_global`, or start their trace within a scope: `Destination::in_context` or `with_destination`"
        ),
        What::UnroutedStrict => tracing::warn!(
            spans,
            example = event.span,
            "spans have no destination and are not stored; this pipeline is strict, so start their trace within a scope, `Destination::in_context` or `with_destination`, or name the destination while the trace runs, with `bind_current_trace`"
        ),
        What::IgnoredScopes => tracing::warn!(
            scopes = event.spans,
            "a destination was set inside a trace that is bound elsewhere and had no effect; use `new_root` to start a trace of its own"
        ),
        What::UnscopedRoots => tracing::warn!(
            traces = event.spans,
            "traces went to the global destination or the environment's, while others have one of their own; a span of `tracing` starts where it is first entered, and `set_parent` replaces the scope it was made in: see docs/tracing.md, and `strict` for tenants"
        ),
        What::Unfinished => line!(warn, "the flush at the end did not store everything"),
        What::DeliveryDied => line!(error, "delivery has ended, spans are being dropped"),
    }
}

impl std::fmt::Debug for Log {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Log").finish_non_exhaustive()
    }
}
