//! One host of the model: its streams, its memory, its application, and an engine that is as
//! simple as can be.

use std::collections::{BTreeMap, BTreeSet};

use netchannel_units::{ByteRange, ChannelId, Class, StreamOffset, Timestamp};
use netchannel_vns::receive::{Piece, ReceiveState, Window};
use netchannel_vns::send::{Form, SendState};
use netchannel_vns::{ApplicationId, Carried, Placement, Role, SlabId, Streams, StreamsConfig};
use netchannel_wire::frame::reset;
use netchannel_wire::{Frame, StreamId};

use crate::common::frame_of;

use super::network::{Channel, Message, Parcel, Write};
use super::random::{Random, mix};

pub const SLAB: usize = 2 << 20;
pub const REFUSED_SERVICE: u16 = 666;

/// What the application knows of a stream.
#[derive(Debug, Default, Clone)]
pub struct App {
    pub written: u64,
    pub finished: bool,
    pub gave_up: bool,
    pub read: u64,
    pub stopped: bool,
    pub released: bool,
    pub stalled: bool,
    pub closed: bool,
}

pub struct Host {
    pub streams: Streams,
    pub role: Role,
    pub memory: Vec<Vec<u8>>,
    pub max_slabs: usize,
    pub apps: BTreeMap<u32, App>,
    ready: BTreeMap<u32, Option<ChannelId>>,
    pub accepted: BTreeSet<u32>,
    pub control_sent: u64,
    pub refused: u64,
    pub bulk: u64,
    pub again: u64,
    highest_sent: BTreeMap<u32, u64>,
}

/// What `sender` writes into stream `id`.
pub fn contents(sender: Role, id: u32, range: ByteRange) -> Vec<u8> {
    let side = if sender == Role::Client { 1 } else { 2 };
    let (start, end) = (range.start.get(), range.end.get());
    let mut bytes = Vec::with_capacity((end - start) as usize + 16);
    for word in start / 8..end.div_ceil(8) {
        bytes.extend(mix(word ^ (u64::from(id) << 40) ^ (side << 60)).to_le_bytes());
    }
    bytes.drain(..(start % 8) as usize);
    bytes.truncate((end - start) as usize);
    bytes
}

pub fn other(role: Role) -> Role {
    if role == Role::Client { Role::Server } else { Role::Client }
}

impl Host {
    pub fn new(config: StreamsConfig, max_slabs: usize) -> Self {
        Self {
            streams: Streams::new(config),
            role: config.role,
            memory: Vec::new(),
            max_slabs,
            apps: BTreeMap::new(),
            ready: BTreeMap::new(),
            accepted: BTreeSet::new(),
            control_sent: 0,
            refused: 0,
            bulk: 0,
            again: 0,
            highest_sent: BTreeMap::new(),
        }
    }

    pub fn add_slab(&mut self) {
        if self.memory.len() < self.max_slabs {
            self.streams.add_slab(ApplicationId::LOCAL, SlabId(self.memory.len() as u32));
            self.memory.push(vec![0; SLAB]);
        }
    }

