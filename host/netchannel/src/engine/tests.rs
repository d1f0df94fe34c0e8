//! Two hosts in virtual time: the real engine over the NIC in memory with link models, in one
//! thread, with a clock that only the test moves. A seed reproduces a run.

mod failover;
mod failures;
mod passes;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netchannel_units::{Bandwidth, Class, GroupId, Timestamp};
use netchannel_verbs::Context as _;
use netchannel_verbs::soft::{Clock, Context, LinkModel, SoftOptions};
use netchannel_vns::streams::Role;
use netchannel_wire::control::ChannelMessage;

use crate::boundary::application::ApplicationId;
use crate::boundary::cell::buffer;
use crate::boundary::port::{Doorbell, What};
use crate::config::Config;
use crate::engine::control::EngineControl;
use crate::engine::harness::{Made, make_channels, start_session};
use crate::engine::slabs::SlabMaker;
use crate::engine::{Drive, Engine, Loan};
use crate::shared::Backlog;
use crate::shared::{GroupShared, SessionShared, Shared, StreamSeed};
use crate::sync::lock;

const SERVICE: u16 = 7;
const CHANNELS: u16 = 4;
/// The links of a host's Channels.
type Links = [LinkModel; CHANNELS as usize];
/// Time between two polls of a host.
const STEP: u64 = 500;

struct Host {
    engine: Engine<Context>,
    shared: Arc<GroupShared>,
    context: Context,
    session: Arc<SessionShared>,
    /// Slabs of receive windows that it may have.
    max_slabs: usize,
    /// Whether anybody hears what the device says.
    hears_events: bool,
}

struct World {
    clock: Arc<AtomicU64>,
    hosts: [Host; 2],
    /// The control connection: when, to whom, what.
    control: VecDeque<(Timestamp, usize, ChannelMessage)>,
    control_delay: Duration,
    /// Whether the hosts hear each other over it all the time.
    hears: bool,
    /// A digest of everything that the hosts could see at each step.
    trace: u64,
}

impl Host {
    fn new(clock: &Arc<AtomicU64>, seed: u64, links: Links, config: &Config) -> Self {
        let options = SoftOptions {
            seed,
            links: links.to_vec(),
            clock: Clock::Virtual(Arc::clone(clock)),
            ..SoftOptions::default()
        };
        let context = Context::open(options).unwrap();
        let runtime = Arc::new(Shared::new().unwrap());
        let shared = GroupShared::new(GroupId(1), Class::Throughput, runtime);
        let engine = Engine::new(context.clone(), config.clone(), Arc::clone(&shared)).unwrap();
        let session = SessionShared::new(0, "192.0.2.1:1".parse().unwrap());
        Self { engine, shared, context, session, max_slabs: 32, hears_events: true }
    }

    fn start_session(&mut self, role: Role, ours: &Made, theirs: &Made) {
        let slot = start_session(&mut self.engine, &self.session, role, 0, ours, theirs);
        self.add_slab(slot);
    }

    fn add_slab(&mut self, slot: u32) {
        let session = self.engine.sessions[slot as usize].as_ref().unwrap();
        if session.slabs.iter().flatten().count() < self.max_slabs {
            let room = self.session.first_slab_room();
            let slab = self.context.make(&self.shared.runtime.local, room).unwrap();
            self.engine.add_slab(slot, slab);
        }
    }

    /// What the helper thread does, without the control connection.
    fn help(&mut self, now: Timestamp) {
        let wanted = std::mem::take(&mut *lock(&self.shared.slab_demand));
        for demand in wanted {
            self.add_slab(demand.slot);
        }
        self.shared.runtime.drop_discarded();
        while let Some(event) = self.context.poll_event().unwrap() {
            if self.hears_events {
                EngineControl::on_device_event(&mut self.engine, now, event);
            }
        }
        EngineControl::make_wanted(&mut self.engine, now);
    }
}

impl World {
    /// Two hosts with a session; host 1 listens.
    fn new(seed: u64, links: Links, chunk: usize) -> Self {
        Self::with_config(seed, links, &Config { chunk, ..Config::default() })
    }

