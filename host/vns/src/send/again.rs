//! Bytes that are sent again: lost with their Channel, or refused by a peer that had no room.

use netchannel_units::{ByteRange, RangeSet};

use super::{SendHalf, SendState};

/// Separate ranges of refused bytes. A receiver refuses whole chunks and mostly everything behind
/// the first, so that a peer which names more of them wants to cost us memory.
const MAX_REFUSED: usize = 4096;

impl SendHalf {
    /// These bytes are lost with their Channel, which is fenced: send them again.
    pub fn on_lost(&mut self, range: ByteRange, bulk: bool) {
        if bulk {
            self.writes_in_flight = self.writes_in_flight.saturating_sub(1);
        }
        let before = self.refused.bytes();
        if before > 0 {
            self.refused.remove(range);
            if self.refused.bytes() < before {
                // The credit after a refusal may have been lost with the refusal's own
                // confirmation. What was promised once may be tried again.
                self.limit = self.limit.max(range.end);
            }
        }
        self.again(range);
    }

    /// The peer had no room for these bytes; they stay in flight until their message is
    /// acknowledged. False if they were never sent, or the peer refuses in an absurd pattern.
    pub fn on_refused(&mut self, range: ByteRange) -> bool {
        if range.end > self.sent {
            return false;
        }
        if matches!(self.state, SendState::Finished | SendState::Reset) {
            return true;
        }
        self.limit = self.limit.min(range.start.max(self.confirmed));
        self.refused.insert(ByteRange::between(range.start.max(self.confirmed), range.end));
        for known in self.confirmed_beyond.iter().chain(self.resend.iter()) {
            self.refused.remove(known);
        }
        self.refused.ranges() <= MAX_REFUSED
    }

    fn again(&mut self, range: ByteRange) {
        if self.state == SendState::Reset {
            return;
        }
        self.resend.insert(ByteRange::between(range.start.max(self.confirmed), range.end));
        for known in self.confirmed_beyond.iter() {
            self.resend.remove(known);
        }
    }

    /// The acknowledgement of a message covers what was refused of it, too.
    pub(super) fn confirm_in_part(&mut self, range: ByteRange) -> bool {
        let mut again = false;
        let mut kept = RangeSet::default();
        kept.insert(range);
        for refused in self.refused.iter() {
            kept.remove(refused);
        }
        self.refused.remove(range);
        let mut refused = RangeSet::default();
        refused.insert(range);
        for part in kept.iter() {
            refused.remove(part);
            self.confirm(part);
        }
        for part in refused.iter() {
            again = true;
            self.again(part);
        }
        again
    }
}
