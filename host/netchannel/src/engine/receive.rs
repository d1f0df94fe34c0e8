//! Messages to streams.

use netchannel_channel::ChannelError;
use netchannel_driver::{ChannelKey, Event, RcChannel};
use netchannel_units::{ChannelId, Timestamp};
use netchannel_verbs::{Context, MemoryRegion};
use netchannel_vns::{Carried, Placement};
use netchannel_wire::decode::parse;
use netchannel_wire::{Frame, StreamId};

use crate::boundary::application::ApplicationId;
use crate::engine::Engine;
use crate::engine::session::Session;
use crate::engine::slabs::WindowSlab;
use crate::error::Error;
use crate::shared::GroupShared;
use crate::sync::lock;

/// Why a message ends its session.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error(transparent)]
    Wire(#[from] netchannel_wire::WireError),
    #[error(transparent)]
    Protocol(#[from] netchannel_vns::ProtocolError),
    #[error(transparent)]
    Channel(#[from] netchannel_channel::ChannelError),
}

impl<C: Context> Engine<C> {
    /// Polls the group and handles what arrived. True if there was anything.
    pub(super) fn receive(&mut self, now: Timestamp) -> bool {
        let mut events = std::mem::take(&mut self.events);
        let found = self.group.poll(now, &mut events);
        for event in events.drain(..) {
            self.on_event(now, event);
        }
        self.events = events;
        match found {
            Ok(count) => count > 0,
            Err(error) => {
                self.fail_all(&error.into());
                true
            }
        }
    }

    pub(super) fn on_event(&mut self, now: Timestamp, event: Event) {
        match event {
            Event::Message { channel, slot, length } => {
                self.on_message(now, channel, slot, length);
                self.group.release(slot);
            }
            Event::Failed { channel, status } => {
                let cause = format!("a request completed with {status:?}");
                self.on_channel_failed(now, channel, &cause);
            }
        }
    }

    pub(super) fn on_message(&mut self, now: Timestamp, key: ChannelKey, slot: u32, length: u32) {
        let Some((slot_of_session, number)) = self.owner(key) else { return };
        let Some(Some(session)) = self.sessions.get_mut(slot_of_session as usize) else { return };
        if session.is_over() {
            return;
        }
        session.attention = true;
        session.owing.insert(usize::from(number));
        session.confirming.insert(usize::from(number));
        let Some(channel) = self.group.channel(key) else { return };
        let bytes = self.group.message(slot, length);
        let before = session.payload[usize::from(number)].received;
        let outcome = take_frames(now, ChannelId(number), channel, session, bytes, &self.shared)
            .and_then(|(header, elicits_ack)| {
                let Some(channel) = self.group.channel_mut(key) else { return Ok(()) };
                channel.state_mut().on_message(now, &header)?;
                let held = &mut session.held[usize::from(number)];
                if held.is_empty() && !session.streams.has_refusals(ChannelId(number)) {
                    channel.state_mut().on_processed(elicits_ack);
                } else {
                    held.push(elicits_ack);
                    session.holding.insert(usize::from(number));
                }
                Ok(())
            });
        let taken = session.payload[usize::from(number)].received - before;
        self.payload_taken += taken;
        if taken > 0
            && let Some(gap) = session.failover.on_arrival(now, usize::from(number))
        {
            self.shared.runtime.gaps.add(gap);
        }
        match outcome {
            Ok(()) => {}
            // A device that delivers twice, or not at all, has broken its promise, not the peer.
            Err(Rejection::Channel(error @ ChannelError::Sequence { .. })) => {
                self.on_channel_failed(now, key, &error.to_string());
            }
            Err(rejection) => {
                let error = Error::Session {
                    peer: session.shared.peer,
                    reason: format!("the peer broke the protocol on Channel {number}: {rejection}"),
                    kind: std::io::ErrorKind::InvalidData,
                };
                self.fail_session(slot_of_session, error);
            }
        }
    }

    /// Takes what messages that arrived have confirmed, after their frames: a REFUSE may be among them.
    pub(super) fn confirm(&mut self, slot: u32) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        for number in std::mem::take(&mut session.confirming).iter() {
            let key = session.channels.get(number).copied();
            let Some(channel) = key.and_then(|key| self.group.channel_mut(key)) else { continue };
            if channel.poll_confirmed(|carried| session.confirm(number, carried)) > 0 {
                session.failover.on_proved(number);
            }
        }
    }

    pub(super) fn owner(&self, key: ChannelKey) -> Option<(u32, u16)> {
        self.owners.get(usize::from(key.0)).copied().flatten()
    }
}

/// Hands every frame to the streams and copies eager bytes to their windows.
fn take_frames<C: Context>(
    now: Timestamp,
    via: ChannelId,
    channel: &RcChannel<C, Carried>,
    session: &mut Session<C>,
    bytes: &[u8],
    shared: &GroupShared,
) -> Result<(netchannel_wire::MessageHeader, bool), Rejection> {
    let (header, frames) = parse(bytes)?;
    channel.state().expects(&header)?;
    let (mut placed, mut copied, mut early) = (0, 0, 0);
    for frame in frames {
        let frame = frame?;
        match session.streams.on_frame(now, via, &frame)? {
            Placement::None => match frame {
                Frame::Open { stream, service, .. } => assign(session, stream, service, shared),
                Frame::Refuse { .. } => shared.counters.refused.add(1),
                _ => {}
            },
            Placement::Copy { out_of_order } => {
                let Frame::Data { bytes, .. } = frame else { continue };
                copied += place(&session.slabs, session.streams.pieces(), bytes);
                early += u64::from(out_of_order);
            }
            Placement::InPlace { bytes, out_of_order } => {
                placed += bytes;
                early += u64::from(out_of_order);
            }
        }
    }
    shared.counters.engine_copied.add(copied);
    shared.counters.placed_bytes.add(placed + copied);
    shared.counters.placed_out_of_order.add(early);
    session.payload[usize::from(via.0)].received += placed + copied;
    Ok((header, header.frames > 0))
}

/// Bytes may follow in the same message, and they must lie where their application may read.
fn assign<C: Context>(
    session: &mut Session<C>,
    stream: StreamId,
    service: u16,
    shared: &GroupShared,
) {
    let listeners = lock(&shared.runtime.listeners);
    if let Some(backlog) = listeners.get(&service)
        && backlog.application() != ApplicationId::LOCAL
    {
        session.streams.assign(stream, backlog.application());
    }
}

/// Copies the pieces of a chunk into the windows.
fn place<C: Context>(
    slabs: &[Option<WindowSlab<C>>],
    pieces: &[netchannel_vns::receive::Piece],
    bytes: &[u8],
) -> u64 {
    let mut copied = 0;
    for piece in pieces {
        let Some(Some(slab)) = slabs.get(piece.lease.slab.0 as usize) else { continue };
        let Some(source) = bytes.get(piece.source..piece.source + piece.len) else { continue };
        let offset = u64::from(piece.lease.offset) + piece.at;
        debug_assert!(offset as usize + piece.len <= slab.region.len());
        // SAFETY: a piece lies inside of its lease and the lease inside of its slab; a raw copy,
        // because the peer and the application may touch the slab at the same time.
        unsafe {
            let target = slab.region.as_ptr().as_ptr().add(offset as usize);
            std::ptr::copy_nonoverlapping(source.as_ptr(), target, source.len());
        }
        copied += source.len() as u64;
    }
    copied
}
