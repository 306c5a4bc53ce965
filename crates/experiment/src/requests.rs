//! What sinks and locations ask of a file's writer.

use crate::experiment::Resolved;
use crate::rows::Rows;
use crate::store::Experiment;
use crate::target::Target;
use std::sync::Arc;
use tokio::sync::oneshot;
use trace_destination_core::{Error, Refusal, waiting_for_turn};

/// A batch of one experiment.
pub(crate) struct Entry {
    pub(crate) experiment: Arc<Experiment>,
    pub(crate) rows: Rows,
}

/// What became of a batch that was stored: refused spans, and values of traces that were given up.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) refused: Vec<Refusal>,
    pub(crate) lost_updates: Vec<Error>,
}

/// The experiment that a location names is to be resolved.
pub(crate) type Opening = Request<Arc<Target>, Result<Resolved, Error>>;
/// A batch is to be stored.
pub(crate) type Writing = Request<Entry, Result<Stored, Error>>;

/// Something to do, and who waits for the outcome.
pub(crate) struct Request<T, A> {
    pub(crate) what: T,
    begun: Option<oneshot::Sender<()>>,
    answer: oneshot::Sender<A>,
}

/// The other end of a request.
pub(crate) struct Pending<A> {
    begun: oneshot::Receiver<()>,
    answer: oneshot::Receiver<A>,
}

impl<T, A> Request<T, A> {
    pub(crate) fn new(what: T) -> (Self, Pending<A>) {
        let (begin, begun) = oneshot::channel();
        let (give, answer) = oneshot::channel();
        let request = Self {
            what,
            begun: Some(begin),
            answer: give,
        };
        (request, Pending { begun, answer })
    }

    /// Nobody waits any more, as when the batch was given up at a deadline.
    pub(crate) fn is_given_up(&self) -> bool {
        self.answer.is_closed()
    }

    /// Its turn has come: from here on its time counts.
    pub(crate) fn begin(&mut self) {
        if let Some(begun) = self.begun.take() {
            let _ = begun.send(());
        }
    }

    fn answer(self, answer: A) {
        // Who stopped waiting does not want the answer.
        let _ = self.answer.send(answer);
    }
}

impl<A> Pending<A> {
    /// Waits for the turn, then for the outcome; `None` if there will be none.
    pub(crate) async fn outcome(self) -> Option<A> {
        let _ = waiting_for_turn(self.begun).await;
        self.answer.await.ok()
    }
}

/// The requests that are worked on together.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) opens: Vec<Opening>,
    pub(crate) writes: Vec<Writing>,
    answers: Answers,
}

/// Answers that are kept until the file is left: a process that forks as soon as it has its answer
/// must not find the file in use.
#[derive(Default)]
pub(crate) struct Answers {
    opens: Vec<(Opening, Result<Resolved, Error>)>,
    writes: Vec<(Writing, Result<Stored, Error>)>,
}

impl Answers {
    pub(crate) fn of_open(&mut self, open: Opening, answer: Result<Resolved, Error>) {
        self.opens.push((open, answer));
    }

    /// Whether a location was opened.
    pub(crate) fn has_opened(&self) -> bool {
        self.opens.iter().any(|(_, answer)| answer.is_ok())
    }

    pub(crate) fn of_write(&mut self, write: Writing, answer: Result<Stored, Error>) {
        self.writes.push((write, answer));
    }
}

impl Work {
    pub(crate) fn is_empty(&self) -> bool {
        self.opens.is_empty() && self.writes.is_empty()
    }

    /// The requests that have no answer yet, and the place for answers.
    pub(crate) fn parts(&mut self) -> (&mut Vec<Opening>, &mut Vec<Writing>, &mut Answers) {
        (&mut self.opens, &mut self.writes, &mut self.answers)
    }

    /// Gives the answers.
    pub(crate) fn tell(&mut self) {
        for (open, answer) in self.answers.opens.drain(..) {
            open.answer(answer);
        }
        for (write, answer) in self.answers.writes.drain(..) {
            write.answer(answer);
        }
    }

    pub(crate) fn spans(&self) -> usize {
        self.writes.iter().map(|w| w.what.rows.spans.len()).sum()
    }
}
