//! Channels die at any moment and in any way, under streams in both directions: nothing is lost,
//! doubled or reordered, and in the end there are as many Channels as before.

use super::*;
use netchannel_driver::Event;

use crate::boundary::cell::flags;
use crate::engine::failover::Failover;
use crate::shared::Command;

/// Draws numbers from a seed (Knuth, MMIX), so that a failing run can be repeated.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One direction of a stream: who writes, what is written and read.
struct Way {
    from: usize,
    /// The writer's end and the reader's.
    ends: [StreamSeed; 2],
    salt: u64,
    total: u64,
    written: u64,
    consumed: u64,
    /// The writer gives up in the middle.
    gives_up: bool,
    finished: bool,
}

const CODE: u32 = 77;

impl Way {
    fn byte(salt: u64, offset: u64) -> u8 {
        pattern(offset ^ (salt << 40))
    }

    /// Writes and reads some. True when everything was read, the end as well.
    fn work(&mut self, world: &mut World, most: u64, reads: bool) -> bool {
        let Self { from, salt, .. } = *self;
        if self.written < self.total {
            let end = self.total.min(self.written + most);
            let bytes: Vec<u8> = (self.written..end).map(|o| Self::byte(salt, o)).collect();
            self.written += world.write(from, &self.ends[0], &bytes) as u64;
        }
        let key = self.ends[0].key;
        if self.gives_up && self.written > self.total / 2 && !self.finished {
            self.finished = true;
            self.written = self.total;
            world.hosts[from].shared.inbox.push(Command::Reset(key, CODE));
        }
        if self.written == self.total && !self.finished {
            self.finished = true;
            world.hosts[from].shared.inbox.push(Command::Finish(key));
        }
        if !reads {
            return self.is_over();
        }
        world.read(1 - from, &self.ends[1], &mut self.consumed, |offset, byte| {
            assert_eq!(byte, Self::byte(salt, offset), "byte {offset} of stream {salt}");
        });
        self.is_over()
    }

    fn is_over(&self) -> bool {
        let state = &self.ends[1].cell.state().engine;
        let flags = state.flags.load(Acquire);
        assert!(self.consumed <= self.total, "more than was written");
        if flags & flags::RESET != 0 {
            assert!(self.gives_up);
            assert_eq!(state.reset_code.load(Acquire), CODE);
            return true;
        }
        self.consumed == self.total && flags & flags::FIN != 0
    }
}

/// What a run is like.
#[derive(Clone, Copy, Debug)]
struct Shape {
    seed: u64,
    links: Links,
    streams: u64,
    /// At most, in each direction of a stream.
    bytes: u64,
    /// Mean time between two failures.
    every: Duration,
    /// In all.
    kills: u32,
    control_delay: Duration,
    max_slabs: usize,
    /// Readers look once in so many steps; streams are opened as often.
    lazy: u64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            seed: 1,
            links: [fabric(); 4],
            streams: 6,
            bytes: 3 << 20,
            every: Duration::from_micros(50),
            kills: 60,
            control_delay: Duration::from_micros(20),
            max_slabs: 32,
            lazy: 1,
        }
    }
}

impl Host {
    fn failover(&self) -> &Failover {
        &self.engine.sessions[0].as_ref().unwrap().failover
    }
}

/// What arrives at a host within a while, as a device brings it that has broken its promise: some messages
/// twice, or some not at all.
pub(super) fn mishear(world: &mut World, host: usize, random: &mut Random, twice: bool) {
    world.clock.fetch_add(20_000, Ordering::Relaxed);
    let now = world.now();
    let host = &mut world.hosts[host];
    let mut events = Vec::new();
    host.engine.group.poll(now, &mut events).unwrap();
    for event in events {
        if let Event::Message { channel, slot, length } = event
            && random.below(2) == 0
        {
            if !twice {
                host.engine.group.release(slot);
                continue;
            }
            host.engine.on_message(now, channel, slot, length);
        }
        host.engine.on_event(now, event);
    }
}

