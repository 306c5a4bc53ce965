//! One set of settings per location: equal URIs are one location, so they have to be used with
//! equal credentials and settings.

use crate::weak::WeakMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

/// The settings of all locations in use.
#[derive(Debug)]
pub struct Claims<K, W>(Mutex<WeakMap<K, W>>);

/// The location is in use with other settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InUse;

impl<K: Eq + Hash, W: PartialEq> Claims<K, W> {
    /// An empty set.
    pub const fn new() -> Self {
        Self(Mutex::new(WeakMap::new()))
    }

    /// Claims a location with these settings, for as long as the returned value is held.
    ///
    /// # Errors
    /// If the location is in use with other settings.
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
