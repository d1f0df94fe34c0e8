//! From stream keys to places in the stream table.

use core::hash::{BuildHasherDefault, Hasher};

use crate::random::mix;
use crate::view::StreamKey;

/// A hash table with the same order in every run.
#[expect(clippy::disallowed_types, reason = "the hasher is fixed, and nothing iterates")]
type FixedMap = std::collections::HashMap<StreamKey, u32, BuildHasherDefault<MixHasher>>;

/// Places by key.
#[derive(Clone, Debug, Default)]
pub(crate) struct Index(FixedMap);

impl Index {
    pub(crate) fn place(&self, key: StreamKey) -> Option<u32> {
        self.0.get(&key).copied()
    }

    pub(crate) fn insert(&mut self, key: StreamKey, place: u32) {
        self.0.insert(key, place);
    }

    pub(crate) fn remove(&mut self, key: StreamKey) -> Option<u32> {
        self.0.remove(&key)
    }
}

/// Hashes one `u64`.
#[derive(Clone, Copy, Debug, Default)]
struct MixHasher(u64);

impl Hasher for MixHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = mix(self.0 ^ value);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
