//! Waking those who sleep on a completion queue, without a race and without a system call while
//! nobody sleeps.
//!
//! The owner of a queue stores a new *arm word* in a page that its peers map read-only, then a
//! sequentially consistent fence, then looks at the rings once more (its last poll before it sleeps). A
//! poster publishes its slots, then the fence, then loads the arm word. The fences are totally
//! ordered: either the owner's comes first, so the poster sees the new word and writes the eventfd,
//! or the poster's comes first, so the owner's poll sees the slots. Every poster notifies once per
//! arm word, so that a queue that was armed long ago costs nothing.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering, fence};

use netchannel_shared_memory as shared;
use shared::memory::{Mapping, SharedMemory};
use shared::wake::Wake;

/// Low bits of an arm word: what wakes.
const MODE: u32 = 3;
const ANY: u32 = 1;
const SOLICITED: u32 = 2;
/// One arming after the other.
const STEP: u32 = 4;

fn wakes(word: u32, solicited: bool) -> bool {
    match word & MODE {
        0 => false,
        SOLICITED => solicited,
        _ => true,
    }
}

/// The owner's side.
#[derive(Debug)]
pub(super) struct Alarm {
    word: Mapping,
    memory: SharedMemory,
    wake: Wake,
    notified: AtomicU32,
}

impl Alarm {
    pub(super) fn new() -> Result<Self, shared::Error> {
        let (memory, word) = SharedMemory::create_with_sole_writer("netchannel-arm", 4)?;
        Ok(Self { word, memory, wake: Wake::new()?, notified: AtomicU32::new(0) })
    }

    fn load(&self) -> u32 {
        self.word.load_u32(0, Ordering::Relaxed).unwrap_or(0)
    }

    /// From now on the next completion wakes; with `solicited_only`, the next solicited one.
    pub(super) fn arm(&self, solicited_only: bool) {
        let mode = if solicited_only { SOLICITED } else { ANY };
        if let Some(word) = self.word.at::<AtomicU32>(0) {
            let next = (word.load(Ordering::Relaxed) & !MODE).wrapping_add(STEP) | mode;
            word.store(next, Ordering::Relaxed);
        }
        // The arm word before the loads of the caller's next poll: see the module documentation.
        fence(Ordering::SeqCst);
    }

    /// For completions that this process itself brought about. The caller's fence comes before.
    pub(super) fn notify_if_armed(&self) {
        let word = self.load();
        if wakes(word, true) && self.notified.swap(word, Ordering::Relaxed) != word {
            self.notify();
        }
    }

    /// Wakes without question.
    pub(super) fn notify(&self) {
        // It fails only for a descriptor that is not an eventfd, and ours is one.
        let _ = self.wake.notify();
    }

    pub(super) fn drain(&self) -> Result<(), shared::Error> {
        self.wake.drain().map(drop)
    }

    /// The descriptor to sleep on, and to hand to peers.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.wake.fd()
    }

    pub(super) fn word_fd(&self) -> BorrowedFd<'_> {
        self.memory.fd()
    }
}

/// A poster's view of a peer's queue.
#[derive(Debug)]
pub(super) struct RemoteAlarm {
    word: Mapping,
    wake: Wake,
    notified: AtomicU32,
}

impl RemoteAlarm {
    pub(super) fn from_fds(word: OwnedFd, wake: OwnedFd) -> Result<Self, shared::Error> {
        let word = SharedMemory::from_fd(word, 4)?.map_read_only()?;
        Ok(Self { word, wake: Wake::from_fd(wake)?, notified: AtomicU32::new(0) })
    }

    /// Wakes the owner if it armed. The caller's sequentially consistent fence comes before.
    #[inline]
    pub(super) fn notify_if_armed(&self, solicited: bool) {
        let word = self.word.load_u32(0, Ordering::Relaxed).unwrap_or(0);
        if word != self.notified.load(Ordering::Relaxed) && wakes(word, solicited) {
            self.notified.store(word, Ordering::Relaxed);
            // A peer that broke its own eventfd does not hear us; that is its loss.
            let _ = self.wake.notify();
        }
    }
}
