//! The polling thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::JoinHandle;

use netchannel_shared_memory::wake::Wake;
use netchannel_units::Timestamp;

use crate::config::Idle;
use crate::engine::EVENT_FDS;
use crate::error::Error;
use crate::runtime::group::Group;
use crate::runtime::wait::{YIELD_AFTER, sleep};
use crate::runtime::{RuntimeInner, now};

/// How others reach the polling thread.
pub(super) struct Driver {
    asleep: AtomicBool,
    wake: Wake,
}

impl Driver {
    pub(super) fn new() -> Result<Self, Error> {
        let wake =
            Wake::new().map_err(Error::shared_memory("making a polling thread's wake-up"))?;
        Ok(Self { asleep: AtomicBool::new(false), wake })
    }

    /// Wakes the thread if it sleeps. The waker's half of the sleeper protocol: queue, fence, look.
    pub(super) fn wake(&self) {
        fence(Ordering::SeqCst);
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::AcqRel)
            && let Err(error) = self.wake.notify()
        {
            tracing::warn!(%error, "cannot wake the polling thread");
        }
    }
}

/// Starts the polling thread.
pub(super) fn spawn(inner: Arc<RuntimeInner>) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name("nc-poller".into())
        .spawn(move || {
            if let Some(driver) = &inner.driver {
                run(&inner, driver);
            }
        })
        .map_err(Error::system("starting the polling thread"))
}

fn run(inner: &RuntimeInner, driver: &Driver) {
    let mut idle_since = now();
    let mut yielded = idle_since;
    while !inner.is_stopping() {
        let time = now();
        if poll_all(&inner.groups, time) {
            idle_since = time;
            yielded = time;
            continue;
        }
        if inner.config.idle == Idle::Sleep && time - idle_since >= inner.config.spin_before_sleep {
            doze(inner, driver, time);
            idle_since = now();
            continue;
        }
        if time - yielded >= YIELD_AFTER {
            yielded = time;
            std::thread::yield_now();
        }
        std::hint::spin_loop();
    }
}

/// One pass, in order of precedence. True if anything moved.
fn poll_all(groups: &[Group], time: Timestamp) -> bool {
    let mut moved = false;
    for group in groups {
        group.owner.give_way();
        match group.owner.try_own() {
            Some(mut engine) => moved |= engine.poll(time),
            // Set-up holds it; it may have lost its processor to this thread.
            None => std::thread::yield_now(),
        }
    }
    moved
}

/// Arms the events of all groups and sleeps, unless there is something to do.
fn doze(inner: &RuntimeInner, driver: &Driver, time: Timestamp) {
    // The sleeper's half: flag, fence, look again, sleep.
    driver.asleep.store(true, Ordering::Relaxed);
    fence(Ordering::SeqCst);
    let mut timer: Option<Timestamp> = None;
    // Who stops the runtime says so before it looks for sleepers.
    let mut idle = !inner.is_stopping();
    for group in &inner.groups {
        let Some(mut engine) = group.owner.try_own() else {
            idle = false;
            break;
        };
        engine.settle(time);
        engine.arm();
        idle &= !engine.poll(now());
        timer = [timer, engine.next_timeout()].into_iter().flatten().min();
    }
    if idle {
        let mut fds = vec![driver.wake.fd()];
        fds.extend(inner.groups.iter().flat_map(Group::events));
        let ready = sleep(&fds, timer.map(|at| at - now()));
        inner.shared.counters.wakeups.add_shared(1);
        if ready[0] {
            let _ = driver.wake.drain();
        }
        for (group, ready) in inner.groups.iter().zip(ready[1..].as_chunks::<EVENT_FDS>().0) {
            if ready.contains(&true)
                && let Some(mut engine) = group.owner.try_own()
            {
                engine.drain_events(*ready);
            }
        }
    }
    driver.asleep.store(false, Ordering::Relaxed);
}
