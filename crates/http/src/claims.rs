//! One way to each place: equal URIs are one place with one lane, so they have to be reached with
//! equal credentials and settings.

use crate::weak::WeakMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// The ways to the places in use.
#[derive(Debug)]
pub struct Claims<K, W>(Mutex<WeakMap<K, W>>);

/// A place is in use already, and is reached in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse;

impl<K: Eq + Hash, W: PartialEq> Claims<K, W> {
    /// No place is in use.
    pub const fn new() -> Self {
        Self(Mutex::new(WeakMap::new()))
    }

    /// The way to a place, to be held as long as the place is used that way.
    ///
    /// # Errors
    /// If the place is in use and the way to it is another.
    pub fn claim(&self, place: K, way: W) -> Result<Arc<W>, InUse> {
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match places.get(&place) {
            Some(there) if *there == way => Ok(there),
            Some(_) => Err(InUse),
            None => {
                let way = Arc::new(way);
                places.insert(place, &way);
                Ok(way)
            }
        }
    }
}

impl<K: Eq + Hash, W: PartialEq> Default for Claims<K, W> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_way_at_a_time() {
        let claims = Claims::new();
        let first = claims.claim("place", 1).unwrap();
        let same = claims.claim("place", 1).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        assert_eq!(claims.claim("place", 2), Err(InUse));
        assert_eq!(*claims.claim("other", 2).unwrap(), 2);
        drop((first, same));
        assert_eq!(*claims.claim("place", 2).unwrap(), 2);
    }
}
