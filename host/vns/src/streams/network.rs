//! Frames from the peer.

use netchannel_units::{ByteRange, ChannelId, Claim, StreamOffset, Timestamp};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, StreamId};

use super::items::{Incoming, Placement};
use super::{MAX_PEER_STREAMS, Streams, Table};
use crate::error::ProtocolError;
use crate::receive::{Arrival, Piece, Upgrade, Violation};
use crate::send::{Grant, SendHalf};
use crate::stream::{Opening, Owed, Stream};

/// log2 of the largest window that a peer may grant: more is nonsense.
const MAX_WINDOW_LOG2: u8 = 40;

impl Streams {
    /// A frame arrived through Channel `via`.
    ///
    /// # Errors
    /// The peer broke the protocol.
    #[inline]
    pub fn on_frame(
        &mut self,
        now: Timestamp,
        via: ChannelId,
        frame: &Frame<'_>,
    ) -> Result<Placement, ProtocolError> {
        let id = frame.stream();
        match *frame {
            Frame::Written { grant, range, backlog, .. } => {
                self.on_written(now, id, grant, range, backlog)
            }
            Frame::Data { offset, backlog, bytes, .. } => {
                let range = ByteRange::new(offset, bytes.len() as u64)
                    .ok_or(ProtocolError::Unexpected { stream: id, what: "bytes past 2^64" })?;
                self.on_data(now, via, id, range, backlog)
            }
            _ => self.on_control(id, frame).map(|()| Placement::None),
        }
    }

    /// Frames without bytes.
    fn on_control(&mut self, id: StreamId, frame: &Frame<'_>) -> Result<(), ProtocolError> {
        match *frame {
            Frame::Data { .. } | Frame::Written { .. } => {}
            Frame::Open { class, weight, service, limit, .. } => {
                self.on_open(id, Claim { class, weight }, service, limit)?;
            }
            Frame::Opened { limit, .. } => self.on_opened(id, limit)?,
            Frame::Credit { limit, .. } => {
                if let Some(stream) = known(&mut self.table, id) {
                    stream.send.on_credit(limit);
                    self.queues.note_backlog(id, stream);
                } else {
                    self.on_stray(id)?;
                }
            }
            Frame::Window { grant, log2_size, address, key, from, limit, .. } => {
                let grant = Grant { id: grant, log2: log2_size, address, key, from };
                self.on_window(id, grant, limit)?;
            }
            Frame::Recall { grant, .. } => {
                if let Some(stream) = known(&mut self.table, id) {
                    stream.send.on_recall(grant);
                    self.queues.note_return(id, stream);
                } else {
                    self.on_stray(id)?;
                }
            }
            Frame::Return { grant, .. } => {
                if let Some(stream) = known(&mut self.table, id) {
                    // Late RETURNs of windows that were recycled otherwise are harmless.
                    stream.receive.on_return(grant, self.accounts.pool(stream.account));
                    self.retire(id);
                } else {
                    self.on_stray(id)?;
                }
            }
            Frame::Refuse { range, .. } => self.on_refuse(id, range)?,
            Frame::Fin { final_offset, .. } => self.on_fin(id, final_offset)?,
            Frame::Reset { code, .. } => {
                if let Some(stream) = known(&mut self.table, id) {
                    stream.receive.on_reset(code);
                    stream.receive.recycle(self.accounts.pool(stream.account));
                    self.queues.touch(id, stream);
                    self.retire(id);
                } else {
                    self.on_stray(id)?;
                }
            }
            Frame::Stop { code, .. } => {
                if let Some(stream) = known(&mut self.table, id) {
                    // Both sides ended at the same time: there is nothing left to stop.
                    if !stream.send.is_all_sent() {
                        stream.send.on_stop(code);
                        self.queues.touch(id, stream);
                        self.reset(id, code);
                    }
                } else {
                    self.on_stray(id)?;
                }
            }
        }
        Ok(())
    }

    /// Where the bytes of the last frame go, after [`Placement::Copy`].
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// A frame for a stream that is not in the table: late if it was there once.
    fn on_stray(&self, id: StreamId) -> Result<Placement, ProtocolError> {
        // A stream in the table whose OPEN was never sent is as unknown to the peer as any.
        let late = !self.table.contains(id.0)
            && if self.is_ours(id) { id.0 < self.next_id } else { self.seen.contains(id) };
        if late { Ok(Placement::None) } else { Err(ProtocolError::UnknownStream(id)) }
    }