    fn with_config(seed: u64, links: Links, config: &Config) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000));
        let mut hosts = [seed, seed + 1].map(|seed| Host::new(&clock, seed, links, config));
        let made = hosts.each_mut().map(|host| make_channels(&mut host.engine, CHANNELS));
        hosts[0].start_session(Role::Client, &made[0], &made[1]);
        hosts[1].start_session(Role::Server, &made[1], &made[0]);
        lock(&hosts[1].shared.runtime.listeners).insert(SERVICE, Backlog::new());
        let control_delay = Duration::from_micros(20);
        Self { clock, hosts, control: VecDeque::new(), control_delay, hears: true, trace: 0 }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos(self.clock.load(Ordering::Relaxed))
    }

    fn step(&mut self) {
        self.clock.fetch_add(STEP, Ordering::Relaxed);
        let now = self.now();
        for (number, host) in self.hosts.iter_mut().enumerate() {
            if self.hears {
                host.session.hear(now);
            }
            host.engine.poll(now);
            host.help(now);
            for message in host.session.take_said() {
                self.control.push_back((now + self.control_delay, 1 - number, message));
            }
            for report in host.engine.channels() {
                for value in [
                    report.payload.confirmed,
                    report.payload.received,
                    report.stats.messages_posted,
                ] {
                    self.trace = (self.trace ^ value).wrapping_mul(0x100_0000_01B3).rotate_left(7);
                }
            }
        }
        while let Some((_, to, message)) = self.control.pop_front_if(|(at, ..)| *at <= now) {
            let host = &mut self.hosts[to];
            let session = Arc::clone(&host.session);
            EngineControl::on_channel_news(&mut host.engine, now, 0, &session, &message);
        }
    }

    /// Opens a stream from host 0 to host 1; returns both ends.
    fn open(&mut self) -> (StreamSeed, StreamSeed) {
        let ours = self.hosts[0]
            .engine
            .open_stream(0, ApplicationId::LOCAL, SERVICE, Class::Throughput.into())
            .unwrap();
        let backlog = Arc::clone(&lock(&self.hosts[1].shared.runtime.listeners)[&SERVICE]);
        let limit = self.now() + Duration::from_millis(100);
        while self.now() < limit {
            self.step();
            if let Some(theirs) = backlog.pop().unwrap() {
                return (ours, theirs);
            }
        }
        panic!("the stream was not opened");
    }

    fn write(&mut self, host: usize, stream: &StreamSeed, bytes: &[u8]) -> usize {
        let clock = Arc::clone(&self.clock);
        let read = || Timestamp::from_nanos(clock.fetch_add(100, Ordering::Relaxed));
        let engine = &mut self.hosts[host].engine;
        engine.write_direct(&read, Loan { stream: stream.key, bytes, patient: true }).unwrap()
    }

    /// Reads what there is, byte by byte as an application finds it in the windows.
    /// By way of the send buffer, as an application of another process or over another device would;
    /// returns how many bytes had room. `tail` is what was written before.
    fn write_buffered(
        &mut self,
        host: usize,
        stream: &StreamSeed,
        tail: u64,
        bytes: &[u8],
    ) -> usize {
        let host = &mut self.hosts[host];
        let state = stream.cell.state();
        let doorbell = Doorbell { stream: stream.key, what: What::Written };
        let (engine, application) = (&state.engine, &state.application);
        if application.buffer_state.load(Acquire) == buffer::NONE {
            application.buffer_wanted.store(1 << 20, Relaxed);
            application.buffer_state.store(buffer::WANTED, Release);
            host.engine.doorbell(doorbell);
        }
        let room = state.room().unwrap_or(0) as usize;
        if bytes.is_empty() || room < bytes.len() {
            return 0;
        }
        let regions = &host.shared.runtime.local.regions;
        let base = regions.resolve(engine.buffer_place.load(Relaxed)).unwrap();
        let mask = (1u64 << engine.buffer_log2.load(Relaxed)) - 1;
        for (offset, byte) in (tail..).zip(bytes) {
            // SAFETY: inside of the buffer, at bytes that the engine does not know of yet.
            unsafe { base.as_ptr().add((offset & mask) as usize).write(*byte) };
        }
        application.tail.store(tail + bytes.len() as u64, Release);
        host.engine.doorbell(doorbell);
        bytes.len()
    }

    fn read(
        &mut self,
        host: usize,
        stream: &StreamSeed,
        consumed: &mut u64,
        mut check: impl FnMut(u64, u8),
    ) {
        let host = &mut self.hosts[host];
        let state = stream.cell.state();
        let readable = state.engine.readable.load(Acquire);
        let newest = state.engine.generation.load(Acquire);
        if readable == *consumed {
            return;
        }
        for offset in *consumed..readable {
            let slot = |generation: u32| &state.engine.windows[(generation & 1) as usize];
            let generation =
                if offset >= slot(newest).from.load(Relaxed) { newest } else { newest - 1 };
            let window = slot(generation);
            let regions = &host.shared.runtime.local.regions;
            let base = regions.resolve(window.place.load(Relaxed)).unwrap();
            let at = offset & ((1 << window.log2.load(Relaxed)) - 1);
            // SAFETY: `at` is inside of the window, which is mapped while the stream has bytes.
            check(offset, unsafe { base.as_ptr().add(at as usize).read_volatile() });
        }
        *consumed = readable;
        state.application.consumed.store(readable, Release);
        host.engine.doorbell(Doorbell { stream: stream.key, what: What::Consumed });
    }
}

