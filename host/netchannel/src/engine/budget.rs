//! The bulk budget of the port: how many bytes may stand in front of a latency message, over all
//! engines of a runtime. The rules are the scheduler's ([`BulkBudget`]); here is the account.
//!
//! Each engine publishes what it has outstanding, and takes at most an equal part of the budget
//! with every other engine that has bulk bytes. One that has nothing outstanding may always send a
//! little, so that its own completions bring it back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use netchannel_scheduler::SchedulerConfig;
use netchannel_scheduler::budget::BulkBudget;
use netchannel_units::{Class, GroupId, Timestamp};
use netchannel_verbs::{Context, DeviceAttributes};

use crate::config::Config;
use crate::engine::Engine;
use crate::engine::settings::SOFTWARE_NIC;
use crate::engine::transmit::outstanding;

/// The account of a port.
#[derive(Debug)]
pub(crate) struct PortBudget {
    pub(crate) rules: BulkBudget,
    /// Bytes of throughput streams that may be outstanding.
    limit: AtomicU64,
    /// Bytes that are, of each class.
    outstanding: [AtomicU64; Class::ALL.len()],
    /// Throughput groups with bytes outstanding or waiting, as bits.
    active: AtomicU64,
    /// Since when the port has not run dry.
    calm_since: AtomicU64,
    /// How often it did.
    dry: AtomicU64,
}

/// What an engine has in the account.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    own: u64,
    /// Bytes waited for room.
    denied: bool,
    looked: Timestamp,
}

impl PortBudget {
    /// The account of a device's port, if its rate is known and can be believed.
    pub(crate) fn new(device: &DeviceAttributes, config: &Config) -> Option<Self> {
        // The rate that it names is that of the interface, not of the processor that sends.
        if device.description.contains(SOFTWARE_NIC) {
            return None;
        }
        let rules = BulkBudget::new(device.port.rate, config.bulk_delay)?;
        Some(Self {
            limit: AtomicU64::new(rules.least()),
            rules,
            outstanding: Default::default(),
            active: AtomicU64::new(0),
            calm_since: AtomicU64::new(0),
            dry: AtomicU64::new(0),
        })
    }

    /// Bytes that may be outstanding, bytes that are, and how often the port ran dry.
    pub(crate) fn figures(&self) -> (u64, u64, u64) {
        (self.limit.load(Relaxed), self.total(Class::Throughput), self.dry.load(Relaxed))
    }

    fn total(&self, class: Class) -> u64 {
        self.outstanding[class as usize].load(Relaxed)
    }

    /// An engine has `to` bytes outstanding instead of `from`.
    fn change(&self, class: Class, from: u64, to: u64) {
        self.outstanding[class as usize].fetch_add(to.wrapping_sub(from), Relaxed);
    }

    fn set_active(&self, group: GroupId, active: bool) {
        let bit = 1 << (group.0 & 63);
        let known = self.active.load(Relaxed) & bit != 0;
        match (known, active) {
            (false, true) => self.active.fetch_or(bit, Relaxed),
            (true, false) => self.active.fetch_and(!bit, Relaxed),
            _ => 0,
        };
    }

    fn on_dry(&self, now: Timestamp) {
        self.limit.store(self.rules.after_dry(self.limit.load(Relaxed)), Relaxed);
        self.calm_since.store(now.as_nanos(), Relaxed);
        self.dry.fetch_add(1, Relaxed);
    }

    fn on_calm(&self, now: Timestamp) {
        let limit = self.limit.load(Relaxed);
        let since = Timestamp::from_nanos(self.calm_since.load(Relaxed));
        if limit > self.rules.least() && now >= self.rules.calm_at(since, limit) {
            self.limit.store(self.rules.after_calm(limit), Relaxed);
            self.calm_since.store(now.as_nanos(), Relaxed);
        }
    }

    /// Bytes that an engine with `own` outstanding may send now.
    fn room(&self, class: Class, group: GroupId, own: u64, share: u8) -> u64 {
        let limit = self.limit.load(Relaxed);
        let active = self.active.load(Relaxed);
        let room = match class {
            Class::Latency if active == 0 => return u64::MAX,
            Class::Latency => {
                self.rules.latency(limit, share).saturating_sub(self.total(Class::Latency))
            }
            Class::Throughput => {
                let engines = (active | 1 << (group.0 & 63)).count_ones();
                let part = (limit / u64::from(engines)).max(self.rules.grain());
                let left = limit.saturating_sub(self.total(Class::Throughput));
                left.min(part.saturating_sub(own))
            }
        };
        match room >= self.rules.grain() {
            true => room,
            false if own == 0 => self.rules.grain(),
            false => 0,
        }
    }
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
