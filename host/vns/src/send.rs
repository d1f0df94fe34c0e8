//! The sending half of a stream.
//!
//! ```text
//!            finish                      every byte and FIN confirmed
//!   Open ------------> Finishing ------------------------------------> Finished
//!    |                     |
//!    +------- reset -------+---> Reset
//! ```
//!
//! Offsets: `confirmed <= sent <= tail`, and nothing above `limit` is sent. The engine keeps the
//! bytes from `confirmed` to `tail`; the peer's engine has everything below `confirmed`.
//!
//! - [`grant`]: windows at the peer: asked for, used, recalled, returned.
//! - `again`: bytes that are lost or refused.

use netchannel_units::{ByteRange, RangeSet, StreamOffset};
use netchannel_wire::frame::GrantId;

mod again;
pub mod grant;

pub use grant::Grant;
use grant::Wish;

/// Where the half stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendState {
    /// The application may write.
    Open,
    /// The application wrote its last byte; bytes or FIN are not all confirmed.
    Finishing,
    /// The peer's engine confirmed everything.
    Finished,
    /// Given up.
    Reset,
}

/// How bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Inside a SEND.
    Eager,
    /// By WRITE into this window, then announced.
    Bulk(Grant),
}

/// Bytes to send next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which bytes.
    pub range: ByteRange,
    /// How.
    pub form: Form,
}

impl Chunk {
    fn new(start: StreamOffset, len: u64, form: Form) -> Self {
        Self { range: ByteRange::between(start, start + len), form }
    }

    /// Leaves the first `bytes` bytes of it, if it has more.
    pub fn cut(&mut self, bytes: u64) {
        self.range.end = self.range.end.min(self.range.start + bytes);
    }
}

/// Limits on chunks.
#[derive(Clone, Copy, Debug)]
pub struct ChunkLimits {
    /// Most bytes in this chunk.
    pub bytes: u64,
    /// Most bytes of an eager chunk.
    pub eager: u64,
    /// Chunks of fewer bytes go eagerly even where there is a window.
    pub bulk_min: u64,
}

/// The sending half.
///
/// Every byte below `sent` is in one place: confirmed, in flight in one message, refused in a
/// message in flight, or to be sent again.
#[derive(Debug)]
pub struct SendHalf {
    state: SendState,
    tail: StreamOffset,
    sent: StreamOffset,
    confirmed: StreamOffset,
    confirmed_beyond: RangeSet,
    resend: RangeSet,
    /// Refused in messages that are not acknowledged yet.
    refused: RangeSet,
    limit: StreamOffset,
    grant: Option<Grant>,
    /// The window before it, for bytes below its first.
    /// Boxed: few streams ever have one, and idle ones are to be small.
    older: Option<Box<Grant>>,
    /// The last grant heard of: WINDOWs that arrive later but are older are not used.
    newest: Option<GrantId>,
    /// Grants up to here are recalled; RECALL may overtake WINDOW.
    recalled: Option<GrantId>,
    /// The last grant given back, and whether the peer must be told again.
    returned: Option<GrantId>,
    return_lost: bool,
    writes_in_flight: u32,
    wish: Wish,
    fin_confirmed: bool,
    stopped: Option<u32>,
}

impl SendHalf {
    /// A new half whose peer takes bytes up to `limit`.
    pub fn new(limit: StreamOffset) -> Self {
        Self {
            state: SendState::Open,
            tail: StreamOffset::ZERO,
            sent: StreamOffset::ZERO,
            confirmed: StreamOffset::ZERO,
            confirmed_beyond: RangeSet::default(),
            resend: RangeSet::default(),
            refused: RangeSet::default(),
            limit,
            grant: None,
            older: None,
            newest: None,
            recalled: None,
            returned: None,
            return_lost: false,
            writes_in_flight: 0,
            wish: Wish::default(),
            fin_confirmed: false,
            stopped: None,
        }
    }

    /// Where it stands.
    pub fn state(&self) -> SendState {
        self.state
    }

    /// Everything below is with the peer's engine; its memory may be used again.
    pub fn confirmed(&self) -> StreamOffset {
        self.confirmed
    }

    /// End of what the application wrote.
    pub fn tail(&self) -> StreamOffset {
        self.tail
    }

    /// First byte that was never sent.
    pub fn sent(&self) -> StreamOffset {
        self.sent
    }

    /// The peer's code if it stopped reading.
    pub fn stopped(&self) -> Option<u32> {
        self.stopped
    }

    /// Whether nothing of this half is left to do.
    pub fn is_done(&self) -> bool {
        match self.state {
            SendState::Open | SendState::Finishing => false,
            SendState::Finished => true,
            SendState::Reset => self.writes_in_flight == 0,
        }
    }

    /// The application has written up to `tail`. False if the half is not open or `tail` would
    /// move back.
    pub fn write(&mut self, tail: StreamOffset) -> bool {
        if self.state != SendState::Open || tail < self.tail {
            return false;
        }
        self.tail = tail;
        true
    }

    /// Takes back bytes that were written but never sent (the end of a borrowed buffer): the tail
    /// falls to `tail`, but never below what was sent.
    pub fn unwrite(&mut self, tail: StreamOffset) {
        if self.state == SendState::Open {
            self.tail = self.tail.min(tail.max(self.sent));
        }
    }

