//! A pipeline in a child that was forked from its process. Nothing of it is delivered here: the
//! parent delivers what it had. It is noticed where spans wake the delivery thread or find no room,
//! and by every call of the pipeline itself; from then on spans are dropped and counted at once.

use super::Shared;
use crate::error::Error;
use crate::ingress::Drained;
use std::sync::atomic::Ordering;

impl Shared {
    /// Whether this pipeline came here with a fork; if so, nothing is accepted any more. A system
    /// call.
    pub(crate) fn is_inherited(&self) -> bool {
        if self.process.is_current() {
            return false;
        }
        // Once: what is dropped here is a copy of what the parent delivers.
        if !self.abandoned.swap(true, Ordering::Relaxed) {
            self.room.close();
            self.ingress.close();
            // Room is not given back: nobody needs it, and to tell those who wait takes a lock.
            let drop = |item| self.count_dropped(&item);
            self.ingress.drain(&mut Drained::default(), |_| {}, drop);
        }
        true
    }

    /// Why nothing is delivered any more, where nobody asked for that.
    pub(crate) fn defect(&self) -> Option<Error> {
        match self.is_inherited() {
            true => Some(self.process.left_behind()),
            false => self.defect.get().cloned(),
        }
    }
}
