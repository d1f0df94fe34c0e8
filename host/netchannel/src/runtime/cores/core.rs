//! A polling core: a thread that polls its groups, those of latency streams first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::thread::JoinHandle;

use netchannel_shared_memory::wake::Wake;
use netchannel_units::Timestamp;

use crate::engine::EVENT_FDS;
use crate::error::Error;
use crate::runtime::group::Group;
use crate::runtime::wait::{YIELD_AFTER, sleep};
use crate::runtime::{RuntimeInner, now};
use crate::shared::Counter;

/// One polling core, as others see it.
pub(in crate::runtime) struct Core {
    asleep: AtomicBool,
    stop: AtomicBool,
    wake: Wake,
    /// Passes over its groups, and those that moved something.
    pub(in crate::runtime) passes: Counter,
    pub(in crate::runtime) busy: Counter,
}

impl Core {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wake: Wake::new().map_err(Error::shared_memory("making a polling core's wake-up"))?,
            passes: Counter::default(),
            busy: Counter::default(),
        })
    }

    /// Wakes the thread if it sleeps. The waker's half of the sleeper protocol: queue, fence (the
    /// caller's), look.
    pub(super) fn wake(&self) {
        if self.asleep.load(Ordering::Relaxed)
            && self.asleep.swap(false, Ordering::AcqRel)
            && let Err(error) = self.wake.notify()
        {
            tracing::warn!(%error, "cannot wake a polling thread");
        }
    }

    /// Makes the thread end after its pass.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.wake();
    }
}

/// Starts the thread of core `number`.
pub(super) fn spawn(inner: Arc<RuntimeInner>, number: usize) -> Result<JoinHandle<()>, Error> {
    inner.cores.all[number].stop.store(false, Ordering::Release);
    std::thread::Builder::new()
        .name(format!("nc-poll-{number}"))
        .spawn(move || {
            pin(&inner.config.pin, number);
            Loop { core: &inner.cores.all[number], inner: &inner, number }.run();
        })
        .map_err(Error::system("starting a polling thread"))
}

/// Binds the thread to its processor, if the configuration names some.
fn pin(processors: &[u16], number: usize) {
    let Some(processor) = processors.get(number % processors.len().max(1)) else { return };
    let mut set = rustix::thread::CpuSet::new();
    set.set(usize::from(*processor));
    if let Err(error) = rustix::thread::sched_setaffinity(None, &set) {
        tracing::warn!(processor, %error, "cannot bind a polling thread to its processor");
    }
}

struct Loop<'a> {
    inner: &'a RuntimeInner,
    core: &'a Core,
    number: usize,
}

impl Loop<'_> {
    fn run(&self) {
        let mut idle_since = now();
        let mut yielded = idle_since;
        while !self.core.stop.load(Ordering::Relaxed) {
            let time = now();
            self.inner.balance(time);
            if self.pass(time) {
                idle_since = time;
                yielded = time;
                continue;
            }
            let spun = time - idle_since;
            let sleeps = self.inner.cores.sleep.load(Ordering::Relaxed);
            if sleeps && spun >= self.inner.config.spin_before_sleep {
                self.doze(time);
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

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.inner.groups.iter().filter(|group| group.core() == Some(self.number))
    }

    /// One pass, in order of precedence. True if anything moved.
    fn pass(&self, time: Timestamp) -> bool {
        let mut moved = false;
        for group in self.groups() {
            group.owner.give_way();
            match group.owner.try_own() {
                Some(mut engine) => {
                    if engine.poll(time) {
                        moved = true;
                        group.busy.add(1);
                    }
                }
                // Set-up holds it, or the core that had it until now; that one may have lost its
                // processor to this thread.
                None => std::thread::yield_now(),
            }
        }
        self.core.passes.add(1);
        self.core.busy.add(u64::from(moved));
        moved
    }

    /// Arms the events of its groups and sleeps, unless there is something to do.
    fn doze(&self, time: Timestamp) {
        // The sleeper's half: flag, fence, look again, sleep. Who gives it a group or stops it does
        // so before looking for sleepers.
        self.core.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let groups: Vec<&Group> = self.groups().collect();
        let mut timer: Option<Timestamp> = None;
        let mut idle = !self.core.stop.load(Ordering::Relaxed);
        for group in &groups {
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
            self.sleep(&groups, timer);
        }
        self.core.asleep.store(false, Ordering::Relaxed);
    }

    fn sleep(&self, groups: &[&Group], timer: Option<Timestamp>) {
        let mut fds = vec![self.core.wake.fd()];
        fds.extend(groups.iter().flat_map(|group| group.events()));
        let ready = sleep(&fds, timer.map(|at| at - now()));
        self.inner.shared.counters.wakeups.add_shared(1);
        if ready[0] {
            let _ = self.core.wake.drain();
        }
        for (group, ready) in groups.iter().zip(ready[1..].as_chunks::<EVENT_FDS>().0) {
            if ready.contains(&true)
                && let Some(mut engine) = group.owner.try_own()
            {
                engine.drain_events(*ready);
            }
        }
    }
}
