//! An engine's part of the port's bulk budget: see [`PortBudget`](crate::shared::PortBudget).

use netchannel_driver::RcChannel;
use netchannel_scheduler::{Assignment, Scheduler, SchedulerConfig};
use netchannel_units::{Class, Timestamp};
use netchannel_verbs::{Context, Mover};
use netchannel_vns::Carried;

use crate::engine::Engine;
use crate::shared::{GroupShared, PortBudget};

/// What an engine has in the account.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    own: u64,
    /// Bytes waited for room.
    denied: bool,
    looked: Timestamp,
}

/// The account, for an engine that sends.
pub(super) struct Port<'a> {
    /// `None`: nothing is bounded.
    budget: Option<&'a PortBudget>,
    shared: &'a GroupShared,
    share: &'a mut Share,
}

impl Share {
    pub(super) fn at_port<'a>(&'a mut self, shared: &'a GroupShared) -> Port<'a> {
        Port { budget: shared.runtime.budget.get(), shared, share: self }
    }
}

impl Port<'_> {
    /// The next assignment, within what may be sent now.
    #[inline]
    pub(super) fn next(&mut self, scheduler: &mut Scheduler) -> Option<Assignment> {
        match self.budget {
            None => scheduler.next(),
            Some(budget) => self.next_within(budget, scheduler),
        }
    }

    fn next_within(
        &mut self,
        budget: &PortBudget,
        scheduler: &mut Scheduler,
    ) -> Option<Assignment> {
        let (class, group) = (self.shared.class, self.shared.id);
        let share = SchedulerConfig::default().throughput_share;
        let room = budget.room(class, group, self.share.own, share);
        if room < u64::MAX {
            scheduler.limit(room);
        }
        let next = scheduler.next();
        // Bytes wait though the Channels would take them.
        if next.is_none() && room < u64::MAX && !scheduler.is_idle() {
            self.share.denied = true;
            if class == Class::Throughput {
                budget.set_active(group, true);
            }
        }
        next
    }

    /// So many bytes were sent.
    #[inline]
    pub(super) fn on_sent(&mut self, now: Timestamp, bytes: u64) {
        let Some(budget) = self.budget else { return };
        if self.share.own == 0 {
            self.share.looked = now;
            if self.shared.class == Class::Throughput {
                budget.set_active(self.shared.id, true);
            }
        }
        let own = self.share.own.saturating_add(bytes);
        budget.change(self.shared.class, self.share.own, own);
        self.share.own = own;
    }
}

impl<C: Context> Engine<C> {
    /// Looks at what was completed since the last pass.
    pub(super) fn look_at_budget(&mut self, now: Timestamp) {
        let Some(budget) = self.shared.runtime.budget.get() else { return };
        if self.share.own == 0 && !self.share.denied {
            return;
        }
        let mover = self.context.attributes().mover;
        let channels = self.sessions.iter().flatten().flat_map(|session| &session.channels);
        let own = channels
            .filter_map(|key| self.group.channel(*key))
            .map(|channel| outstanding(channel, mover))
            .sum();
        let (class, gap) = (self.shared.class, now - self.share.looked);
        budget.change(class, self.share.own, own);
        if class == Class::Throughput {
            let dry = self.share.denied && budget.total(class) == 0;
            if dry && budget.rules.blames(gap) {
                budget.on_dry(now);
            } else {
                budget.on_calm(now);
            }
            budget.set_active(self.shared.id, own > 0 || self.share.denied);
        }
        self.share = Share { own, denied: false, looked: now };
    }

    /// Whether others wait for completions of what this engine sent.
    pub(super) fn owes_completions(&self) -> bool {
        self.share.own > 0
    }

    /// Chunks that suit the port.
    pub(super) fn fit_to_port(&self, config: SchedulerConfig) -> SchedulerConfig {
        let Some(budget) = self.shared.runtime.budget.get() else { return config };
        SchedulerConfig {
            chunk: config.chunk.min(budget.rules.chunk()),
            min_chunk: config.min_chunk.min(budget.rules.grain()),
            ..config
        }
    }
}

/// Bytes that were posted and have not left as far as this side knows. What the peer confirmed has
/// left, whether or not it was signalled: without this the last small messages would look
/// outstanding for ever, and a window smaller than a chunk closed.
pub(super) fn outstanding<C: Context>(channel: &RcChannel<C, Carried>, mover: Mover) -> u64 {
    let state = channel.state();
    let unconfirmed = state.stats().bytes_posted - state.stats().bytes_confirmed;
    match mover {
        // Posting returns when most of it has left: it is the peer that may be behind.
        Mover::Kernel => unconfirmed,
        Mover::Nic | Mover::Poster => state.outstanding().min(unconfirmed),
    }
}
