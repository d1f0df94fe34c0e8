//! Threads that wait, and the processors on which they may spin meanwhile: one is left to everything
//! else.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The threads of applications that wait in a runtime.
pub(super) struct Crowd {
    /// Processors that this process had at its start.
    processors: usize,
    /// Threads that watch memory while polling cores poll for them.
    watching: AtomicUsize,
    /// Threads that have waited for a while.
    waiting: AtomicUsize,
}

impl Crowd {
    pub(super) fn new(processors: usize) -> Self {
        Self { processors, watching: AtomicUsize::new(0), waiting: AtomicUsize::new(0) }
    }

    /// Whether a thread may spin that has to wait beside `cores` polling cores. Who drives an engine
    /// itself may. Who waits for a polling core may if there is a processor for it beside those of the
    /// cores and of the others who do so: without, it would hold up the thread that it waits for.
    pub(super) fn let_spin(&self, cores: usize) -> Option<Place<'_>> {
        if cores == 0 {
            return Some(Place { taken: None });
        }
        let places = self.beside(cores);
        let one_more = |taken| (taken < places).then_some(taken + 1);
        let taken = self.watching.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.ok().map(|_| Place { taken: Some(&self.watching) })
    }

    /// Whether polling cores and applications' threads have to share processors.
    pub(super) fn shares_with(&self, cores: usize) -> bool {
        self.beside(cores) == 0
    }

    /// For a thread that begins to wait, and drives engines if `drives`.
    pub(super) fn turn(&self, drives: bool) -> Turn<'_> {
        let mut turn = Turn { crowd: self, drives, joined: false };
        // Where others take turns already it looks once.
        if drives && self.is_crowded() {
            turn.join();
        }
        turn
    }

    /// Whether more threads wait than may spin.
    fn is_crowded(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > self.beside(0).max(1)
    }

    /// Threads that may spin beside `cores` polling cores.
    fn beside(&self, cores: usize) -> usize {
        self.processors.saturating_sub(cores + 1)
    }
}

/// The right of a thread to spin while it waits.
pub(in crate::local) struct Place<'a> {
    taken: Option<&'a AtomicUsize>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(places) = self.taken {
            places.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// A thread's wait among those of the other threads of its process, which all drive engines.
pub(in crate::local) struct Turn<'a> {
    crowd: &'a Crowd,
    drives: bool,
    joined: bool,
}

impl Turn<'_> {
    /// Counts from now on.
    pub(in crate::local) fn join(&mut self) {
        if !std::mem::replace(&mut self.joined, true) {
            self.crowd.waiting.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Lets another thread have the processor if more wait than may spin; whether it did. Each of them
    /// would keep it for its time slice of some milliseconds. Linux charges who yields with the rest
    /// of the slice; where all of them do so that costs none of them its turn.
    pub(in crate::local) fn pass_on(&self) -> bool {
        let crowded = self.joined && self.drives && self.crowd.is_crowded();
        if crowded {
            std::thread::yield_now();
        }
        crowded
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if self.joined {
            self.crowd.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_polling_core_spins_only_on_a_processor_that_is_free() {
        let crowd = Crowd::new(4);
        assert!(crowd.let_spin(0).is_some(), "nobody else polls");
        assert!(!crowd.shares_with(1));
        let first = crowd.let_spin(1);
        let second = crowd.let_spin(1);
        assert!(first.is_some() && second.is_some());
        assert!(crowd.let_spin(1).is_none(), "one processor is left to others");
        drop(first);
        assert!(crowd.let_spin(1).is_some());
        let small = Crowd::new(2);
        assert!(small.let_spin(1).is_none() && small.shares_with(1));
    }

    #[test]
    fn threads_take_turns_where_more_wait_than_may_spin() {
        let crowd = Crowd::new(3);
        let (mut first, mut second, mut third) =
            (crowd.turn(true), crowd.turn(true), crowd.turn(true));
        first.join();
        first.join();
        second.join();
        assert!(!first.pass_on(), "two threads on two of three processors");
        third.join();
        assert!(first.pass_on() && crowd.turn(true).pass_on(), "who has just come, too");
        drop(third);
        assert!(!first.pass_on());
    }

    #[test]
    fn on_one_processor_one_thread_may_spin() {
        let crowd = Crowd::new(1);
        let (mut first, mut second) = (crowd.turn(true), crowd.turn(true));
        first.join();
        assert!(!first.pass_on(), "alone");
        second.join();
        assert!(second.pass_on());
        let mut watching = crowd.turn(false);
        watching.join();
        assert!(!watching.pass_on(), "polling cores poll, and who waits for them sleeps");
    }
}
