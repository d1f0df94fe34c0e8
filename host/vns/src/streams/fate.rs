//! What became of what was sent, and of refused bytes.

use netchannel_units::ChannelId;
use netchannel_wire::StreamId;

use super::items::Carried;
use super::{AccountIndex, Streams};
use crate::stream::{Opening, Owed};

impl Streams {
    /// The peer's engine has processed a message that carried these. To be called after the frames
    /// of the message with the acknowledgement: a REFUSE may be among them. Returns how many bytes of
    /// streams they were.
    pub fn on_message_confirmed(&mut self, carried: &[Carried]) -> u64 {
        let mut bytes = 0;
        let mut rest = carried;
        while let Some(first) = rest.first() {
            let Carried::Chunk { stream, .. } = *first else {
                self.on_confirmed(first);
                rest = &rest[1..];
                continue;
            };
            // The chunks of a stream in a row: one look for the stream.
            let (count, chunks) = self.on_chunks_confirmed(stream, rest);
            bytes += chunks;
            rest = &rest[count..];
        }
        bytes
    }

    /// The chunks of a stream that these begin with are confirmed. Returns how many they are, and their
    /// bytes.
    fn on_chunks_confirmed(&mut self, id: StreamId, carried: &[Carried]) -> (usize, u64) {
        let mut entry = self.table.get_mut(id.0);
        let (mut count, mut bytes, mut again) = (0, 0, false);
        for item in carried {
            let &Carried::Chunk { stream, range, bulk } = item else { break };
            if stream != id {
                break;
            }
            count += 1;
            bytes += range.len();
            if let Some(stream) = &mut entry {
                again |= stream.send.on_confirmed(range, bulk);
            }
        }
        let Some(stream) = entry else { return (count, bytes) };
        if again {
            self.queues.note_backlog(id, stream);
        }
        self.queues.touch(id, stream);
        self.queues.note_return(id, stream);
        if stream.is_over() {
            self.retire(id);
        }
        (count, bytes)
    }

    /// One item of [`on_message_confirmed`](Self::on_message_confirmed).
    pub fn on_confirmed(&mut self, carried: &Carried) {
        let limits = self.limits();
        match *carried {
            Carried::Chunk { stream, .. } => {
                self.on_chunks_confirmed(stream, std::slice::from_ref(carried));
            }
            Carried::Control { stream: id, what } => {
                let Some(stream) = self.table.get_mut(id.0) else { return };
                stream.unconfirmed = stream.unconfirmed.saturating_sub(1);
                if what.has(Owed::OPEN) && matches!(stream.opening, Opening::Sent(_)) {
                    stream.opening = Opening::Known;
                    self.queues.note_backlog(id, stream);
                }
                if what.has(Owed::FIN) {
                    stream.send.on_fin_confirmed();
                    self.queues.touch(id, stream);
                }
                if what.has(Owed::HINT) {
                    match stream.send.on_wish_handled() {
                        true => self.queues.owe(id, stream, Owed::HINT),
                        false => self.queues.note_backlog(id, stream),
                    }
                }
                if what.has(Owed::WINDOW) {
                    stream.window_on_the_way = false;
                    let due = stream.receive.credit_due(limits);
                    let credit = if due { Owed::CREDIT } else { Owed::NONE };
                    self.queues.owe(id, stream, credit);
                }
                if what.has(Owed::REFUSE) {
                    self.refusal_settled(id);
                }
                self.retire(id);
            }
            Carried::LateReturn { .. } => {}
        }
    }

    /// A message that carried this is lost with its Channel. To be called when the Channel is
    /// fenced: the peer has handled what it received of it, and nothing of it is on its way.
    pub fn on_lost(&mut self, carried: &Carried) {
        match *carried {
            Carried::Chunk { stream: id, range, bulk } => {
                let Some(stream) = self.table.get_mut(id.0) else { return };
                stream.send.on_lost(range, bulk);
                self.queues.note_backlog(id, stream);
                self.queues.note_return(id, stream);
                self.retire(id);
            }
            Carried::Control { stream: id, what } => {
                let Some(stream) = self.table.get_mut(id.0) else { return };
                stream.unconfirmed = stream.unconfirmed.saturating_sub(1);
                let again = match what {
                    // The bytes were lost for the peer, too: it sends them again by itself.
                    Owed::REFUSE => Owed::NONE,
                    Owed::OPEN if !matches!(stream.opening, Opening::Sent(_)) => Owed::NONE,
                    Owed::WINDOW => Owed::WINDOW | Owed::CREDIT,
                    what => what,
                };
                if what.has(Owed::WINDOW) {
                    stream.window_on_the_way = false;
                }
                if again.has(Owed::OPEN) {
                    stream.opening = Opening::Again;
                }
                if again.has(Owed::RETURN) {
                    stream.send.on_return_lost();
                }
                self.queues.owe(id, stream, again);
                if what.has(Owed::REFUSE) {
                    self.refusal_settled(id);
                }
                self.retire(id);
            }
            Carried::LateReturn { stream, grant } => {
                self.queues.return_late(stream, grant);
            }
        }
    }

    /// Channel `via` is fenced: refusals that were to go through it are void.
    pub fn on_channel_lost(&mut self, via: ChannelId) {
        for id in self.queues.drop_refusals(via) {
            self.refusal_settled(id);
        }
    }

    /// A refusal is known to the peer, or void: credit may follow.
    fn refusal_settled(&mut self, id: StreamId) {
        let limits = self.limits();
        let Some(stream) = self.table.get_mut(id.0) else { return };
        stream.refusals = stream.refusals.saturating_sub(1);
        if stream.refusals > 0 {
            return;
        }
        let mut owed = stream.owed;
        if stream.receive.credit_due(limits) {
            owed |= Owed::CREDIT;
        }
        self.queues.owe(id, stream, owed);
        if !stream.is_starved && stream.receive.current().is_none() {
            stream.is_starved = true;
            self.accounts.get(stream.account).starved.push_back(id);
        }
        self.retire(id);
    }

    /// Streams whose bytes were refused get new credit when there is room: of each application the
    /// first first.
    pub(super) fn feed_starved(&mut self) {
        for account in self.accounts.indices() {
            while let Some(&id) = self.accounts.get(account).starved.front()
                && self.feed(account, id)
            {
                self.accounts.get(account).starved.pop_front();
            }
        }
    }

    /// False if there is no room yet.
    fn feed(&mut self, account: AccountIndex, id: StreamId) -> bool {
        let limits = self.limits();
        let Some(stream) = self.table.get_mut(id.0) else { return true };
        let waits = stream.refusals == 0
            && stream.receive.wants_more()
            && stream.receive.current().is_none();
        if waits {
            let account = self.accounts.get(account);
            if !stream.receive.retry_room(limits, &mut account.pool) {
                account.slab_wanted |= !std::mem::replace(&mut account.starved_asked, true);
                return false;
            }
            self.queues.owe(id, stream, Owed::CREDIT);
            self.queues.note_idle(id, stream);
        } else if stream.refusals == 0 && stream.receive.credit_due(limits) {
            self.queues.owe(id, stream, Owed::CREDIT);
        }
        stream.is_starved = false;
        true
    }
}
