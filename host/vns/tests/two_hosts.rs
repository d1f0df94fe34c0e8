//! A model of two hosts: every byte read is the byte written, whatever the Channels do. A failure
//! names its seed; `NETCHANNEL_SEED` runs that alone.
#![allow(unreachable_pub, reason = "a test has no users")]

mod model;

use model::host::REFUSED_SERVICE;
use model::{Model, Shape};
use netchannel_units::{Duration, StreamOffset};
use netchannel_vns::ApplicationId;
use netchannel_vns::receive::ReceiveState;
use netchannel_wire::StreamId;

/// Milliseconds after which a stream is certainly idle.
const PAUSE: u64 = 1_000;

/// What the applications of a run do.
#[derive(Debug, Clone, Copy)]
struct Load {
    steps: u32,
    streams: usize,
    write_log2: u64,
    /// One stream in so many is given up in some way; 0 for none.
    unruly: u64,
    /// One step in so many kills a Channel, and one in four times as many a path; 0 for none.
    deaths: u64,
}

fn act(model: &mut Model, load: Load) {
    let side = model.random.index(2);
    let alive = model.hosts.iter().map(|h| h.streams.len()).max().unwrap();
    if alive < load.streams && model.random.once_in(8) {
        let refused = load.unruly > 0 && model.random.once_in(8);
        let service = if refused { REFUSED_SERVICE } else { 80 };
        let id = model.hosts[side].open(service);
        if model.random.once_in(6) {
            model.hosts[side].apps.get_mut(&id).unwrap().stalled = true;
        }
    }
    let host = &mut model.hosts[side];
    let random = &mut model.random;
    let ids: Vec<u32> = host.apps.iter().filter(|(_, a)| !a.released).map(|(id, _)| *id).collect();
    if ids.is_empty() {
        return;
    }
    let id = ids[random.index(ids.len())];
    let app = host.apps[&id].clone();
    match random.below(16) {
        0..=4 if !app.finished && !app.gave_up => host.write(id, random.length(load.write_log2)),
        5..=10 if !app.stalled => {
            let bytes = random.length(load.write_log2);
            host.read(model.now, id, bytes);
        }
        11 if random.once_in(4) => {
            host.streams.finish(StreamId(id));
            host.apps.get_mut(&id).unwrap().finished = true;
        }
        12 if load.unruly > 0 && random.once_in(load.unruly) => {
            host.streams.reset(StreamId(id), 7);
            host.apps.get_mut(&id).unwrap().gave_up = true;
        }
        13 if load.unruly > 0 && random.once_in(load.unruly) => {
            host.streams.stop(StreamId(id), 8);
            host.apps.get_mut(&id).unwrap().stopped = true;
        }
        14 if load.unruly > 0 && random.once_in(load.unruly) => {
            host.streams.release(StreamId(id), 9);
            let app = host.apps.get_mut(&id).unwrap();
            (app.released, app.stopped, app.finished) = (true, true, true);
        }
        15 if app.finished && host.is_through(id) => {
            host.streams.release(StreamId(id), 0);
            let app = host.apps.get_mut(&id).unwrap();
            (app.released, app.stopped) = (true, true);
        }
        _ => {}
    }
}

/// A Channel dies by itself, or the whole path falls silent: then its Channels die of it one after the
/// other, or live on.
fn fail(model: &mut Model, load: Load) {
    if load.deaths == 0 {
        return;
    }
    let several = model.channels.len() > 1;
    if several && model.random.once_in(load.deaths) {
        let channel = model.random.index(model.channels.len());
        model.fence(channel);
    }
    if model.random.once_in(4 * load.deaths) {
        model.channels.iter_mut().for_each(|channel| channel.stalled = true);
    }
    if model.random.once_in(load.deaths / 2) {
        let channel = model.random.index(model.channels.len());
        let stalled = model.channels[channel].stalled;
        if stalled && model.channels.len() > 1 && model.random.once_in(2) {
            model.fence(channel);
        } else {
            model.channels[channel].stalled = !stalled;
        }
    }
}

