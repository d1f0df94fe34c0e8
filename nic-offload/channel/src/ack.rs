//! When a Channel owes its peer a message.
//!
//! Every header acknowledges and returns slots, so traffic in both directions needs nothing more.
//! One-way traffic needs messages without frames. They are due
//! - at the end of a poll pass when [`AckPolicy::every`] messages with frames are unacknowledged,
//! - [`AckPolicy::delay`] after the first of fewer,
//! - when half of the slots are unreturned, whatever was in them.
//!
//! A message without frames asks for no acknowledgement, so two idle engines fall silent: the
//! third rule answers at least two such messages with one (half of four slots or more), and that
//! series ends.

use netchannel_units::Timestamp;

use crate::config::AckPolicy;

/// Whether the peer waits for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AckNeed {
    /// Nothing to tell.
    None,
    /// Any message within the delay will do. An engine that is about to sleep takes this as
    /// [`AckNeed::Now`].
    Soon,
    /// If no message has left by the end of this poll pass, send one without frames.
    Now,
}

/// Counts what was processed since the last header left.
#[derive(Clone, Debug)]
pub(crate) struct Acks {
    policy: AckPolicy,
    half_of_slots: u32,
    unreturned: u32,
    eliciting: u32,
    /// When fewer than `policy.every` become overdue; `MAX` is never.
    due: Timestamp,
    overdue: bool,
}

impl Acks {
    pub(crate) fn new(policy: AckPolicy, receive_slots: u32) -> Self {
        Self {
            policy,
            half_of_slots: receive_slots / 2,
            unreturned: 0,
            eliciting: 0,
            due: Timestamp::MAX,
            overdue: false,
        }
    }

    pub(crate) fn on_processed(&mut self, now: Timestamp, elicits_ack: bool) {
        self.unreturned += 1;
        if elicits_ack {
            if self.eliciting == 0 {
                self.due = now + self.policy.delay;
            }
            self.eliciting += 1;
        }
    }

    /// A header leaves; it says everything there is to say.
    pub(crate) fn on_header(&mut self) {
        self.unreturned = 0;
        self.eliciting = 0;
        self.due = Timestamp::MAX;
        self.overdue = false;
    }

    pub(crate) fn on_timeout(&mut self, now: Timestamp) {
        if self.due <= now {
            self.due = Timestamp::MAX;
            self.overdue = true;
        }
    }

    pub(crate) fn next_timeout(&self) -> Option<Timestamp> {
        (self.due != Timestamp::MAX).then_some(self.due)
    }

    pub(crate) fn need(&self) -> AckNeed {
        if self.overdue
            || self.unreturned >= self.half_of_slots
            || (self.eliciting > 0 && self.eliciting >= self.policy.every)
        {
            AckNeed::Now
        } else if self.eliciting > 0 {
            AckNeed::Soon
        } else {
            AckNeed::None
        }
    }

    /// Whether the next header returns a slot.
    pub(crate) fn returns_slots(&self) -> bool {
        self.unreturned > 0
    }
}
