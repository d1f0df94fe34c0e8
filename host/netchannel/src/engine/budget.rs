//! An engine's part of the port's bulk budget: see [`PortBudget`](crate::shared::PortBudget).

use netchannel_scheduler::SchedulerConfig;
use netchannel_units::{Class, Timestamp};
use netchannel_verbs::Context;

use crate::engine::Engine;
use crate::engine::transmit::outstanding;

/// What an engine has in the account.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    own: u64,
    /// Bytes waited for room.
    denied: bool,
    looked: Timestamp,
}

impl<C: Context> Engine<C> {
    /// Looks at what was completed since the last pass.
    pub(super) fn look_at_budget(&mut self, now: Timestamp) {
        let Some(budget) = self.shared.runtime.budget.get() else { return };
        if self.share.own == 0 && !self.share.denied {
            return;
        }
        let channels = self.sessions.iter().flatten().flat_map(|session| &session.channels);
        let own = channels.filter_map(|key| self.group.channel(*key)).map(outstanding).sum();
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

    /// Bytes that may be sent now.
    pub(super) fn room_at_port(&self) -> u64 {
        let Some(budget) = self.shared.runtime.budget.get() else { return u64::MAX };
        let share = SchedulerConfig::default().throughput_share;
        budget.room(self.shared.class, self.shared.id, self.share.own, share)
    }

    /// Bytes wait though the Channels would take them.
    pub(super) fn on_denied(&mut self) {
        self.share.denied = true;
        if let Some(budget) = self.shared.runtime.budget.get()
            && self.shared.class == Class::Throughput
        {
            budget.set_active(self.shared.id, true);
        }
    }

    /// A Channel had `from` bytes outstanding and has `to`.
    pub(super) fn on_sent_at_port(&mut self, now: Timestamp, from: u64, to: u64) {
        let Some(budget) = self.shared.runtime.budget.get() else { return };
        if self.share.own == 0 {
            self.share.looked = now;
            if self.shared.class == Class::Throughput {
                budget.set_active(self.shared.id, true);
            }
        }
        let own = self.share.own.saturating_add(to).saturating_sub(from);
        budget.change(self.shared.class, self.share.own, own);
        self.share.own = own;
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
