//! Polling cores: which there are, and which groups they have.
//!
//! - [`core`]: one of them, a thread.
//! - [`balance`]: groups move by load.
//! - [`crowd`]: who may spin while it waits, and who takes turns.
//!
//! A group belongs to a core, or to nobody: then applications' threads drive it. Whose it is, is
//! one word that the core reads before each pass; a change takes effect at the next one, because
//! the owner word of the group lets one thread at a time have the engine. Who queues work and then
//! reads the word, and who changes the word and then wakes the new owner, do so with a fence in
//! between: either the first finds the new owner, or that one finds the work.

mod balance;
mod core;
mod crowd;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use netchannel_units::{Duration, GroupId};

use crate::config::{Idle, Poller};
use crate::error::Error;
use crate::local::RuntimeInner;
use crate::local::cores::balance::Balance;
use crate::local::cores::core::Core;
use crate::local::cores::crowd::{Crowd, Place};
use crate::local::group::Group;
use crate::stats::CoreStats;
use crate::sync::{Counter, lock};

pub(super) use crowd::Turn;

/// Polling cores of a runtime at most.
pub(crate) const MAX_CORES: usize = 16;

/// Polling threads of this process that never sleep.
static SPINNING: AtomicUsize = AtomicUsize::new(0);

/// Who polls, and why not what was asked for, if so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PollerReport {
    /// Who polls.
    pub poller: Poller,
    /// Polling cores; none with [`Poller::Inline`].
    pub cores: usize,
    /// Processors that they are bound to, by core; none where one is bound to none.
    pub processors: Vec<Option<u16>>,
    /// What polling cores do when nothing happens.
    pub idle: Idle,
    /// Why it is so, in one line.
    pub reason: String,
}

impl PollerReport {
    fn inline(idle: Idle) -> Self {
        Self {
            poller: Poller::Inline,
            cores: 0,
            processors: Vec::new(),
            idle,
            reason: "applications' threads poll inside of their calls".into(),
        }
    }
}

/// All polling cores of a runtime.
pub(super) struct Cores {
    all: Vec<Core>,
    /// How many have threads.
    count: AtomicUsize,
    /// Whether they sleep.
    sleep: AtomicBool,
    state: Mutex<State>,
    balance: Mutex<Balance>,
    /// When loads are to be looked at next (nanoseconds).
    next_look: AtomicU64,
    /// Groups that changed cores.
    pub(super) moves: Counter,
    crowd: Crowd,
}

struct State {
    threads: Vec<JoinHandle<()>>,
    /// Of each thread: why it is not bound to the processor that it was to be bound to.
    unbound: Vec<Option<String>>,
    report: PollerReport,
    /// Threads of ours in [`SPINNING`].
    spinning: usize,
}

impl Cores {
    pub(super) fn new(groups: usize, idle: Idle) -> Result<Self, Error> {
        let processors = processors();
        let most = processors.clamp(1, MAX_CORES).min(groups);
        let report = PollerReport::inline(idle);
        Ok(Self {
            all: (0..most).map(|_| Core::new()).collect::<Result<_, _>>()?,
            count: AtomicUsize::new(0),
            sleep: AtomicBool::new(idle == Idle::Sleep),
            state: Mutex::new(State {
                threads: Vec::new(),
                unbound: Vec::new(),
                report,
                spinning: 0,
            }),
            next_look: AtomicU64::new(0),
            balance: Mutex::new(Balance::new(groups)),
            moves: Counter::default(),
            crowd: Crowd::new(processors),
        })
    }

