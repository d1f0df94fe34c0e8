//! The helper thread: control connections, memory, and the engine when nobody else drives it.
//!
//! It is asleep unless there is something to do. About each engine that no polling core has it is
//! in one of three modes:
//!
//! ```text
//!             nobody drove for 500 us to 2 ms    somebody drives again
//!   Ticking ---------------------------> Watching ---------------------> Ticking
//!      |  nobody drove, but a thread sleeps
//!      +---------------------------------> Parked -- that thread woke --> Ticking
//! ```
//! Watching, it has armed the completion events and sleeps on them: keepalives, credit and
//! acknowledgements go on while the application computes. Parked, it serves the engine's timers.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use netchannel_units::Timestamp;

use crate::clock::now;
use crate::engine::{Drive, EVENT_FDS};
use crate::error::Error;
use crate::local::RuntimeInner;
use crate::local::commands::HelperCommand;
use crate::local::group::Group;
use crate::local::links::Links;
use crate::local::owner::{HelperMode, Owner};
use crate::shared::SlabDemand;
use crate::sync::lock;

/// An inline engine that nobody has polled for this long is taken over.
const TICK: Duration = Duration::from_micros(500);
/// How rarely this thread looks at an engine that is driven all the time: each look takes the
/// processor from somebody who spins.
const LONGEST_TICK: Duration = Duration::from_millis(2);

/// Rounds of driving without a look at the control connections: well below a millisecond.
const ROUNDS: u32 = 64;

/// Starts the helper thread.
pub(super) fn spawn(inner: Arc<RuntimeInner>) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name("nc-helper".into())
        .spawn(move || {
            let looks = vec![Look::default(); inner.groups.len()];
            Helper { links: Links::default(), looks, inner }.run();
        })
        .map_err(Error::system("starting the helper thread"))
}

struct Helper {
    inner: Arc<RuntimeInner>,
    links: Links,
    /// Of each group.
    looks: Vec<Look>,
}

/// What this thread saw when it last looked at a group.
#[derive(Clone, Copy)]
struct Look {
    /// Its poll passes.
    polls: u64,
    /// When to look again, as long as somebody drives.
    tick: Duration,
}

impl Default for Look {
    fn default() -> Self {
        Self { polls: 0, tick: TICK }
    }
}

impl Look {
    /// Somebody drives; returns when to look again.
    fn on_driven(&mut self, polls: u64) -> Timestamp {
        self.polls = polls;
        let at = now() + self.tick;
        self.tick = (self.tick * 2).min(LONGEST_TICK);
        at
    }

    /// This thread drove.
    fn on_rested(&mut self, polls: u64) {
        *self = Self { polls, tick: TICK };
    }
}

impl Helper {
    fn run(mut self) {
        let mut links_timer = None;
        let mut links_ready = true;
        loop {
            // First look what is wanted, then whether to stop: who stops us asks after saying so.
            let wanted = self.inner.shared.helper_looks();
            if self.inner.is_stopping() {
                break;
            }
            if wanted {
                links_ready = true;
                let commands = std::mem::take(&mut *lock(&self.inner.commands));
                for command in commands {
                    self.links.command(&self.inner, command);
                }
                self.make_slabs();
                self.inner.shared.drop_discarded();
                self.make_queue_pairs();
            }
            if links_ready || links_timer.is_some_and(|at| now() >= at) {
                links_timer = self.links.run(&self.inner);
            }
            let groups = 0..self.inner.groups.len();
            let engines_timer = groups.filter_map(|index| self.look_after(index)).min();
            links_ready = self.sleep([links_timer, engines_timer].into_iter().flatten().min());
        }
        self.links.say_goodbye(&self.inner);
        for command in std::mem::take(&mut *lock(&self.inner.commands)) {
            if let HelperCommand::Connect { reply, .. } = command {
                reply.answer(Err(Error::Closed));
            }
        }
    }

    /// Sleeps; returns whether a control connection has something.
    fn sleep(&self, until: Option<Timestamp>) -> bool {
        let wake = &self.inner.shared.helper_wake;
        let mut fds = vec![wake.fd(), self.inner.device_events.fd()];
        self.links.add_fds(&mut fds);
        let links = 2..fds.len();
        for group in self.watched() {
            fds.extend(group.events());
        }
        let ready = crate::wait::sleep(&fds, until.map(|at| at - now()));
        self.inner.shared.counters.wakeups.add_shared(1);
        if ready[0] {
            let _ = wake.drain();
        }
        if ready[1] {
            self.take_device_events();
        }
        ready[links].contains(&true)
    }

