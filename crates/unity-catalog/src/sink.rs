//! An open location: its table of spans, and from the first value of a trace on that of annotations.

use crate::location::UnityCatalogLocation;
use crate::schema::TableKind;
use crate::table::Table;
use async_trait::async_trait;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;
use trace_destination_core::{
    BatchEncoder, Error, ErrorKind, Refusal, Retry, TraceBatch, TraceLocation as _, TraceSink,
    TraceUpdate, Written,
};

/// While the values of traces are written.
const WRITE_VALUES: &str = "write trace-level values";
/// What always helps.
const WITHOUT: &str =
    "write annotations=false in the URI: then they go on the root span as attributes";
/// Writing the values of a batch is given up after so many errors that may pass, and so long: its
/// spans are stored by then, and those behind it wait.
const TRIES: u32 = 3;
const TRIED_FOR: Duration = Duration::from_secs(5);
/// And after this however few there were, a try that still runs included: the pipeline gives a whole
/// write no less than 10 s, and would count the spans as dropped with it.
const AT_MOST: Duration = Duration::from_secs(8);
/// What is left for the values where the spans took longer.
const AT_LEAST: Duration = Duration::from_secs(1);
/// The first delay between two tries; each next one is twice as long, up to the longest.
const FIRST_DELAY: Duration = Duration::from_millis(20);
const LONGEST_DELAY: Duration = Duration::from_secs(1);
/// How long no other try is made after an error that does not pass, or one that took as long as
/// [`TRIED_FOR`] to come: a place that refuses annotations must not hold up spans.
const PAUSE: Duration = Duration::from_secs(60);

/// An open location.
pub(crate) struct UnityCatalogSink {
    location: UnityCatalogLocation,
    spans: Table,
    annotations: Mutex<Annotations>,
}

/// The table of annotations.
#[derive(Default)]
struct Annotations {
    /// Opened with the first value.
    table: Option<Table>,
    /// What is in its way, and until when that is not tried again.
    refused: Option<(Error, Instant)>,
    /// Values were given up on an error that may pass: the next are tried once, until that succeeds.
    tired: bool,
}

impl UnityCatalogSink {
    pub(crate) fn new(location: UnityCatalogLocation, spans: Table) -> Self {
        Self {
            location,
            spans,
            annotations: Mutex::default(),
        }
    }

    /// Stores the values of a batch whose spans are stored. Gives an error for each trace whose
    /// values are not.
    async fn write_values(&self, batch: &TraceBatch, began: Instant) -> Vec<Error> {
        if !self.location.stores_annotations() {
            // Nobody sends any here but who makes batches by hand.
            let error = Error::new(
                ErrorKind::Unsupported,
                WRITE_VALUES,
                "the table of annotations is switched off",
            )
            .mend("set them as attributes of a span");
            return self.lost(batch, &error);
        }
        let annotations = &mut *self.annotations.lock().await;
        if let Some((error, until)) = &annotations.refused {
            if Instant::now() < *until {
                return self.lost(batch, error);
            }
            annotations.refused = None;
        }
        match self.try_values(annotations, batch, began).await {
            Ok(refused) => {
                annotations.tired = false;
                let refused = refused.into_iter().filter_map(|Refusal { index, error }| {
                    Some(self.lost_value(batch.updates().get(index)?, &error))
                });
                refused.collect()
            }
            Err((error, pause)) => {
                annotations.refused = pause.then(|| (error.clone(), Instant::now() + PAUSE));
                annotations.tired = true;
                self.lost(batch, &error)
            }
        }
    }

