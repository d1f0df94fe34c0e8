//! What a thread does that must wait.
//!
//! It drives the engine that it waits for, and the others now and then, or watches memory while
//! polling cores do that and there is a processor to do it on; with
//! [`Idle::Sleep`](crate::Idle::Sleep) it sleeps after a short while. Where more threads wait than there are processors
//! to spin on, each lets the next one look after every pass. Before it sleeps it notes itself where the
//! engine looks after publishing, and looks once more itself: flag, fence, re-check, sleep.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use netchannel_units::Timestamp;
use netchannel_verbs::Mover;

use crate::boundary::port::PortShared;
use crate::clock::now;
use crate::engine::EVENT_FDS;
use crate::engine::pass::Passed;
use crate::error::Error;
use crate::local::cores::Turn;
use crate::local::group::Group;
use crate::local::patience::Patience;
use crate::local::{Keeper, RuntimeInner};
use crate::wait::{Waitable, Waited, YIELD_AFTER, sleep, sleep_until};

/// The same of [`YIELD_AFTER`] where the kernel plays the NIC: about what it takes for two packets, emulated.
const YIELD_TO_KERNEL_AFTER: Duration = Duration::from_micros(50);

/// Reading the clock costs as much as looking for messages, so an idle loop does it only every so
/// many passes: about half a microsecond.
const PASSES_PER_CLOCK: u32 = 8;

/// Who waits no longer than this does not count among those who take turns on the processors: longer
/// than a round trip to a peer that polls.
const LONG_WAIT: Duration = Duration::from_micros(4);

impl Keeper {
    /// Waits until `what` is ready, at most until `deadline`.
    pub(crate) fn wait(
        self: &Arc<Self>,
        what: &dyn Waitable,
        deadline: Option<Timestamp>,
    ) -> Result<Waited, Error> {
        let inner = &*self.inner;
        let mut turn = inner.cores.turn();
        let start = now();
        let spin = inner.patience.map(Patience::of_thread);
        let until = [spin.map(|spin| start + spin), deadline].into_iter().flatten().min();
        if let Some(_place) = inner.cores.let_spin()
            && inner.poll_for(what, start, until, &mut turn) == Some(Waited::Ready)
        {
            return Ok(Waited::Ready);
        }
        if deadline.is_some_and(|at| now() >= at) {
            return Ok(Waited::TimedOut);
        }
        let port = match what.group() {
            // Its engine must know whom to wake.
            Some(group) => self.with_port_at(group, |port| Arc::clone(&port.shared))?,
            None => self.with_port(|port| Arc::clone(&port.shared))?,
        };
        turn.join();
        let sleep = || {
            inner.sleep_on_events(&port, what, deadline);
            turn.pass_on();
        };
        let waited = sleep_until(what, &port, deadline, sleep);
        inner.groups_of(what).iter().for_each(Group::tell_helper);
        if let Some(bounds) = inner.patience {
            Patience::on_slept(bounds, now() - start);
        }
        Ok(waited)
    }
}

fn remaining(deadline: Option<Timestamp>) -> Option<Duration> {
    deadline.map(|at| at - now())
}

impl RuntimeInner {
    /// The groups that may make it happen.
    fn groups_of(&self, what: &dyn Waitable) -> &[Group] {
        match what.group() {
            Some(group) => std::slice::from_ref(self.group(group)),
            None => &self.groups,
        }
    }