    fn on_open(
        &mut self,
        id: StreamId,
        claim: Claim,
        service: u16,
        limit: StreamOffset,
    ) -> Result<(), ProtocolError> {
        if self.is_ours(id) {
            return Err(ProtocolError::BadStreamNumber(id));
        }
        if self.seen.contains(id) {
            // Sent again because its Channel died before the acknowledgement came through.
            return Ok(());
        }
        if !self.seen.insert(id) {
            return Err(ProtocolError::BadStreamNumber(id));
        }
        if self.theirs >= MAX_PEER_STREAMS {
            return Err(ProtocolError::TooManyStreams(id));
        }
        self.theirs += 1;
        self.insert(id, claim, service, Opening::Done, SendHalf::new(limit));
        self.queues.incoming.push_back(Incoming { stream: id, claim, service });
        Ok(())
    }

    fn on_opened(&mut self, id: StreamId, limit: StreamOffset) -> Result<(), ProtocolError> {
        if !self.is_ours(id) {
            return Err(ProtocolError::Unexpected { stream: id, what: "OPENED of its own stream" });
        }
        let Some(stream) = known(&mut self.table, id) else {
            return self.on_stray(id).map(drop);
        };
        stream.opening = Opening::Done;
        // If OPEN is to be sent again: it did arrive.
        stream.owed = stream.owed & !Owed::OPEN;
        stream.send.on_credit(limit);
        self.queues.note_backlog(id, stream);
        self.queues.touch(id, stream);
        Ok(())
    }

    fn on_data(
        &mut self,
        now: Timestamp,
        via: ChannelId,
        id: StreamId,
        range: ByteRange,
        backlog: u32,
    ) -> Result<Placement, ProtocolError> {
        let limits = self.limits();
        let Some(mut stream) = known(&mut self.table, id) else { return self.on_stray(id) };
        let account = stream.account;
        if stream.receive.current().is_none()
            && !self.accounts.pool(account).has(limits.eager_log2())
        {
            self.reclaim_windows(account);
            let Some(again) = known(&mut self.table, id) else { return self.on_stray(id) };
            stream = again;
        }
        stream.last_active = now;
        let arrival = stream
            .receive
            .on_data(range, limits, self.accounts.pool(stream.account), &mut self.pieces)
            .map_err(|violation| protocol_error(id, range, GrantId(0), violation))?;
        let placement = match arrival {
            Arrival::Refuse => {
                self.accounts.get(stream.account).slab_wanted |= stream.receive.current().is_none();
                if !self.queues.refuse(id, stream, range, via) {
                    let what = "flood of bytes that find no room";
                    return Err(ProtocolError::Unexpected { stream: id, what });
                }
                return Ok(Placement::None);
            }
            Arrival::Discard => Placement::None,
            Arrival::Place { out_of_order } => Placement::Copy { out_of_order },
        };
        self.queues.note_arrival(id, backlog);
        Ok(placement)
    }

    fn on_written(
        &mut self,
        now: Timestamp,
        id: StreamId,
        grant: GrantId,
        range: ByteRange,
        backlog: u32,
    ) -> Result<Placement, ProtocolError> {
        if range.start > range.end {
            return Err(ProtocolError::Unexpected { stream: id, what: "reversed range" });
        }
        let Some(stream) = known(&mut self.table, id) else { return self.on_stray(id) };
        stream.last_active = now;
        let out_of_order = stream
            .receive
            .on_written(range, grant, self.accounts.pool(stream.account))
            .map_err(|violation| protocol_error(id, range, grant, violation))?;
        self.queues.note_arrival(id, backlog);
        Ok(Placement::InPlace { bytes: range.len(), out_of_order })
    }

    /// What follows from the bytes that arrived, once for all frames of a pass: the application may
    /// read, the peer may deserve a window or credit.
    #[inline]
    pub(super) fn settle(&mut self) {
        if !self.queues.arrivals.is_empty() {
            self.settle_arrivals();
        }
    }

