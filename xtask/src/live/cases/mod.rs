//! The cases, in the order in which they run.

pub(super) mod equality;

use super::{CaseResult, Live};

/// A case: tries one thing and says what it saw.
type Case = fn(&mut Live) -> CaseResult;

/// The one table of cases.
pub(super) const ALL: &[(&str, Case)] = &[("comparison_can_fail", equality::comparison_can_fail)];
