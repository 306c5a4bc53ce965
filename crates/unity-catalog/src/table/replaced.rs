//! Tables that are removed and made anew at the same place. Versions are only numbers, so it is the
//! commit that was seen last that tells them apart.

use super::Table;
use super::commit::{Beyond, Stamp, Tip, look};
use super::damaged::is_of_content;
use super::protocol::id_of;
use super::state::State;
use crate::error::{WRITE, fault};
use trace_destination_core::{Error, ErrorKind};

impl Table {
    /// Whether what others committed since leaves what is known of the table as it is.
    pub(super) async fn is_unchanged(
        &self,
        state: &mut State,
        stamp: &Stamp,
    ) -> Result<bool, Error> {
        let beyond = look(&self.log, &state.tip, stamp).await;
        Ok(
            match beyond.map_err(|e| fault(WRITE, "looking at the table's log", e))? {
                Beyond::Nothing => true,
                Beyond::Others(tip) => {
                    state.tip = tip;
                    true
                }
                Beyond::Ours(_) | Beyond::Changed => false,
            },
        )
    }

    /// Whether the table's place answers.
    ///
    /// # Errors
    /// What keeps its log from being read.
    pub(crate) async fn reach(&self) -> Result<(), Error> {
        let state = &mut *self.state.lock().await;
        self.is_known(state).await.map(drop)
    }

    /// Whether the newest version that is known of is still there, and the same.
    pub(super) async fn is_known(&self, state: &mut State) -> Result<bool, Error> {
        let known = self.log.has(&mut state.tip.mark).await;
        known.map_err(|e| fault(WRITE, "looking at the table's log", e))
    }

    /// After a commit below which the version that was known is gone: it was cleaned up, or the table
    /// was replaced at the moment of the commit, which is then in a table whose columns were not
    /// read. It is taken back, and the batch is written to the table that is there now.
    pub(super) async fn undo(&self, state: &mut State, mut tip: Tip) -> Result<(), Error> {
        let loaded = self.log.load().await;
        if let Err(error) = &loaded
            && !is_of_content(error)
            && error.kind() != ErrorKind::Unsupported
        {
            // Nothing was learnt of the table that is there: the commit may be a good one.
            state.doubtful = Some(tip);
            return Err(error.clone().retryable());
        }
        if let Ok(Some(loaded)) = loaded
            && id_of(&loaded.snapshot) == state.shape.id
            && loaded.snapshot.version() >= tip.version
        {
            *state = State::of(loaded, self.encoder.kind)?;
            // It may have been restored to a version before them.
            self.memory.clear();
            return Ok(());
        }
        let version = tip.version;
        let gone = self.log.take_back(version, &mut tip.mark).await;
        if !gone.map_err(|e| fault(WRITE, "taking a commit back", e).retryable())? {
            tracing::error!(
                version,
                "a table was replaced while it was written to, and the new one has a commit for the old one's columns, on which others went on"
            );
        }
        self.reload(state).await
    }
}
