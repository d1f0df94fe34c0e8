use crate::atomics::{AtomicU32, Ordering, fence};

/// One side's word to the other that it sleeps, or is about to: not zero. Set by the sleeper, cleared by both.
///
/// It carries no data, and the fences order it, so every access is relaxed. Each change is a swap, so that each
/// side's last change is one that the other's next change has seen.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SleepFlag(pub AtomicU32);

impl SleepFlag {
    /// The sleeper, before it looks at the index again.
    pub(super) fn announce(&self) {
        self.0.swap(1, Ordering::Relaxed);
        // Between our store of the flag and our load of the index. Its partner stands in `take`.
        fence(Ordering::SeqCst);
    }

    /// The sleeper, awake or not asleep after all. Seeing it late costs the other side one notification in vain.
    pub(super) fn cancel(&self) {
        self.0.swap(0, Ordering::Relaxed);
    }

    /// The waker, after it stored its index: whether the other side sleeps, which is then ours to end.
    #[inline]
    pub(super) fn take(&self) -> bool {
        // Between our store of the index and our load of the flag. Its partner stands in `announce`, between the
        // store of the flag and the load of the index: whichever fence is second, its side sees what the other
        // stored.
        fence(Ordering::SeqCst);
        // The load keeps the line shared while nobody sleeps. The swap sees what the load saw or something
        // newer. If it sees zero, the sleeper has woken by itself, and looks at the index again behind a later
        // fence before it sleeps.
        self.0.load(Ordering::Relaxed) != 0 && self.0.swap(0, Ordering::Relaxed) != 0
    }
}
