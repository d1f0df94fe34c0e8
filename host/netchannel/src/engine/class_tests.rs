//! Both classes over one link in virtual time: two hosts with an engine for each class, over the
//! NIC in memory with a model of the port's link, in one thread.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use netchannel_units::{Bandwidth, Claim, Class, GroupId, Timestamp, Weight};
use netchannel_verbs::Context as _;
use netchannel_verbs::soft::{Clock, Context, LinkModel, SoftOptions};
use netchannel_vns::streams::Role;

use crate::boundary::application::ApplicationId;
use crate::boundary::port::{Doorbell, What};
use crate::config::Config;
use crate::engine::control::EngineControl;
use crate::engine::harness::{make_channels, start_session};
use crate::engine::slabs::SlabMaker;
use crate::engine::{Drive, Engine, Loan};
use crate::shared::Backlog;
use crate::shared::PortBudget;
use crate::shared::{GroupShared, SessionShared, Shared, SlabDemand, StreamSeed};
use crate::sync::lock;

const SERVICE: u16 = 7;
/// Channels of each class.
const CHANNELS: [u16; 2] = [1, 4];
/// Time between two polls of a host.
const STEP: u64 = 500;
/// Bytes of a ping.
const PING: u64 = 4_096;

struct Host {
    engines: [Engine<Context>; 2],
    shared: Arc<Shared>,
    groups: [Arc<GroupShared>; 2],
    context: Context,
}

impl Host {
    fn new(clock: &Arc<AtomicU64>, seed: u64, link: LinkModel, config: &Config) -> Self {
        let clock = Clock::Virtual(Arc::clone(clock));
        let options = SoftOptions { seed, link: Some(link), clock, ..SoftOptions::default() };
        let context = Context::open(options).unwrap();
        let shared = Arc::new(Shared::new().unwrap());
        if let Some(budget) = PortBudget::new(context.attributes(), config) {
            shared.budget.set(budget).unwrap();
        }
        let groups = [Class::Latency, Class::Throughput]
            .map(|class| GroupShared::new(GroupId(class as u8), class, Arc::clone(&shared)));
        let engines = groups
            .each_ref()
            .map(|group| Engine::new(context.clone(), config.clone(), Arc::clone(group)).unwrap());
        Self { engines, shared, groups, context }
    }

    fn poll(&mut self, now: Timestamp) {
        for (engine, group) in self.engines.iter_mut().zip(&self.groups) {
            engine.poll(now);
            // What the helper thread would do.
            let wanted = std::mem::take(&mut *lock(&group.slab_demand));
            for SlabDemand { slot, application, room } in wanted {
                engine.add_slab(slot, self.context.make(&application, room).unwrap());
            }
        }
    }

    /// The bytes that the application has written so far are `upto`: it reads all there are.
    fn read_all(&mut self, stream: &StreamSeed) -> u64 {
        let state = stream.cell.state();
        let readable = state.engine.readable.load(Acquire);
        if state.application.consumed.load(Relaxed) < readable {
            state.application.consumed.store(readable, Release);
            let doorbell = Doorbell { stream: stream.key, what: What::Consumed };
            self.engines[usize::from(stream.key.group().0)].doorbell(doorbell);
        }
        readable
    }
}

struct World {
    clock: Arc<AtomicU64>,
    hosts: [Host; 2],
}