    /// No more bytes will be written. True if FIN is to be sent.
    pub fn finish(&mut self) -> bool {
        if self.state != SendState::Open {
            return false;
        }
        self.state = SendState::Finishing;
        true
    }

    /// The final offset, once the application finished.
    pub fn final_offset(&self) -> Option<StreamOffset> {
        matches!(self.state, SendState::Finishing | SendState::Finished).then_some(self.tail)
    }

    /// Gives up. True if RESET is to be sent.
    pub fn reset(&mut self) -> bool {
        if matches!(self.state, SendState::Finished | SendState::Reset) {
            return false;
        }
        self.state = SendState::Reset;
        self.resend.clear();
        self.refused.clear();
        true
    }

    /// Bytes that could be sent now.
    #[inline]
    pub fn sendable(&self) -> u64 {
        if matches!(self.state, SendState::Finished | SendState::Reset) || self.waits_for_window() {
            return 0;
        }
        let new = self.tail.min(self.limit).saturating_since(self.sent);
        if self.resend.is_empty() {
            return new;
        }
        let again: u64 =
            self.resend.iter().map(|r| r.end.min(self.limit).saturating_since(r.start)).sum();
        new + again
    }

    /// Bytes that wait, whether or not the peer takes them yet.
    #[inline]
    pub fn backlog(&self) -> u64 {
        self.tail.saturating_since(self.sent) + self.resend.bytes() + self.refused.bytes()
    }

    /// The next bytes to send and how, or `None` if there are none. Changes nothing.
    ///
    /// Bytes that are sent again go eagerly: if the peer has had them after all, their place in
    /// the window may belong to later bytes by now, and only the peer can tell.
    #[inline]
    pub fn next_chunk(&self, limits: ChunkLimits) -> Option<Chunk> {
        if matches!(self.state, SendState::Finished | SendState::Reset) || self.waits_for_window() {
            return None;
        }
        if let Some(lost) = self.resend.first()
            && lost.start < self.limit
        {
            let end = lost.end.min(self.limit);
            let len = (end - lost.start).min(limits.bytes).min(limits.eager);
            return (len > 0).then(|| Chunk::new(lost.start, len, Form::Eager));
        }
        let start = self.sent;
        let len = self.tail.min(self.limit).saturating_since(start).min(limits.bytes);
        let window = if len >= limits.bulk_min { self.window_of(start) } else { None };
        let (len, form) = match window {
            Some((grant, left)) => (len.min(left), Form::Bulk(grant)),
            None => (len.min(limits.eager), Form::Eager),
        };
        (len > 0).then(|| Chunk::new(start, len, form))
    }

    /// A chunk from [`next_chunk`](Self::next_chunk), perhaps shortened at its end, was sent.
    #[inline]
    pub fn on_sent(&mut self, chunk: &Chunk) {
        self.resend.remove(chunk.range);
        self.sent = self.sent.max(chunk.range.end);
        if matches!(chunk.form, Form::Bulk(_)) {
            self.writes_in_flight += 1;
        }
    }

    /// The peer's engine has processed the message with these bytes. True if it had refused some
    /// of them: those can be sent again from now on.
    #[inline]
    pub fn on_confirmed(&mut self, range: ByteRange, bulk: bool) -> bool {
        if bulk {
            self.writes_in_flight = self.writes_in_flight.saturating_sub(1);
        }
        let again = match self.refused.is_empty() {
            true => {
                self.confirm(range);
                false
            }
            false => self.confirm_in_part(range),
        };
        self.settle();
        again
    }

    #[inline]
    fn confirm(&mut self, range: ByteRange) {
        if range.start <= self.confirmed {
            // The normal case: in order.
            self.confirmed = self.confirmed.max(range.end);
            if !self.confirmed_beyond.is_empty() {
                self.confirmed = self.confirmed_beyond.advance(self.confirmed);
            }
        } else {
            self.confirmed_beyond.insert(range);
        }
    }

    /// An idle stream holds as little as possible.
    pub fn trim(&mut self) {
        self.confirmed_beyond.trim();
        self.resend.trim();
        self.refused.trim();
    }

    /// The peer takes bytes up to `limit`.
    pub fn on_credit(&mut self, limit: StreamOffset) {
        self.limit = self.limit.max(limit);
    }

    /// The peer has FIN.
    pub fn on_fin_confirmed(&mut self) {
        self.fin_confirmed = true;
        self.settle();
    }

    /// Whether the application has finished and every byte was sent.
    pub fn is_all_sent(&self) -> bool {
        match self.state {
            SendState::Finishing => self.sent == self.tail && self.resend.is_empty(),
            SendState::Finished => true,
            SendState::Open | SendState::Reset => false,
        }
    }

    /// The peer does not read any more.
    pub fn on_stop(&mut self, code: u32) {
        self.stopped.get_or_insert(code);
    }

    #[inline]
    fn settle(&mut self) {
        if self.confirmed == self.tail {
            self.forget_answer();
        }
        if self.state == SendState::Finishing && self.fin_confirmed && self.confirmed >= self.tail {
            self.state = SendState::Finished;
            // FIN and every byte arrived: the peer takes the window back by itself.
            self.grant = None;
            self.older = None;
        }
    }
}