    /// Tries until the values are stored, or that is given up; then it is told whether there is to
    /// be a pause.
    async fn try_values(
        &self,
        annotations: &mut Annotations,
        batch: &TraceBatch,
        began: Instant,
    ) -> Result<Vec<Refusal>, (Error, bool)> {
        let left = AT_MOST.saturating_sub(began.elapsed()).max(AT_LEAST);
        let (began, until) = (Instant::now(), Instant::now() + left);
        let mut delay = FIRST_DELAY;
        let mut tries = 0;
        loop {
            tries += 1;
            let tried = Instant::now();
            let append = self.append_values(annotations, batch);
            let error = match tokio::time::timeout_at(until, append).await {
                Ok(Ok(refused)) => return Ok(refused),
                Ok(Err(error)) => error,
                Err(_) => Error::new(
                    ErrorKind::Timeout,
                    WRITE_VALUES,
                    "the place of the table of annotations gave no answer in time",
                )
                .retryable()
                .mend("see whether it can be reached"),
            };
            if error.retry() == Retry::Never {
                // Opened anew the next time: its table may have been dropped, or mended.
                annotations.table = None;
                return Err((error, true));
            }
            let elapsed = began.elapsed();
            let enough = tries >= TRIES && elapsed >= TRIED_FOR;
            if annotations.tired || enough || Instant::now() >= until {
                return Err((error, tried.elapsed() >= TRIED_FOR));
            }
            tracing::debug!(error = %error, "values of traces could not be written, and are tried again");
            tokio::time::sleep(delay).await;
            delay = (delay * 2).min(LONGEST_DELAY);
        }
    }

    async fn append_values(
        &self,
        annotations: &mut Annotations,
        batch: &TraceBatch,
    ) -> Result<Vec<Refusal>, Error> {
        // Out of its place meanwhile: a table whose call was dropped half-way is not used again.
        let table = match annotations.table.take() {
            Some(table) => table,
            None => self.location.open_table(TableKind::Annotations).await?,
        };
        let appended = table.append(batch).await;
        annotations.table = Some(table);
        appended
    }

    /// The values of all traces of a batch, for the same reason.
    fn lost(&self, batch: &TraceBatch, error: &Error) -> Vec<Error> {
        let updates = batch.updates().iter().filter(|update| has_values(update));
        updates
            .map(|update| self.lost_value(update, error))
            .collect()
    }

    fn lost_value(&self, update: &TraceUpdate, error: &Error) -> Error {
        let cause = format!(
            "values set on trace {} are not stored: {}, at {}",
            update.trace_id,
            error.cause(),
            error.operation()
        );
        let mend = match error.mend_hint() {
            Some(mend) => format!("{mend}; or {WITHOUT}"),
            None => WITHOUT.to_owned(),
        };
        Error::new(error.kind(), WRITE_VALUES, cause)
            .mend(mend)
            .caused_by(error.clone())
            .at(self.location.uri())
    }
}

/// Whether an update sets anything.
fn has_values(update: &TraceUpdate) -> bool {
    *update != TraceUpdate::new(update.trace_id)
}

#[async_trait]
impl TraceSink for UnityCatalogSink {
    async fn write(&self, batch: &TraceBatch) -> Result<Written, Error> {
        let began = Instant::now();
        let mut written = Written::default();
        let has_values = batch.updates().iter().any(has_values);
        if batch.span_count() > 0 {
            let refused = self.spans.append(batch).await;
            written.refused = refused.map_err(|e| e.at(self.location.uri()))?;
        }
        // Values alone wait with the lane while their place is away, as spans do.
        if has_values
            && batch.span_count() == 0
            && let Err(error) = self.spans.reach().await
            && error.retry() != Retry::Never
        {
            return Err(error.at(self.location.uri()));
        }
        // The spans are stored: from here on there is no error, or they would count as lost with it.
        if has_values {
            written.lost_updates = self.write_values(batch, began).await;
        }
        Ok(written)
    }

    fn encoder(&self) -> Option<Arc<dyn BatchEncoder>> {
        Some(self.spans.encoder())
    }

    async fn close(self: Box<Self>) -> Result<(), Error> {
        self.spans.close().await;
        if let Some(annotations) = self.annotations.into_inner().table {
            annotations.close().await;
        }
        Ok(())
    }
}
