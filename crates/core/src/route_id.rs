//! What stands for a destination within a pipeline.

/// Index of a route in its pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct RouteId(pub(crate) u32);

impl RouteId {
    /// No level named a destination.
    pub(crate) const UNROUTED: Self = Self(0);
    /// The destination is [`Destination::discard`](crate::Destination::discard).
    pub(crate) const DISCARD: Self = Self(1);
    /// The trace is not among the share that is kept.
    pub(crate) const SAMPLED_OUT: Self = Self(2);
    /// The first route that leads anywhere.
    pub(crate) const FIRST: u32 = 3;
    /// Set for a route that refuses spans at some of its lanes.
    pub(crate) const REFUSING: u32 = 1 << 31;

    /// Whether spans of this route go to a location.
    pub(crate) fn leads_somewhere(self) -> bool {
        self.0 >= Self::FIRST
    }
}
