//! Windows of a receiving half: leased when bytes need room, granted when many wait, recycled when
//! nothing can write into them any more; and the credit they are worth.

use netchannel_units::{ByteRange, RangeSet, StreamOffset};
use netchannel_wire::frame::GrantId;

use super::{ReceiveHalf, ReceiveState};
use crate::pool::{Lease, MIN_LOG2, SLAB_LOG2, WindowPool};

/// log2 of the smallest window worth a grant: 64 KiB, a round trip's worth at 10 Gb/s.
const MIN_GRANT_LOG2: u8 = 16;

/// A window that holds bytes of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The memory.
    pub lease: Lease,
    /// First byte that belongs here.
    pub from: StreamOffset,
    /// Set if the peer may WRITE into it.
    pub grant: Option<GrantId>,
    /// Counts the windows of this stream from 1.
    pub generation: u32,
}

/// What limits a half.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveLimits {
    /// Bytes promised without a window.
    pub eager: u64,
    /// log2 of the largest window.
    pub window_log2: u8,
    /// New credit of a window divided by this is worth a frame.
    pub credits_per_window: u64,
}

impl ReceiveLimits {
    /// log2 of the window that an eager promise needs.
    pub(crate) fn eager_log2(self) -> u8 {
        log2_of(self.eager).clamp(MIN_LOG2, SLAB_LOG2)
    }

    /// log2 of the largest window there is.
    fn largest_log2(self) -> u8 {
        self.window_log2.clamp(self.eager_log2(), SLAB_LOG2)
    }
}

/// What became of a wish for a larger window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upgrade {
    /// There is one: WINDOW is to be sent.
    Granted,
    /// There is one, smaller than it might be: memory is short. WINDOW is to be sent.
    Short,
    /// The one there is will do, or none is wanted.
    Unneeded,
    /// Memory is short.
    NoRoom,
}

/// log2 of the smallest power of two that is not below `bytes`.
fn log2_of(bytes: u64) -> u8 {
    (64 - bytes.saturating_sub(1).leading_zeros()) as u8
}

impl ReceiveHalf {
    /// The windows, older first.
    pub fn windows(&self) -> impl Iterator<Item = Window> + use<> {
        self.older.into_iter().chain(self.current)
    }

    /// The window in which new bytes go.
    pub fn current(&self) -> Option<Window> {
        self.current
    }

    /// Whether the peer may WRITE into window `grant`.
    pub fn is_granted(&self, grant: GrantId) -> bool {
        self.grants().any(|g| g == grant)
    }

    fn grants(&self) -> impl Iterator<Item = GrantId> + use<> {
        self.windows().filter_map(|w| w.grant)
    }

    /// First byte that the window cannot hold any more.
    fn capacity(&self, window: &Window) -> StreamOffset {
        window.from.max(self.consumed) + window.lease.size()
    }

    /// Whether the peer may have written `range` into window `grant`, by one WRITE.
    pub(super) fn was_granted(&self, range: ByteRange, grant: GrantId) -> bool {
        let (window, end) = match (&self.older, &self.current) {
            (_, Some(w)) if w.grant == Some(grant) => (w, self.capacity(w)),
            (Some(w), Some(current)) if w.grant == Some(grant) => (w, current.from),
            _ => return false,
        };
        let size = window.lease.size();
        range.start >= window.from
            && range.end <= end
            && (range.start.get() & (size - 1)) + range.len() <= size
    }

    /// Makes sure that a window holds `range`; false if there is no room.
    pub(super) fn make_room(
        &mut self,
        range: ByteRange,
        limits: ReceiveLimits,
        pool: &mut WindowPool,
    ) -> bool {
        if let Some(window) = self.current {
            return range.end <= self.capacity(&window);
        }
        // Idle until now: everything received was consumed.
        let need = log2_of(range.end.saturating_since(self.consumed)).max(MIN_LOG2);
        if need > limits.largest_log2() {
            return false;
        }
        // When memory is short, a small window is better than none.
        let best = need.max(limits.eager_log2());
        let Some(lease) = (need..=best).rev().find_map(|log2| pool.lease(log2)) else {
            return false;
        };
        self.adopt(lease, self.consumed, None);
        true
    }

    fn adopt(&mut self, lease: Lease, from: StreamOffset, grant: Option<GrantId>) {
        self.generation = self.generation.wrapping_add(1);
        self.starved = false;
        self.current = Some(Window { lease, from, grant, generation: self.generation });
    }

    /// Tries to get a window back for a half whose bytes were refused. True if credit may follow.
    pub fn retry_room(&mut self, limits: ReceiveLimits, pool: &mut WindowPool) -> bool {
        let Some(next) = ByteRange::new(self.received, 1) else { return false };
        self.make_room(next, limits, pool)
    }

    /// What the peer could have in flight if it had more credit: four windows' worth if it has used
    /// up half of the one that it was granted, else nothing.
    pub(crate) fn pressure(&self) -> u64 {
        match self.current {
            Some(window) if window.grant.is_some() => {
                let size = window.lease.size();
                let left = self.limit.saturating_since(self.received);
                if left <= size / 2 { size * 4 } else { 0 }
            }
            _ => 0,
        }
    }

