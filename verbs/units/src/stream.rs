//! Stream offsets, byte ranges, and sets of ranges.

use core::fmt;
use core::ops::{Add, Sub};

/// A position in the 64-bit byte space of one direction of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamOffset(u64);

impl StreamOffset {
    /// The first byte of a stream.
    pub const ZERO: Self = Self(0);

    /// Byte number `value` of a stream.
    pub const fn new(value: u64) -> Self {
        Self(value)
    }

    /// The number of bytes before this offset.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// This offset plus `bytes`, or `None` past the end of the 64-bit space.
    pub const fn checked_add(self, bytes: u64) -> Option<Self> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Bytes from `earlier` to here; zero if `earlier` is in fact later.
    pub const fn saturating_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<u64> for StreamOffset {
    type Output = Self;
    /// # Panics
    /// On overflow in debug builds: callers check offsets from the wire with
    /// [`StreamOffset::checked_add`] first.
    fn add(self, bytes: u64) -> Self {
        Self(self.0 + bytes)
    }
}

impl Sub for StreamOffset {
    type Output = u64;
    fn sub(self, earlier: Self) -> u64 {
        self.0 - earlier.0
    }
}

impl fmt::Display for StreamOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The bytes from `start` up to, not including, `end`; never reversed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteRange {
    /// First byte.
    pub start: StreamOffset,
    /// One past the last byte.
    pub end: StreamOffset,
}

impl ByteRange {
    /// `len` bytes from `start`, or `None` if they run past the 64-bit space.
    pub const fn new(start: StreamOffset, len: u64) -> Option<Self> {
        match start.checked_add(len) {
            Some(end) => Some(Self { start, end }),
            None => None,
        }
    }

    /// The bytes between two offsets; empty if `end` is before `start`.
    pub fn between(start: StreamOffset, end: StreamOffset) -> Self {
        Self { start, end: end.max(start) }
    }

    /// Number of bytes.
    pub const fn len(self) -> u64 {
        self.end.get() - self.start.get()
    }

    /// Whether there are no bytes.
    pub const fn is_empty(self) -> bool {
        self.start.get() == self.end.get()
    }
}

/// A set of stream bytes, kept as sorted, disjoint, non-adjacent ranges. Small sets are the normal
/// case (one range per gap), so a vector beats a tree.
///
/// ```
/// use netchannel_units::{ByteRange, RangeSet, StreamOffset};
/// let range = |a, b| ByteRange::between(StreamOffset::new(a), StreamOffset::new(b));
/// let mut set = RangeSet::default();
/// assert_eq!(set.insert(range(10, 20)), 10);
/// assert_eq!(set.insert(range(0, 12)), 10); // two bytes were there already
/// assert_eq!(set.iter().collect::<Vec<_>>(), [range(0, 20)]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct RangeSet {
    /// One word while nothing was ever out of order, as in most of ten thousand streams.
    #[expect(clippy::box_collection, reason = "a thin pointer: see above")]
    ranges: Option<Box<Vec<ByteRange>>>,
}

impl PartialEq for RangeSet {
    fn eq(&self, other: &Self) -> bool {
        self.slice() == other.slice()
    }
}

impl Eq for RangeSet {}

impl RangeSet {
    #[inline]
    fn slice(&self) -> &[ByteRange] {
        self.ranges.as_ref().map_or(&[], |ranges| ranges)
    }

    /// Adds `range`; returns how many of its bytes were new.
    pub fn insert(&mut self, range: ByteRange) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let ranges = self.ranges.get_or_insert_default();
        // Most bytes come after those that are known.
        match ranges.last_mut() {
            Some(last) if range.start == last.end => {
                last.end = range.end;
                return range.len();
            }
            Some(last) if range.start < last.end => {}
            _ => {
                ranges.push(range);
                return range.len();
            }
        }
        // The ranges that overlap or touch `range` are `first..last`: hardly ever more than two.
        let first = ranges.partition_point(|r| r.end < range.start);
        let touching = ranges[first..].iter().take_while(|r| r.start <= range.end).count();
        let last = first + touching;
        if touching == 0 {
            ranges.insert(first, range);
            return range.len();
        }
        let already: u64 = ranges[first..last]
            .iter()
            .map(|r| r.end.min(range.end).saturating_since(r.start.max(range.start)))
            .sum();
        let merged = ByteRange {
            start: ranges[first].start.min(range.start),
            end: ranges[last - 1].end.max(range.end),
        };
        ranges[first] = merged;
        if touching > 1 {
            ranges.drain(first + 1..last);
        }
        range.len() - already
    }

    /// Takes away every byte of `range`.
    #[inline]
    pub fn remove(&mut self, range: ByteRange) {
        if !self.is_empty() && !range.is_empty() {
            self.cut(range);
        }
    }

    fn cut(&mut self, range: ByteRange) {
        let Some(ranges) = &mut self.ranges else { return };
        let first = ranges.partition_point(|r| r.end <= range.start);
        let last = ranges.partition_point(|r| r.start < range.end);
        if first >= last {
            return;
        }
        let head = ByteRange::between(ranges[first].start, range.start.max(ranges[first].start));
        let tail = ByteRange::between(range.end.min(ranges[last - 1].end), ranges[last - 1].end);
        let keep = [head, tail].into_iter().filter(|r| !r.is_empty());
        ranges.splice(first..last, keep);
    }

    /// Whether every byte of `range` is in the set.
    pub fn contains(&self, range: ByteRange) -> bool {
        if range.is_empty() {
            return true;
        }
        let i = self.slice().partition_point(|r| r.end < range.end);
        self.slice().get(i).is_some_and(|r| r.start <= range.start && range.end <= r.end)
    }

    /// If the set has bytes from `from` on, takes away everything below the end of that run and
    /// returns the end; otherwise returns `from`. This is how a contiguous watermark moves on.
    pub fn advance(&mut self, from: StreamOffset) -> StreamOffset {
        let Some(ranges) = &mut self.ranges else { return from };
        let covered = ranges.iter().take_while(|r| r.start <= from).count();
        if covered == 0 {
            return from;
        }
        let end = ranges[covered - 1].end.max(from);
        ranges.drain(..covered);
        end
    }

    /// The lowest range, if any.
    pub fn first(&self) -> Option<ByteRange> {
        self.slice().first().copied()
    }

    /// The ranges from low to high.
    pub fn iter(&self) -> impl Iterator<Item = ByteRange> + '_ {
        self.slice().iter().copied()
    }

    /// Number of separate ranges.
    pub fn ranges(&self) -> usize {
        self.slice().len()
    }

    /// Number of bytes in all ranges.
    #[inline]
    pub fn bytes(&self) -> u64 {
        self.slice().iter().map(|r| r.len()).sum()
    }

    /// Whether there are no bytes.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.slice().is_empty()
    }

    /// Gives back the memory of an empty set.
    pub fn trim(&mut self) {
        if self.is_empty() {
            self.ranges = None;
        }
    }

    /// Removes everything.
    pub fn clear(&mut self) {
        if let Some(ranges) = &mut self.ranges {
            ranges.clear();
        }
    }
}
