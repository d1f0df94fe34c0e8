//! Who drives the engine.
//!
//! One word says whether somebody does. A thread that finds it free takes it, drives a pass and
//! gives it back; a thread that finds it taken queues its work in its port, calls, and goes on: whoever gives
//! the engine back looks for calls afterwards. (To wait for the driver would take long where that has lost
//! its processor, perhaps to who waits.) Nobody holds it while asleep: sleepers are counted, and who gives the engine back while somebody sleeps arms the
//! completion events first and looks once more, so that the next arrival wakes the sleepers.

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use crate::clock::now;
use crate::engine::Drive;

/// What the helper thread does about the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum HelperMode {
    /// Looks every 500 us to 2 ms whether somebody drives.
    Ticking = 0,
    /// Sleeps on armed completion events: it is the one who drives.
    Watching = 1,
    /// Sleeps: an application thread sleeps on the completion events.
    Parked = 2,
}

/// Attempts to own the engine, about 50 us of them, before the processor is given up.
const TRIES_BEFORE_YIELD: u32 = 2_000;
/// Calls that one thread answers at most before it goes on: what is left then is taken by the next driver, or
/// by the helper thread.
const MOST_ANSWERS: u32 = 16;
/// How long who polls in a loop leaves the engine to who waits for it: about 5 us, longer than it
/// takes to see the word change, short beside a lost time slice.
const GIVE_WAY_SPINS: u32 = 200;

/// The engine and the right to drive it.
pub(crate) struct Owner {
    taken: AtomicBool,
    engine: UnsafeCell<Box<dyn Drive>>,
    /// Somebody queued work and found the engine taken.
    called: AtomicBool,
    /// Threads that wait for their turn, for set-up: who polls in a loop lets them in.
    waiting: AtomicU32,
    /// Application threads that sleep on completion events.
    pub(super) sleepers: AtomicU32,
    helper_mode: AtomicU8,
}

// SAFETY: the engine is `Send` and reached only through an `Engine` guard, of which `taken` allows
// one at a time.
unsafe impl Sync for Owner {}
// SAFETY: as above.
unsafe impl Send for Owner {}

/// The right to drive the engine, until dropped.
pub(crate) struct OwnedEngine<'a> {
    owner: &'a Owner,
}

impl Owner {
    pub(super) fn new(engine: Box<dyn Drive>) -> Self {
        Self {
            taken: AtomicBool::new(false),
            engine: UnsafeCell::new(engine),
            called: AtomicBool::new(false),
            waiting: AtomicU32::new(0),
            sleepers: AtomicU32::new(0),
            helper_mode: AtomicU8::new(HelperMode::Ticking as u8),
        }
    }

    /// The engine, if nobody drives it.
    pub(crate) fn try_own(&self) -> Option<OwnedEngine<'_>> {
        // Look before the exchange: a failing one would take the cache line from the driver.
        if self.taken.load(Ordering::Relaxed) || self.taken.swap(true, Ordering::Acquire) {
            return None;
        }
        Some(OwnedEngine { owner: self })
    }

    /// For who has queued work: the engine, or else its driver takes the work before it goes.
    ///
    /// Sequentially consistent, as giving the engine back is: the caller calls and then looks whether
    /// it is taken, the driver gives it back and then looks for calls; one of them sees the other.
    pub(super) fn call(&self) -> Option<OwnedEngine<'_>> {
        self.called.store(true, Ordering::SeqCst);
        if self.taken.load(Ordering::SeqCst) {
            return None;
        }
        let engine = self.try_own()?;
        self.called.swap(false, Ordering::AcqRel);
        Some(engine)
    }

    /// Gives the engine back.
    #[inline]
    fn give_back(&self) {
        // It is also a release: the next driver sees everything that this one did.
        self.taken.swap(false, Ordering::SeqCst);
        if self.called.load(Ordering::SeqCst) {
            self.answer();
        }
    }

    /// Takes the work of those who called in vain.
    #[cold]
    fn answer(&self) {
        for _ in 0..MOST_ANSWERS {
            let Some(engine) = self.try_own() else { return };
            // Its drop would come back here.
            let mut engine = std::mem::ManuallyDrop::new(engine);
            // Before the look: who calls later is answered in the next round.
            self.called.swap(false, Ordering::AcqRel);
            engine.poll(now());
            engine.arm_for_sleepers();
            self.taken.swap(false, Ordering::SeqCst);
            if !self.called.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    /// The engine, as soon as whoever drives it has finished a pass.
    pub(super) fn own(&self) -> OwnedEngine<'_> {
        if let Some(engine) = self.try_own() {
            return engine;
        }
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut tries = 0u32;
        let engine = loop {
            if let Some(engine) = self.try_own() {
                break engine;
            }
            self.on_missed(&mut tries);
            std::hint::spin_loop();
        };
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        engine
    }

    /// For who tried in vain: the driver may have lost its processor to this thread.
    #[inline]
    pub(super) fn on_missed(&self, tries: &mut u32) {
        *tries = tries.wrapping_add(1);
        if tries.is_multiple_of(TRIES_BEFORE_YIELD) && self.is_taken() {
            std::thread::yield_now();
        }
    }

    /// For who polls in a loop, between two passes: lets in who waits for a turn.
    #[inline]
    pub(super) fn give_way(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            for _ in 0..GIVE_WAY_SPINS {
                if self.is_taken() || self.waiting.load(Ordering::Relaxed) == 0 {
                    return;
                }
                std::hint::spin_loop();
            }
        }
    }

    pub(super) fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Relaxed)
    }

    pub(super) fn helper_mode(&self) -> HelperMode {
        match self.helper_mode.load(Ordering::SeqCst) {
            1 => HelperMode::Watching,
            2 => HelperMode::Parked,
            _ => HelperMode::Ticking,
        }
    }

    /// Changes what the helper does; returns what it did. Sequentially consistent, as `sleepers`
    /// is: the helper parks and then counts sleepers, a sleeper wakes and then looks for a parked
    /// helper; one of them sees the other.
    pub(super) fn set_helper_mode(&self, mode: HelperMode) -> HelperMode {
        match self.helper_mode.swap(mode as u8, Ordering::SeqCst) {
            1 => HelperMode::Watching,
            2 => HelperMode::Parked,
            _ => HelperMode::Ticking,
        }
    }
}