fn run(seed: u64, shape: Shape, load: Load) -> Model {
    let mut model = Model::new(seed, shape);
    for _ in 0..load.steps {
        act(&mut model, load);
        model.step();
        if model.random.once_in(64) {
            let channel = model.random.index(model.channels.len());
            let blocked = &mut model.channels[channel].blocked;
            *blocked = !*blocked;
        }
        fail(&mut model, load);
        if model.random.once_in(512) {
            model.now = model.now + Duration::from_millis(PAUSE);
        }
        if model.random.once_in(128) {
            for host in &model.hosts {
                host.apps.iter().filter(|(_, a)| !a.closed).for_each(|(id, _)| {
                    host.check_readable(*id);
                });
            }
        }
    }
    wind_up(&mut model);
    model
}

/// Everybody reads and finishes; everything is delivered; nothing is left.
fn wind_up(model: &mut Model) {
    for round in 0.. {
        assert!(round < 10_000, "bytes do not arrive: {}", stuck(model));
        let messages = model.settle();
        let mut read = false;
        for host in &mut model.hosts {
            let ids: Vec<u32> = host.apps.keys().copied().collect();
            for id in ids {
                let before = host.apps[&id].read;
                host.read(model.now, id, u64::MAX);
                read |= host.apps[&id].read > before;
            }
        }
        if !read && messages == 0 {
            break;
        }
    }
    for host in &model.hosts {
        for (id, app) in &host.apps {
            let peer = &model.hosts[1 - network_side(host)];
            let Some(peer_app) = peer.apps.get(id) else {
                continue;
            };
            if !peer_app.stopped && !app.gave_up && !app.released {
                assert_eq!(peer_app.read, app.written, "{:?} {id}: {}", host.role, stuck(model));
            }
        }
        assert_eq!(host.streams.owing(), 0);
    }
    // Idle streams hold no window, and say nothing.
    for _ in 0..4 {
        model.now = model.now + Duration::from_millis(PAUSE);
        let messages = model.settle();
        let streams: usize = model.hosts.iter().map(|h| h.apps.len()).sum();
        assert!(messages <= 8 + 8 * streams as u64, "{messages} messages of idle streams");
    }
    assert_eq!(model.settle(), 0);
    for host in &model.hosts {
        let held: Vec<_> = host
            .apps
            .keys()
            .filter_map(|id| host.streams.receive_half(StreamId(*id)))
            .filter(|half| half.current().is_some() && half.state() == ReceiveState::Open)
            .collect();
        assert!(held.is_empty(), "{held:?}");
    }
    for host in &mut model.hosts {
        for (id, app) in &mut host.apps {
            host.streams.finish(StreamId(*id));
            app.finished = true;
        }
    }
    model.settle();
    for host in &model.hosts {
        for (id, app) in &host.apps {
            let Some(half) = host.streams.receive_half(StreamId(*id)) else { continue };
            let over = matches!(half.state(), ReceiveState::Complete(_) | ReceiveState::Reset(_));
            assert!(over || app.stopped, "{id}: {half:?}");
        }
    }
    for host in &mut model.hosts {
        for (id, app) in &mut host.apps {
            host.streams.release(StreamId(*id), 0);
            (app.released, app.stopped) = (true, true);
        }
    }
    model.settle();
    for host in &model.hosts {
        assert_eq!(host.streams.len(), 0, "{:?}: {}", host.role, stuck(model));
        assert!(host.apps.values().all(|app| app.closed));
        let slabs = host.memory.len() as u64;
        assert_eq!(
            host.streams.pool(ApplicationId::LOCAL).unwrap().free_bytes(),
            slabs * model::host::SLAB as u64
        );
        assert_eq!(host.streams.owing(), 0);
    }
    for host in &mut model.hosts {
        host.streams.on_timeout(model.now + Duration::from_millis(PAUSE));
        assert_eq!(host.streams.next_timeout(), None);
        assert!(host.streams.poll_control().is_none());
    }
}

fn network_side(host: &model::host::Host) -> usize {
    model::network::side(host.role)
}

fn stuck(model: &Model) -> String {
    let mut out = String::new();
    for host in &model.hosts {
        for (id, app) in host.apps.iter().filter(|(_, a)| !a.closed) {
            let (send, receive) =
                (host.streams.send_half(StreamId(*id)), host.streams.receive_half(StreamId(*id)));
            out += &format!("\n{:?} {id} {app:?}\n  {send:?}\n  {receive:?}", host.role);
        }
    }
    out
}

