//! Two engines in one thread, to measure one side at a time: for this project's own benchmarks, no
//! part of what applications use.
//!
//! They talk over the NIC in memory with a clock that moves by fixed steps, so that every run does
//! the same. No thread runs beside the caller's but those that the NIC's control needs.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, Ordering};

use netchannel_units::{Class, GroupId, Timestamp};
use netchannel_verbs::soft::{Clock, Context, SoftOptions};
use netchannel_vns::streams::Role;

use crate::boundary::application::ApplicationId;
use crate::boundary::cell::buffer;
use crate::boundary::port::{Doorbell, What};
use crate::config::Config;
use crate::engine::control::EngineControl;
use crate::engine::harness::{Made, make_channels, start_session};
use crate::engine::slabs::SlabMaker;
use crate::engine::{Drive, Engine};
use crate::shared::Backlog;
use crate::shared::{GroupShared, SessionShared, Shared, StreamSeed};
use crate::sync::lock;

const SERVICE: u16 = 7;
const CHANNELS: u16 = 4;
/// Time from one poll to the next.
const STEP: u64 = 200;
/// Time between two calls: acknowledgements that wait for company have waited long enough.
const PAUSE: u64 = 10_000;
/// Polls after which something is wrong.
const PATIENCE: usize = 10_000;

struct Side {
    engine: Engine<Context>,
    shared: Arc<GroupShared>,
    context: Context,
    clock: Arc<AtomicU64>,
}

/// A sender and a receiver with one stream between them.
pub struct Sides {
    sender: Side,
    receiver: Side,
    ours: StreamSeed,
    theirs: StreamSeed,
    tail: u64,
}

impl Side {
    fn new(clock: &Arc<AtomicU64>, chunk: usize) -> Self {
        let clock = Arc::clone(clock);
        let virtual_clock = Clock::Virtual(Arc::clone(&clock));
        let options = SoftOptions { clock: virtual_clock, ..SoftOptions::default() };
        let context = Context::open(options).expect("a NIC in memory");
        let runtime = Arc::new(Shared::new().expect("shared state"));
        let shared = GroupShared::new(GroupId(1), Class::Throughput, runtime);
        let config = Config { chunk, ..Config::default() };
        let engine = Engine::new(context.clone(), config, Arc::clone(&shared)).expect("an engine");
        Self { engine, shared, context, clock }
    }

    fn start_session(&mut self, role: Role, ours: &Made, theirs: &Made) {
        let session = SessionShared::new(0, SocketAddr::from(([192, 0, 2, 1], 1)));
        let slot = start_session(&mut self.engine, &session, role, 0, ours, theirs);
        // As many as a runtime would bring until the stream's window is as large as it may be.
        for _ in 0..2 {
            let room = session.first_slab_room();
            let slab = self.context.make(&self.shared.runtime.local, room);
            self.engine.add_slab(slot, slab.expect("a slab of windows"));
        }
    }

    fn poll(&mut self) -> bool {
        let now = Timestamp::from_nanos(self.clock.fetch_add(STEP, Ordering::Relaxed));
        self.engine.poll(now)
    }

    fn poll_until_idle(&mut self) {
        self.clock.fetch_add(PAUSE, Ordering::Relaxed);
        let idle = (0..PATIENCE).any(|_| !self.poll());
        assert!(idle, "an engine does not come to rest");
    }
}

