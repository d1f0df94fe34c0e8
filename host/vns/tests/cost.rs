//! What a stream costs: bytes of memory, and allocations per chunk (none).

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use common::{config, frame_of};
use netchannel_units::{ChannelId, Class, StreamOffset, Timestamp};
use netchannel_vns::{ApplicationId, Carried, Form, Role, SlabId, Streams};
use netchannel_wire::{Frame, StreamId};

thread_local! {
    static ALLOCATED: Cell<(u64, i64)> = const { Cell::new((0, 0)) };
}

/// Counts what this thread allocates.
struct Counting;

fn note(bytes: i64) {
    // Nothing is counted while the thread ends.
    let _ = ALLOCATED.try_with(|counts| {
        let (calls, held) = counts.get();
        counts.set((calls + u64::from(bytes > 0), held + bytes));
    });
}

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size() as i64);
        // SAFETY: the caller's promise is the same.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        note(-(layout.size() as i64));
        // SAFETY: the caller's promise is the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const VIA: ChannelId = ChannelId(0);

struct Pair {
    client: Streams,
    server: Streams,
    carried: Vec<Carried>,
    bytes: Vec<u8>,
    now: Timestamp,
}

impl Pair {
    fn new() -> Self {
        let mut server = Streams::new(config(Role::Server));
        (0..4).for_each(|slab| server.add_slab(ApplicationId::LOCAL, SlabId(slab)));
        Self {
            client: Streams::new(config(Role::Client)),
            server,
            carried: Vec::with_capacity(1 << 12),
            bytes: vec![0; 4096],
            now: Timestamp::ZERO,
        }
    }

    /// Moves what there is, in messages that arrive in reverse order if `swap`.
    fn exchange(&mut self, id: StreamId, swap: bool) {
        control(self.now, &mut self.client, &mut self.server);
        while self.client.poll_backlog().is_some() {}
        let mut waiting: Option<Frame<'_>> = None;
        let mut sending = self.client.sending(id).unwrap();
        while let Some(chunk) = sending.next_chunk(65_536) {
            let backlog = sending.backlog_hint(&chunk);
            let frame = match chunk.form {
                Form::Eager => Frame::Data {
                    stream: id,
                    offset: chunk.range.start,
                    backlog,
                    bytes: &self.bytes[..chunk.range.len() as usize],
                },
                Form::Bulk(grant) => {
                    Frame::Written { stream: id, grant: grant.id, range: chunk.range, backlog }
                }
            };
            let carried = sending.on_sent(&chunk);
            self.carried.push(carried);
            match waiting.take() {
                None if swap => waiting = Some(frame),
                before => {
                    self.server.on_frame(self.now, VIA, &frame).unwrap();
                    if let Some(before) = before {
                        self.server.on_frame(self.now, VIA, &before).unwrap();
                    }
                }
            }
        }
        if let Some(last) = waiting {
            self.server.on_frame(self.now, VIA, &last).unwrap();
        }
        while let Some(carried) = self.carried.pop() {
            self.client.on_confirmed(&carried);
        }
        let received = self.server.receive_half(id).unwrap().received();
        assert!(self.server.consume(self.now, id, received));
        control(self.now, &mut self.server, &mut self.client);
        for streams in [&mut self.client, &mut self.server] {
            while streams.poll_touched().is_some() {}
            while streams.poll_incoming().is_some() {}
            while streams.poll_closed().is_some() {}
        }
    }
}

fn control(now: Timestamp, from: &mut Streams, to: &mut Streams) {
    while let Some(outgoing) = from.poll_control() {
        from.on_control_sent(&outgoing.carried, VIA);
        to.on_frame(now, VIA, &frame_of(&outgoing.frame)).unwrap();
        from.on_confirmed(&outgoing.carried);
    }
}

#[test]
fn an_idle_stream_is_small() {
    let before = ALLOCATED.get().1;
    let mut pair = Pair::new();
    const STREAMS: i64 = 10_000;
    for _ in 0..STREAMS {
        let id = pair.client.open(1, Class::Latency).unwrap();
        pair.client.write(id, StreamOffset::new(100)).unwrap();
        pair.exchange(id, false);
    }
    while let Some(at) = pair.server.next_timeout() {
        pair.now = at;
        pair.server.on_timeout(at);
    }
    assert_eq!(
        pair.server.pool(ApplicationId::LOCAL).unwrap().free_bytes(),
        4 << 21,
        "an idle stream holds no window"
    );
    let held = ALLOCATED.get().1 - before;
    let each = held / (2 * STREAMS);
    println!("{each} bytes per idle stream and side");
    assert!(each <= 640, "{each} bytes");
}

#[test]
fn chunks_allocate_nothing() {
    for (write, swap) in [(64, false), (4096, false), (1 << 20, false), (4 << 20, true)] {
        let mut pair = Pair::new();
        let id = pair.client.open(1, Class::Throughput).unwrap();
        let mut tail = 0;
        let mut step = |pair: &mut Pair| {
            tail += write;
            pair.client.write(id, StreamOffset::new(tail)).unwrap();
            pair.exchange(id, swap);
        };
        (0..200).for_each(|_| step(&mut pair));
        let before = ALLOCATED.get().0;
        (0..200).for_each(|_| step(&mut pair));
        let calls = ALLOCATED.get().0 - before;
        assert_eq!(calls, 0, "writes of {write} bytes (swapped: {swap})");
    }
}

/// Time per chunk through both sides; a report, not a limit: machines are shared.
/// `cargo test --release -p netchannel-vns --test cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn time_per_chunk() {
    for (write, chunk) in [(64, 64), (4096, 4096), (1 << 20, 65_536)] {
        let mut best = f64::MAX;
        for _ in 0..9 {
            let mut pair = Pair::new();
            let id = pair.client.open(1, Class::Throughput).unwrap();
            let mut tail = 0;
            let rounds = 100_000 * chunk / write;
            // Bench code may look at a clock; the crate may not.
            #[expect(clippy::disallowed_methods, reason = "a measurement")]
            let start = std::time::Instant::now();
            for _ in 0..rounds {
                tail += write;
                pair.client.write(id, StreamOffset::new(tail)).unwrap();
                pair.exchange(id, false);
            }
            let chunks = (rounds * write / chunk) as f64;
            best = best.min(start.elapsed().as_nanos() as f64 / chunks);
        }
        println!("writes of {write}, chunks of {chunk}: {best:.1} ns per chunk, both sides");
    }
}
