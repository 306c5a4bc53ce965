//! Shared values that live only while they are used.

use foldhash::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};

/// A map to shared values that does not keep them alive.
#[derive(Debug)]
pub struct WeakMap<K, V> {
    values: Option<HashMap<K, Weak<V>>>,
    /// Number of entries at which unused ones are removed next. It grows with the map, so that the
    /// cost of adding an entry stays constant.
    limit: usize,
}

/// Smallest number of entries at which unused ones are removed.
const FEW: usize = 64;

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> WeakMap<K, V> {
    /// An empty map.
    pub const fn new() -> Self {
        Self {
            values: None,
            limit: FEW,
        }
    }
}

impl<K: Eq + Hash, V> WeakMap<K, V> {
    /// The value in use for `key`, if any.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.values.as_ref()?.get(key)?.upgrade()
    }

    /// Adds a value.
    pub fn insert(&mut self, key: K, value: &Arc<V>) {
        let values = self.values.get_or_insert_default();
        if values.len() >= self.limit {
            values.retain(|_, value| value.strong_count() > 0);
            self.limit = (2 * values.len()).max(FEW);
        }
        values.insert(key, Arc::downgrade(value));
    }

    /// The value in use for `key`, or else the value that `make` returns.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get_or_insert<E>(
        &mut self,
        key: K,
        make: impl FnOnce() -> Result<V, E>,
    ) -> Result<Arc<V>, E> {
        if let Some(value) = self.get(&key) {
            return Ok(value);
        }
        let value = Arc::new(make()?);
        self.insert(key, &value);
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_uses_is_forgotten() {
        let mut map = WeakMap::new();
        let kept = map.get_or_insert(0, || Ok::<_, ()>(0)).unwrap();
        for i in 1..10_000 {
            map.get_or_insert(i, || Ok::<_, ()>(i)).unwrap();
        }
        assert!(map.values.as_ref().unwrap().len() <= 2 * FEW);
        assert!(Arc::ptr_eq(&map.get(&0).unwrap(), &kept));
        assert!(map.get(&1).is_none());
    }
}
