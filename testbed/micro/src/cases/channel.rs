//! Events of a Channel whose peer answers at once.

use std::hint::black_box;

use netchannel_channel::congestion::AckBatch;
use netchannel_channel::{
    Channel, ChannelConfig, CongestionControl, Controller, Kind, MessageHeader,
};
use netchannel_units::Timestamp;

use crate::case::{Bench, Case};

const BATCH: u64 = 1024;

/// See the module.
pub const CASES: &[Case] = &[
    Case { name: "channel/on-acks", batch: BATCH, build: on_acks },
    Case { name: "channel/message-both-ways", batch: BATCH, build: || Loop::of(1) },
    Case { name: "channel/message-of-eight", batch: BATCH, build: || Loop::of(8) },
];

fn on_acks() -> Box<dyn Bench> {
    let mut control: Controller = "fixed:1MiB".parse().expect("a controller");
    let mut now = Timestamp::ZERO;
    Box::new(move || {
        for _ in 0..BATCH {
            now = Timestamp::from_nanos(now.as_nanos() + 5_000);
            let batch = AckBatch { now, bytes: 65_536, outstanding: 0, completion_time: None };
            control.on_acks(black_box(&batch));
            black_box(control.window());
        }
    })
}

/// Messages posted, completed, answered and confirmed, some of them at a time.
struct Loop {
    channel: Channel<u64>,
    now: Timestamp,
    received: u32,
    at_once: u64,
}

impl Loop {
    fn of(at_once: u64) -> Box<dyn Bench> {
        let channel = Channel::new(ChannelConfig::default(), Controller::default());
        Box::new(Self { channel, now: Timestamp::ZERO, received: 0, at_once })
    }

    fn tick(&mut self) {
        self.now = Timestamp::from_nanos(self.now.as_nanos() + 5_000);
    }

    fn round(&mut self) {
        let mut last = MessageHeader::default();
        for _ in 0..self.at_once {
            self.tick();
            last = black_box(self.channel.on_transmit(self.now, 65_536, 7, Kind::Data));
        }
        self.tick();
        self.channel.on_completion(self.now, last.sequence);
        let acknowledged = last.sequence.wrapping_add(1);
        let credit = acknowledged.wrapping_add(64);
        let header = MessageHeader { sequence: self.received, acknowledged, credit, frames: 1 };
        self.received = self.received.wrapping_add(1);
        self.channel.on_message(self.now, black_box(&header)).expect("in order");
        self.channel.on_processed(true);
        while let Some(item) = self.channel.poll_confirmed() {
            black_box(item);
        }
        black_box(self.channel.wants_ack());
    }
}

impl Bench for Loop {
    fn measured(&mut self) {
        for _ in 0..BATCH / self.at_once {
            self.round();
        }
    }
}
