//! The keys of bags, and the VARIANT metadata that holds them.
//!
//! Spans of one instrumentation have the same keys in the same order, so what is to be known of a
//! sequence of keys (which of them come first in byte order, which repeat, how their dictionary is
//! encoded) is found out once and kept, within bounds.

use super::column::Blobs;
use super::fault::Fault;
use foldhash::fast::FixedState;
use std::collections::HashMap;
use trace_destination_core::{AnyValueRef, Attributes};

/// How deep values may be nested. What comes over the wire is nested some 30 deep at most.
const MAX_DEPTH: usize = 100;
/// Sequences of keys remembered, and the memory they may take together. An application has a few
/// dozen; one that makes up keys as it goes is served without, a little slower.
const MAX_CACHED: usize = 512;
const MAX_CACHED_BYTES: usize = 128 << 10;
/// Places looked at for a sequence of keys.
const PROBES: u64 = 8;
/// Of the header of metadata (`VariantEncoding.md` of Apache Parquet): version 1, strings sorted and
/// unique.
const VERSION_SORTED: u8 = 0x11;

/// Calls `found` with every key of a bag and of the maps in it, in the order they are met.
pub(super) fn each_key<'a>(
    bag: Attributes<'a>,
    found: &mut impl FnMut(&'a str),
) -> Result<(), Fault> {
    for (key, value) in bag.iter() {
        found(key);
        keys_of(value, 1, found)?;
    }
    Ok(())
}

