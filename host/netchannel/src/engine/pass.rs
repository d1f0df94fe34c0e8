//! A pass, in two halves: what arrived is taken and shown to applications, then what may go is sent.
//!
//! Who waited for a little that arrived goes on between the two, and what it then writes goes out with the
//! other half: an answer waits for nothing but itself.

use std::time::Duration;

use netchannel_units::Timestamp;
use netchannel_verbs::Context;

use crate::boundary::application::ApplicationId;
use crate::boundary::port::Doorbell;
use crate::engine::Engine;
use crate::wait::Waitable;

/// A gap between two polls after which completion times say nothing about the network.
const POLL_GAP: Duration = Duration::from_micros(50);

/// Payload after which its receiver takes so long to read it that the sender's credit and confirmations go
/// first.
const LITTLE: u64 = 4 << 10;

/// What a pass came to for who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Nothing moved.
    Idle,
    /// Something moved.
    Moved,
    /// It has happened. The second half of the pass may be left to the next one.
    Ready,
}

/// What the first half of a pass took.
#[derive(Clone, Copy, Debug)]
struct Taken {
    doorbells: bool,
    messages: bool,
}

impl Taken {
    fn any(self) -> bool {
        self.doorbells || self.messages
    }
}

impl<C: Context> Engine<C> {
    /// See [`Drive::poll`](crate::engine::Drive::poll).
    pub(super) fn pass(&mut self, now: Timestamp) -> bool {
        let now = now.max(self.last_poll);
        let taken = self.take(now);
        self.send(now, taken.any())
    }

    /// See [`Drive::poll_for`](crate::engine::Drive::poll_for).
    pub(super) fn pass_for(&mut self, now: Timestamp, what: &dyn Waitable) -> Passed {
        // Who waited for its turn brings an old time along; it never runs backwards here.
        let now = now.max(self.last_poll);
        let taken = self.take(now);
        let little = taken.messages && !taken.doorbells && self.payload_taken <= LITTLE;
        if little && self.show() && what.is_ready() {
            return Passed::Ready;
        }
        let moved = self.send(now, taken.any());
        match (what.is_ready(), moved) {
            (true, _) => Passed::Ready,
            (false, true) => Passed::Moved,
            (false, false) => Passed::Idle,
        }
    }

    /// See [`Drive::serve`](crate::engine::Drive::serve).
    pub(super) fn serve_doorbell(&mut self, now: Timestamp, doorbell: Doorbell) {
        self.on_doorbell(ApplicationId::LOCAL, doorbell);
        if std::mem::take(&mut self.arrived) {
            let now = now.max(self.last_poll);
            self.answer(now, doorbell.stream.session());
            self.run_session(now, doorbell.stream.session());
        } else {
            self.pass(now);
        }
    }

    fn take(&mut self, now: Timestamp) -> Taken {
        if now - self.last_poll > POLL_GAP {
            self.on_poll_gap();
        }
        self.last_poll = now;
        self.shared.counters.polls.add(1);
        let doorbells = self.submit();
        if self.look_at <= now {
            self.look_for_failures(now);
        }
        self.payload_taken = 0;
        self.arrived = self.receive(now);
        Taken { doorbells, messages: self.arrived }
    }

    /// Shows applications what arrived. Whether nothing is to be sent for it at once.
    fn show(&mut self) -> bool {
        let (sessions, group) = (&self.sessions, &self.group);
        let mut touched = sessions.iter().flatten().filter(|session| session.attention);
        touched.all(|session| !session.is_over() && session.show(group))
    }

    fn send(&mut self, now: Timestamp, found: bool) -> bool {
        self.look_at_budget(now);
        let mut moved = found;
        // In turn, since they share the port.
        self.turn = self.turn.wrapping_add(1);
        let count = self.sessions.len();
        let first = if count > 1 { self.turn % count } else { 0 };
        for slot in (first..count).chain(0..first) {
            let Some(session) = &self.sessions[slot] else { continue };
            let (attention, timed) = (session.attention, session.timer <= now);
            let unsettled = session.unsettled;
            if timed {
                self.on_timer(now, slot as u32);
            }
            if timed || attention {
                moved |= self.run_session(now, slot as u32);
            }
            if timed || (unsettled && !attention) {
                self.settle_session(now, slot);
            }
        }
        if let Err(error) = self.group.repost() {
            self.fail_all(&error.into());
        }
        if !moved {
            self.on_leisure(now);
        }
        moved
    }
}
