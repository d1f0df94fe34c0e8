//! Sequence numbers, acknowledgements and credit of a Channel.
//!
//! Counts are 64 bits here and their low 32 bits on the wire; a count moves less than 2^31
//! between two messages because it is bounded by the slots.
//!
//! # Nobody waits for ever
//!
//! A side may send as many messages as the peer has posted receives: `credit = processed + slots`,
//! absolute, in every header. [`CONTROL_RESERVE`] slots are kept back for control, and of these
//! the last one for a message that *returns a slot*, that is, one whose header has news.
//!
//! *Not both sides can run out.* Suppose everything sent has arrived and neither side has credit.
//! Let `r` be what A's last header returned to B. B has used all of `r + slots`, so B had seen `r`
//! before it sent its last message; the A header which first said `r` is thus older than A's last
//! `slots` messages, which B saw only after its last own. So A's very last message returned
//! nothing new, but the last slot is not given to such a message.
//!
//! *Who lacks credit gets it.* A side that cannot send data has at most two slots left at the
//! peer, so the peer has at least `slots - 2 >= slots / 2` unreturned (slots >= 4) and owes a
//! message at once. If the peer cannot send it, it has no credit itself, and then by the same rule
//! this side owes one, and by the above can send it.
//!
//! *The answers end.* A message without frames is answered only when half of the slots, two or
//! more, are unreturned; each answer speaks for at least two, so a series of them halves.

use netchannel_wire::frame::MessageHeader;

use crate::config::ChannelConfig;
use crate::error::ChannelError;

/// Slots at the peer that data leaves to control messages.
pub const CONTROL_RESERVE: u64 = 2;
/// Fewest receive slots that work: two for data beside the reserve (see the proof above).
pub const MIN_SLOTS: u32 = 4;
/// Most receive slots; bounds what a peer can make this side allocate.
pub const MAX_SLOTS: u32 = 65_536;

/// The counters of both directions.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    receive_slots: u64,
    peer_slots: u64,
    /// Messages sent.
    pub(crate) sent: u64,
    /// Messages that the peer's engine acknowledged.
    pub(crate) acknowledged: u64,
    /// Messages that may be sent in all.
    limit: u64,
    /// Messages received.
    pub(crate) received: u64,
    /// Messages processed, their slots reposted.
    pub(crate) processed: u64,
    /// Credit in the last header sent.
    advertised: u64,
}

impl Flow {
    pub(crate) fn new(config: &ChannelConfig) -> Self {
        let receive_slots = u64::from(config.receive_slots);
        let peer_slots = u64::from(config.peer_slots);
        Self {
            receive_slots,
            peer_slots,
            sent: 0,
            acknowledged: 0,
            limit: peer_slots,
            received: 0,
            processed: 0,
            advertised: receive_slots,
        }
    }

    /// Slots at the peer that are free as far as this side knows.
    pub(crate) fn free(&self) -> u64 {
        self.limit - self.sent
    }

    /// The header of the next message.
    pub(crate) fn next_header(&mut self) -> MessageHeader {
        self.advertised = self.processed + self.receive_slots;
        let header = MessageHeader {
            sequence: self.sent as u32,
            acknowledged: self.processed as u32,
            credit: self.advertised as u32,
            frames: 0,
        };
        self.sent += 1;
        header
    }

    pub(crate) fn check_sequence(&self, header: &MessageHeader) -> Result<(), ChannelError> {
        let (expected, found) = (self.received as u32, header.sequence);
        if found == expected { Ok(()) } else { Err(ChannelError::Sequence { expected, found }) }
    }

    /// Takes over what a header says, or nothing of it on an error.
    pub(crate) fn on_header(&mut self, header: &MessageHeader) -> Result<(), ChannelError> {
        self.check_sequence(header)?;
        if self.received >= self.advertised {
            return Err(ChannelError::Overrun { sequence: self.received, credit: self.advertised });
        }
        let acknowledged = advance(self.acknowledged, header.acknowledged, self.sent).ok_or(
            ChannelError::Acknowledged {
                found: header.acknowledged,
                earlier: self.acknowledged,
                sent: self.sent,
            },
        )?;
        let most = acknowledged + self.peer_slots;
        let limit = advance(self.limit, header.credit, most).ok_or(ChannelError::Credit {
            found: header.credit,
            earlier: self.limit,
            most,
        })?;
        self.received += 1;
        self.acknowledged = acknowledged;
        self.limit = limit;
        Ok(())
    }

    /// The peer's last word on what it has processed; older than an acknowledgement is harmless.
    pub(crate) fn on_report(&mut self, received: u64) -> Result<(), ChannelError> {
        if received > self.sent {
            return Err(ChannelError::Acknowledged {
                found: received as u32,
                earlier: self.acknowledged,
                sent: self.sent,
            });
        }
        self.acknowledged = self.acknowledged.max(received);
        Ok(())
    }
}

/// The 64-bit count in `from..=most` whose low 32 bits are `low`, if there is one.
fn advance(from: u64, low: u32, most: u64) -> Option<u64> {
    let to = from + u64::from(low.wrapping_sub(from as u32));
    (to <= most).then_some(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_extend_over_the_32_bit_border() {
        let from = u64::from(u32::MAX) - 1;
        assert_eq!(advance(from, 3, from + 10), Some(from + 5));
        assert_eq!(advance(from, u32::MAX - 1, from), Some(from));
        assert_eq!(advance(from, u32::MAX - 2, from + 10), None);
        assert_eq!(advance(from, 20, from + 10), None);
    }
}