/// Ways to die.
fn kill(world: &mut World, random: &mut Random) {
    if random.below(9) == 0 {
        let host = random.below(2) as usize;
        return mishear(world, host, random, true);
    }
    let now = world.now();
    let [a, b] = &mut world.hosts;
    let (first, second) = if random.below(2) == 0 { (a, b) } else { (b, a) };
    let number = random.below(u64::from(CHANNELS)) as usize;
    // Without the event a queue pair fails silently: completions and posts tell.
    let silent = |host: &mut Host, number: usize| {
        let key = host.engine.sessions[0].as_ref().unwrap().channels[number];
        host.engine.group.channel_mut(key).unwrap().fail_queue_pair().unwrap();
    };
    first.hears_events = random.below(4) > 0;
    match random.below(8) {
        0..3 => {
            first.engine.break_channel(now, number);
        }
        3 | 4 => silent(first, number),
        // Both ends at once.
        5 => {
            silent(first, number);
            silent(second, number);
        }
        // All of them.
        6 => (0..usize::from(CHANNELS)).for_each(|number| silent(first, number)),
        // Another while the first is fenced.
        _ => {
            first.engine.break_channel(now, number);
            silent(second, (number + 1) % usize::from(CHANNELS));
        }
    }
}

struct Outcome {
    failovers: u64,
    replayed: u64,
    refused: u64,
    trace: u64,
}

fn run(shape: Shape) -> Outcome {
    println!("{shape:?}");
    let mut random = Random(shape.seed);
    let mut world = World::new(shape.seed, shape.links, 0);
    world.control_delay = shape.control_delay;
    for host in &mut world.hosts {
        host.max_slabs = shape.max_slabs;
    }
    let mut ways: Vec<Way> = Vec::new();
    let mut opened = 0;
    let start = world.now();
    let mut next_kill = start + shape.every;
    let mut over = 0;
    let mut kills = 0;
    while opened < shape.streams || over < ways.len() {
        let stuck = || format!("{}\n{}", describe(&world), progress(&ways));
        assert!(world.now() - start < Duration::from_secs(5), "stuck: {}", stuck());
        if opened < shape.streams && random.below(40 / shape.lazy) == 0 {
            let engine = &mut world.hosts[0].engine;
            let ours = engine
                .open_stream(0, ApplicationId::LOCAL, SERVICE, Class::Throughput.into())
                .unwrap();
            for direction in 0..2u64 {
                ways.push(Way {
                    from: direction as usize,
                    ends: [ours.clone(), ours.clone()],
                    salt: opened * 2 + direction,
                    total: random.below(shape.bytes) + 1,
                    written: 0,
                    consumed: 0,
                    gives_up: random.below(8) == 0,
                    finished: false,
                });
            }
            opened += 1;
        }
        accept(&mut world, &mut ways);
        if world.hosts.iter().all(|host| host.failover().is_down()) {
            // Pauses between attempts take long; nothing else happens in them.
            world.clock.fetch_add(20_000, Ordering::Relaxed);
        }
        if world.now() >= next_kill && kills < shape.kills {
            kills += 1;
            kill(&mut world, &mut random);
            let pause = random.below(2 * shape.every.as_nanos() as u64);
            next_kill = world.now() + Duration::from_nanos(pause);
        }
        world.step();
        over = 0;
        for way in &mut ways {
            let known = !std::ptr::eq(way.ends[0].cell.state(), way.ends[1].cell.state());
            // Until it was accepted both ends are the opener's.
            if known {
                let most = random.below(1 << 18) + 1;
                let reads = random.below(shape.lazy) == 0;
                over += usize::from(way.work(&mut world, most, reads));
            }
        }
    }
    // The applications let go: nothing of the streams is left, and every window is back.
    for way in ways.iter().filter(|way| way.from == 0) {
        for (host, end) in world.hosts.iter().zip(&way.ends) {
            host.shared.inbox.push(Command::Release(end.key));
        }
    }
    settle(&mut world);
    let left =
        |world: &World| -> usize { world.hosts.iter().map(|host| host.engine.census().0).sum() };
    let limit = world.now() + Duration::from_secs(1);
    while left(&world) > 0 {
        assert!(world.now() < limit, "{} streams are left", left(&world));
        world.clock.fetch_add(10_000, Ordering::Relaxed);
        world.step();
    }
    let total = |count: fn(&crate::shared::EngineCounters) -> u64| {
        world.hosts.iter().map(|host| count(&host.shared.counters)).sum()
    };
    Outcome {
        failovers: total(|c| c.failovers.value()),
        replayed: total(|c| c.replayed_bytes.value()),
        refused: total(|c| c.refused.value()),
        trace: world.trace,
    }
}

/// Gives each accepted stream to the two ways that wait for it.
fn accept(world: &mut World, ways: &mut [Way]) {
    let backlog = Arc::clone(&lock(&world.hosts[1].shared.runtime.listeners)[&SERVICE]);
    while let Some(theirs) = backlog.pop().unwrap() {
        for way in ways.iter_mut().filter(|way| way.ends[0].key.stream() == theirs.key.stream()) {
            let theirs_first = usize::from(way.from == 0);
            way.ends[theirs_first] = theirs.clone();
        }
    }
}

