//! For tests of this crate: whatever stands between a table and its store.

pub use crate::wrapped::Wrap;

use crate::location::UnityCatalogLocation;

/// The same location, whose stores are wrapped.
pub fn wrapped(mut location: UnityCatalogLocation, wrap: Wrap) -> UnityCatalogLocation {
    location.wrap = Some(wrap);
    location
}
