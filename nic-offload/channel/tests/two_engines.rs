//! Two engines with small slot counts, driven in every order that a seed gives: nobody overruns
//! the other's posted receives, everything is confirmed in order, and both fall silent.

use std::collections::VecDeque;

use netchannel_channel::{AckNeed, AckPolicy, Channel, ChannelConfig, Controller, Kind};
use netchannel_units::{Duration, Timestamp};
use netchannel_wire::MessageHeader;
use proptest::prelude::*;

/// What a message carried, for the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Item {
    Data(u32),
    Frames(u32),
    Bare,
}

struct Engine {
    channel: Channel<Item>,
    /// Messages this engine still has to send.
    data: u32,
    frames: u32,
    /// Posted, not in the peer's memory yet.
    wire: VecDeque<(MessageHeader, Item)>,
    /// In this engine's receive slots, not polled.
    arrived: VecDeque<(MessageHeader, Item)>,
    /// Sequence numbers that the NIC has not completed.
    uncompleted: VecDeque<u32>,
    /// What must come back, in order.
    expected: VecDeque<Item>,
    receive_slots: usize,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    SendData,
    SendFrames,
    /// Messages of this engine reach the peer's memory.
    Arrive(u8),
    /// Polls so many messages, then ends the pass.
    Poll(u8),
    Complete,
    Tick(u16),
}

impl Engine {
    fn new(config: ChannelConfig, data: u32, frames: u32) -> Self {
        Self {
            channel: Channel::new(config, Controller::default()),
            data,
            frames,
            wire: VecDeque::new(),
            arrived: VecDeque::new(),
            uncompleted: VecDeque::new(),
            expected: VecDeque::new(),
            receive_slots: config.receive_slots as usize,
        }
    }

    fn send(&mut self, now: Timestamp, kind: Kind, item: Item) {
        let bytes = if item == Item::Bare { 0 } else { 100 };
        let header = self.channel.on_transmit(now, bytes, item, kind);
        self.uncompleted.push_back(header.sequence);
        self.expected.push_back(item);
        self.wire.push_back((header, item));
    }

    fn send_data(&mut self, now: Timestamp) -> bool {
        let sends = self.data > 0 && self.channel.may_send(Kind::Data);
        if sends {
            self.data -= 1;
            self.send(now, Kind::Data, Item::Data(self.data));
        }
        sends
    }

    fn send_frames(&mut self, now: Timestamp) -> bool {
        let sends = self.frames > 0 && self.channel.may_send(Kind::Control);
        if sends {
            self.frames -= 1;
            self.send(now, Kind::Control, Item::Frames(self.frames));
        }
        sends
    }

    fn poll(&mut self, now: Timestamp, most: usize) -> bool {
        let mut progress = false;
        for _ in 0..most {
            let Some((header, item)) = self.arrived.pop_front() else { break };
            self.channel.on_message(now, &header).expect("the peer keeps the rules");
            self.channel.on_processed(item != Item::Bare);
            while let Some(item) = self.channel.poll_confirmed() {
                assert_eq!(Some(item), self.expected.pop_front());
            }
            progress = true;
        }
        if self.channel.next_timeout().is_some_and(|at| at <= now) {
            self.channel.on_timeout(now);
        }
        if self.channel.wants_ack() == AckNeed::Now && self.channel.may_send(Kind::Control) {
            self.send(now, Kind::Control, Item::Bare);
            progress = true;
        }
        progress
    }

    fn complete(&mut self, now: Timestamp, all: bool) -> bool {
        let last = if all { self.uncompleted.back() } else { self.uncompleted.front() };
        let Some(&last) = last else { return false };
        self.channel.on_completion(now, last);
        while self.uncompleted.front().is_some_and(|s| last.wrapping_sub(*s) < 1 << 31) {
            self.uncompleted.pop_front();
        }
        true
    }
}

fn arrive(from: &mut Engine, to: &mut Engine, most: usize) -> bool {
    let mut progress = false;
    for _ in 0..most {
        let Some(message) = from.wire.pop_front() else { break };
        to.arrived.push_back(message);
        progress = true;
    }
    progress
}

struct World {
    now: Timestamp,
    engines: [Engine; 2],
}

impl World {
    fn check_slots(&self) {
        let [a, b] = &self.engines;
        assert!(a.wire.len() + b.arrived.len() <= b.receive_slots, "A overruns B");
        assert!(b.wire.len() + a.arrived.len() <= a.receive_slots, "B overruns A");
    }

    fn run(&mut self, side: usize, op: Op) -> bool {
        let now = self.now;
        let [a, b] = &mut self.engines;
        let (engine, peer) = if side == 0 { (a, b) } else { (b, a) };
        let progress = match op {
            Op::SendData => engine.send_data(now),
            Op::SendFrames => engine.send_frames(now),
            Op::Arrive(n) => arrive(engine, peer, n.into()),
            Op::Poll(n) => engine.poll(now, n.into()),
            Op::Complete => engine.complete(now, false),
            Op::Tick(nanos) => {
                self.now = now + Duration::from_nanos(nanos.into());
                false
            }
        };
        self.check_slots();
        progress
    }

