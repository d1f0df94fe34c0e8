//! What to send, and what changed.

use netchannel_units::{ChannelId, Claim};
use netchannel_wire::{Frame, StreamId};

use super::Streams;
use super::items::{Backlog, Carried, Control, Incoming, Outgoing};
use super::queues::Due;
use crate::receive::ReceiveHalf;
use crate::send::{Chunk, ChunkLimits, Form, SendHalf};
use crate::stream::{Opening, Owed};

impl Streams {
    /// The next control frame to send. Ask again after [`on_control_sent`](Self::on_control_sent);
    /// a frame that cannot be sent now is offered again.
    ///
    /// Refusals come first. The acknowledgement of the bytes that they refuse must not leave before
    /// them: no message through a Channel that [`has_refusals`](Self::has_refusals) may acknowledge
    /// more than the one before.
    pub fn poll_control(&mut self) -> Option<Outgoing> {
        self.settle();
        self.feed_starved();
        while let Some(&due) = self.queues.due.front() {
            match due {
                Due::Refuse { stream, range, via } => {
                    return Some(Outgoing {
                        frame: Control::Frame(Frame::Refuse { stream, range }),
                        via: Some(via),
                        carried: Carried::Control { stream, what: Owed::REFUSE },
                    });
                }
                Due::Return { stream, grant } => {
                    return Some(Outgoing {
                        frame: Control::Frame(Frame::Return { stream, grant }),
                        via: None,
                        carried: Carried::LateReturn { stream, grant },
                    });
                }
                Due::Owed(id) => {
                    if let Some(outgoing) = self.next_owed(id) {
                        return Some(outgoing);
                    }
                    self.queues.due.pop_front();
                    if let Some(stream) = self.table.get_mut(id.0) {
                        stream.in_owing_queue = false;
                        self.retire(id);
                    }
                }
            }
        }
        None
    }

    /// Puts what was offered last at the end of the queue, because it cannot be sent now but other
    /// frames may.
    pub fn defer_control(&mut self) {
        if let Some(due) = self.queues.due.pop_front() {
            self.queues.due.push_back(due);
        }
    }

    /// How many entries the queue of frames has: after so many calls of
    /// [`defer_control`](Self::defer_control) everything was offered.
    pub fn owing(&self) -> usize {
        self.queues.due.len()
    }

    /// Whether there is anything to send but stream bytes, to show to applications, or to look for room
    /// for.
    pub fn has_news(&self) -> bool {
        let queues = &self.queues;
        let quiet = queues.arrivals.is_empty() && queues.due.is_empty();
        !(quiet && queues.touched.is_empty() && queues.closed.is_empty())
            || self.accounts.any_starved()
    }

    /// Shows `each` stream whose bytes arrived. True if that is all there is to do for them now: nothing is to be
    /// sent for it, nothing else is new, and `each` says so.
    pub fn glance(&self, mut each: impl FnMut(StreamId, &ReceiveHalf) -> bool) -> bool {
        let queues = &self.queues;
        let limits = self.limits();
        let quiet = queues.due.is_empty()
            && queues.backlogs.is_empty()
            && queues.touched.is_empty()
            && queues.incoming.is_empty()
            && queues.closed.is_empty()
            && !self.accounts.any_starved();
        quiet
            && queues.arrivals.iter().all(|(id, backlog)| {
                let Some(stream) = self.table.get(id.0) else { return false };
                let receive = &stream.receive;
                let backlog = u64::from(*backlog).max(receive.pressure());
                backlog <= self.config.eager_chunk
                    && !receive.credit_due(limits)
                    && each(*id, receive)
            })
    }

    /// Whether a refusal waits that must go through `via`.
    pub fn has_refusals(&self, via: ChannelId) -> bool {
        self.queues.has_refusals(via)
    }

    fn next_owed(&mut self, id: StreamId) -> Option<Outgoing> {
        let limits = self.limits();
        let eager = netchannel_units::StreamOffset::new(self.config.eager_credit);
        let stream = self.table.get_mut(id.0)?;
        loop {
            let what = stream.ready().first();
            let receive = &mut stream.receive;
            let frame = match what {
                Owed::OPEN => Some(Frame::Open {
                    stream: id,
                    class: stream.claim.class,
                    weight: stream.claim.weight,
                    service: stream.service,
                    limit: eager,
                }),
                Owed::OPENED => Some(Frame::Opened { stream: id, limit: eager }),
                Owed::WINDOW => {
                    if let Some(window) = receive.current()
                        && let Some(grant) = window.grant
                    {
                        let (lease, from) = (window.lease, window.from);
                        let limit = receive.credit(limits);
                        return Some(Outgoing {
                            frame: Control::Window { stream: id, grant, lease, from, limit },
                            via: stream.pinned(),
                            carried: Carried::Control { stream: id, what },
                        });
                    }
                    None
                }
                Owed::CREDIT => receive
                    .wants_credit()
                    .then(|| Frame::Credit { stream: id, limit: receive.credit(limits) }),
                Owed::RECALL => stream
                    .recall
                    .filter(|grant| receive.is_granted(*grant))
                    .map(|grant| Frame::Recall { stream: id, grant }),
                Owed::RETURN => {
                    stream.send.returnable().map(|grant| Frame::Return { stream: id, grant })
                }
                Owed::FIN => stream
                    .send
                    .final_offset()
                    .map(|final_offset| Frame::Fin { stream: id, final_offset }),
                Owed::RESET => Some(Frame::Reset { stream: id, code: stream.reset_code }),
                Owed::STOP => Some(Frame::Stop { stream: id, code: stream.stop_code }),
                Owed::HINT => Some(Frame::Data {
                    stream: id,
                    // The peer has everything below, so these no bytes need no room.
                    offset: stream.send.confirmed(),
                    backlog: u32::try_from(stream.send.backlog()).unwrap_or(u32::MAX),
                    bytes: &[],
                }),
                _ => return None,
            };
            if let Some(frame) = frame {
                return Some(Outgoing {
                    frame: Control::Frame(frame),
                    via: stream.pinned(),
                    carried: Carried::Control { stream: id, what },
                });
            }
            // Overtaken by events.
            stream.owed = stream.owed & !what;
        }
    }