fn pattern(offset: u64) -> u8 {
    (offset.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

struct Run {
    trace: u64,
    elapsed: Duration,
    out_of_order: u64,
    /// Bytes that each Channel of host 0 carried.
    carried: Vec<u64>,
}

/// Moves `total` bytes from host 0 to host 1, in chunks of at most `chunk` bytes (0: of the usual
/// size).
fn transfer(seed: u64, links: Links, chunk: usize, total: u64) -> Run {
    let mut world = World::new(seed, links, chunk);
    let (ours, theirs) = world.open();
    let bytes: Vec<u8> = (0..total).map(pattern).collect();
    let start = world.now();
    let (mut written, mut consumed) = (0, 0);
    let limit = start + Duration::from_secs(20);
    while consumed < total {
        assert!(world.now() < limit, "stuck at {consumed} of {total}");
        if written < bytes.len() {
            let end = bytes.len().min(written + (1 << 20));
            written += world.write(0, &ours, &bytes[written..end]);
        }
        world.step();
        world.read(1, &theirs, &mut consumed, |offset, byte| {
            assert_eq!(byte, pattern(offset), "byte {offset}");
        });
    }
    Run {
        trace: world.trace,
        elapsed: world.now() - start,
        out_of_order: world.hosts[1].shared.counters.placed_out_of_order.value(),
        carried: world.hosts[0].engine.channels().iter().map(|c| c.payload.confirmed).collect(),
    }
}

fn fabric() -> LinkModel {
    LinkModel {
        rate: Bandwidth::from_gbps(25),
        delay: Duration::from_micros(2),
        ..LinkModel::default()
    }
}

#[test]
fn one_stream_fills_four_links() {
    let total = 16 << 20;
    // A sixteenth of the stream's window: what is on its way on one link while others wait for credit.
    let run = transfer(1, [fabric(); 4], 64 << 10, total);
    let rate = Bandwidth::from_transfer(total, run.elapsed);
    println!(
        "virtual time: one stream over 4 x 25 Gb/s: {rate}, {} out of order",
        run.out_of_order
    );
    assert!(rate > Bandwidth::from_gbps(90), "{rate} of 100 Gb/s");
}

/// Messages per MiB, and time, of a stream whose application writes 64 KiB at a time into its send buffer, faster
/// than the links.
fn messages_per_mib(gather: usize) -> (f64, Duration) {
    let total = 32u64 << 20;
    let config = Config { chunk: 256 << 10, gather: Some(gather), ..Config::default() };
    let mut world = World::with_config(11, [fabric(); 4], &config);
    let (ours, theirs) = world.open();
    let bytes: Vec<u8> = (0..total).map(pattern).collect();
    let start = world.now();
    let limit = start + Duration::from_secs(5);
    let (mut written, mut consumed) = (0, 0);
    while consumed < total {
        assert!(world.now() < limit, "stuck at {consumed} of {total}");
        let end = bytes.len().min(written + (64 << 10));
        written += world.write_buffered(0, &ours, written as u64, &bytes[written..end]);
        world.step();
        world.read(1, &theirs, &mut consumed, |offset, byte| {
            assert_eq!(byte, pattern(offset), "byte {offset}");
        });
    }
    let messages: u64 =
        world.hosts[0].engine.channels().iter().map(|c| c.stats.messages_posted).sum();
    (messages as f64 / (total >> 20) as f64, world.now() - start)
}

#[test]
fn small_writes_gather_while_their_channels_are_busy() {
    let [(never, usual), (gathered, time)] = [0, 128 << 10].map(messages_per_mib);
    println!("virtual time: messages per MiB of 64 KiB writes: {never:.1}, gathered {gathered:.1}");
    assert!(never > 14.0, "{never}: nearly each write is a message");
    assert!(gathered < never * 0.8, "{gathered}");
    assert!(time < usual * 11 / 10, "{time:?}, without gathering {usual:?}");
}

#[test]
fn a_seed_reproduces_a_run() {
    let lossy = LinkModel { loss: 0.02, reorder: 0.05, ..fabric() };
    let runs = [7, 7, 8].map(|seed| transfer(seed, [lossy; 4], 0, 2 << 20));
    assert_eq!(runs[0].trace, runs[1].trace, "the same seed");
    assert_eq!(runs[0].elapsed, runs[1].elapsed);
    assert_ne!(runs[0].trace, runs[2].trace, "another seed");
}

#[test]
fn a_slow_link_gets_its_share() {
    // Ten chunks on each of the fast ones, before the next on the slow one is worth it, must fit
    // into the stream's window.
    let slow = LinkModel { rate: Bandwidth::from_bits_per_second(2_500_000_000), ..fabric() };
    let total = 64 << 20;
    let run = transfer(3, [slow, fabric(), fabric(), fabric()], 8 << 10, total);
    let share = run.carried[0] as f64 / total as f64;
    let rate = Bandwidth::from_transfer(total, run.elapsed);
    println!(
        "virtual time: 3 x 25 Gb/s and one of 2.5 Gb/s: {rate}, the slow one got 1/{:.1}: {:?}",
        1.0 / share,
        run.carried
    );
    assert!((share * 31.0 - 1.0).abs() < 0.2, "{share} is not 1/31 within 20 %");
}

#[test]
fn a_late_link_does_not_hold_up_the_others() {
    let late = LinkModel { delay: Duration::from_millis(10), ..fabric() };
    let run = transfer(4, [late, fabric(), fabric(), fabric()], 0, 8 << 20);
    println!("virtual time: one link 10 ms late: {} placed out of order", run.out_of_order);
    assert!(run.out_of_order > 0, "the others went on");
}
