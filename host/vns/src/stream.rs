//! One stream: its two halves and what is to be said about them.

use std::ops::{BitAnd, BitOr, BitOrAssign, Not};

use netchannel_units::{ChannelId, Claim, Timestamp};
use netchannel_wire::frame::GrantId;

use crate::receive::ReceiveHalf;
use crate::send::SendHalf;
use crate::streams::AccountIndex;

/// Frames that a stream owes its peer, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owed(u16);

impl Owed {
    pub(crate) const NONE: Self = Self(0);
    pub(crate) const OPEN: Self = Self(1);
    pub(crate) const OPENED: Self = Self(1 << 1);
    pub(crate) const REFUSE: Self = Self(1 << 2);
    pub(crate) const WINDOW: Self = Self(1 << 3);
    pub(crate) const CREDIT: Self = Self(1 << 4);
    pub(crate) const RECALL: Self = Self(1 << 5);
    pub(crate) const RETURN: Self = Self(1 << 6);
    pub(crate) const FIN: Self = Self(1 << 7);
    pub(crate) const RESET: Self = Self(1 << 8);
    pub(crate) const STOP: Self = Self(1 << 9);
    /// A Data frame without bytes, which says that many wait and are worth a window.
    pub(crate) const HINT: Self = Self(1 << 10);

    pub(crate) fn has(self, bit: Self) -> bool {
        self.0 & bit.0 != 0
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The frame to send first.
    pub(crate) fn first(self) -> Self {
        Self(self.0 & self.0.wrapping_neg())
    }
}

impl BitOr for Owed {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Owed {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl BitAnd for Owed {
    type Output = Self;
    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl Not for Owed {
    type Output = Self;
    fn not(self) -> Self {
        Self(!self.0)
    }
}

/// Whether and how far a stream is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// OPEN was never sent.
    New,
    /// OPEN was lost with its Channel; the peer may know the stream all the same.
    Again,
    /// OPEN went through this Channel; everything of the stream follows it there.
    Sent(ChannelId),
    /// The peer knows the stream; whether it takes it is open.
    Known,
    /// The peer took the stream.
    Done,
}

#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) claim: Claim,
    pub(crate) service: u16,
    pub(crate) opening: Opening,
    pub(crate) send: SendHalf,
    pub(crate) receive: ReceiveHalf,
    pub(crate) owed: Owed,
    /// Frames sent and not confirmed that must not be lost.
    pub(crate) unconfirmed: u32,
    /// REFUSEs not sent or not confirmed. Credit waits for them: what overtakes a refusal on
    /// another Channel is taken back by it.
    pub(crate) refusals: u32,
    /// A WINDOW was sent and is not confirmed. Credit and the next window wait for it: if they
    /// overtook it on another Channel, the peer would write its bytes into the window before it.
    pub(crate) window_on_the_way: bool,
    pub(crate) recall: Option<GrantId>,
    pub(crate) reset_code: u32,
    pub(crate) stop_code: u32,
    /// The application has let go of the stream.
    pub(crate) released: bool,
    pub(crate) last_active: Timestamp,
    /// Whose memory its windows lie in.
    pub(crate) account: AccountIndex,
    /// Its bytes were refused; it waits for room.
    pub(crate) is_starved: bool,
    pub(crate) in_idle_queue: bool,
    pub(crate) in_owing_queue: bool,
    pub(crate) in_backlog_queue: bool,
    pub(crate) in_touched_queue: bool,
}

impl Stream {
    pub(crate) fn new(
        claim: Claim,
        service: u16,
        opening: Opening,
        send: SendHalf,
        receive: ReceiveHalf,
    ) -> Self {
        Self {
            claim,
            service,
            opening,
            send,
            receive,
            owed: Owed::NONE,
            unconfirmed: 0,
            refusals: 0,
            window_on_the_way: false,
            recall: None,
            reset_code: 0,
            stop_code: 0,
            released: false,
            last_active: Timestamp::ZERO,
            account: AccountIndex::default(),
            is_starved: false,
            in_idle_queue: false,
            in_owing_queue: false,
            in_backlog_queue: false,
            in_touched_queue: false,
        }
    }

    /// The Channel that everything of this stream must use for now.
    pub(crate) fn pinned(&self) -> Option<ChannelId> {
        match self.opening {
            Opening::Sent(channel) => Some(channel),
            Opening::New | Opening::Again | Opening::Known | Opening::Done => None,
        }
    }

    /// Whether OPEN was sent, so that other frames may follow.
    pub(crate) fn may_send(&self) -> bool {
        !matches!(self.opening, Opening::New | Opening::Again)
    }

    /// Whether the peer has heard of every window that it was granted.
    pub(crate) fn knows_windows(&self) -> bool {
        !self.window_on_the_way && !self.owed.has(Owed::WINDOW)
    }

    /// What can be sent now of what is owed.
    pub(crate) fn ready(&self) -> Owed {
        let held = if self.refusals > 0 {
            Owed::CREDIT | Owed::WINDOW
        } else if !self.knows_windows() {
            Owed::CREDIT
        } else {
            Owed::NONE
        };
        self.owed & !held
    }

    pub(crate) fn is_over(&self) -> bool {
        self.released
            && self.send.is_done()
            && self.receive.is_done()
            && self.unconfirmed == 0
            && self.refusals == 0
            && self.owed.is_empty()
    }
}