    /// Polls from `start` on, until ready or `until`: the deadline, or (with `Idle::Sleep`) the end of
    /// a short while.
    fn poll_for(
        &self,
        what: &dyn Waitable,
        start: Timestamp,
        until: Option<Timestamp>,
        turn: &mut Turn<'_>,
    ) -> Option<Waited> {
        let groups = self.groups_of(what);
        groups.iter().for_each(Group::tell_helper);
        let mut moved_at = start;
        let mut time = start;
        let (mut passes, mut missed) = (0u32, 0u32);
        loop {
            passes += 1;
            if passes.is_multiple_of(PASSES_PER_CLOCK) {
                time = now();
                // It may take the engine for abandoned if this thread had lost its processor.
                groups.iter().for_each(Group::tell_helper);
                self.poll_others(what, time);
                if time - start >= LONG_WAIT {
                    turn.join();
                }
            }
            let mut drove = false;
            for group in groups {
                let Some(mut engine) = group.try_drive() else {
                    group.owner.on_missed(&mut missed);
                    continue;
                };
                drove = true;
                match engine.poll_for(time, what) {
                    Passed::Ready => {
                        group.let_go(engine);
                        return Some(Waited::Ready);
                    }
                    Passed::Moved => moved_at = time,
                    Passed::Idle => {}
                }
                drop(engine);
                group.owner.give_way();
            }
            if !drove {
                if what.is_ready() {
                    return Some(Waited::Ready);
                }
                std::hint::spin_loop();
            }
            if until.is_some_and(|until| time >= until) {
                return None;
            }
            if turn.pass_on() {
                continue;
            }
            if time - moved_at >= self.yield_after() {
                moved_at = time;
                std::thread::yield_now();
            }
        }
    }

    /// How long who finds nothing keeps the processor. Where the kernel plays the NIC it needs one to make
    /// what is waited for.
    fn yield_after(&self) -> Duration {
        match self.device.mover {
            Mover::Kernel => YIELD_TO_KERNEL_AFTER,
            Mover::Nic | Mover::Poster => YIELD_AFTER,
        }
    }

    /// One pass over the groups that this thread does not wait for: with one thread waiting, the
    /// streams of all of them go on.
    fn poll_others(&self, what: &dyn Waitable, time: Timestamp) {
        let Some(own) = what.group() else { return };
        for group in self.groups.iter().filter(|group| group.id() != own) {
            if let Some(mut engine) = group.try_drive()
                && engine.poll(time)
            {
                group.let_go(engine);
            }
        }
    }

    /// Arms the completion events of the groups that may make it happen, and sleeps on them and on
    /// the port's wake-up. The helper thread looks after the other groups.
    fn sleep_on_events(
        &self,
        port: &Arc<PortShared>,
        what: &dyn Waitable,
        deadline: Option<Timestamp>,
    ) {
        let mut asleep = Asleep { groups: Vec::new() };
        let mut timeout = deadline;
        for group in self.groups_of(what).iter().filter(|group| group.is_inline()) {
            let Some(mut engine) = group.owner.try_own() else {
                // Passes are short.
                std::thread::yield_now();
                return;
            };
            // Who drives need not be woken by what it publishes: that would be two system calls and
            // an empty sleep per message.
            what.set_waiter(None);
            let time = now();
            engine.settle(time);
            engine.arm();
            if engine.poll(time) || what.is_ready() {
                group.let_go(engine);
                return;
            }
            timeout = [timeout, engine.next_timeout()].into_iter().flatten().min();
            // Counted before the engine is free: whoever drives next arms again before it goes.
            asleep.add(group);
        }
        what.set_waiter(Some(port));
        fence(Ordering::SeqCst);
        // Others may have driven meanwhile, and not everything that is waited for comes from an
        // engine.
        if what.is_ready() {
            asleep.groups.iter().for_each(|group| group.tell_helper());
            return;
        }
        let mut fds: Vec<_> = port.wake.fds().collect();
        fds.extend(asleep.groups.iter().flat_map(|group| group.events()));
        let ready = sleep(&fds, remaining(timeout));
        self.shared.counters.wakeups.add_shared(1);
        if ready[0] {
            let _ = port.wake.drain();
        }
        let slept = std::mem::take(&mut asleep.groups);
        Asleep::wake(&slept);
        for (group, ready) in slept.into_iter().zip(ready[1..].as_chunks::<EVENT_FDS>().0) {
            if let Some(mut engine) = group.try_drive() {
                what.set_waiter(None);
                engine.drain_events(*ready);
                engine.poll(now());
                group.let_go(engine);
            }
        }
    }
}

/// The groups on whose events this thread sleeps: those who drive them take care.
struct Asleep<'a> {
    groups: Vec<&'a Group>,
}

impl<'a> Asleep<'a> {
    fn add(&mut self, group: &'a Group) {
        group.owner.sleepers.fetch_add(1, Ordering::SeqCst);
        self.groups.push(group);
    }

    fn wake(groups: &[&Group]) {
        for group in groups {
            group.owner.sleepers.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        Self::wake(&self.groups);
    }
}
