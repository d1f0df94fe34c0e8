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
//!
//! - [`window`]: leasing, granting and recycling windows, and the credit they are worth.

use netchannel_units::{ByteRange, RangeSet, StreamOffset};
use netchannel_wire::frame::GrantId;

use crate::pool::{Lease, WindowPool};

pub mod window;

pub use window::{ReceiveLimits, Upgrade, Window};

/// Gaps in front of eager bytes. Out-of-order bytes that would make another are refused, so that a
/// peer that scatters its bytes costs no more than this (16 KiB) and no long searches. Far above what
/// Channels that overtake one another cause.
const MAX_GAPS: usize = 1024;
/// Gaps in front of bulk bytes, which cannot be refused: two windows of 2 MiB in chunks of 1 KiB.
const MAX_BULK_GAPS: usize = 4096;

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
    /// In more pieces than any sender makes.
    Scattered,
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
    /// The highest limit ever given: bytes in flight may reach up to here. A window that the peer
    /// may WRITE into always holds them all.
    promised: StreamOffset,
    current: Option<Window>,
    older: Option<Window>,
    generation: u32,
    discard: bool,
    /// Bytes were refused because there is no window at all: no credit until there is one.
    starved: bool,
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
            starved: false,
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
        if matches!(self.state, ReceiveState::Reset(_))
            || range.end <= self.received
            || (!self.beyond.is_empty() && self.beyond.contains(range))
        {
            return Ok(Arrival::Discard);
        }
        let out_of_order = range.start > self.received;
        let fits = !out_of_order || self.beyond.ranges() < MAX_GAPS;
        if !fits || !(self.discard || self.make_room(range, limits, pool)) {
            self.limit = self.limit.min(range.start.max(self.received));
            self.starved |= self.current.is_none();
            return Ok(Arrival::Refuse);
        }
        if !self.discard {
            self.missing(range, pieces);
        }
        self.note(range, pool);
        Ok(if self.discard { Arrival::Discard } else { Arrival::Place { out_of_order } })
    }

    /// Bytes were written into the window `grant`. True if a gap is in front of them.
    ///
    /// # Errors
    /// The peer may not have done so.
    pub fn on_written(
        &mut self,
        range: ByteRange,
        grant: GrantId,
        pool: &mut WindowPool,
    ) -> Result<bool, Violation> {
        self.check(range)?;
        if !self.was_granted(range, grant) {
            return Err(Violation::WrongWindow);
        }
        if matches!(self.state, ReceiveState::Reset(_)) {
            return Ok(false);
        }
        let out_of_order = range.start > self.received;
        if out_of_order && self.beyond.ranges() >= MAX_BULK_GAPS {
            return Err(Violation::Scattered);
        }
        self.note(range, pool);
        Ok(out_of_order)
    }

    fn note(&mut self, range: ByteRange, pool: &mut WindowPool) {
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
        if self.discard {
            self.consumed = self.received;
            self.recycle(pool);
        }
    }

    /// Where the parts of `range` go that have not arrived yet.
    fn missing(&self, range: ByteRange, pieces: &mut Vec<Piece>) {
        let mut at = range.start.max(self.received);
        for known in self.beyond.iter() {
            if known.start >= range.end {
                break;
            }
            if known.end <= at {
                continue;
            }
            self.cut(ByteRange::between(at, known.start), range.start, pieces);
            at = known.end;
        }
        self.cut(ByteRange::between(at, range.end), range.start, pieces);
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
        if self.discard {
            // It said so before it heard that nothing is kept any more.
            return true;
        }
        if upto < self.consumed || upto > self.received {
            return false;
        }
        self.consumed = upto;
        self.recycle(pool);
        true
    }

    /// The end of the highest bytes that arrived.
    fn highest(&self) -> StreamOffset {
        self.beyond.iter().last().map_or(self.received, |r| r.end)
    }

    /// FIN arrived.
    ///
    /// # Errors
    /// What was known before, if that contradicts it.
    pub fn on_fin(&mut self, end: StreamOffset) -> Result<(), StreamOffset> {
        match self.state {
            ReceiveState::Open if end < self.highest() => return Err(self.highest()),
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
        self.consumed = self.received;
        self.recycle(pool);
        first && matches!(self.state, ReceiveState::Open | ReceiveState::FinalKnown(_))
    }
}