    /// The frame from [`poll_control`](Self::poll_control) is in a message on Channel `via`.
    pub fn on_control_sent(&mut self, carried: &Carried, via: ChannelId) {
        let (id, what) = match *carried {
            Carried::Control { stream, what } => (stream, what),
            Carried::LateReturn { stream, grant } => {
                return self.queues.on_late_return_sent(stream, grant);
            }
            Carried::Chunk { .. } => return,
        };
        if what == Owed::REFUSE {
            self.queues.on_refusal_sent(id, via);
        }
        let Some(stream) = self.table.get_mut(id.0) else { return };
        stream.unconfirmed += 1;
        stream.owed = stream.owed & !what;
        match what {
            Owed::OPEN => {
                stream.opening = Opening::Sent(via);
                self.queues.note_backlog(id, stream);
            }
            Owed::WINDOW => {
                stream.owed = stream.owed & !Owed::CREDIT;
                stream.window_on_the_way = true;
            }
            Owed::RETURN => stream.send.on_returned(),
            _ => {}
        }
    }

    /// The next stream whose sendable bytes changed.
    pub fn poll_backlog(&mut self) -> Option<Backlog> {
        while let Some(id) = self.queues.backlogs.pop_front() {
            let Some(stream) = self.table.get_mut(id.0) else { continue };
            stream.in_backlog_queue = false;
            if stream.may_send() {
                return Some(Backlog {
                    stream: id,
                    claim: stream.claim,
                    bytes: stream.send.sendable(),
                    via: stream.pinned(),
                });
            }
        }
        None
    }

    /// The application should see the stream's state, for a reason of the engine's.
    pub fn touch(&mut self, id: StreamId) {
        if let Some(stream) = self.table.get_mut(id.0) {
            self.queues.touch(id, stream);
        }
    }

    /// The next stream whose state the application should see.
    pub fn poll_touched(&mut self) -> Option<StreamId> {
        self.settle();
        let id = self.queues.touched.pop_front()?;
        if let Some(stream) = self.table.get_mut(id.0) {
            stream.in_touched_queue = false;
        }
        Some(id)
    }

    /// The next stream that the peer opened.
    pub fn poll_incoming(&mut self) -> Option<Incoming> {
        self.queues.incoming.pop_front()
    }

    /// The next stream that is gone; its number never comes back.
    pub fn poll_closed(&mut self) -> Option<StreamId> {
        self.settle();
        self.queues.closed.pop_front()
    }

    /// A stream that has bytes to send and may: looked up once for all of its chunks.
    pub fn sending(&mut self, id: StreamId) -> Option<Sending<'_>> {
        let stream = self.table.get_mut(id.0).filter(|s| s.may_send())?;
        let (eager, bulk_min) = (self.config.eager_chunk, self.config.bulk_min);
        Some(Sending { id, claim: stream.claim, half: &mut stream.send, eager, bulk_min })
    }
}

/// The sending half of a stream while its chunks go into messages.
#[derive(Debug)]
pub struct Sending<'a> {
    id: StreamId,
    claim: Claim,
    half: &'a mut SendHalf,
    eager: u64,
    bulk_min: u64,
}

impl Sending<'_> {
    /// Its class and weight.
    #[inline]
    pub fn claim(&self) -> Claim {
        self.claim
    }

    /// Bytes that could go now.
    #[inline]
    pub fn sendable(&self) -> u64 {
        self.half.sendable()
    }

    /// The next bytes, at most `bytes`.
    #[inline]
    pub fn next_chunk(&self, bytes: u64) -> Option<Chunk> {
        self.half.next_chunk(ChunkLimits { bytes, eager: self.eager, bulk_min: self.bulk_min })
    }

    /// Bytes behind `chunk` that wait at this side, for the frame that carries it. To be asked
    /// before [`on_sent`](Self::on_sent).
    #[inline]
    pub fn backlog_hint(&self, chunk: &Chunk) -> u32 {
        let waiting = self.half.backlog().saturating_sub(chunk.range.len());
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// A chunk (perhaps shortened at its end) is in a message. Returns what comes back when that
    /// message is confirmed or lost.
    #[inline]
    pub fn on_sent(&mut self, chunk: &Chunk) -> Carried {
        self.half.on_sent(chunk);
        let bulk = matches!(chunk.form, Form::Bulk(_));
        Carried::Chunk { stream: self.id, range: chunk.range, bulk }
    }
}
