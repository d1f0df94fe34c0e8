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

impl SendHalf {
    /// The peer granted a window; an older one is not used any more.
    pub fn on_window(&mut self, grant: Grant, limit: StreamOffset) {
        self.on_credit(limit);
        if !is_newer(grant.id, self.newest) {
            return;
        }
        self.newest = Some(grant.id);
        if self.state != SendState::Finished {
            self.grant = Some(grant);
        }
    }

    /// The peer wants a window back, and every earlier one.
    pub fn on_recall(&mut self, grant: GrantId) {
        if is_newer(grant, self.recalled) {
            self.recalled = Some(grant);
        }
    }

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
        }
        self.return_lost = false;
    }

    /// RETURN was lost with its Channel.
    pub fn on_return_lost(&mut self) {
        self.return_lost = true;
    }
}