fn keys_of<'a>(
    value: AnyValueRef<'a>,
    depth: usize,
    found: &mut impl FnMut(&'a str),
) -> Result<(), Fault> {
    match value {
        AnyValueRef::Array(_) | AnyValueRef::Map(_) if depth > MAX_DEPTH => {
            return Err(Fault::depth(MAX_DEPTH));
        }
        AnyValueRef::Array(list) => {
            for value in list.iter() {
                keys_of(value, depth + 1, found)?;
            }
        }
        AnyValueRef::Map(map) => {
            for (key, value) in map.iter() {
                found(key);
                keys_of(value, depth + 1, found)?;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The keys of a bag, sorted and encoded.
#[derive(Debug)]
pub(super) struct Keys {
    /// All keys as they are met, one after the other, and where each ends.
    text: String,
    ends: Vec<u32>,
    /// How many of them are the bag's own.
    own: usize,
    /// The number of each key in the dictionary, which is in byte order.
    pub(super) ids: Vec<u32>,
    /// The encoded dictionary.
    metadata: Vec<u8>,
    /// How many keys the dictionary has.
    pub(super) distinct: usize,
    /// How wide the offsets of the last such bag were, in bytes.
    pub(super) offset_width: usize,
    /// The batch in which the metadata was last put among the blobs, and where.
    placed: (u64, i32),
}

impl Keys {
    fn of(bag: Attributes<'_>) -> Self {
        let mut keys: Vec<&str> = Vec::with_capacity(bag.len());
        // The depth was checked when the keys were hashed.
        let _ = each_key(bag, &mut |key| keys.push(key));
        let mut sorted = keys.clone();
        sorted.sort_unstable();
        sorted.dedup();
        let number = |key: &&str| sorted.binary_search(key).unwrap_or_default() as u32;
        let mut ends = Vec::with_capacity(keys.len());
        let mut text = String::new();
        for key in &keys {
            text.push_str(key);
            ends.push(text.len() as u32);
        }
        Self {
            text,
            ends,
            own: bag.len(),
            ids: keys.iter().map(number).collect(),
            metadata: metadata(&sorted),
            distinct: sorted.len(),
            offset_width: 1,
            placed: (0, 0),
        }
    }

    /// Whether the bag holds each key of the dictionary once, and no map holds any.
    pub(super) fn is_plain(&self) -> bool {
        self.own == self.ids.len() && self.own == self.distinct
    }

    /// Whether these are the keys of a bag.
    ///
    /// # Errors
    /// If its values are nested too deep.
    fn is_of(&self, bag: Attributes<'_>) -> Result<bool, Fault> {
        let first = self.ends.first().map_or(0, |end| *end as usize);
        // Most bags that are others differ here already.
        if self.own != bag.len()
            || bag
                .iter()
                .next()
                .is_some_and(|(key, _)| key.as_bytes() != &self.text.as_bytes()[..first])
        {
            return Ok(false);
        }
        let (mut text, mut start) = (self.text.as_bytes(), 0);
        let mut ends = self.ends.iter();
        let mut same = true;
        each_key(bag, &mut |key| {
            let Some(end) = ends.next() else {
                same = false;
                return;
            };
            let (expected, rest) = text.split_at((end - start) as usize);
            same &= expected == key.as_bytes();
            (text, start) = (rest, *end);
        })?;
        Ok(same && ends.next().is_none())
    }

    fn bytes(&self) -> usize {
        size_of::<Self>() + self.text.len() + 8 * self.ends.len() + self.metadata.len()
    }
}

/// The dictionary of keys in byte order.
fn metadata(keys: &[&str]) -> Vec<u8> {
    let total: usize = keys.iter().map(|k| k.len()).sum();
    let width = width_of(total.max(keys.len()));
    let mut out = Vec::with_capacity(1 + (keys.len() + 2) * width + total);
    out.push(VERSION_SORTED | ((width - 1) as u8) << 6);
    let mut put = |number: usize| out.extend_from_slice(&number.to_le_bytes()[..width]);
    put(keys.len());
    let mut end = 0;
    put(end);
    for key in keys {
        end += key.len();
        put(end);
    }
    for key in keys {
        out.extend_from_slice(key.as_bytes());
    }
    out
}

/// Bytes that a number needs; VARIANT has no numbers of more than four.
pub(super) fn width_of(number: usize) -> usize {
    match number {
        0..0x100 => 1,
        0x100..0x1_0000 => 2,
        0x1_0000..0x100_0000 => 3,
        _ => 4,
    }
}

/// Known sequences of keys.
#[derive(Debug)]
pub(super) struct KeyCache {
    by_hash: HashMap<u64, usize, FixedState>,
    known: Vec<Keys>,
    bytes: usize,
    /// Tells the batches apart, so that what was placed in one is not taken for placed in the next.
    batch: u64,
}

impl Default for KeyCache {
    fn default() -> Self {
        Self {
            by_hash: HashMap::default(),
            known: Vec::new(),
            bytes: 0,
            batch: 1,
        }
    }
}

impl KeyCache {
    /// The keys of a bag, with the place of their metadata among `blobs`. `last` is what the bag
    /// before it in its column was found by, which is looked at first.
    ///
    /// # Errors
    /// If its values are nested too deep, or the blobs are full.
    pub(super) fn find(
        &mut self,
        bag: Attributes<'_>,
        last: &mut usize,
        blobs: &mut Blobs,
    ) -> Result<(&mut Keys, i32), Fault> {
        let same = self.known.get(*last).map_or(Ok(false), |k| k.is_of(bag))?;
        if !same {
            let mut hash = bag.len() as u64;
            each_key(bag, &mut |key| hash = mix(hash, key.as_bytes()))?;
            *last = self.look_up(hash, bag)?;
        }
        let index = *last;
        let keys = &mut self.known[index];
        if keys.placed.0 != self.batch {
            keys.placed = (self.batch, blobs.push(&keys.metadata)?);
        }
        let place = keys.placed.1;
        Ok((keys, place))
    }

    fn look_up(&mut self, hash: u64, bag: Attributes<'_>) -> Result<usize, Fault> {
        let mut slot = hash;
        for probe in 0..PROBES {
            // Sequences whose hashes are equal, or nearly, stand one after the other.
            slot = hash.wrapping_add(probe);
            match self.by_hash.get(&slot) {
                Some(&index) if self.known[index].is_of(bag)? => return Ok(index),
                Some(_) => {}
                None => break,
            }
        }
        if self.known.len() >= MAX_CACHED || self.bytes > MAX_CACHED_BYTES {
            self.forget();
        }
        let keys = Keys::of(bag);
        self.bytes += keys.bytes();
        self.known.push(keys);
        self.by_hash.insert(slot, self.known.len() - 1);
        Ok(self.known.len() - 1)
    }

    fn forget(&mut self) {
        self.by_hash.clear();
        self.known.clear();
        self.bytes = 0;
    }

    /// What is placed from now on is placed among the blobs of another batch.
    pub(super) fn next_batch(&mut self) {
        self.batch += 1;
        if self.bytes > MAX_CACHED_BYTES {
            self.forget();
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Enough of a key to tell sequences apart; they are compared in full afterwards.
fn mix(hash: u64, key: &[u8]) -> u64 {
    let long = |bytes: &[u8; 8]| u64::from_le_bytes(*bytes);
    let ends = match (key.first_chunk(), key.last_chunk()) {
        (Some(first), Some(last)) => long(first) ^ long(last).rotate_left(23),
        _ => key.iter().fold(0, |all, byte| all << 8 | u64::from(*byte)),
    };
    let mixed =
        (hash.rotate_left(5) ^ ends ^ (key.len() as u64) << 57).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use trace_destination_core::Attribute;

    fn bag(keys: &[&'static str]) -> Vec<Attribute> {
        keys.iter().map(|k| Attribute::new(*k, 1)).collect()
    }

    #[test]
    fn metadata_is_what_the_specification_shows() {
        assert_eq!(metadata(&[]), [0x11, 0, 0]);
        assert_eq!(metadata(&["a", "bc"]), *b"\x11\x02\x00\x01\x03abc");
        let long = "x".repeat(300);
        let encoded = metadata(&["", &long]);
        assert_eq!(encoded[..9], [0x51, 2, 0, 0, 0, 0, 0, 0x2c, 1]);
    }

    #[test]
    fn the_same_keys_are_found_again_and_placed_once_in_a_batch() {
        let (mut cache, mut blobs) = (KeyCache::default(), Blobs::default());
        let (one, two) = (bag(&["b", "a"]), bag(&["a", "b"]));
        let mut find = |bag: &[Attribute]| {
            let (keys, place) = cache
                .find(Attributes::record(bag), &mut 0, &mut blobs)
                .unwrap();
            (keys.ids.clone(), keys.is_plain(), place)
        };
        assert_eq!(find(&one), (vec![1, 0], true, 0));
        assert_eq!(find(&two), (vec![0, 1], true, 1));
        assert_eq!(find(&one), (vec![1, 0], true, 0));
        cache.next_batch();
        let mut blobs = Blobs::default();
        let (_, place) = cache
            .find(Attributes::record(&two), &mut 1, &mut blobs)
            .unwrap();
        assert_eq!(place, 0);
    }

    #[test]
    fn keys_that_look_alike_to_the_hash_are_told_apart() {
        let mut last = 0;
        let (mut cache, mut blobs) = (KeyCache::default(), Blobs::default());
        for round in 0..3 {
            for middle in 0..40 {
                let key = format!("attribute.{middle:04}.of.the.span");
                let attributes = vec![Attribute::new(key.clone(), 1)];
                let (keys, _) = cache
                    .find(Attributes::record(&attributes), &mut last, &mut blobs)
                    .unwrap();
                assert_eq!(keys.text, key, "round {round}");
            }
        }
    }

    #[test]
    fn bags_are_told_apart_by_the_keys_inside_of_them_too() {
        let (mut cache, mut blobs) = (KeyCache::default(), Blobs::default());
        let map = |keys: &[&'static str]| {
            vec![Attribute::new(
                "a",
                trace_destination_core::AnyValue::Map(bag(keys)),
            )]
        };
        let mut last = 0;
        for _ in 0..2 {
            for inner in [&[][..], &[""], &["", ""], &["b"], &["a"]] {
                let bag = map(inner);
                let (keys, _) = cache
                    .find(Attributes::record(&bag), &mut last, &mut blobs)
                    .unwrap();
                assert_eq!(keys.ids.len(), 1 + inner.len());
                assert_eq!(keys.text, format!("a{}", inner.concat()));
            }
        }
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut last = 0;
        let (mut cache, mut blobs) = (KeyCache::default(), Blobs::default());
        for i in 0..5_000 {
            let attributes = vec![Attribute::new(
                format!("key-{i}-{}", "x".repeat(i % 3_000)),
                1,
            )];
            cache
                .find(Attributes::record(&attributes), &mut last, &mut blobs)
                .unwrap();
            assert!(cache.known.len() <= MAX_CACHED);
            assert!(cache.bytes() <= MAX_CACHED_BYTES + 10_000);
        }
        let huge = vec![Attribute::new("x".repeat(1 << 20), 1)];
        cache
            .find(Attributes::record(&huge), &mut last, &mut blobs)
            .unwrap();
        cache.next_batch();
        assert_eq!(cache.bytes(), 0, "an idle table keeps no megabyte of keys");
    }
}
