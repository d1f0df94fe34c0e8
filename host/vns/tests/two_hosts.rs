//! A model of two hosts: every byte read is the byte written, whatever the Channels do. A failure
//! names its seed; `NETCHANNEL_SEED` runs that alone.
#![allow(unreachable_pub, reason = "a test has no users")]

mod common;
mod model;

use model::run::{Load, run, stuck, wind_up};
use model::{Model, Shape};
use netchannel_units::StreamOffset;
use netchannel_vns::receive::ReceiveState;
use netchannel_wire::StreamId;

const SHAPE: Shape = Shape {
    channels: 4,
    slabs_at_start: 4,
    max_slabs: 16,
    eager_credit: 16_384,
    window_log2: 18,
    credits_per_window: 4,
};
const LOAD: Load = Load { steps: 3_000, streams: 6, write_log2: 17, unruly: 0, deaths: 0 };

fn seeds(count: u64) -> impl Iterator<Item = u64> {
    let one = std::env::var("NETCHANNEL_SEED").ok().and_then(|seed| seed.parse().ok());
    let (from, to) = one.map_or((0, count), |seed: u64| (seed, seed + 1));
    (from..to).inspect(|seed| println!("NETCHANNEL_SEED={seed}"))
}

/// The second host's application reads its stream up to here.
fn read_until(model: &mut Model, id: u32, end: u64) {
    for _ in 0..100_000 {
        model.settle();
        model.hosts[1].read(model.now, id, u64::MAX);
        if model.hosts[1].apps[&id].read == end {
            break;
        }
    }
    assert_eq!(model.hosts[1].apps[&id].read, end);
}

/// A host without memory that just refused bytes of a stream; whether that is all of them.
fn refused(seed: u64, finish: bool) -> (Model, u32) {
    let mut model = Model::new(seed, Shape { slabs_at_start: 0, max_slabs: 0, ..SHAPE });
    let id = model.hosts[0].open(80);
    model.settle();
    model.hosts[0].write(id, 10_000);
    if finish {
        model.hosts[0].streams.finish(StreamId(id));
    }
    for _ in 0..if finish { 16 } else { 3 } {
        model.pump(0);
    }
    for channel in 0..model.channels.len() {
        while model.deliver(channel, 0) {}
    }
    assert!(model.hosts[1].streams.owing() > 0, "nothing was refused");
    (model, id)
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
        read_until(&mut model, lively, 8 << 20);
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
        let (mut model, _) = refused(seed, false);
        while let Some(old) = model.channels.iter().position(|c| c.id.0 < SHAPE.channels) {
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
        let (mut model, id) = refused(seed, true);
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
        read_until(&mut model, id, 3 << 20);
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
            credits_per_window: 1 + seed % 4,
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
