//! What a lane counts of trace-level values.

use super::Lane;
use crate::error::{Error, ErrorKind};
use crate::values::OPERATION;

impl Lane {
    /// Counts the values of one trace as lost. They are logged by whoever asks for
    /// [`untold_value`](Self::untold_value): application threads do not log.
    pub(crate) fn lose_value(&self, error: Error) {
        self.counters.lose_updates(1);
        let error = error.at(&self.uri);
        let mut state = self.state();
        state.untold_value = Some(error.clone());
        state.last_error = Some(error);
    }

    /// Why values were lost last, unless that was logged.
    pub(crate) fn untold_value(&self) -> Option<Error> {
        self.state().untold_value.take()
    }

    /// Counts the trace-level values that are still tried as lost: delivery ends.
    pub(crate) fn give_up_late(&self) {
        self.late.give_up(|values| {
            if values == 0 {
                return;
            }
            let lost = usize::try_from(values).unwrap_or(usize::MAX);
            self.counters.lose_updates(lost);
            let mut state = self.state();
            if state.last_error.is_none() {
                state.last_error = Some(not_in_time(values).at(&self.uri));
            }
        });
    }

    /// Trace-level values that are still tried. Read before those that were lost.
    pub(crate) fn late_updates(&self) -> u64 {
        self.late.under_way()
    }
}

/// Why values were lost that a sink had not stored at the end.
fn not_in_time(traces: u64) -> Error {
    let cause = format!("values set on {traces} traces were not stored before the shutdown");
    Error::new(ErrorKind::Unavailable, OPERATION, cause)
        .mend("end the root of every trace, and leave the shutdown more time")
}
