//! The receiving half of a stream.
//!
//! ```text
//!          FIN                  every byte below the final offset
//!   Open ------> FinalKnown ----------------------------------------> Complete
//!    |               |
//!    +--- RESET -----+---> Reset(code)
//! ```
//!
//! Bytes lie in windows by offset: byte `o` at `window base + (o & (size - 1))`. At most two
//! windows are alive: bytes below `current.from` lie in `older`, the others in `current`.

use netchannel_units::{ByteRange, RangeSet, StreamOffset};
use netchannel_wire::frame::GrantId;

use crate::pool::{Lease, WindowPool};

/// Where the half stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveState {
    /// Bytes arrive, the end is unknown.
    Open,
    /// FIN arrived, bytes are missing.
    FinalKnown(StreamOffset),
    /// Every byte arrived.
    Complete(StreamOffset),
    /// The peer gave up.
    Reset(u32),
}

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
}

/// A piece of an arrived chunk and where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Memory of the window.
    pub lease: Lease,
    /// Offset in the window.
    pub at: u64,
    /// Offset in the chunk.
    pub source: usize,
    /// Bytes.
    pub len: usize,
}

/// What is wrong with arrived bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Above what was promised.
    AboveLimit(StreamOffset),
    /// Above the final offset.
    BeyondFinal(StreamOffset),
    /// Announced in a window that does not hold them.
    WrongWindow,
}

/// What became of arrived bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Place them; `out_of_order` if a gap is in front of them.
    Place {
        /// Whether earlier bytes are missing.
        out_of_order: bool,
    },
    /// Nobody wants them (stopped, or known already).
    Discard,
    /// No room: refuse them.
    Refuse,
}

/// The receiving half.
#[derive(Debug)]
pub struct ReceiveHalf {
    state: ReceiveState,
    received: StreamOffset,
    beyond: RangeSet,
    consumed: StreamOffset,
    /// What the peer may send up to, as far as it knows.
    limit: StreamOffset,
    /// The highest limit ever given: bytes in flight may reach up to here.
    promised: StreamOffset,
    current: Option<Window>,
    older: Option<Window>,
    generation: u32,
    discard: bool,
}

