//! Channels between the two hosts of the model: each is in order, and they know nothing of one
//! another.

use std::collections::VecDeque;

use netchannel_units::ChannelId;
use netchannel_vns::{Carried, Role};
use netchannel_wire::Frame;

/// A frame and its bytes.
#[derive(Debug, Clone)]
pub struct Parcel {
    pub frame: Frame<'static>,
    pub bytes: Vec<u8>,
}

impl Parcel {
    pub fn of(frame: Frame<'static>) -> Self {
        Self { frame, bytes: Vec::new() }
    }

    pub fn frame(&self) -> Frame<'_> {
        match self.frame {
            Frame::Data { stream, offset, backlog, .. } => {
                Frame::Data { stream, offset, backlog, bytes: &self.bytes }
            }
            frame => frame,
        }
    }
}

/// Bytes on their way into the peer's memory.
#[derive(Debug)]
pub struct Write {
    pub stream: u32,
    pub address: u64,
    pub bytes: Vec<u8>,
}

#[derive(Debug, Default)]
pub struct Message {
    pub parcels: Vec<Parcel>,
    pub writes: Vec<Write>,
    pub carried: Vec<Carried>,
    /// How many of the peer's messages were processed.
    pub acknowledged: u64,
}

impl Message {
    pub fn push(&mut self, parcel: Parcel, carried: Carried) {
        self.parcels.push(parcel);
        self.carried.push(carried);
    }
}

/// One direction of a Channel.
#[derive(Debug, Default)]
pub struct Direction {
    pub on_the_way: VecDeque<Message>,
    /// What messages carried that are not acknowledged, with their numbers.
    pub unacknowledged: VecDeque<(u64, Vec<Carried>)>,
    pub sent: u64,
    pub processed: u64,
    pub acknowledged: u64,
}

#[derive(Debug)]
pub struct Channel {
    pub id: ChannelId,
    pub alive: bool,
    /// Nothing can be sent, and nothing arrives.
    pub blocked: bool,
    /// What is sent does not arrive.
    pub stalled: bool,
    /// From the client, from the server.
    pub directions: [Direction; 2],
}

/// A Channel that is fenced on both sides.
#[derive(Debug)]
pub struct Fenced {
    pub channel: Channel,
    /// How many messages of the client, and of the server, were processed for good.
    pub reports: [u64; 2],
    /// Whether the client, and the server, have sent again what was lost.
    pub replayed: [bool; 2],
}

pub fn side(role: Role) -> usize {
    usize::from(role == Role::Server)
}

impl Channel {
    pub fn new(id: u16) -> Self {
        Self {
            id: ChannelId(id),
            alive: true,
            blocked: false,
            stalled: false,
            directions: [Direction::default(), Direction::default()],
        }
    }

    pub fn send(&mut self, from: Role, mut message: Message) {
        let reverse = &mut self.directions[1 - side(from)];
        message.acknowledged = reverse.processed;
        reverse.acknowledged = reverse.processed;
        let direction = &mut self.directions[side(from)];
        direction.sent += 1;
        if !message.carried.is_empty() {
            let carried = std::mem::take(&mut message.carried);
            direction.unacknowledged.push_back((direction.sent, carried));
        }
        direction.on_the_way.push_back(message);
    }

    /// Whether the peer of `from` waits for an acknowledgement of something.
    pub fn owes_ack(&self, from: Role) -> bool {
        let reverse = &self.directions[1 - side(from)];
        reverse
            .unacknowledged
            .iter()
            .any(|(number, _)| *number > reverse.acknowledged && *number <= reverse.processed)
    }

    /// How many messages `from` may forget when the Channel is fenced: none if it could then take for
    /// processed what was refused.
    pub fn report(&self, from: Role, refusals_wait: bool) -> u64 {
        let reverse = &self.directions[1 - side(from)];
        let mut unacknowledged = reverse.unacknowledged.iter().flat_map(|(_, carried)| carried);
        if refusals_wait || unacknowledged.any(Carried::is_refusal) {
            return 0;
        }
        self.directions[side(from)].processed
    }

    pub fn is_quiet(&self) -> bool {
        self.directions.iter().all(|d| d.on_the_way.is_empty() && d.unacknowledged.is_empty())
    }
}