fn progress(ways: &[Way]) -> String {
    let unfinished = ways.iter().filter(|way| !way.is_over());
    let line = |way: &Way| {
        format!(
            "stream {:?} from {}: {} of {} written, {} read, gives up: {}, flags {:b} {:b}",
            way.ends[0].key.stream(),
            way.from,
            way.written,
            way.total,
            way.consumed,
            way.gives_up,
            way.ends[0].cell.state().engine.flags.load(Acquire),
            way.ends[1].cell.state().engine.flags.load(Acquire),
        )
    };
    unfinished.map(line).collect::<Vec<_>>().join("\n")
}

pub(super) fn describe(world: &World) -> String {
    let host =
        |host: &Host| format!("{:?}, {:?}", host.failover().states(), host.session.failure());
    format!("{} | {}", host(&world.hosts[0]), host(&world.hosts[1]))
}

/// No more failures: every Channel comes up again, and nothing is left of the dead ones.
pub(super) fn settle(world: &mut World) {
    for host in &mut world.hosts {
        host.hears_events = true;
    }
    let limit = world.now() + Duration::from_secs(3);
    let is_whole = |world: &World| world.hosts.iter().all(|host| host.failover().is_up());
    while !is_whole(world) {
        assert!(world.now() < limit, "{}", describe(world));
        world.clock.fetch_add(10_000, Ordering::Relaxed);
        world.step();
    }
    for _ in 0..200 {
        world.step();
    }
    for host in &mut world.hosts {
        assert!(host.session.failure().is_none(), "{:?}", host.session.failure());
        assert_eq!(host.engine.group.len(), usize::from(CHANNELS));
        let (wanted, in_use) = host.engine.group.receive_slots();
        let credit = u32::from(CHANNELS) * host.engine.group.config().receive_slots;
        assert!(in_use > credit && in_use <= wanted, "receive slots that no queue pair gave back");
        let reports = host.engine.channels();
        let received: u64 = reports.iter().map(|c| c.payload.received).sum();
        assert_eq!(received, host.shared.counters.placed_bytes.value(), "bytes by Channel");
    }
}

#[test]
fn streams_outlive_their_channels() {
    for seed in 0..12 {
        let outcome = run(Shape { seed, ..Shape::default() });
        println!("seed {seed}: {} fences, {} bytes again", outcome.failovers, outcome.replayed);
        assert!(outcome.failovers > 10, "{} fences", outcome.failovers);
    }
}

#[test]
fn on_links_that_lose_and_dawdle() {
    let lossy = LinkModel { loss: 0.02, reorder: 0.05, ..fabric() };
    let late = LinkModel { delay: Duration::from_micros(300), ..fabric() };
    let slow = LinkModel { rate: Bandwidth::from_gbps(2), ..fabric() };
    for seed in 100..108 {
        let outcome = run(Shape {
            seed,
            links: [lossy, late, slow, fabric()],
            control_delay: Duration::from_micros(200),
            every: Duration::from_micros(300),
            bytes: 1_000_000,
            ..Shape::default()
        });
        assert!(outcome.failovers > 2, "{} fences", outcome.failovers);
    }
}

/// Streams that are shorter than the time between two failures: they die while opening, ending and
/// resetting.
#[test]
fn many_short_streams() {
    for seed in 200..206 {
        let every = Duration::from_micros(15);
        let outcome = run(Shape { seed, streams: 80, bytes: 3_000, every, ..Shape::default() });
        assert!(outcome.failovers > 20, "{} fences", outcome.failovers);
    }
}

/// Without memory for windows receivers refuse bytes, and refusals die with their Channels.
#[test]
fn refusals_die_with_their_channels() {
    let mut refused = 0;
    for seed in 300..304 {
        let outcome = run(Shape {
            seed,
            streams: 220,
            bytes: 40_000,
            max_slabs: 1,
            lazy: 40,
            ..Shape::default()
        });
        refused += outcome.refused;
    }
    println!("{refused} refusals");
    assert!(refused > 0, "memory was not short");
}

#[test]
fn a_seed_reproduces_its_failures() {
    let traces = [5, 5, 6].map(|seed| run(Shape { seed, streams: 2, ..Shape::default() }).trace);
    assert_eq!(traces[0], traces[1], "the same seed");
    assert_ne!(traces[0], traces[2], "another seed");
}
