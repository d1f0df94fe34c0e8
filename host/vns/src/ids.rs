//! Which of the peer's stream numbers were used.

use netchannel_units::{ByteRange, RangeSet, StreamOffset};
use netchannel_wire::StreamId;

/// The set of numbers seen, compact as long as they come nearly in order.
#[derive(Debug, Default)]
pub struct SeenIds {
    // A number is halved (its lowest bit says which side gave it) and kept as a one-byte range.
    seen: RangeSet,
}

fn slot(id: StreamId) -> ByteRange {
    let start = StreamOffset::new(u64::from(id.0 >> 1));
    ByteRange { start, end: start + 1 }
}

impl SeenIds {
    /// Notes `id`; false if it was there already.
    pub fn insert(&mut self, id: StreamId) -> bool {
        self.seen.insert(slot(id)) == 1
    }

    /// Whether `id` was noted.
    pub fn contains(&self, id: StreamId) -> bool {
        self.seen.contains(slot(id))
    }
}