impl OwnedEngine<'_> {
    /// If somebody sleeps on its events: none of them will miss what arrives from now on.
    pub(super) fn arm_for_sleepers(&mut self) {
        if self.owner.sleepers.load(Ordering::SeqCst) > 0 {
            self.arm();
            // What came before the arming makes no event.
            while self.poll(now()) {
                self.arm();
            }
        }
    }
}

impl Deref for OwnedEngine<'_> {
    type Target = dyn Drive;
    fn deref(&self) -> &Self::Target {
        // SAFETY: `taken` was false and is true now: no other guard exists.
        unsafe { &**self.owner.engine.get() }
    }
}

impl DerefMut for OwnedEngine<'_> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        // SAFETY: as in `deref`, and `&mut self` makes it the only reference.
        unsafe { &mut **self.owner.engine.get() }
    }
}

impl Drop for OwnedEngine<'_> {
    fn drop(&mut self) {
        self.owner.give_back();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::RawFd;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    use netchannel_units::Timestamp;

    use super::*;
    use crate::boundary::port::Doorbell;
    use crate::engine::control::EngineControl;
    use crate::engine::pass::Passed;
    use crate::engine::{EVENT_FDS, Loan};
    use crate::wait::Waitable;

    /// Takes what was queued.
    struct Taker {
        queued: Arc<AtomicU64>,
        taken: u64,
    }

    impl Drive for Taker {
        fn poll(&mut self, _: Timestamp) -> bool {
            let before = self.taken;
            self.taken = self.queued.load(Ordering::Relaxed);
            self.taken > before
        }
        fn poll_for(&mut self, now: Timestamp, _: &dyn Waitable) -> Passed {
            if self.poll(now) { Passed::Moved } else { Passed::Idle }
        }
        fn serve(&mut self, _: Timestamp, _: Doorbell) {}
        fn write_direct(&mut self, _: &dyn Fn() -> Timestamp, _: Loan<'_>) -> Option<usize> {
            None
        }
        fn settle(&mut self, _: Timestamp) {}
        fn arm(&mut self) {}
        fn drain_events(&mut self, _: [bool; EVENT_FDS]) {}
        fn event_fds(&self) -> [RawFd; EVENT_FDS] {
            [-1; EVENT_FDS]
        }
        fn next_timeout(&self) -> Option<Timestamp> {
            // What it has taken, for the test to look at.
            Some(Timestamp::from_nanos(self.taken))
        }
        fn control(&mut self) -> &mut dyn EngineControl {
            unreachable!("nobody asks")
        }
    }

    fn owner() -> (Owner, Arc<AtomicU64>) {
        let queued = Arc::new(AtomicU64::new(0));
        (Owner::new(Box::new(Taker { queued: Arc::clone(&queued), taken: 0 })), queued)
    }

    fn taken(owner: &Owner) -> Option<u64> {
        owner.try_own().and_then(|engine| engine.next_timeout()).map(Timestamp::as_nanos)
    }

    #[test]
    fn who_drives_answers_before_it_goes() {
        let (owner, queued) = owner();
        let driver = owner.try_own().unwrap();
        queued.store(1, Ordering::Relaxed);
        assert!(owner.call().is_none(), "taken");
        drop(driver);
        assert_eq!(taken(&owner), Some(1));
    }

    #[test]
    fn what_threads_queue_is_taken_or_known_to_be_left() {
        const ROUNDS: u64 = 1_000;
        let (owner, queued) = owner();
        for round in 1..=500 {
            let caller = || {
                for _ in 0..ROUNDS {
                    queued.fetch_add(1, Ordering::Relaxed);
                    if let Some(mut engine) = owner.call() {
                        engine.poll(now());
                    }
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(caller);
                scope.spawn(caller);
            });
            // A driver that was called too often leaves the rest to the next one.
            let left = owner.called.load(Ordering::Relaxed);
            assert!(left || taken(&owner) == Some(round * 2 * ROUNDS), "lost in round {round}");
        }
    }
}
