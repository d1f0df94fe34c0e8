//! The bulk budget of the port: how many bytes may stand in front of a latency message, over all
//! engines of a runtime. The rules are the scheduler's ([`BulkBudget`]); here is the account.
//!
//! Each engine publishes what it has outstanding, and takes at most an equal part of the budget
//! with every other engine that has bulk bytes. One that has nothing outstanding may always send a
//! little, so that its own completions bring it back.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use netchannel_scheduler::budget::BulkBudget;
use netchannel_units::{Class, GroupId, Timestamp};
use netchannel_verbs::DeviceAttributes;

use crate::config::Config;

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

impl PortBudget {
    /// The account of a device's port, if its rate is known and can be believed.
    pub(crate) fn new(device: &DeviceAttributes, config: &Config) -> Option<Self> {
        // The rate that it names is that of the interface, not of the processor that sends.
        if device.is_played_by_kernel() {
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

    pub(crate) fn total(&self, class: Class) -> u64 {
        self.outstanding[class as usize].load(Relaxed)
    }

    /// An engine has `to` bytes outstanding instead of `from`.
    pub(crate) fn change(&self, class: Class, from: u64, to: u64) {
        self.outstanding[class as usize].fetch_add(to.wrapping_sub(from), Relaxed);
    }

    pub(crate) fn set_active(&self, group: GroupId, active: bool) {
        let bit = 1 << (group.0 & 63);
        let known = self.active.load(Relaxed) & bit != 0;
        match (known, active) {
            (false, true) => self.active.fetch_or(bit, Relaxed),
            (true, false) => self.active.fetch_and(!bit, Relaxed),
            _ => 0,
        };
    }

    pub(crate) fn on_dry(&self, now: Timestamp) {
        self.limit.store(self.rules.after_dry(self.limit.load(Relaxed)), Relaxed);
        self.calm_since.store(now.as_nanos(), Relaxed);
        self.dry.fetch_add(1, Relaxed);
    }

    pub(crate) fn on_calm(&self, now: Timestamp) {
        let limit = self.limit.load(Relaxed);
        let since = Timestamp::from_nanos(self.calm_since.load(Relaxed));
        if limit > self.rules.least() && now >= self.rules.calm_at(since, limit) {
            self.limit.store(self.rules.after_calm(limit), Relaxed);
            self.calm_since.store(now.as_nanos(), Relaxed);
        }
    }

    /// Bytes that an engine with `own` outstanding may send now.
    pub(crate) fn room(&self, class: Class, group: GroupId, own: u64, share: u8) -> u64 {
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
