//! Windows at the peer. Their frames travel on any Channel: WINDOWs may overtake one another, RECALL
//! may overtake WINDOW, and any may come twice.

use netchannel_units::StreamOffset;
use netchannel_wire::frame::GrantId;

use super::{SendHalf, SendState};

/// A window at the peer to WRITE into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its name.
    pub id: GrantId,
    /// log2 of its size.
    pub log2: u8,
    /// Its address in the peer's terms.
    pub address: u64,
    /// The peer's key.
    pub key: u32,
    /// First byte that may be written.
    pub from: StreamOffset,
}

impl Grant {
    /// The address of byte `offset` of the stream.
    pub fn address_of(&self, offset: StreamOffset) -> u64 {
        self.address + self.position(offset)
    }

    /// Where in the window byte `offset` lies.
    pub(super) fn position(&self, offset: StreamOffset) -> u64 {
        offset.get() & (self.size() - 1)
    }

    pub(super) fn size(&self) -> u64 {
        1 << self.log2
    }
}

/// How late a WINDOW can come, in grants of its session: far more than are ever on their way, far
/// less than all numbers, which wrap around.
const STALE_GRANTS: u32 = 1 << 20;

fn is_newer(grant: GrantId, than: Option<GrantId>) -> bool {
    than.is_none_or(|than| than.0.wrapping_sub(grant.0) >= STALE_GRANTS)
}

/// Whether bytes are to go by WRITE alone, and what became of asking for a window.
///
/// ```text
///   Idle -- many bytes wait --> Asked -- the peer has handled it, twice --> Answered
///    ^                            |                                          |
///    +------ the window is given back, or all is confirmed ------------------+
/// ```
/// A peer that has a window to give sends it before it acknowledges the question, but perhaps on a Channel
/// that is later: so it is asked once more. One that has none gets the bytes eagerly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    /// More bytes than this wait for a window rather than go eagerly.
    above: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Idle,
    Asked { again: bool },
    Answered,
}

impl Default for Wish {
    fn default() -> Self {
        Self { above: u32::MAX, stage: Stage::Idle }
    }
}

impl SendHalf {
    /// From now on more than `above` bytes wait for a window instead of going eagerly, once per window:
    /// eager bytes are copied on both sides.
    pub fn prefer_window(&mut self, above: u64) {
        self.wish.above = u32::try_from(above).unwrap_or(u32::MAX);
    }

    fn wishes_window(&self) -> bool {
        self.wish.above < u32::MAX
            && self.grant.is_none()
            && self.resend.is_empty()
            && self.backlog() > u64::from(self.wish.above)
    }

    /// Whether bytes wait for the answer to a wish for a window.
    #[inline]
    pub(super) fn waits_for_window(&self) -> bool {
        matches!(self.wish.stage, Stage::Asked { .. }) && self.wishes_window()
    }

    /// Whether the peer is to be asked for a window now; true once until the window was given back.
    pub(crate) fn take_wish(&mut self) -> bool {
        let ask = self.wish.stage == Stage::Idle && self.wishes_window();
        if ask {
            self.wish.stage = Stage::Asked { again: false };
        }
        ask
    }

    /// The peer has handled the question. True if it is to be asked once more.
    pub(crate) fn on_wish_handled(&mut self) -> bool {
        let again = self.wish.stage == Stage::Asked { again: false } && self.grant.is_none();
        match self.wish.stage {
            Stage::Asked { .. } if again => self.wish.stage = Stage::Asked { again: true },
            Stage::Asked { .. } => self.wish.stage = Stage::Answered,
            Stage::Idle | Stage::Answered => {}
        }
        again
    }

    /// Nothing is on its way any more: the next many bytes ask anew.
    pub(super) fn forget_answer(&mut self) {
        if self.wish.stage == Stage::Answered {
            self.wish.stage = Stage::Idle;
        }
    }

    /// The window that byte `start` may be written into, and how many bytes may go there in one piece: it is a
    /// ring, and one WRITE does not cross its end.
    #[inline]
    pub(super) fn window_of(&self, start: StreamOffset) -> Option<(Grant, u64)> {
        let newest = self.grant?;
        let (grant, end) = match self.older.as_deref() {
            _ if start >= newest.from => (newest, u64::MAX),
            Some(older) if start >= older.from => (*older, newest.from.saturating_since(start)),
            _ => return None,
        };
        let left = (grant.size() - grant.position(start)).min(end);
        (!self.is_recalled(grant.id)).then_some((grant, left))
    }

    /// The peer granted a window; the one before it is used up to where the new one begins.
    pub fn on_window(&mut self, grant: Grant, limit: StreamOffset) {
        self.on_credit(limit);
        if !is_newer(grant.id, self.newest) {
            return;
        }
        self.newest = Some(grant.id);
        if self.state != SendState::Finished {
            self.older = self.grant.replace(grant).map(Box::new);
        }
    }

    /// The peer wants a window back, and every earlier one.
    pub fn on_recall(&mut self, grant: GrantId) {
        if is_newer(grant, self.recalled) {
            self.recalled = Some(grant);
        }
    }

    #[inline]
    pub(super) fn is_recalled(&self, grant: GrantId) -> bool {
        self.state == SendState::Reset
            || (self.recalled.is_some() && !is_newer(grant, self.recalled))
    }

    /// The grant to give back, and every earlier one with it: it was recalled and no WRITE is
    /// outstanding; or the peer was told so and the message was lost.
    pub fn returnable(&self) -> Option<GrantId> {
        match self.grant {
            Some(grant) if self.is_recalled(grant.id) && self.writes_in_flight == 0 => {
                Some(grant.id)
            }
            _ => self.returned.filter(|_| self.return_lost),
        }
    }

    /// RETURN of what is [`returnable`](Self::returnable) was sent.
    pub fn on_returned(&mut self) {
        self.returned = self.returnable();
        if self.grant.is_some_and(|grant| Some(grant.id) == self.returned) {
            self.grant = None;
            self.older = None;
            self.wish.stage = Stage::Idle;
        }
        self.return_lost = false;
    }

    /// RETURN was lost with its Channel.
    pub fn on_return_lost(&mut self) {
        self.return_lost = true;
    }
}
