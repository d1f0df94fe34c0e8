//! Waiting, in whichever process the engine is: for what, and how a thread goes to sleep.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::Duration;

use netchannel_units::{GroupId, Timestamp};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use crate::boundary::port::PortShared;
use crate::clock::now;
use crate::config::{Config, Idle};

/// A spinning thread that found nothing for this long lets others have the processor. Linux 6.13
/// and later charge a yield with the rest of the time slice, so it must be rare; on a machine with
/// few cores it must not be missing.
pub(crate) const YIELD_AFTER: Duration = Duration::from_millis(1);

/// Something to wait for.
pub(crate) trait Waitable {
    /// Whether it has happened.
    fn is_ready(&self) -> bool;
    /// Notes or forgets the port to wake when it happens.
    fn set_waiter(&self, port: Option<&Arc<PortShared>>);
    /// The group in which it happens; `None` if it may be any.
    fn group(&self) -> Option<GroupId>;
}

/// A waiter word of a stream's cell.
pub(crate) struct CellWait<'a, F> {
    pub(crate) word: &'a AtomicU32,
    pub(crate) ready: F,
    pub(crate) group: GroupId,
}

impl<F: Fn() -> bool> Waitable for CellWait<'_, F> {
    fn is_ready(&self) -> bool {
        (self.ready)()
    }
    fn set_waiter(&self, port: Option<&Arc<PortShared>>) {
        self.word.store(port.map_or(0, |p| p.number), Ordering::Relaxed);
    }
    fn group(&self) -> Option<GroupId> {
        Some(self.group)
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

/// The sleeper's half of the protocol, until `what` is ready or the deadline passed: flag, fence,
/// look again, sleep. `sleep` may return for any reason, but at the deadline at the latest.
pub(crate) fn sleep_until(
    what: &dyn Waitable,
    port: &Arc<PortShared>,
    deadline: Option<Timestamp>,
    mut sleep: impl FnMut(),
) -> Waited {
    let waited = loop {
        what.set_waiter(Some(port));
        fence(Ordering::SeqCst);
        if what.is_ready() {
            break Waited::Ready;
        }
        if deadline.is_some_and(|at| now() >= at) {
            break Waited::TimedOut;
        }
        sleep();
    };
    what.set_waiter(None);
    waited
}

/// When who spins from `start` on is to stop: at the deadline, and with [`Idle::Sleep`] after a
/// short while.
pub(crate) fn spin_limit(
    config: &Config,
    start: Timestamp,
    deadline: Option<Timestamp>,
) -> Option<Timestamp> {
    let short = (config.idle == Idle::Sleep).then(|| start + config.spin_before_sleep);
    [short, deadline].into_iter().flatten().min()
}

/// Sleeps until a descriptor is readable or the time is up; returns for each whether it is.
pub(crate) fn sleep(fds: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> =
        fds.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN)).collect();
    let timeout = timeout
        .map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) });
    // An interrupted sleep is a wake-up like any other: callers look again.
    let _ = poll(&mut fds, timeout.as_ref());
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}
