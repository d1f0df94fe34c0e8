//! Runs of the model: what applications and Channels do by chance, and what must be so in the end.

use netchannel_units::Duration;
use netchannel_vns::ApplicationId;
use netchannel_vns::receive::ReceiveState;
use netchannel_wire::StreamId;

use super::host::{REFUSED_SERVICE, SLAB};
use super::network::side;
use super::{Model, Shape};

/// Milliseconds after which a stream is certainly idle.
const PAUSE: u64 = 1_000;

/// What the applications of a run do.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub steps: u32,
    pub streams: usize,
    pub write_log2: u64,
    /// One stream in so many is given up in some way; 0 for none.
    pub unruly: u64,
    /// One step in so many kills a Channel, and one in four times as many a path; 0 for none.
    pub deaths: u64,
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

pub fn run(seed: u64, shape: Shape, load: Load) -> Model {
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
pub fn wind_up(model: &mut Model) {
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
            let peer = &model.hosts[1 - side(host.role)];
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
            slabs * SLAB as u64
        );
        assert_eq!(host.streams.owing(), 0);
    }
    for host in &mut model.hosts {
        host.streams.on_timeout(model.now + Duration::from_millis(PAUSE));
        assert_eq!(host.streams.next_timeout(), None);
        assert!(host.streams.poll_control().is_none());
    }
}

pub fn stuck(model: &Model) -> String {
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