    /// Lets both engines go on until nothing moves any more.
    fn settle(&mut self) {
        let mut rounds = 0;
        loop {
            let mut progress = false;
            for side in 0..2 {
                for op in [Op::SendData, Op::SendFrames, Op::Arrive(1), Op::Poll(1)] {
                    progress |= self.run(side, op);
                }
                progress |= self.engines[side].complete(self.now, true);
            }
            if !progress {
                let timeouts = self.engines.iter().filter_map(|e| e.channel.next_timeout());
                match timeouts.min() {
                    Some(at) => self.now = self.now.max(at),
                    None => return,
                }
            }
            rounds += 1;
            assert!(rounds < 100_000, "never silent");
        }
    }
}

fn op() -> impl Strategy<Value = (usize, Op)> {
    let op = prop_oneof![
        4 => Just(Op::SendData),
        3 => Just(Op::SendFrames),
        2 => (1..6_u8).prop_map(Op::Arrive),
        2 => (0..6_u8).prop_map(Op::Poll),
        2 => Just(Op::Complete),
        1 => (0..30_000_u16).prop_map(Op::Tick),
    ];
    (0..2_usize, op)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, ..ProptestConfig::default() })]
    #[test]
    fn all_is_confirmed_and_nobody_overruns(
        slots in (4..=9_u32, 4..=9_u32),
        send_queue in (3..=12_u32, 3..=12_u32),
        every in (1..=6_u32, 1..=6_u32),
        work in proptest::array::uniform4(0..60_u32),
        ops in proptest::collection::vec(op(), 0..400),
    ) {
        let config = |receive_slots, peer_slots, send_queue, every| ChannelConfig {
            receive_slots,
            peer_slots,
            send_queue,
            acks: AckPolicy { every, ..AckPolicy::default() },
        };
        let a = Engine::new(config(slots.0, slots.1, send_queue.0, every.0), work[0], work[1]);
        let b = Engine::new(config(slots.1, slots.0, send_queue.1, every.1), work[2], work[3]);
        let mut world = World { now: Timestamp::from_nanos(1), engines: [a, b] };
        for (side, op) in ops {
            world.run(side, op);
        }
        world.settle();
        for engine in &world.engines {
            prop_assert_eq!((engine.data, engine.frames), (0, 0), "work left");
            prop_assert!(engine.expected.iter().all(|item| *item == Item::Bare));
            prop_assert!(!engine.channel.expects_ack());
            prop_assert_eq!(engine.channel.outstanding(), 0);
            prop_assert_eq!(engine.channel.wants_ack(), AckNeed::None);
        }
        // Both sides' messages with frames cause at most one bare acknowledgement each, and those
        // half as many again.
        let bare: u64 = world.engines.iter().map(|e| e.channel.stats().acks_sent).sum();
        prop_assert!(bare <= 2 * u64::from(work.iter().sum::<u32>()), "{} bare", bare);
    }
}

/// One-way bulk in 256 KiB chunks: the acknowledgements stay within five per cent of the packets
/// of plain WRITEs, at the smallest Ethernet path MTU that is usual as well.
#[test]
fn acknowledgements_are_few_beside_bulk() {
    let chunks = 1_000;
    let now = Timestamp::from_nanos(1);
    let mut a = Engine::new(ChannelConfig::default(), chunks, 0);
    let mut b = Engine::new(ChannelConfig::default(), 0, 0);
    while a.data > 0 {
        a.send_data(now);
        arrive(&mut a, &mut b, 1);
        b.poll(now, 1);
        arrive(&mut b, &mut a, 1);
        a.poll(now, 1);
        a.complete(now, true);
        b.complete(now, true);
    }
    let bare = a.channel.stats().acks_sent + b.channel.stats().acks_sent;
    for mtu in [1_024, 4_096] {
        let writes = u64::from(chunks) * 256 * 1024 / mtu;
        let all = writes + u64::from(chunks) + bare;
        assert!(all * 100 <= writes * 105, "{all} packets instead of {writes}");
    }
    assert_eq!(bare, u64::from(chunks) / 2);
}

/// Engines that each poll only what the other sent long ago: the case where both could run out.
#[test]
fn crossing_bursts_do_not_lock_up() {
    for slots in 4..=16 {
        let config =
            ChannelConfig { receive_slots: slots, peer_slots: slots, ..ChannelConfig::default() };
        let engine = || Engine::new(config, 500, 500);
        let mut world = World { now: Timestamp::from_nanos(1), engines: [engine(), engine()] };
        for _ in 0..200 {
            for op in [Op::SendData, Op::SendFrames] {
                for side in [0, 1] {
                    while world.run(side, op) {}
                }
            }
            for op in [Op::Arrive(20), Op::Complete, Op::Poll(1)] {
                for side in [0, 1] {
                    world.run(side, op);
                }
            }
        }
        world.settle();
        for engine in &world.engines {
            assert_eq!((engine.data, engine.frames), (0, 0), "{slots} slots");
        }
    }
}
