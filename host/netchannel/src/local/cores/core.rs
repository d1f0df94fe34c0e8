//! A polling core: a thread that polls its groups, those of latency streams first.

use std::sync::atomic::{AtomicBool, Ordering, fence};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use netchannel_shared_memory::wake::Wake;
use netchannel_units::Timestamp;

use crate::clock::now;
use crate::engine::EVENT_FDS;
use crate::error::Error;
use crate::local::RuntimeInner;
use crate::local::group::Group;
use crate::local::patience::Bounds;
use crate::sync::{Counter, lock};
use crate::wait::{YIELD_AFTER, sleep};

/// One polling core, as others see it.
pub(in crate::local) struct Core {
    asleep: AtomicBool,
    stop: AtomicBool,
    wake: Wake,
    /// Passes over its groups.
    pub(in crate::local) passes: Counter,
    /// Nanoseconds that it spent where something moved.
    pub(in crate::local) busy: Counter,
    /// The processor that it is bound to.
    processor: Mutex<Option<u16>>,
}

impl Core {
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self {
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            wake: Wake::new().map_err(Error::shared_memory("making a polling core's wake-up"))?,
            passes: Counter::default(),
            busy: Counter::default(),
            processor: Mutex::default(),
        })
    }

    /// The processor that it is bound to.
    pub(in crate::local) fn processor(&self) -> Option<u16> {
        *lock(&self.processor)
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

/// A thread that polls, and why it is not bound to the processor that it was to be bound to.
pub(super) type Started = (JoinHandle<()>, Option<String>);

/// Starts the thread of core `number`.
pub(super) fn spawn(inner: Arc<RuntimeInner>, number: usize) -> Result<Started, Error> {
    inner.cores.all[number].stop.store(false, Ordering::Release);
    let (say, said) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new()
        .name(format!("nc-poll-{number}"))
        .spawn(move || {
            let core = &inner.cores.all[number];
            // Nobody hears it if the starter is gone.
            let _ = say.send(core.pin(&inner.config.pin, number));
            Loop { core, inner: &inner, number }.run();
        })
        .map_err(Error::system("starting a polling thread"))?;
    let fault = said.recv().ok().and_then(Result::err);
    Ok((thread, fault))
}

impl Core {
    /// Binds the calling thread, which is core `number`, to its processor, if the configuration names
    /// some.
    fn pin(&self, processors: &[u16], number: usize) -> Result<(), String> {
        let mut bound = lock(&self.processor);
        *bound = None;
        let Some(processor) = processors.get(number % processors.len().max(1)) else {
            return Ok(());
        };
        let mut set = rustix::thread::CpuSet::new();
        set.set(usize::from(*processor));
        match rustix::thread::sched_setaffinity(None, &set) {
            Ok(()) => *bound = Some(*processor),
            Err(error) => {
                tracing::warn!(number, processor, %error, "cannot bind a polling core");
                return Err(format!(
                    "core {number} is not bound to processor {processor} ({error}): is there such a \
                     one, and may this process use it?"
                ));
            }
        }
        Ok(())
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
            if self.patience().is_some_and(|patience| time - idle_since >= patience) {
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

    /// How long to poll in vain before sleeping.
    fn patience(&self) -> Option<Duration> {
        match self.inner.cores.sleep.load(Ordering::Relaxed) {
            true => Some(self.inner.config.spin_before_sleep),
            false => self.inner.patience.map(Bounds::shortest),
        }
    }

    fn groups(&self) -> impl Iterator<Item = &Group> {
        self.inner.groups.iter().filter(|group| group.core() == Some(self.number))
    }

    /// One pass, in order of precedence. True if anything moved.
    fn pass(&self, time: Timestamp) -> bool {
        let mut reached = time;
        let mut busy = 0;
        let mut woke = false;
        for group in self.groups() {
            group.owner.give_way();
            match group.owner.try_own() {
                Some(mut engine) => {
                    let woken = group.shared.counters.woken.value();
                    if engine.poll(time) {
                        // Looking in vain is no load: who spins would be busy all the time.
                        let end = now();
                        let spent = (end - reached).as_nanos() as u64;
                        group.busy.add(spent);
                        busy += spent;
                        reached = end;
                    }
                    woke |= group.shared.counters.woken.value() != woken;
                }
                // Set-up holds it, or the core that had it until now; that one may have lost its
                // processor to this thread.
                None => std::thread::yield_now(),
            }
        }
        self.core.passes.add(1);
        self.core.busy.add(busy);
        if woke && self.inner.cores.is_crowded() {
            // Who was woken may have no other processor to run on, and the scheduler lets who polls
            // finish its time slice of some milliseconds first.
            std::thread::yield_now();
        }
        reached > time
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
