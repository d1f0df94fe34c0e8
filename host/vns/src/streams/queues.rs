//! Queues of streams that somebody should look at. Each stream is in each queue at most once.

use std::collections::VecDeque;

use netchannel_units::{ByteRange, ChannelId, Duration, Timestamp};
use netchannel_wire::StreamId;
use netchannel_wire::frame::GrantId;

use super::items::Incoming;
use crate::stream::{Owed, Stream};

/// An empty window is given back after this long without a byte: far above a data-centre round
/// trip, so that a pause between two writes costs no new grant.
pub(super) const IDLE_RELEASE: Duration = Duration::from_millis(100);

/// REFUSEs and late RETURNs that wait to be sent, at most. Honest peers are far below: it takes
/// so many frames in flight on Channels that carry nothing the other way.
const MAX_WAITING: usize = 1 << 16;

/// Frames to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// What a stream owes.
    Owed(StreamId),
    /// Bytes that came through Channel `via` and found no room.
    Refuse { stream: StreamId, range: ByteRange, via: ChannelId },
    /// A window for a stream that is gone.
    Return { stream: StreamId, grant: GrantId },
}

#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) due: VecDeque<Due>,
    /// How many of `due` are not [`Due::Owed`].
    waiting: usize,
    /// How many of `due` are [`Due::Refuse`], per Channel that has any.
    refusals: Vec<(ChannelId, usize)>,
    pub(super) backlogs: VecDeque<StreamId>,
    pub(super) touched: VecDeque<StreamId>,
    /// Streams whose bytes arrived, in runs, and what waits behind the last of each run: see
    /// `Streams::settle`.
    pub(super) arrivals: Vec<(StreamId, u32)>,
    pub(super) incoming: VecDeque<Incoming>,
    pub(super) idle: VecDeque<(Timestamp, StreamId)>,
    pub(super) closed: VecDeque<StreamId>,
}

/// Entries that an empty queue has room for once all streams are idle.
const IDLE_CAPACITY: usize = 64;

impl Queues {
    /// Gives back memory that a burst of streams made the queues grow by.
    pub(super) fn trim(&mut self) {
        self.due.shrink_to(IDLE_CAPACITY);
        self.incoming.shrink_to(IDLE_CAPACITY);
        self.idle.shrink_to(IDLE_CAPACITY);
        self.arrivals.shrink_to(IDLE_CAPACITY);
        for queue in [&mut self.backlogs, &mut self.touched, &mut self.closed] {
            queue.shrink_to(IDLE_CAPACITY);
        }
    }

    pub(super) fn owe(&mut self, id: StreamId, stream: &mut Stream, what: Owed) {
        stream.owed |= what;
        if !stream.in_owing_queue && !stream.ready().is_empty() {
            stream.in_owing_queue = true;
            self.due.push_back(Due::Owed(id));
        }
    }

    pub(super) fn touch(&mut self, id: StreamId, stream: &mut Stream) {
        if !stream.in_touched_queue {
            stream.in_touched_queue = true;
            self.touched.push_back(id);
        }
    }

    #[inline]
    pub(super) fn note_arrival(&mut self, id: StreamId, backlog: u32) {
        match self.arrivals.last_mut() {
            Some((last, behind)) if *last == id => *behind = backlog,
            _ => self.arrivals.push((id, backlog)),
        }
    }

    pub(super) fn note_backlog(&mut self, id: StreamId, stream: &mut Stream) {
        if stream.send.take_wish() {
            self.owe(id, stream, Owed::HINT);
        }
        if !stream.in_backlog_queue {
            stream.in_backlog_queue = true;
            self.backlogs.push_back(id);
        }
    }

    pub(super) fn note_idle(&mut self, id: StreamId, stream: &mut Stream) {
        if !stream.in_idle_queue && stream.receive.is_idle() {
            stream.in_idle_queue = true;
            self.idle.push_back((stream.last_active + IDLE_RELEASE, id));
        }
    }

    pub(super) fn note_return(&mut self, id: StreamId, stream: &mut Stream) {
        if stream.send.returnable().is_some() {
            self.owe(id, stream, Owed::RETURN);
        }
    }

    /// Bytes are refused, ahead of everything else that waits. False if there are absurdly many.
    pub(super) fn refuse(
        &mut self,
        id: StreamId,
        stream: &mut Stream,
        range: ByteRange,
        via: ChannelId,
    ) -> bool {
        if let Some(Due::Refuse { stream: last, range: refused, via: channel }) =
            self.due.front_mut()
            && (*last, *channel) == (id, via)
            && refused.end == range.start
        {
            refused.end = range.end;
            return true;
        }
        stream.refusals += 1;
        self.due.push_front(Due::Refuse { stream: id, range, via });
        self.waiting += 1;
        match self.refusals.iter_mut().find(|(channel, _)| *channel == via) {
            Some((_, count)) => *count += 1,
            None => self.refusals.push((via, 1)),
        }
        self.waiting <= MAX_WAITING
    }

    /// A window goes back for a stream that is gone. False if there are absurdly many.
    pub(super) fn return_late(&mut self, stream: StreamId, grant: GrantId) -> bool {
        self.due.push_back(Due::Return { stream, grant });
        self.waiting += 1;
        self.waiting <= MAX_WAITING
    }

    /// A REFUSE of this stream was sent through `via`.
    pub(super) fn on_refusal_sent(&mut self, id: StreamId, via: ChannelId) {
        let sent = |due: &Due| matches!(*due, Due::Refuse { stream, via: channel, .. } if (stream, channel) == (id, via));
        if self.take_waiting(sent)
            && let Some(at) = self.refusals.iter().position(|(channel, _)| *channel == via)
        {
            self.refusals[at].1 -= 1;
            if self.refusals[at].1 == 0 {
                self.refusals.swap_remove(at);
            }
        }
    }

    /// A late RETURN was sent.
    pub(super) fn on_late_return_sent(&mut self, stream: StreamId, grant: GrantId) {
        self.take_waiting(|due| *due == Due::Return { stream, grant });
    }

    /// Takes the first entry that `is` describes (the front one, as a rule) out of the queue.
    fn take_waiting(&mut self, is: impl Fn(&Due) -> bool) -> bool {
        let Some(at) = self.due.iter().position(is) else { return false };
        self.due.remove(at);
        self.waiting -= 1;
        true
    }

    /// Drops every REFUSE that must go through `via`, and names the streams.
    pub(super) fn drop_refusals(&mut self, via: ChannelId) -> Vec<StreamId> {
        let mut dropped = Vec::new();
        self.due.retain(|due| match *due {
            Due::Refuse { stream, via: channel, .. } if channel == via => {
                dropped.push(stream);
                false
            }
            _ => true,
        });
        self.waiting -= dropped.len();
        self.refusals.retain(|(channel, _)| *channel != via);
        dropped
    }

    /// Whether a REFUSE waits that must go through `via`.
    pub(super) fn has_refusals(&self, via: ChannelId) -> bool {
        self.refusals.iter().any(|(channel, _)| *channel == via)
    }
}