impl World {
    fn new(link: LinkModel, config: &Config) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000));
        let mut hosts = [1, 2].map(|seed| Host::new(&clock, seed, link, config));
        let sessions = [0, 1].map(|n| SessionShared::new(n, "192.0.2.1:1".parse().unwrap()));
        for (class, count) in CHANNELS.into_iter().enumerate() {
            let made = hosts.each_mut().map(|host| make_channels(&mut host.engines[class], count));
            for (side, role) in [(0, Role::Client), (1, Role::Server)] {
                let host = &mut hosts[side];
                let engine = &mut host.engines[class];
                let (ours, theirs) = (&made[side], &made[1 - side]);
                let slot = start_session(engine, &sessions[side], role, class as u8, ours, theirs);
                let room = sessions[side].first_slab_room();
                engine.add_slab(slot, host.context.make(&host.shared.local, room).unwrap());
            }
        }
        lock(&hosts[1].shared.listeners).insert(SERVICE, Backlog::new());
        Self { clock, hosts }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.load(Relaxed))
    }

    fn step(&mut self) {
        self.clock.fetch_add(STEP, Relaxed);
        let now = self.now();
        self.hosts.iter_mut().for_each(|host| host.poll(now));
    }

    /// Opens a stream from host 0 to host 1; returns both ends.
    fn open(&mut self, claim: impl Into<Claim>) -> [StreamSeed; 2] {
        let claim = claim.into();
        let engine = &mut self.hosts[0].engines[claim.class as usize];
        let ours = engine.open_stream(0, ApplicationId::LOCAL, SERVICE, claim).unwrap();
        let backlog = Arc::clone(&lock(&self.hosts[1].shared.listeners)[&SERVICE]);
        for _ in 0..100_000 {
            self.step();
            if let Some(theirs) = backlog.pop().unwrap() {
                assert_eq!((theirs.claim, ours.claim), (claim, claim));
                return [ours, theirs];
            }
        }
        panic!("the stream was not opened");
    }

    fn write(&mut self, side: usize, stream: &StreamSeed, bytes: &[u8]) -> usize {
        let clock = Arc::clone(&self.clock);
        let read = || Timestamp::from_nanos(clock.fetch_add(100, Relaxed));
        let engine = &mut self.hosts[side].engines[usize::from(stream.key.group().0)];
        engine.write_direct(&read, Loan { stream: stream.key, bytes, patient: false }).unwrap()
    }
}

/// A stream whose writer and reader never wait.
struct Flood {
    ends: [StreamSeed; 2],
    bytes: Vec<u8>,
}

impl Flood {
    fn new(world: &mut World, claim: impl Into<Claim>) -> Self {
        Self { ends: world.open(claim), bytes: vec![7; 256 << 10] }
    }

    /// Writes and reads what can be; returns how many bytes were read so far.
    fn go_on(&self, world: &mut World) -> u64 {
        world.write(0, &self.ends[0], &self.bytes);
        world.hosts[1].read_all(&self.ends[1])
    }
}

/// Half round trips of `count` pings beside the floods, sorted, and the rate of the floods.
fn ping(world: &mut World, floods: &[Flood], count: usize) -> (Vec<Duration>, Bandwidth) {
    let ends = world.open(Class::Latency);
    let message = vec![1; PING as usize];
    let mut times = Vec::new();
    let read = |world: &mut World| floods.iter().map(|flood| flood.go_on(world)).sum::<u64>();
    let mut warm = None;
    for round in 1..=count as u64 {
        let start = world.now();
        for (from, to) in [(0, 1), (1, 0)] {
            assert_eq!(world.write(from, &ends[from], &message), message.len());
            let mut steps = 0;
            while world.hosts[to].read_all(&ends[to]) < round * PING {
                world.step();
                read(world);
                steps += 1;
                assert!(steps < 1_000_000, "no answer");
            }
        }
        times.push((world.now() - start) / 2);
        if round == 20 {
            // Rates are known by now.
            warm = Some((world.now(), read(world)));
            times.clear();
        }
    }
    let (start, before) = warm.unwrap();
    times.sort();
    let rate = Bandwidth::from_transfer(read(world) - before, world.now() - start);
    (times, rate)
}

fn link() -> LinkModel {
    LinkModel {
        rate: Bandwidth::from_gbps(2),
        delay: Duration::from_micros(5),
        ..LinkModel::default()
    }
}

