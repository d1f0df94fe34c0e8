//! What a thread does that must wait.
//!
//! It drives the engine (inline poller) or watches memory (dedicated poller); with
//! [`Idle::Sleep`] it sleeps after a short while. Before it sleeps it notes itself where the
//! engine looks after publishing, and looks once more itself: flag, fence, re-check, sleep.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use netchannel_units::Timestamp;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::config::{Idle, Poller};
use crate::error::Error;
use crate::port::PortShared;
use crate::runtime::{Keeper, RuntimeInner, now};

/// A spinning thread that found nothing for this long lets others have the processor. Linux 6.13
/// and later charge a yield with the rest of the time slice, so it must be rare; on a machine with
/// few cores it must not be missing.
pub(super) const YIELD_AFTER: Duration = Duration::from_millis(1);

/// Reading the clock costs as much as looking for messages, so an idle loop does it only every so
/// many passes: about half a microsecond.
const PASSES_PER_CLOCK: u32 = 8;

/// Something to wait for.
pub(crate) trait Waitable {
    /// Whether it has happened.
    fn is_ready(&self) -> bool;
    /// Notes or forgets the port to wake when it happens.
    fn set_waiter(&self, port: Option<&Arc<PortShared>>);
}

/// A waiter word of a stream's cell.
pub(crate) struct CellWait<'a, F> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) ready: F,
}

impl<F: Fn() -> bool> Waitable for CellWait<'_, F> {
    fn is_ready(&self) -> bool {
        (self.ready)()
    }
    fn set_waiter(&self, port: Option<&Arc<PortShared>>) {
        self.word.store(port.map_or(0, |p| p.number), Ordering::Relaxed);
    }
}

/// How waiting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// It happened.
    Ready,
    /// The deadline passed.
    TimedOut,
}

impl Keeper {
    /// Waits until `what` is ready, at most until `deadline`.
    pub(crate) fn wait(
        self: &Arc<Self>,
        what: &dyn Waitable,
        deadline: Option<Timestamp>,
    ) -> Result<Waited, Error> {
        let inner = &*self.inner;
        if inner.poll_for(what, deadline) == Some(Waited::Ready) {
            return Ok(Waited::Ready);
        }
        if deadline.is_some_and(|at| now() >= at) {
            return Ok(Waited::TimedOut);
        }
        let port = self.with_port(|port| Arc::clone(&port.shared))?;
        let waited = loop {
            what.set_waiter(Some(&port));
            fence(Ordering::SeqCst);
            if what.is_ready() {
                break Waited::Ready;
            }
            if deadline.is_some_and(|at| now() >= at) {
                break Waited::TimedOut;
            }
            match inner.config.poller {
                Poller::Inline => inner.sleep_on_events(&port, what, deadline),
                Poller::Dedicated => {
                    inner.shared.counters.wakeups.add_shared(1);
                    sleep(&[port.wake.fd()], remaining(deadline));
                    let _ = port.wake.drain();
                }
            }
        };
        what.set_waiter(None);
        inner.tell_helper_unless_dedicated();
        Ok(waited)
    }
}

fn remaining(deadline: Option<Timestamp>) -> Option<Duration> {
    deadline.map(|at| at - now())
}

/// Sleeps until a descriptor is readable or the time is up; returns for each whether it is.
pub(super) fn sleep(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = timeout
        .map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) });
    // An interrupted sleep is a wake-up like any other: callers look again.
    let _ = poll(&mut fds, timeout.as_ref());
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

impl RuntimeInner {
    fn tell_helper_unless_dedicated(&self) {
        if self.config.poller == Poller::Inline {
            self.tell_helper();
        }
    }

    /// Polls until ready, the deadline, or (with `Idle::Sleep`) the end of the short while.
    fn poll_for(&self, what: &dyn Waitable, deadline: Option<Timestamp>) -> Option<Waited> {
        let start = now();
        let mut until = deadline;
        if self.config.idle == Idle::Sleep {
            let short = start + self.config.spin_before_sleep;
            until = Some(until.map_or(short, |at| at.min(short)));
        }
        let inline = self.config.poller == Poller::Inline;
        self.tell_helper_unless_dedicated();
        let mut moved_at = start;
        let mut time = start;
        let mut passes = 0u32;
        loop {
            passes += 1;
            if passes.is_multiple_of(PASSES_PER_CLOCK) {
                time = now();
            }
            if inline && let Some(mut engine) = self.owner.try_own() {
                if engine.poll(time) {
                    moved_at = time;
                }
                if what.is_ready() {
                    self.let_go(engine);
                    return Some(Waited::Ready);
                }
                drop(engine);
                self.owner.give_way();
            } else if what.is_ready() {
                return Some(Waited::Ready);
            }
            if until.is_some_and(|until| time >= until) {
                return None;
            }
            if time - moved_at >= YIELD_AFTER {
                moved_at = time;
                std::thread::yield_now();
            }
            if !inline {
                std::hint::spin_loop();
            }
        }
    }

    /// Arms the completion events and sleeps on them and on the port's wake-up.
    fn sleep_on_events(
        &self,
        port: &Arc<PortShared>,
        what: &dyn Waitable,
        deadline: Option<Timestamp>,
    ) {
        let Some(mut engine) = self.owner.try_own() else {
            // Passes are short.
            std::thread::yield_now();
            return;
        };
        // Who drives need not be woken by what it publishes: that would be two system calls and an
        // empty sleep per message.
        what.set_waiter(None);
        let time = now();
        engine.settle(time);
        engine.arm();
        if engine.poll(time) || what.is_ready() {
            self.let_go(engine);
            return;
        }
        what.set_waiter(Some(port));
        fence(Ordering::SeqCst);
        // Not everything that is waited for comes from the engine.
        if what.is_ready() {
            self.let_go(engine);
            return;
        }
        let timeout = [deadline, engine.next_timeout()].into_iter().flatten().min();
        // SAFETY: the completion queues live as long as the engine, which lives as long as `self`.
        let events = self.event_fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
        // Counted before the engine is free: whoever drives next arms again before it goes.
        self.owner.sleepers.fetch_add(1, Ordering::SeqCst);
        drop(engine);
        let ready = sleep(&[port.wake.fd().as_fd(), events[0], events[1]], remaining(timeout));
        self.owner.sleepers.fetch_sub(1, Ordering::SeqCst);
        self.shared.counters.wakeups.add_shared(1);
        if ready[0] {
            let _ = port.wake.drain();
        }
        if let Some(mut engine) = self.owner.try_own() {
            what.set_waiter(None);
            engine.drain_events([ready[1], ready[2]]);
            engine.poll(now());
            self.let_go(engine);
        }
    }
}