    /// Whether a thread that has to wait may spin.
    pub(super) fn let_spin(&self) -> Option<Place<'_>> {
        self.crowd.let_spin(self.count())
    }

    /// For a thread that begins to wait.
    pub(super) fn turn(&self) -> Turn<'_> {
        self.crowd.turn(self.count() == 0)
    }

    /// Whether polling cores and applications' threads have to share processors.
    pub(super) fn is_crowded(&self) -> bool {
        self.crowd.shares_with(self.count())
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    pub(super) fn running(&self) -> &[Core] {
        &self.all[..self.count().min(self.all.len())]
    }

    fn report(&self) -> PollerReport {
        lock(&self.state).report.clone()
    }

    /// Wakes a core if it sleeps. Call after queueing work and a fence.
    pub(super) fn wake(&self, core: usize) {
        if let Some(core) = self.all.get(core) {
            core.wake();
        }
    }

    /// Ends all threads: nobody polls any more.
    pub(super) fn stop(&self) {
        let mut state = lock(&self.state);
        self.keep(&mut state, 0);
    }

    /// Ends all threads but the first `count`.
    fn keep(&self, state: &mut State, count: usize) {
        for core in self.all.iter().skip(count) {
            core.stop();
        }
        for thread in state.threads.drain(count.min(state.threads.len())..) {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
        state.unbound.truncate(count);
        self.count.store(state.threads.len(), Ordering::Relaxed);
        let spinning = if self.sleep.load(Ordering::Relaxed) { 0 } else { state.threads.len() };
        SPINNING.fetch_add(spinning, Ordering::Relaxed);
        SPINNING.fetch_sub(std::mem::replace(&mut state.spinning, spinning), Ordering::Relaxed);
    }
}

/// Processors that this process may use.
fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What can be had of `wanted` polling cores with `processors`, of which `taken` are kept busy by
/// polling threads already; the machine keeps one for everything else.
fn plan(
    wanted: usize,
    idle: Idle,
    groups: usize,
    processors: usize,
    taken: usize,
) -> (usize, Idle, String) {
    let mut cores = wanted.clamp(1, groups.min(MAX_CORES));
    let mut reasons = Vec::new();
    if cores < wanted {
        reasons.push(format!("{cores} of {wanted}, because there are {groups} Channel groups"));
    }
    let mut idle = idle;
    let free = processors.saturating_sub(1).saturating_sub(taken);
    if idle == Idle::Spin && cores > free {
        let had = cores;
        if free == 0 {
            idle = Idle::Sleep;
            reasons.push(format!(
                "they sleep when idle, because {taken} threads of this process spin already and \
                 one of {processors} processors is left to others"
            ));
        } else {
            cores = free;
            reasons.push(format!(
                "{free} of {had}, because spinning threads leave one of {processors} processors to \
                 others"
            ));
        }
    }
    if cores > processors {
        cores = processors;
        reasons.push(format!("no more than there are processors, {processors}"));
    }
    if reasons.is_empty() {
        reasons.push("as asked for; polling threads of other processes are not known".into());
    }
    (cores, idle, reasons.join("; "))
}

impl RuntimeInner {
    /// Who polls now, and why.
    pub(crate) fn poller(&self) -> PollerReport {
        self.cores.report()
    }

    /// Changes who polls, while traffic flows.
    pub(crate) fn set_poller(
        self: &Arc<Self>,
        poller: Poller,
        wanted: usize,
    ) -> Result<PollerReport, Error> {
        let cores = &self.cores;
        let mut state = lock(&cores.state);
        if self.is_stopping() {
            return Err(Error::Closed);
        }
        if poller == Poller::Inline {
            self.assign(|_| None);
            cores.keep(&mut state, 0);
            state.report = PollerReport::inline(self.config.idle);
            return Ok(state.report.clone());
        }
        let taken = SPINNING.load(Ordering::Relaxed).saturating_sub(state.spinning);
        let (count, idle, mut reason) =
            plan(wanted, self.config.idle, self.groups.len(), processors(), taken);
        let count = count.min(cores.all.len());
        cores.sleep.store(idle == Idle::Sleep, Ordering::Relaxed);
        while state.threads.len() < count {
            let number = state.threads.len();
            let (thread, unbound) = core::spawn(Arc::clone(self), number)?;
            state.threads.push(thread);
            state.unbound.push(unbound);
        }
        self.assign(|group| Some(usize::from(group.0) % count));
        cores.keep(&mut state, count);
        if idle != self.config.idle || count != wanted {
            tracing::info!(wanted, count, %idle, reason, "polling cores");
        }
        for unbound in state.unbound.iter().flatten() {
            reason += "; ";
            reason += unbound;
        }
        let processors = cores.running().iter().map(Core::processor).collect();
        state.report = PollerReport { poller, cores: count, processors, idle, reason };
        Ok(state.report.clone())
    }

    /// Whether a thread that copies for long may keep a polling core from its processor, where bulk
    /// bytes are to delay others but little.
    pub(crate) fn delays_by_copying(&self) -> bool {
        let polled = self.cores.count() > 0;
        polled && self.cores.is_crowded() && self.shared.budget.get().is_some()
    }

    /// Gives groups to cores, or to nobody. Takes effect at the next pass of each.
    fn assign(&self, core_of: impl Fn(GroupId) -> Option<usize>) {
        for group in &self.groups {
            self.hand_over(group, core_of(group.id()));
        }
    }

    fn hand_over(&self, group: &Group, core: Option<usize>) {
        let former = group.core();
        group.set_core(core);
        fence(Ordering::SeqCst);
        match core {
            Some(core) => self.cores.wake(core),
            // Threads may wait for it that do not drive.
            None => group.leave_to_helper(),
        }
        // It sleeps on the events of a group that it no longer has.
        former.into_iter().for_each(|core| self.cores.wake(core));
    }

    /// Counters of the polling cores, and how often groups changed theirs.
    pub(crate) fn core_stats(&self) -> (Vec<CoreStats>, u64) {
        let running = self.cores.running().iter().enumerate();
        let stats = |(number, core): (usize, &Core)| CoreStats {
            number,
            processor: core.processor(),
            passes: core.passes.value(),
            busy: Duration::from_nanos(core.busy.value()),
        };
        (running.map(stats).collect(), self.cores.moves.value())
    }

    /// Moves a group to another polling core.
    pub(crate) fn move_group(&self, group: u8, to: usize) -> Result<(), Error> {
        // Nobody changes the cores meanwhile.
        let _state = lock(&self.cores.state);
        let wrong = |reason: String| Error::Config { reason };
        let count = self.cores.count();
        let found = self.groups.get(usize::from(group)).ok_or_else(|| {
            wrong(format!("no Channel group {group}; there are {}", self.groups.len()))
        })?;
        if to >= count {
            return Err(wrong(format!("no polling core {to}; there are {count}")));
        }
        if found.core() != Some(to) {
            self.hand_over(found, Some(to));
            self.cores.moves.add_shared(1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spinning_cores_leave_a_processor_to_others() {
        let spin = |wanted, processors, taken| {
            let (cores, idle, reason) = plan(wanted, Idle::Spin, 8, processors, taken);
            assert!(!reason.is_empty());
            (cores, idle)
        };
        assert_eq!(spin(4, 16, 0), (4, Idle::Spin));
        assert_eq!(spin(4, 4, 0), (3, Idle::Spin));
        assert_eq!(spin(4, 4, 2), (1, Idle::Spin));
        assert_eq!(spin(1, 2, 0), (1, Idle::Spin));
        assert_eq!(spin(1, 2, 1), (1, Idle::Sleep), "polls, but does not spin");
        assert_eq!(spin(1, 1, 0), (1, Idle::Sleep));
    }

    #[test]
    fn no_more_cores_than_groups_or_processors() {
        assert_eq!(plan(9, Idle::Sleep, 2, 64, 0).0, 2);
        assert_eq!(plan(9, Idle::Sleep, 16, 4, 0).0, 4);
        assert_eq!(plan(0, Idle::Sleep, 16, 4, 0).0, 1);
        assert!(plan(9, Idle::Sleep, 2, 64, 0).2.contains("2 Channel groups"));
    }
}