#[test]
fn a_latency_stream_waits_little_for_bulk_and_bulk_fills_the_link() {
    let config = Config::default();
    let (alone, _) = ping(&mut World::new(link(), &config), &[], 320);
    let mut world = World::new(link(), &config);
    let floods: Vec<_> = (0..2).map(|_| Flood::new(&mut world, Class::Throughput)).collect();
    let (beside, rate) = ping(&mut world, &floods, 320);
    let p99 = |times: &[Duration]| times[times.len() * 99 / 100];
    let share = rate.bits_per_second() as f64 / link().rate.bits_per_second() as f64;
    let budget = world.hosts[0].shared.budget.get().unwrap().figures();
    println!(
        "virtual time: half round trip of 4 KiB: p99 alone {:?}, beside bulk {:?}; bulk {rate} of \
         {}; budget {budget:?}",
        p99(&alone),
        p99(&beside),
        link().rate,
    );
    assert!(p99(&beside) <= 2 * p99(&alone), "{:?} and {:?}", p99(&alone), p99(&beside));
    // Of the rest of the link: the pings are bytes, too.
    let pings = (PING * 300) as f64 * 8.0 / beside.iter().sum::<Duration>().as_secs_f64() / 2.0;
    let rest = 1.0 - pings / link().rate.bits_per_second() as f64;
    assert!(share >= 0.95 * rest, "{share} of the link, {rest} was left by the pings");
}

#[test]
fn without_a_budget_bulk_stands_in_front() {
    let config = Config { bulk_delay: Duration::ZERO, ..Config::default() };
    let (alone, _) = ping(&mut World::new(link(), &config), &[], 60);
    let mut world = World::new(link(), &config);
    let floods = [Flood::new(&mut world, Class::Throughput)];
    let (beside, _) = ping(&mut world, &floods, 60);
    println!("virtual time: median alone {:?}, beside unbounded bulk {:?}", alone[20], beside[20]);
    assert!(beside[20] > 4 * alone[20], "the link model has no queue to wait in");
}

#[test]
fn a_flood_of_latency_streams_leaves_bulk_its_share() {
    let mut world = World::new(link(), &Config::default());
    let bulk = Flood::new(&mut world, Class::Throughput);
    let latency: Vec<_> = (0..4).map(|_| Flood::new(&mut world, Class::Latency)).collect();
    let go_on = |world: &mut World| {
        for flood in &latency {
            flood.go_on(world);
        }
        bulk.go_on(world)
    };
    for _ in 0..20_000 {
        world.step();
        go_on(&mut world);
    }
    let (start, before) = (world.now(), go_on(&mut world));
    for _ in 0..60_000 {
        world.step();
        go_on(&mut world);
    }
    let rate = Bandwidth::from_transfer(go_on(&mut world) - before, world.now() - start);
    let share = rate.bits_per_second() as f64 / link().rate.bits_per_second() as f64;
    println!(
        "virtual time: bulk beside a flood of latency streams: {rate}, {share:.2} of the link"
    );
    assert!((0.12..0.6).contains(&share), "{share}: a fifth is meant");
}

/// From end to end: what the applications read goes by the weights that travelled with the streams.
#[test]
fn bulk_streams_share_the_link_by_weight() {
    let mut world = World::new(link(), &Config::default());
    let weights = [1, 2, 4];
    let floods = weights.map(|weight| {
        let weight = Weight::new(weight).unwrap();
        Flood::new(&mut world, Claim { class: Class::Throughput, weight })
    });
    let run = |world: &mut World, steps| {
        for _ in 0..steps {
            world.step();
            for flood in &floods {
                flood.go_on(world);
            }
        }
        floods.each_ref().map(|flood| flood.go_on(world))
    };
    let before = run(&mut world, 20_000);
    let after = run(&mut world, 100_000);
    let got = [0, 1, 2].map(|at: usize| after[at] - before[at]);
    println!("virtual time: bytes by weights {weights:?}: {got:?}");
    let unit = got.iter().sum::<u64>() as f64 / 7.0;
    for (bytes, weight) in got.into_iter().zip(weights) {
        let share = bytes as f64 / unit / f64::from(weight);
        assert!((share - 1.0).abs() < 0.1, "{got:?} for weights {weights:?}");
    }
}
