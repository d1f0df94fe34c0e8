//! Sets of Channels.

/// Some of a session's Channels: most passes concern one or two of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ChannelSet(u64);

impl ChannelSet {
    pub(crate) fn insert(&mut self, number: usize) {
        debug_assert!(number < 64, "`Config::check` allows 64 Channels");
        self.0 |= 1 << (number & 63);
    }

    pub(crate) fn remove(&mut self, number: usize) {
        self.0 &= !(1 << (number & 63));
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers, ascending.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let number = left.trailing_zeros();
            left &= left.wrapping_sub(1);
            (number < 64).then_some(number as usize)
        })
    }
}