    pub fn land(&mut self, write: &Write) {
        // While the peer may write into it, memory is nobody else's.
        let half = self.streams.receive_half(StreamId(write.stream));
        let held = half.is_some_and(|half| half.windows().any(|window| is_inside(write, &window)));
        assert!(held, "{:?}: a WRITE into recycled memory: {:#x}", self.role, write.address);
        let slab = &mut self.memory[(write.address >> 32) as usize];
        let at = write.address as u32 as usize;
        slab[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }

    /// One frame of a message that arrived through `via`.
    pub fn on_parcel(&mut self, now: Timestamp, via: ChannelId, parcel: &Parcel) {
        let frame = parcel.frame();
        let placement = self.streams.on_frame(now, via, &frame).unwrap_or_else(|error| {
            panic!("{:?} refuses {:?}: {error}", self.role, parcel);
        });
        if let Placement::Copy { .. } = placement {
            for piece in self.streams.pieces() {
                copy(&mut self.memory, piece, &parcel.bytes);
            }
        }
    }

    /// Everything that goes out through the Channels that are not blocked.
    pub fn pump(&mut self, channels: &mut [Channel], random: &mut Random) {
        let open: Vec<usize> =
            (0..channels.len()).filter(|c| channels[*c].alive && !channels[*c].blocked).collect();
        let mut messages: BTreeMap<usize, Message> = BTreeMap::new();
        let mut tries = self.streams.owing() + 1;
        while tries > 0
            && let Some(outgoing) = self.streams.poll_control()
        {
            let via = match outgoing.via {
                Some(via) => channels.iter().position(|c| c.id == via && c.alive),
                None => Some(random.index(channels.len())),
            };
            match via.filter(|via| open.contains(via)) {
                Some(at) => {
                    let id = channels[at].id;
                    self.streams.on_control_sent(&outgoing.carried, id);
                    self.control_sent += 1;
                    let frame = frame_of(&outgoing.frame);
                    self.refused += u64::from(matches!(frame, Frame::Refuse { .. }));
                    let message = messages.entry(at).or_default();
                    message.push(Parcel::of(frame), outgoing.carried);
                }
                None => {
                    self.streams.defer_control();
                    tries -= 1;
                }
            }
        }
        for at in &open {
            assert!(!self.streams.has_refusals(channels[*at].id), "refusals come first");
        }
        while let Some(backlog) = self.streams.poll_backlog() {
            self.ready.insert(backlog.stream.0, backlog.via);
        }
        let ready: Vec<_> = self.ready.iter().map(|(id, via)| (*id, *via)).collect();
        for (id, via) in ready {
            let at = match via {
                Some(via) => channels.iter().position(|c| c.id == via),
                None => Some(random.index(channels.len())),
            };
            let Some(at) = at.filter(|at| open.contains(at)) else { continue };
            for _ in 0..=random.below(3) {
                if !self.send_chunk(StreamId(id), at, &mut messages, random) {
                    self.ready.remove(&id);
                    break;
                }
                if messages[&at].parcels.len() > 8 {
                    channels[at].send(self.role, std::mem::take(messages.get_mut(&at).unwrap()));
                }
            }
        }
        for at in open {
            if let Some(message) = messages.remove(&at) {
                channels[at].send(self.role, message);
            } else if channels[at].owes_ack(self.role) {
                channels[at].send(self.role, Message::default());
            }
        }
    }

    fn send_chunk(
        &mut self,
        id: StreamId,
        at: usize,
        messages: &mut BTreeMap<usize, Message>,
        random: &mut Random,
    ) -> bool {
        let most = if random.once_in(4) { random.length(12) } else { 65_536 };
        let next = self.streams.sending(id).and_then(|s| s.next_chunk(most));
        let Some(mut chunk) = next else { return false };
        if random.once_in(8) {
            let shorter = 1 + random.below(chunk.range.len());
            chunk.range = ByteRange::new(chunk.range.start, shorter).unwrap();
        }
        let half = self.streams.send_half(id).unwrap();
        assert!(chunk.range.start >= half.confirmed(), "the bytes are gone");
        assert!(chunk.range.end <= half.tail());
        let highest = self.highest_sent.entry(id.0).or_default();
        self.again += u64::from(chunk.range.start.get() < *highest);
        *highest = (*highest).max(chunk.range.end.get());
        let mut sending = self.streams.sending(id).unwrap();
        let backlog = sending.backlog_hint(&chunk);
        let bytes = contents(self.role, id.0, chunk.range);
        let carried = sending.on_sent(&chunk);
        let message = messages.entry(at).or_default();
        match chunk.form {
            Form::Eager => {
                let frame =
                    Frame::Data { stream: id, offset: chunk.range.start, backlog, bytes: &[] };
                message.push(Parcel { frame, bytes }, carried);
            }
            Form::Bulk(grant) => {
                self.bulk += 1;
                let address = grant.address_of(chunk.range.start);
                message.writes.push(Write { stream: id.0, address, bytes });
                let frame =
                    Frame::Written { stream: id, grant: grant.id, range: chunk.range, backlog };
                message.push(Parcel::of(frame), carried);
            }
        }
        true
    }

    pub fn on_confirmed(&mut self, carried: &Carried) {
        self.streams.on_confirmed(carried);
    }

    /// What changed, as the application hears of it.
    pub fn look(&mut self) {
        while let Some(incoming) = self.streams.poll_incoming() {
            assert!(self.accepted.insert(incoming.stream.0), "reported twice");
            if incoming.service == REFUSED_SERVICE {
                let gone = App { released: true, stopped: true, gave_up: true, ..App::default() };
                self.apps.insert(incoming.stream.0, gone);
                self.streams.refuse(incoming.stream, reset::REFUSED);
                continue;
            }
            self.apps.insert(incoming.stream.0, App::default());
        }
        while self.streams.poll_touched().is_some() {}
        while let Some(id) = self.streams.poll_closed() {
            let app = self.apps.get_mut(&id.0).expect("an unknown stream was closed");
            assert!(!std::mem::replace(&mut app.closed, true), "closed twice");
            assert!(app.released, "closed before it was released");
        }
        if self.streams.take_slab_demand().is_some() {
            self.add_slab();
        }
    }

    /// Bytes that the application could read, compared with what was written.
    pub fn check_readable(&self, id: u32) -> u64 {
        let app = &self.apps[&id];
        let Some(half) = self.streams.receive_half(StreamId(id)) else { return 0 };
        if app.stopped {
            return 0;
        }
        let windows: Vec<Window> = half.windows().collect();
        let unread = ByteRange::between(StreamOffset::new(app.read), half.received());
        let wanted = contents(other(self.role), id, unread);
        let mut at = unread.start;
        while at < unread.end {
            let (window, end) = match windows[..] {
                [older, current] if at < current.from => (older, unread.end.min(current.from)),
                [.., current] => (current, unread.end),
                [] => panic!("{:?}: no window holds byte {at} of {id}: {half:?}", self.role),
            };
            let place = at.get() & (window.lease.size() - 1);
            let len = (end - at).min(window.lease.size() - place) as usize;
            let start = window.lease.offset as usize + place as usize;
            let found = &self.memory[window.lease.slab.0 as usize][start..start + len];
            let done = (at - unread.start) as usize;
            let same = found == &wanted[done..done + len];
            assert!(same, "{:?}: bytes from {at} of {id}: {half:?}", self.role);
            at = at + len as u64;
        }
        unread.len()
    }

    pub fn read(&mut self, now: Timestamp, id: u32, bytes: u64) {
        let bytes = bytes.min(self.check_readable(id));
        if bytes > 0 {
            let app = self.apps.get_mut(&id).unwrap();
            app.read += bytes;
            let upto = StreamOffset::new(app.read);
            assert!(self.streams.consume(now, StreamId(id), upto));
            if !self.streams.has_news() {
                // The engine does not ask then.
                assert!(self.streams.poll_control().is_none(), "stream {id} read up to {upto}");
                assert!(
                    self.streams.poll_touched().is_none() && self.streams.poll_closed().is_none()
                );
            }
        }
    }

    pub fn open(&mut self, service: u16) -> u32 {
        let id = self.streams.open(service, Class::Throughput).unwrap().0;
        self.apps.insert(id, App::default());
        id
    }

    pub fn write(&mut self, id: u32, bytes: u64) {
        let app = self.apps.get_mut(&id).unwrap();
        let tail = app.written + bytes;
        if id & 4 != 0 {
            self.streams.prefer_window(StreamId(id));
        }
        if self.streams.write(StreamId(id), StreamOffset::new(tail)).is_ok() {
            assert!(!app.finished && !app.gave_up);
            app.written = tail;
        }
    }

    /// Whether the application has nothing to wait for any more.
    pub fn is_through(&self, id: u32) -> bool {
        let id = StreamId(id);
        let Some(receive) = self.streams.receive_half(id) else { return true };
        let send = self.streams.send_half(id).unwrap().state();
        let received = match receive.state() {
            ReceiveState::Complete(end) => self.apps[&id.0].read == end.get(),
            ReceiveState::Reset(_) => true,
            _ => self.apps[&id.0].stopped,
        };
        received && matches!(send, SendState::Finished | SendState::Reset)
    }
}

fn is_inside(write: &Write, window: &Window) -> bool {
    let base = (u64::from(window.lease.slab.0) << 32) | u64::from(window.lease.offset);
    let end = base + window.lease.size();
    write.address >= base && write.address + write.bytes.len() as u64 <= end
}

fn copy(memory: &mut [Vec<u8>], piece: &Piece, bytes: &[u8]) {
    let at = piece.lease.offset as usize + piece.at as usize;
    assert!(piece.at + piece.len as u64 <= piece.lease.size());
    memory[piece.lease.slab.0 as usize][at..at + piece.len]
        .copy_from_slice(&bytes[piece.source..piece.source + piece.len]);
}