impl Sides {
    /// A stream whose chunks have at most `chunk` bytes (0: the usual size).
    pub fn new(chunk: usize) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000));
        let mut sides = [(); 2].map(|()| Side::new(&clock, chunk));
        let made = sides.each_mut().map(|side| make_channels(&mut side.engine, CHANNELS));
        sides[0].start_session(Role::Client, &made[0], &made[1]);
        sides[1].start_session(Role::Server, &made[1], &made[0]);
        let [mut sender, mut receiver] = sides;
        let backlog = Backlog::new();
        lock(&receiver.shared.runtime.listeners).insert(SERVICE, Arc::clone(&backlog));
        let ours = sender
            .engine
            .open_stream(0, ApplicationId::LOCAL, SERVICE, Class::Throughput.into())
            .expect("a stream");
        let theirs = (0..PATIENCE).find_map(|_| {
            sender.poll();
            receiver.poll();
            backlog.pop().expect("the listener is there")
        });
        let theirs = theirs.expect("the stream arrives");
        Self { sender, receiver, ours, theirs, tail: 0 }
    }

    /// The writing application's part: its bytes into the send buffer.
    ///
    /// # Panics
    /// If the other side does not take what was written before.
    pub fn write(&mut self, bytes: &[u8]) {
        let state = self.ours.cell.state();
        let (engine, application) = (&state.engine, &state.application);
        application.buffer_wanted.store(1 << 20, Relaxed);
        let room = || {
            let used = self.tail - engine.confirmed.load(Acquire);
            (1u64 << engine.buffer_log2.load(Relaxed)).saturating_sub(used)
        };
        let ready = |_| {
            match application.buffer_state.load(Acquire) {
                buffer::IDLE if room() >= bytes.len() as u64 => return true,
                buffer::NONE => application.buffer_state.store(buffer::WANTED, Release),
                _ => {}
            }
            self.sender.engine.doorbell(Doorbell { stream: self.ours.key, what: What::Written });
            self.sender.poll_until_idle();
            self.receiver.poll_until_idle();
            false
        };
        assert!((0..PATIENCE).any(ready), "no room in the send buffer");
        let size = 1u64 << engine.buffer_log2.load(Relaxed);
        let place = engine.buffer_place.load(Relaxed);
        let base = self.sender.shared.runtime.local.regions.resolve(place).expect("a send buffer");
        let mut rest = bytes;
        while !rest.is_empty() {
            let at = self.tail & (size - 1);
            let part = rest.len().min((size - at) as usize);
            // SAFETY: `at + part` is inside of the buffer, and the bytes from `confirmed` to `tail`,
            // which the engine may read, are left alone.
            unsafe {
                std::ptr::copy_nonoverlapping(rest.as_ptr(), base.as_ptr().add(at as usize), part);
            }
            rest = &rest[part..];
            self.tail += part as u64;
        }
        application.tail.store(self.tail, Release);
    }

    /// The sender's engine: sends what was written, and takes what came back.
    pub fn send(&mut self) {
        self.sender.engine.doorbell(Doorbell { stream: self.ours.key, what: What::Written });
        self.sender.poll_until_idle();
    }

    /// The receiver's engine: takes what was sent, and what an application that has read all of it
    /// says.
    pub fn receive(&mut self) {
        self.receiver.poll_until_idle();
        let state = self.theirs.cell.state();
        state.application.consumed.store(state.engine.readable.load(Acquire), Release);
        self.receiver.engine.doorbell(Doorbell { stream: self.theirs.key, what: What::Consumed });
        self.receiver.poll_until_idle();
    }

    /// Bytes that the receiver has got in order.
    pub fn received(&self) -> u64 {
        self.theirs.cell.state().engine.readable.load(Acquire)
    }

    /// Bytes that were written into windows, not through receive slots.
    pub fn written_in_place(&self) -> u64 {
        self.sender.shared.counters.moved_by_posting.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_batch_arrives_before_the_next() {
        let mut sides = Sides::new(4_096);
        let bytes = [7; 65_536];
        for batch in 1..=100 {
            sides.write(&bytes);
            sides.send();
            sides.receive();
            sides.send();
            if batch > 2 {
                // The first ones go ahead of the window.
                assert_eq!(sides.received(), batch * 65_536, "batch {batch}");
            }
        }
        assert!(sides.written_in_place() > 90 * 65_536, "{}", sides.written_in_place());
    }
}
