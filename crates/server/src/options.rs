//! Choices of a location.

/// What to do when the experiment is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MissingExperiment {
    /// Create it, as MLflow's `set_experiment` does. An experiment given by id alone is never
    /// created.
    #[default]
    Create,
    /// Fail with `NotFound`.
    Fail,
}
