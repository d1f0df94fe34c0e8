//! Cost of a Channel's events.
//!
//! `cargo bench -p netchannel-channel` prints nanoseconds per message (the fastest of many rounds,
//! as other work on the machine only adds). `cargo bench -p netchannel-channel -- CASE COUNT` runs
//! one case `COUNT` times without looking at a clock; the difference of the instructions that
//! `valgrind --tool=callgrind` counts for two values of `COUNT` is the cost of one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use netchannel_channel::congestion::AckBatch;
use netchannel_channel::{
    Channel, ChannelConfig, CongestionControl, Controller, Kind, MessageHeader,
};
use netchannel_units::Timestamp;

/// A Channel whose peer answers every message at once.
struct Loop {
    channel: Channel<u64>,
    control: Controller,
    now: Timestamp,
    received: u32,
}

impl Loop {
    fn new() -> Self {
        Self {
            channel: Channel::new(ChannelConfig::default(), Controller::default()),
            control: "fixed:1MiB".parse().expect("a controller"),
            now: Timestamp::ZERO,
            received: 0,
        }
    }

    fn tick(&mut self) {
        self.now = Timestamp::from_nanos(self.now.as_nanos() + 5_000);
    }

    fn transmit(&mut self) -> MessageHeader {
        self.tick();
        black_box(self.channel.on_transmit(self.now, 65_536, 7, Kind::Data))
    }

    fn receive(&mut self, acknowledged: u32) {
        let credit = acknowledged.wrapping_add(64);
        let header = MessageHeader { sequence: self.received, acknowledged, credit, frames: 1 };
        self.received = self.received.wrapping_add(1);
        self.channel.on_message(self.now, black_box(&header)).expect("in order");
        self.channel.on_processed(true);
        while let Some(item) = self.channel.poll_confirmed() {
            black_box(item);
        }
    }
}

type Case = (&'static str, fn(&mut Loop));

const CASES: [Case; 4] = [
    ("message-both-ways", |l| {
        // Posted, completed, answered, confirmed.
        let header = l.transmit();
        l.tick();
        l.channel.on_completion(l.now, header.sequence);
        l.receive(header.sequence.wrapping_add(1));
        black_box(l.channel.wants_ack());
    }),
    ("message-of-eight", |l| {
        // As above, with one completion and one answer for eight messages; cost of the eight.
        let last = [(); 8].map(|()| l.transmit())[7];
        l.tick();
        l.channel.on_completion(l.now, last.sequence);
        l.receive(last.sequence.wrapping_add(1));
        black_box(l.channel.wants_ack());
    }),
    ("on-acks", |l| {
        let batch = AckBatch { now: l.now, bytes: 65_536, outstanding: 0, completion_time: None };
        l.control.on_acks(black_box(&batch));
        black_box(l.control.window());
    }),
    ("queries", |l| {
        let channel = black_box(&l.channel);
        black_box((channel.may_send(Kind::Data), channel.window_left(), channel.rate()));
        black_box((channel.wants_ack(), channel.next_timeout()));
    }),
];

#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn measure(event: fn(&mut Loop)) -> f64 {
    const TIMES: u32 = 20_000;
    let mut looped = Loop::new();
    let mut best = Duration::MAX;
    for _ in 0..200 {
        let start = Instant::now();
        for _ in 0..TIMES {
            event(&mut looped);
        }
        best = best.min(start.elapsed());
    }
    best.as_nanos() as f64 / f64::from(TIMES)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.as_slice() {
        [name, times] => {
            let times: u64 = times.parse().expect("COUNT is a number");
            let (_, event) = CASES.iter().find(|case| case.0 == name).expect("no such CASE");
            let mut looped = Loop::new();
            (0..times).for_each(|_| event(&mut looped));
        }
        _ => {
            for (name, event) in CASES {
                println!("{name:20} {:6.1} ns", measure(event));
            }
        }
    }
}
