//! Choices of a location.

/// What to do when the table is not there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum MissingTable {
    /// Create it, and register it with the catalog.
    #[default]
    Create,
    /// Fail with `NotFound`.
    Fail,
}
