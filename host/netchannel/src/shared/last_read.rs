//! The stream that was read last: what its engine's next pass may take along.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::boundary::StreamKey;

/// No stream: engine, session and number are never all the highest at once.
const NONE: u64 = u64::MAX;

/// Room for one stream whose engine is to look at what was read. Who reads one stream again and again tells no
/// more than that, and does not ring.
#[derive(Debug)]
pub(crate) struct LastRead(AtomicU64);

impl Default for LastRead {
    fn default() -> Self {
        Self(AtomicU64::new(NONE))
    }
}

impl LastRead {
    /// Leaves a stream; returns the one that has to make room, of which the engine has not heard.
    pub(crate) fn leave(&self, stream: StreamKey) -> Option<StreamKey> {
        // Acquire and release: who hears of either stream sees what was read of it.
        let before = self.0.swap(stream.0, Ordering::AcqRel);
        (before != NONE && before != stream.0).then_some(StreamKey(before))
    }

    /// Takes the stream that is there.
    #[inline]
    pub(crate) fn take(&self) -> Option<StreamKey> {
        if self.0.load(Ordering::Relaxed) == NONE {
            return None;
        }
        let stream = self.0.swap(NONE, Ordering::AcqRel);
        (stream != NONE).then_some(StreamKey(stream))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_stream_is_lost() {
        let (last, [a, b]) = (LastRead::default(), [3, 4].map(StreamKey));
        assert_eq!(last.take(), None);
        assert_eq!([last.leave(a), last.leave(a), last.leave(b)], [None, None, Some(a)]);
        assert_eq!([last.take(), last.take()], [Some(b), None]);
    }
}
