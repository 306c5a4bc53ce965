//! A map that forgets: what has not been used for long goes first, all in bounded memory.

use foldhash::HashMap;
use std::hash::Hash;

/// Two maps; when the young one is full, the old one is dropped and the young one grows old. Holds
/// at least `limit` of the entries used last, and at most twice as many.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    limit: usize,
}

impl<K: Eq + Hash + Clone, V> Generations<K, V> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            young: HashMap::default(),
            old: HashMap::default(),
            limit,
        }
    }

    pub(crate) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        if let Some(value) = self.old.remove(key) {
            self.insert(key.clone(), value);
        }
        self.young.get_mut(key)
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.old.remove(&key);
        if self.young.len() >= self.limit && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    pub(crate) fn remove(&mut self, key: &K) -> Option<V> {
        self.old.remove(key).or_else(|| self.young.remove(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let mut map = Generations::new(10);
        for i in 0..1000 {
            map.insert(i, i);
            assert_eq!(map.get_mut(&0), Some(&mut 0));
            assert!(map.young.len() <= 10 && map.old.len() <= 10);
        }
        for i in 991..1000 {
            assert_eq!(map.get_mut(&i), Some(&mut i.clone()), "{i}");
        }
        assert_eq!(map.get_mut(&500), None);
        assert_eq!(map.remove(&999), Some(999));
        assert_eq!(map.get_mut(&999), None);
    }
}