impl ReceiveHalf {
    /// A new half that has promised to take `limits.eager` bytes.
    pub fn new(limits: ReceiveLimits) -> Self {
        let limit = StreamOffset::new(limits.eager);
        Self {
            state: ReceiveState::Open,
            received: StreamOffset::ZERO,
            beyond: RangeSet::default(),
            consumed: StreamOffset::ZERO,
            limit,
            promised: limit,
            current: None,
            older: None,
            generation: 0,
            discard: false,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> ReceiveState {
        self.state
    }

    /// The contiguous watermark: everything below arrived.
    pub fn received(&self) -> StreamOffset {
        self.received
    }

    /// Everything below was read by the application.
    pub fn consumed(&self) -> StreamOffset {
        self.consumed
    }

    /// The limit last given to the peer.
    pub fn limit(&self) -> StreamOffset {
        self.limit
    }

    /// The windows, older first.
    pub fn windows(&self) -> impl Iterator<Item = Window> {
        self.older.into_iter().chain(self.current)
    }

    /// The window in which new bytes go.
    pub fn current(&self) -> Option<Window> {
        self.current
    }

    /// Whether the half holds nothing and nothing more can come.
    pub fn is_done(&self) -> bool {
        let over = match self.state {
            ReceiveState::Open | ReceiveState::FinalKnown(_) => false,
            ReceiveState::Complete(end) => self.consumed >= end,
            ReceiveState::Reset(_) => self.discard,
        };
        over && self.current.is_none() && self.older.is_none()
    }

    fn check(&self, range: ByteRange) -> Result<(), Violation> {
        if range.end > self.promised {
            return Err(Violation::AboveLimit(self.promised));
        }
        match self.state {
            ReceiveState::FinalKnown(end) | ReceiveState::Complete(end) if range.end > end => {
                Err(Violation::BeyondFinal(end))
            }
            _ => Ok(()),
        }
    }

    /// Eager bytes arrived. `pieces` is filled with where they go.
    ///
    /// # Errors
    /// The peer may not send these bytes.
    pub fn on_data(
        &mut self,
        range: ByteRange,
        limits: ReceiveLimits,
        pool: &mut WindowPool,
        pieces: &mut Vec<Piece>,
    ) -> Result<Arrival, Violation> {
        pieces.clear();
        self.check(range)?;
        if self.discard || matches!(self.state, ReceiveState::Reset(_)) {
            self.note(range);
            self.discard_received();
            return Ok(Arrival::Discard);
        }
        if range.end <= self.received || self.beyond.contains(range) {
            return Ok(Arrival::Discard);
        }
        if !self.make_room(range, limits, pool) {
            self.limit = self.limit.min(range.start.max(self.received));
            return Ok(Arrival::Refuse);
        }
        let out_of_order = range.start > self.received;
        if out_of_order || !self.beyond.is_empty() || range.start < self.received {
            self.missing(range, pieces);
        } else {
            self.cut(range, range.start, pieces);
        }
        self.note(range);
        Ok(Arrival::Place { out_of_order })
    }

    /// Bytes were written into the window `grant`. True if a gap is in front of them.
    ///
    /// # Errors
    /// The peer may not have done so.
    pub fn on_written(&mut self, range: ByteRange, grant: GrantId) -> Result<bool, Violation> {
        self.check(range)?;
        let in_window = |w: &Window| w.grant == Some(grant) && range.start >= w.from;
        let below_current = |_: &Window| self.current.is_some_and(|c| range.end <= c.from);
        let holds = self.current.as_ref().is_some_and(in_window)
            || self.older.as_ref().is_some_and(|w| in_window(w) && below_current(w));
        if !holds {
            return Err(Violation::WrongWindow);
        }
        let out_of_order = range.start > self.received;
        self.note(range);
        if self.discard || matches!(self.state, ReceiveState::Reset(_)) {
            self.discard_received();
        }
        Ok(out_of_order)
    }

    fn note(&mut self, range: ByteRange) {
        if range.start <= self.received {
            self.received = self.received.max(range.end);
            if !self.beyond.is_empty() {
                self.received = self.beyond.advance(self.received);
            }
        } else {
            self.beyond.insert(range);
        }
        if let ReceiveState::FinalKnown(end) = self.state
            && self.received >= end
        {
            self.state = ReceiveState::Complete(end);
        }
    }

    fn discard_received(&mut self) {
        self.consumed = self.received;
    }

    /// Makes sure that a window holds `range`; false if there is no room.
    fn make_room(
        &mut self,
        range: ByteRange,
        limits: ReceiveLimits,
        pool: &mut WindowPool,
    ) -> bool {
        if let Some(window) = self.current {
            let end = window.from.max(self.consumed) + window.lease.size();
            return range.end <= end;
        }
        // Idle until now: everything received was consumed.
        let need = range.end.saturating_since(self.consumed).max(limits.eager);
        let log2 = need.next_power_of_two().trailing_zeros() as u8;
        if log2 > limits.window_log2.max(limits.eager.trailing_zeros() as u8) {
            return false;
        }
        let Some(lease) = pool.lease(log2) else { return false };
        self.adopt(lease, self.consumed, None);
        true
    }

    fn adopt(&mut self, lease: Lease, from: StreamOffset, grant: Option<GrantId>) {
        self.generation += 1;
        self.current = Some(Window { lease, from, grant, generation: self.generation });
    }

    /// Tries to get a window back for a half whose bytes were refused. True if credit may follow.
    pub fn retry_room(&mut self, limits: ReceiveLimits, pool: &mut WindowPool) -> bool {
        let Some(end) = self.received.checked_add(1) else { return false };
        self.make_room(ByteRange::between(self.received, end), limits, pool)
    }

    /// The parts of `range` that have not arrived yet.
    fn missing(&self, range: ByteRange, pieces: &mut Vec<Piece>) {
        let mut missing = RangeSet::default();
        missing.insert(ByteRange::between(range.start.max(self.received), range.end));
        for known in self.beyond.iter() {
            missing.remove(known);
        }
        for part in missing.iter() {
            self.cut(part, range.start, pieces);
        }
    }

    /// Cuts `part` where windows begin and end.
    fn cut(&self, part: ByteRange, chunk_start: StreamOffset, pieces: &mut Vec<Piece>) {
        let mut at = part.start;
        while at < part.end {
            let (window, bound) = match (self.older, self.current) {
                (Some(older), Some(current)) if at < current.from => (older, current.from),
                (_, Some(current)) => (current, part.end),
                _ => return,
            };
            let size = window.lease.size();
            let in_window = at.get() & (size - 1);
            let len = part.end.min(bound).saturating_since(at).min(size - in_window);
            pieces.push(Piece {
                lease: window.lease,
                at: in_window,
                source: at.saturating_since(chunk_start) as usize,
                len: len as usize,
            });
            at = at + len;
        }
    }

    /// The application has read up to `upto`. False (and nothing changes) if it cannot have.
    pub fn consume(&mut self, upto: StreamOffset, pool: &mut WindowPool) -> bool {
        if upto < self.consumed || upto > self.received {
            return false;
        }
        self.consumed = upto;
        self.recycle(pool);
        true
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

    fn grants(&self) -> impl Iterator<Item = GrantId> {
        self.windows().filter_map(|w| w.grant)
    }

    /// Whether the half holds a window without a byte in it.
    pub fn is_idle(&self) -> bool {
        self.current.is_some()
            && self.older.is_none()
            && self.consumed == self.received
            && self.beyond.is_empty()
            && self.state == ReceiveState::Open
    }

    /// Gives up an idle window if nobody can write into it; otherwise names the grant to recall.
    pub fn release_idle(&mut self, pool: &mut WindowPool) -> Option<GrantId> {
        let window = self.current?;
        if window.grant.is_some() {
            return window.grant;
        }
        self.current = None;
        pool.release(window.lease);
        None
    }

    /// The peer gave a window back. False if it does not have it.
    pub fn on_return(&mut self, grant: GrantId, pool: &mut WindowPool) -> bool {
        let mut known = false;
        for window in [&mut self.older, &mut self.current].into_iter().flatten() {
            if window.grant == Some(grant) {
                window.grant = None;
                known = true;
            }
        }
        if known {
            if self.is_idle() {
                self.release_idle(pool);
            }
            self.recycle(pool);
        }
        known
    }

    /// Leases a larger window that the peer may WRITE into, if `backlog` bytes that wait at the
    /// peer are worth one. True if WINDOW is to be sent.
    pub fn upgrade(
        &mut self,
        backlog: u64,
        grant: GrantId,
        limits: ReceiveLimits,
        pool: &mut WindowPool,
    ) -> bool {
        if self.older.is_some() || !self.wants_more() {
            return false;
        }
        let wanted = (backlog.next_power_of_two().trailing_zeros() as u8)
            .clamp(MIN_GRANT_LOG2, limits.window_log2);
        let enough = |w: &Window| w.grant.is_some() && w.lease.log2 >= wanted;
        if self.current.as_ref().is_some_and(enough) {
            return false;
        }
        let Some(lease) = pool.lease(wanted) else { return false };
        // Bytes promised until now belong to the window there was.
        let from = if self.current.is_some() { self.promised } else { self.received };
        self.older = self.current.take();
        self.adopt(lease, from, Some(grant));
        self.take_credit();
        true
    }

    /// Whether bytes are to come that were not promised yet. FIN may overtake the bytes it ends.
    fn wants_more(&self) -> bool {
        let more = match self.state {
            ReceiveState::Open => true,
            ReceiveState::FinalKnown(end) => self.limit < end,
            ReceiveState::Complete(_) | ReceiveState::Reset(_) => false,
        };
        more && !self.discard
    }

    fn credit_limit(&self, limits: ReceiveLimits) -> StreamOffset {
        match self.current {
            Some(window) => self.consumed.max(window.from) + window.lease.size(),
            None => self.consumed + limits.eager,
        }
    }

    /// Whether the peer should hear of new credit: when a quarter of the window is to be had, or
    /// when it can send nothing without it.
    pub fn credit_due(&self, limits: ReceiveLimits) -> bool {
        if !self.wants_more() {
            return false;
        }
        let new = self.credit_limit(limits).saturating_since(self.limit);
        let size = self.current.map_or(limits.eager, |w| w.lease.size());
        new > 0 && (new >= size / 4 || self.received >= self.limit)
    }

    /// Raises the limit as far as it goes and returns it.
    pub fn credit(&mut self, limits: ReceiveLimits) -> StreamOffset {
        self.limit = self.limit.max(self.credit_limit(limits));
        self.promised = self.promised.max(self.limit);
        self.limit
    }

    fn take_credit(&mut self) {
        if let Some(window) = self.current {
            self.limit = self.limit.max(self.consumed.max(window.from) + window.lease.size());
            self.promised = self.promised.max(self.limit);
        }
    }

    /// FIN arrived.
    ///
    /// # Errors
    /// What was known before, if that contradicts it.
    pub fn on_fin(&mut self, end: StreamOffset) -> Result<(), StreamOffset> {
        let highest = self.beyond.iter().last().map_or(self.received, |r| r.end);
        match self.state {
            ReceiveState::Open if end < highest => return Err(highest),
            ReceiveState::Open if self.received >= end => self.state = ReceiveState::Complete(end),
            ReceiveState::Open => self.state = ReceiveState::FinalKnown(end),
            ReceiveState::FinalKnown(was) | ReceiveState::Complete(was) if was != end => {
                return Err(was);
            }
            _ => {}
        }
        Ok(())
    }

    /// RESET arrived. The windows stay until the application has let go: it may be reading.
    pub fn on_reset(&mut self, code: u32) {
        if !matches!(self.state, ReceiveState::Complete(_) | ReceiveState::Reset(_)) {
            self.state = ReceiveState::Reset(code);
        }
    }

    /// The application wants no more bytes. True if STOP is to be sent.
    pub fn stop(&mut self, pool: &mut WindowPool) -> bool {
        let first = !std::mem::replace(&mut self.discard, true);
        self.discard_received();
        self.recycle(pool);
        first && matches!(self.state, ReceiveState::Open | ReceiveState::FinalKnown(_))
    }
}

/// log2 of the smallest window worth a grant: 64 KiB, a round trip's worth at 10 Gb/s.
const MIN_GRANT_LOG2: u8 = 16;
