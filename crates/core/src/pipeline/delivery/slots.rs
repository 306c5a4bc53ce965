//! What the delivery thread keeps of each lane.

use crate::lane::{Lane, LaneId, OpenBatch};
use std::sync::Arc;

/// By lane id. A forgotten lane leaves an empty place.
#[derive(Default)]
pub(super) struct Slots(Vec<Option<Box<Slot>>>);

impl Slots {
    /// The slot of a lane, or the place for it.
    pub(super) fn enter(&mut self, id: LaneId) -> Result<&mut Slot, &mut Option<Box<Slot>>> {
        let index = id.0 as usize;
        if index >= self.0.len() {
            self.0.resize_with(index + 1, || None);
        }
        match &mut self.0[index] {
            Some(slot) => Ok(slot),
            empty => Err(empty),
        }
    }

    pub(super) fn get(&self, id: LaneId) -> Option<&Slot> {
        self.0.get(id.0 as usize)?.as_deref()
    }

    pub(super) fn get_mut(&mut self, id: LaneId) -> Option<&mut Slot> {
        self.0.get_mut(id.0 as usize)?.as_deref_mut()
    }

    pub(super) fn remove(&mut self, id: LaneId) -> Option<Box<Slot>> {
        self.0.get_mut(id.0 as usize)?.take()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Slot> {
        self.0.iter().flatten().map(|slot| &**slot)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.0.iter_mut().flatten().map(|slot| &mut **slot)
    }
}

/// What the delivery thread keeps of a lane.
pub(super) struct Slot {
    pub(super) lane: Arc<Lane>,
    pub(super) batch: Option<Box<OpenBatch>>,
    /// The lane has an entry in `due`.
    pub(super) scheduled: bool,
    /// Spans of the last batch: the next one will be about as large.
    pub(super) usual: u32,
    /// Overflown spans the log has told of.
    pub(super) told_overflow: u64,
}

impl Slot {
    pub(super) fn new(lane: Arc<Lane>) -> Self {
        Self {
            lane,
            batch: None,
            scheduled: false,
            usual: 0,
            told_overflow: 0,
        }
    }
}