const SHAPE: Shape = Shape {
    channels: 4,
    slabs_at_start: 4,
    max_slabs: 16,
    eager_credit: 16_384,
    window_log2: 18,
    gather: 65_536,
};
const LOAD: Load = Load { steps: 3_000, streams: 6, write_log2: 17, unruly: 0, deaths: 0 };

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let one = std::env::var("NETCHANNEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let (from, to) = one.map_or((0, count), |seed: u64| (seed, seed + 1));
    (from..to).inspect(|seed| println!("NETCHANNEL_SEED={seed}"))
}

#[test]
fn every_byte_arrives() {
    let mut bulk = 0;
    for seed in seeds(60) {
        let model = run(seed, SHAPE, LOAD);
        bulk += model.hosts.iter().map(|h| h.bulk).sum::<u64>();
    }
    assert!(bulk > 100, "{bulk} bulk chunks");
}

#[test]
fn streams_end_in_every_way() {
    for seed in seeds(60) {
        run(seed, SHAPE, Load { unruly: 4, ..LOAD });
    }
}

#[test]
fn memory_is_short() {
    let mut refused = 0;
    for seed in seeds(60) {
        let shape = Shape {
            slabs_at_start: (seed % 2) as usize,
            max_slabs: 1,
            eager_credit: 65_536,
            window_log2: 20,
            ..SHAPE
        };
        // Nobody stalls for ever here: one slab is not enough for that.
        let model = run(seed, shape, Load { unruly: 16, streams: 12, ..LOAD });
        refused += model.hosts.iter().map(|h| h.refused).sum::<u64>();
    }
    assert!(refused > 50, "{refused} refusals");
}

#[test]
fn channels_die() {
    let mut again = 0;
    for seed in seeds(60) {
        let slabs = 1 + (seed % 3) as usize * 4;
        let shape = Shape { max_slabs: slabs, slabs_at_start: slabs.min(2), ..SHAPE };
        let model = run(seed, shape, Load { deaths: 100, unruly: seed % 3 * 8, ..LOAD });
        again += model.hosts.iter().map(|h| h.again).sum::<u64>();
    }
    assert!(again > 100, "{again} chunks sent again");
}

#[test]
fn large_writes_use_large_windows() {
    for seed in seeds(12) {
        let shape = Shape { window_log2: 21, ..SHAPE };
        run(seed, shape, Load { write_log2: 22, streams: 3, steps: 2_000, ..LOAD });
    }
}

/// A reader that stops never stops another stream, as long as there is memory for windows.
#[test]
fn stalled_readers_stop_nobody() {
    for seed in seeds(4) {
        let shape = Shape { slabs_at_start: 1, max_slabs: 1, window_log2: 21, ..SHAPE };
        let mut model = Model::new(seed, shape);
        for _ in 0..4 {
            let stalled = model.hosts[0].open(80);
            model.hosts[0].write(stalled, 4 << 20);
            model.settle();
        }
        let lively = model.hosts[0].open(80);
        model.hosts[0].write(lively, 8 << 20);
        for _ in 0..100_000 {
            model.settle();
            model.hosts[1].read(model.now, lively, u64::MAX);
            if model.hosts[1].apps[&lively].read == 8 << 20 {
                break;
            }
        }
        assert_eq!(model.hosts[1].apps[&lively].read, 8 << 20);
    }
}

/// Without memory they fall silent, and go on when there is some.
#[test]
fn refused_bytes_wait_for_memory() {
    for seed in seeds(16) {
        let shape = Shape { slabs_at_start: 0, max_slabs: 0, ..SHAPE };
        let mut model = Model::new(seed, shape);
        let ids: Vec<u32> = (0..20).map(|_| model.hosts[0].open(80)).collect();
        for id in &ids {
            model.hosts[0].write(*id, 50_000);
        }
        assert!(model.settle() < 400);
        assert_eq!(model.settle(), 0);
        if seed % 2 == 1 {
            // The refusals may be on a Channel that dies.
            for id in &ids {
                model.hosts[0].write(*id, 1);
            }
            for _ in 0..30 {
                model.step();
            }
            model.kill(0);
            model.settle();
        }
        model.hosts[1].max_slabs = 1;
        model.hosts[1].add_slab();
        for _ in 0..1_000 {
            model.settle();
            ids.iter().for_each(|id| model.hosts[1].read(model.now, *id, u64::MAX));
        }
        assert!(ids.iter().all(|id| model.hosts[1].apps[id].read >= 50_000), "{}", stuck(&model));
        wind_up(&mut model);
    }
}

