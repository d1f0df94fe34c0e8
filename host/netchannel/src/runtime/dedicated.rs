//! The polling thread.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::thread::JoinHandle;

use crate::config::Idle;
use crate::error::Error;
use crate::runtime::wait::{YIELD_AFTER, sleep};
use crate::runtime::{RuntimeInner, now};

/// Starts the polling thread.
pub(super) fn spawn(inner: Arc<RuntimeInner>) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name("nc-poller".into())
        .spawn(move || run(&inner))
        .map_err(Error::system("starting the polling thread"))
}

fn run(inner: &RuntimeInner) {
    let mut idle_since = now();
    let mut yielded = idle_since;
    while !inner.is_stopping() {
        inner.owner.give_way();
        let Some(mut engine) = inner.owner.try_own() else {
            std::thread::yield_now();
            continue;
        };
        let time = now();
        if engine.poll(time) {
            idle_since = time;
            yielded = time;
            continue;
        }
        let asleep =
            inner.config.idle == Idle::Sleep && time - idle_since >= inner.config.spin_before_sleep;
        if !asleep {
            drop(engine);
            if time - yielded >= YIELD_AFTER {
                yielded = time;
                std::thread::yield_now();
            }
            std::hint::spin_loop();
            continue;
        }
        engine.settle(time);
        // The sleeper's half: flag, fence, look again, sleep.
        inner.owner.driver_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        engine.arm();
        // Who stops the runtime says so before it looks for sleepers.
        if !engine.poll(now()) && !inner.is_stopping() {
            let timeout = engine.next_timeout().map(|at| at - now());
            drop(engine);
            // SAFETY: the completion queues live as long as the engine, and so as `inner`.
            let [receives, sends] = inner.event_fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) });
            match &inner.owner.driver_wake {
                Some(wake) => sleep(&[wake.fd(), receives, sends], timeout),
                None => sleep(&[receives, sends], timeout),
            };
            inner.shared.counters.wakeups.add_shared(1);
            if let Some(wake) = &inner.owner.driver_wake {
                let _ = wake.drain();
            }
            if let Some(mut engine) = inner.owner.try_own() {
                engine.drain_events([true; 2]);
            }
        }
        inner.owner.driver_asleep.store(false, Ordering::Relaxed);
        idle_since = now();
    }
}