    fn settle_arrivals(&mut self) {
        let mut arrivals = std::mem::take(&mut self.queues.arrivals);
        for (id, backlog) in arrivals.drain(..) {
            self.on_arrived(id, backlog);
        }
        self.queues.arrivals = arrivals;
    }

    /// Bytes of a stream arrived, in order or not; `backlog` wait behind the last of them.
    fn on_arrived(&mut self, id: StreamId, backlog: u32) {
        let limits = self.limits();
        let Some(stream) = self.table.get_mut(id.0) else { return };
        let mut owed = Owed::NONE;
        // Writers of small pieces never show a backlog, but their credit runs out.
        let backlog = u64::from(backlog).max(stream.receive.pressure());
        if backlog > self.config.eager_chunk && stream.knows_windows() {
            let grant = GrantId(self.next_grant);
            let account = self.accounts.get(stream.account);
            let upgrade = stream.receive.upgrade(backlog, grant, limits, &mut account.pool);
            if matches!(upgrade, Upgrade::Granted | Upgrade::Short) {
                self.next_grant = self.next_grant.wrapping_add(1);
                owed |= Owed::WINDOW;
            }
            account.slab_wanted |= matches!(upgrade, Upgrade::NoRoom | Upgrade::Short);
        }
        if stream.receive.credit_due(limits) {
            owed |= Owed::CREDIT;
        }
        if !owed.is_empty() {
            self.queues.owe(id, stream, owed);
        }
        self.queues.note_idle(id, stream);
        self.queues.touch(id, stream);
        if stream.is_over() {
            self.retire(id);
        }
    }

    fn on_window(
        &mut self,
        id: StreamId,
        grant: Grant,
        limit: StreamOffset,
    ) -> Result<(), ProtocolError> {
        let fits = grant.log2 <= MAX_WINDOW_LOG2
            && grant.address.checked_add((1 << grant.log2) - 1).is_some();
        if !fits {
            return Err(ProtocolError::Unexpected { stream: id, what: "WINDOW of absurd size" });
        }
        if let Some(stream) = known(&mut self.table, id) {
            stream.send.on_window(grant, limit);
            self.queues.note_backlog(id, stream);
            self.queues.note_return(id, stream);
            return Ok(());
        }
        self.on_stray(id)?;
        // It goes back at once, or the peer would keep it for ever.
        if !self.queues.return_late(id, grant.id) {
            let what = "flood of windows for streams that are gone";
            return Err(ProtocolError::Unexpected { stream: id, what });
        }
        Ok(())
    }

    fn on_refuse(&mut self, id: StreamId, range: ByteRange) -> Result<(), ProtocolError> {
        let Some(stream) = known(&mut self.table, id) else {
            return self.on_stray(id).map(drop);
        };
        if range.start > range.end || !stream.send.on_refused(range) {
            return Err(ProtocolError::Unexpected { stream: id, what: "REFUSE of unsent bytes" });
        }
        self.queues.note_backlog(id, stream);
        Ok(())
    }

    fn on_fin(&mut self, id: StreamId, end: StreamOffset) -> Result<(), ProtocolError> {
        let Some(stream) = known(&mut self.table, id) else {
            return self.on_stray(id).map(drop);
        };
        stream.receive.on_fin(end).map_err(|was| ProtocolError::FinalOffset {
            stream: id,
            was,
            now: end,
        })?;
        stream.receive.recycle(self.accounts.pool(stream.account));
        self.queues.touch(id, stream);
        self.retire(id);
        Ok(())
    }
}

/// The stream, if the peer can know it.
#[inline]
fn known(table: &mut Table<Box<Stream>>, id: StreamId) -> Option<&mut Stream> {
    table.get_mut(id.0).map(|s| &mut **s).filter(|s| s.opening != Opening::New)
}

fn protocol_error(
    stream: StreamId,
    range: ByteRange,
    grant: GrantId,
    violation: Violation,
) -> ProtocolError {
    match violation {
        Violation::AboveLimit(limit) => ProtocolError::AboveLimit { stream, range, limit },
        Violation::BeyondFinal(was) => ProtocolError::FinalOffset { stream, was, now: range.end },
        Violation::WrongWindow => ProtocolError::BadGrant { stream, grant, range },
        Violation::Scattered => {
            ProtocolError::Unexpected { stream, what: "thousands of gaps between its bytes" }
        }
    }
}