    /// Groups whose events this thread sleeps on.
    fn watched(&self) -> impl Iterator<Item = &Group> {
        let groups = self.inner.groups.iter().filter(|group| group.is_inline());
        groups.filter(|group| group.owner.helper_mode() == HelperMode::Watching)
    }

    fn make_slabs(&self) {
        for group in &self.inner.groups {
            let wanted = std::mem::take(&mut *lock(&group.shared.slab_demand));
            for SlabDemand { slot, application, room } in wanted {
                let id = application.id;
                group.add_slab(slot, id, self.inner.make_slab(&application, room));
            }
        }
    }

    /// In place of dead ones.
    fn make_queue_pairs(&self) {
        for group in &self.inner.groups {
            if !lock(&group.shared.renewals).is_empty() {
                self.inner.with_engine(group, |engine| engine.control().make_wanted(now()));
            }
        }
    }

    /// What the device has to say: whom an event concerns knows by the queue pair.
    fn take_device_events(&self) {
        loop {
            let event = match self.inner.device_events.next() {
                Ok(Some(event)) => event,
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "asking the device for events"),
            };
            for group in &self.inner.groups {
                self.inner.with_engine(group, |e| e.control().on_device_event(now(), event));
            }
        }
    }

    /// Drives a group's engine if nobody else does; returns when to look again.
    fn look_after(&mut self, index: usize) -> Option<Timestamp> {
        let inner = Arc::clone(&self.inner);
        let group = &inner.groups[index];
        if !group.is_inline() {
            return None;
        }
        let owner = &group.owner;
        match owner.helper_mode() {
            HelperMode::Parked => self.serve_timers(group, index),
            HelperMode::Ticking => {
                let polls = group.shared.counters.polls.value();
                if polls != self.looks[index].polls || owner.is_taken() {
                    return Some(self.looks[index].on_driven(polls));
                }
                if owner.sleepers.load(Ordering::SeqCst) > 0 {
                    owner.set_helper_mode(HelperMode::Parked);
                    // A sleeper that woke in between has seen `Ticking` and told nobody.
                    if owner.sleepers.load(Ordering::SeqCst) == 0 {
                        owner.set_helper_mode(HelperMode::Ticking);
                        return Some(now() + TICK);
                    }
                    return self.serve_timers(group, index);
                }
                owner.set_helper_mode(HelperMode::Watching);
                self.watch(group, index)
            }
            HelperMode::Watching => self.watch(group, index),
        }
    }

    /// The sleeper knows the timers of when it fell asleep; who drove since then and went away may
    /// have left earlier ones and acknowledgements that wait for company.
    fn serve_timers(&mut self, group: &Group, index: usize) -> Option<Timestamp> {
        let Some(mut engine) = group.owner.try_own() else { return Some(now() + TICK) };
        let timer = rest(&mut *engine, &group.owner);
        self.looks[index].on_rested(group.shared.counters.polls.value());
        timer
    }

    /// One round as the driver: take what there is, arm, look again.
    fn watch(&mut self, group: &Group, index: usize) -> Option<Timestamp> {
        let polls = &group.shared.counters.polls;
        let Some(mut engine) = group.owner.try_own() else {
            group.owner.set_helper_mode(HelperMode::Ticking);
            return Some(self.looks[index].on_driven(polls.value()));
        };
        if polls.value() != self.looks[index].polls
            && group.owner.helper_mode() == HelperMode::Ticking
        {
            return Some(self.looks[index].on_driven(polls.value()));
        }
        engine.drain_events([true; EVENT_FDS]);
        let timer = rest(&mut *engine, &group.owner);
        self.looks[index].on_rested(polls.value());
        timer
    }
}

/// Takes and sends everything, so that the next thing to happen is an event or the timer returned;
/// less if an application's thread is back and drives.
fn rest(engine: &mut dyn Drive, owner: &Owner) -> Option<Timestamp> {
    engine.poll(now());
    for _ in 0..ROUNDS {
        engine.settle(now());
        engine.arm();
        if !engine.poll(now()) {
            return engine.next_timeout();
        }
        if owner.helper_mode() == HelperMode::Ticking {
            return Some(now() + TICK);
        }
    }
    // There is always something: go on, after a look at the control connections.
    Some(now())
}