    /// Leases a larger window that the peer may WRITE into, if `backlog` bytes that wait at the
    /// peer are worth one.
    ///
    /// At least half of the free memory is left to other streams, unless little is enough.
    pub fn upgrade(
        &mut self,
        backlog: u64,
        grant: GrantId,
        limits: ReceiveLimits,
        pool: &mut WindowPool,
    ) -> Upgrade {
        let largest = limits.largest_log2();
        let is_largest = |w: &Window| w.grant.is_some() && w.lease.log2 >= largest;
        if self.current.as_ref().is_some_and(is_largest)
            || self.older.is_some()
            || !self.wants_more()
        {
            return Upgrade::Unneeded;
        }
        // WRITEs into a granted window may be on their way up to the promise: the new one begins
        // behind them. Eager bytes are copied, so they may go into either.
        let granted = self.current.filter(|w| w.grant.is_some());
        let from = if granted.is_some() { self.promised } else { self.highest() };
        let least = log2_of(self.promised.saturating_since(from)).max(MIN_GRANT_LOG2);
        let wanted = log2_of(backlog).min(largest).max(least);
        let beaten = granted.map_or(0, |w| w.lease.log2);
        if beaten >= wanted {
            return Upgrade::Unneeded;
        }
        let lowest = least.max(beaten + 1);
        let fair = |log2: u8| log2 == MIN_GRANT_LOG2 || (2 << log2) <= pool.free_bytes();
        let Some(best) = (lowest..=wanted).rev().find(|log2| fair(*log2)) else {
            return Upgrade::NoRoom;
        };
        let Some(lease) = (lowest..=best).rev().find_map(|log2| pool.lease(log2)) else {
            return Upgrade::NoRoom;
        };
        if lease.size() < self.promised.saturating_since(from) {
            // Larger than any slab: only a strange configuration promises so much.
            pool.release(lease);
            return Upgrade::Unneeded;
        }
        self.older = self.current.take();
        self.adopt(lease, from, Some(grant));
        // Eager bytes may all have been read.
        self.recycle(pool);
        if lease.log2 < wanted { Upgrade::Short } else { Upgrade::Granted }
    }

    /// Gives back windows that hold nothing and that nobody can write into.
    ///
    /// The older window ends where the current one begins, and that is as far as it was ever
    /// granted: once all of it is received, every granted byte was announced (rule a of D5).
    pub fn recycle(&mut self, pool: &mut WindowPool) {
        if let (Some(older), Some(current)) = (self.older, self.current)
            && self.consumed >= current.from
        {
            pool.release(older.lease);
            self.older = None;
        }
        let over = matches!(self.state, ReceiveState::Complete(end) if self.consumed >= end);
        let abandoned = self.discard && self.grants().next().is_none();
        if over || abandoned {
            for window in self.older.take().into_iter().chain(self.current.take()) {
                pool.release(window.lease);
            }
        }
    }

    /// Whether the half holds windows without a byte in them.
    pub fn is_idle(&self) -> bool {
        self.current.is_some()
            && self.consumed == self.received
            && self.beyond.is_empty()
            && self.state == ReceiveState::Open
    }

    /// Gives up idle windows if nobody can write into them; otherwise names the grant to recall:
    /// with it comes every earlier one.
    pub fn release_idle(&mut self, pool: &mut WindowPool) -> Option<GrantId> {
        if let Some(newest) = self.grants().last() {
            return Some(newest);
        }
        for window in self.older.take().into_iter().chain(self.current.take()) {
            pool.release(window.lease);
        }
        // An idle stream holds as little as possible.
        self.beyond = RangeSet::default();
        None
    }

    /// The peer gave a window back, and with it every earlier one. False if it does not have it.
    pub fn on_return(&mut self, grant: GrantId, pool: &mut WindowPool) -> bool {
        if !self.is_granted(grant) {
            return false;
        }
        if let Some(current) = &mut self.current
            && current.grant == Some(grant)
        {
            current.grant = None;
        }
        if let Some(older) = &mut self.older {
            older.grant = None;
        }
        if self.is_idle() {
            self.release_idle(pool);
        }
        self.recycle(pool);
        true
    }

    /// Whether bytes are to come that were not promised yet. FIN may overtake the bytes it ends.
    pub fn wants_more(&self) -> bool {
        let more = match self.state {
            ReceiveState::Open => true,
            ReceiveState::FinalKnown(end) => self.limit < end,
            ReceiveState::Complete(_) | ReceiveState::Reset(_) => false,
        };
        more && !self.discard
    }

    /// Whether CREDIT tells the peer anything.
    pub fn wants_credit(&self) -> bool {
        self.may_get_bytes() && (self.discard || !self.starved)
    }

    fn may_get_bytes(&self) -> bool {
        matches!(self.state, ReceiveState::Open | ReceiveState::FinalKnown(_))
    }

    fn credit_limit(&self, limits: ReceiveLimits) -> StreamOffset {
        match &self.current {
            // What was refused needs no room any more; the stream cannot end without it.
            _ if self.discard => self.promised,
            Some(window) => self.capacity(window),
            None => self.consumed + limits.eager,
        }
    }

    /// Whether the peer should hear of new credit: when a good part of the window is to be had, or
    /// when it can send nothing without it.
    pub fn credit_due(&self, limits: ReceiveLimits) -> bool {
        if self.discard {
            return self.may_get_bytes() && self.limit < self.promised;
        }
        if self.starved || !self.wants_more() {
            return false;
        }
        let new = self.credit_limit(limits).saturating_since(self.limit);
        let size = self.current.map_or(limits.eager, |w| w.lease.size());
        new > 0 && (new >= size / limits.credits_per_window.max(1) || self.received >= self.limit)
    }

    /// Raises the limit as far as it goes and returns it.
    pub fn credit(&mut self, limits: ReceiveLimits) -> StreamOffset {
        self.limit = self.limit.max(self.credit_limit(limits));
        self.promised = self.promised.max(self.limit);
        self.limit
    }
}
