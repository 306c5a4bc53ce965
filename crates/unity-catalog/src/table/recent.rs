//! Spans that were stored a moment ago: whoever sends one again, because an answer got lost on the
//! way to a gateway or two collectors forward the same, gets no second row.
//!
//! A span is the same if its ids, its start, its end and its kind are: systems that share one id
//! between client and server, and spans that are sent before they end and again after, are kept. Of
//! the values it is not told, so the first one stays.

use foldhash::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use trace_destination_core::{Refusal, Span, TraceBatch};

/// Spans that one open table remembers, at least half of them: four batches of the largest size.
const PER_TABLE: usize = 65_536;
/// Spans that all open tables of this process remember: some 40 MiB.
const IN_PROCESS: usize = 1 << 20;

static HELD: AtomicUsize = AtomicUsize::new(0);

/// 128 bits of a keyed hash: nobody outside this process can make two that are the same.
static KEYS: LazyLock<[RandomState; 2]> = LazyLock::new(Default::default);

/// What makes a span the same as another.
type Identity = u128;

/// The identity of a span.
fn identity(span: &Span) -> Identity {
    let mut bytes = [0_u8; 41];
    bytes[..16].copy_from_slice(&span.trace_id().to_bytes());
    bytes[16..24].copy_from_slice(&span.span_id().to_bytes());
    bytes[24..32].copy_from_slice(&span.start_time_unix_nano().to_le_bytes());
    bytes[32..40].copy_from_slice(&span.end_time_unix_nano().to_le_bytes());
    bytes[40] = span.kind() as u8;
    let [high, low] = &*KEYS;
    (u128::from(high.hash_one(bytes)) << 64) | u128::from(low.hash_one(bytes))
}

/// The spans of a batch, by their position: who they are, and which came before.
#[derive(Debug, Default)]
pub(super) struct Sorted {
    identities: Vec<Identity>,
    /// Those that are in the table, or earlier in the batch.
    pub(super) repeated: HashSet<usize>,
}

/// What one open table remembers, and how much came again.
#[derive(Debug, Default)]
pub(super) struct Memory {
    recent: Mutex<Recent>,
    repeated: AtomicU64,
}

impl Memory {
    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at a batch.
    pub(super) fn sort(&self, batch: &TraceBatch, refused: &[Refusal]) -> Sorted {
        self.recent().sort(batch, refused)
    }

    /// Remembers the spans of a batch that is stored, but for those that were refused.
    pub(super) fn remember(&self, sorted: &Sorted, refused: &[Refusal]) {
        self.recent().remember(sorted, refused);
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        self.recent().clear();
    }

    /// Counts the spans that were not stored because they are in the table.
    pub(super) fn tell(&self, sorted: &Sorted) {
        let count = u64::try_from(sorted.repeated.len()).unwrap_or(u64::MAX);
        if count == 0 {
            return;
        }
        match self.repeated.fetch_add(count, Ordering::Relaxed) {
            0 => tracing::info!(
                count,
                "spans came again that were stored a moment ago; they get no second row"
            ),
            before => tracing::debug!(count, total = before + count, "spans came again"),
        }
    }
}

/// The spans of a table, by identity. Two generations: the older is let go of when the younger is half of what
/// fits, so that nothing is kept for every single one but itself.
#[derive(Debug, Default)]
struct Recent {
    young: HashSet<Identity>,
    old: HashSet<Identity>,
}

impl Recent {
    /// A span that is refused is none that another repeats, and repeats none.
    fn sort(&self, batch: &TraceBatch, refused: &[Refusal]) -> Sorted {
        let refused: HashSet<usize> = refused.iter().map(|refusal| refusal.index).collect();
        let spans = batch.groups().iter().flat_map(|group| &group.spans);
        let identities: Vec<Identity> = spans.map(identity).collect();
        let mut seen = HashSet::default();
        seen.reserve(identities.len());
        let mut is_repeated =
            |id: &Identity| self.young.contains(id) || self.old.contains(id) || !seen.insert(*id);
        let repeated = identities.iter().enumerate();
        let repeated = repeated.filter(|(index, _)| !refused.contains(index));
        let repeated = repeated.filter_map(|(index, id)| is_repeated(id).then_some(index));
        Sorted {
            repeated: repeated.collect(),
            identities,
        }
    }

    fn remember(&mut self, sorted: &Sorted, refused: &[Refusal]) {
        let refused: HashSet<usize> = refused.iter().map(|refusal| refusal.index).collect();
        for (index, identity) in sorted.identities.iter().enumerate() {
            if refused.contains(&index) || sorted.repeated.contains(&index) {
                continue;
            }
            if self.young.len() >= PER_TABLE / 2 {
                self.age();
            }
            if HELD.fetch_add(1, Ordering::Relaxed) >= IN_PROCESS {
                HELD.fetch_sub(1, Ordering::Relaxed);
                // Others have what there is: this table makes do with what it has.
                self.age();
                if HELD.fetch_add(1, Ordering::Relaxed) >= IN_PROCESS {
                    HELD.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
            }
            if !self.young.insert(*identity) {
                HELD.fetch_sub(1, Ordering::Relaxed);
            }
        }
    }

    fn age(&mut self) {
        let old = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        HELD.fetch_sub(old.len(), Ordering::Relaxed);
    }

    fn clear(&mut self) {
        self.age();
        self.age();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

impl Drop for Recent {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests;