/// Refusals that were to go through a dead Channel are void.
#[test]
fn refusals_die_with_their_channel() {
    for seed in seeds(16) {
        let shape = Shape { slabs_at_start: 0, max_slabs: 0, ..SHAPE };
        let mut model = Model::new(seed, shape);
        let id = model.hosts[0].open(80);
        model.settle();
        model.hosts[0].write(id, 10_000);
        for _ in 0..3 {
            model.pump(0);
        }
        for channel in 0..model.channels.len() {
            while model.deliver(channel, 0) {}
        }
        assert!(model.hosts[1].streams.owing() > 0, "nothing was refused");
        while let Some(old) = model.channels.iter().position(|c| c.id.0 < shape.channels) {
            model.kill(old);
        }
        assert_eq!(model.hosts[1].streams.owing(), 0);
        model.hosts[1].max_slabs = 1;
        model.hosts[1].add_slab();
        wind_up(&mut model);
    }
}

/// Bytes are refused, and nobody wants them any more: they are sent once more, or given up.
#[test]
fn refused_bytes_that_nobody_wants_end_the_stream() {
    for seed in seeds(16) {
        let shape = Shape { slabs_at_start: 0, max_slabs: 0, ..SHAPE };
        let mut model = Model::new(seed, shape);
        let id = model.hosts[0].open(80);
        model.settle();
        model.hosts[0].write(id, 10_000);
        model.hosts[0].streams.finish(StreamId(id));
        for _ in 0..16 {
            model.pump(0);
        }
        for channel in 0..model.channels.len() {
            while model.deliver(channel, 0) {}
        }
        assert!(model.hosts[1].streams.owing() > 0, "nothing was refused");
        for host in &mut model.hosts {
            host.streams.release(StreamId(id), 7);
            host.apps.get_mut(&id).unwrap().released = true;
        }
        model.settle();
        assert!(model.hosts.iter().all(|host| host.streams.is_empty()), "{}", stuck(&model));
    }
}

/// FIN overtakes the bytes; credit flows on.
#[test]
fn finished_at_once() {
    for seed in seeds(8) {
        let mut model = Model::new(seed, SHAPE);
        let id = model.hosts[0].open(80);
        model.hosts[0].write(id, 3 << 20);
        model.hosts[0].streams.finish(StreamId(id));
        for _ in 0..100_000 {
            model.settle();
            model.hosts[1].read(model.now, id, u64::MAX);
            if model.hosts[1].apps[&id].read == 3 << 20 {
                break;
            }
        }
        let half = model.hosts[1].streams.receive_half(StreamId(id)).unwrap();
        assert_eq!(half.state(), ReceiveState::Complete(StreamOffset::new(3 << 20)));
    }
}

/// Whole paths fall silent; their Channels die one after the other or live on, while windows grow and
/// what says so is lost or late.
#[test]
fn windows_grow_while_paths_fail() {
    let mut again = 0;
    for seed in seeds(150) {
        let shape = Shape { window_log2: 20, ..SHAPE };
        let load = Load { write_log2: 19, streams: 2, deaths: 30, ..LOAD };
        let model = run(seed, shape, load);
        again += model.hosts.iter().map(|h| h.again).sum::<u64>();
    }
    assert!(again > 1_000, "{again} chunks sent again");
}
/// Paths that fail, streams that end in every way and memory that is short, all at once.
#[test]
fn every_trouble_at_once() {
    for seed in seeds(60) {
        let shape = Shape {
            gather: 0,
            channels: 2 + (seed % 4) as u16,
            slabs_at_start: (seed % 2) as usize,
            max_slabs: 1 + (seed % 3) as usize * 2,
            eager_credit: 16_384 << (seed % 3),
            window_log2: 17 + (seed % 5) as u8,
        };
        let (streams, deaths, unruly) = (2 + (seed % 7) as usize, 20 + seed % 50, seed % 4 * 8);
        run(seed, shape, Load { write_log2: 15 + seed % 6, streams, deaths, unruly, ..LOAD });
    }
}
