//! What the checks share: a connected pair of queue pairs with memory on both sides.

use std::time::{Duration, Instant};

use crate::completion::CompletionQueue as _;
use crate::context::Context;
use crate::datagram::{Datagram, DatagramOptions};
use crate::error::PostError;
use crate::memory::{Access, MemoryRegion as _};
use crate::queue_pair::{ConnectOptions, QueuePair as _, QueuePairInit, Service};
use crate::work::{
    LocalSlice, ReceiveRequest, SendOperation, SendRequest, Slices, Status, WorkCompletion,
};

/// For one step; emulated devices stop for seconds.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of each side's memory.
pub(super) const MEMORY: usize = 8 << 20;
/// Requests per queue.
pub(super) const DEPTH: u32 = 64;

/// Makes an error of this module's kind out of any other.
pub(super) fn say<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> String + '_ {
    move |error| format!("{what}: {error}")
}

/// Fails the check unless `condition` holds.
macro_rules! ensure {
    ($condition:expr, $($message:tt)+) => {
        if !$condition {
            return Err(format!($($message)+));
        }
    };
}
pub(super) use ensure;

/// One side of a connection.
pub(super) struct Side<C: Context> {
    pub(super) queue_pair: C::QueuePair,
    pub(super) queue: C::CompletionQueue,
    pub(super) memory: C::MemoryRegion,
    /// Completions polled and not yet asked for.
    seen: Vec<WorkCompletion>,
}

/// Two connected sides.
pub(super) struct Pair<C: Context> {
    pub(super) a: Side<C>,
    pub(super) b: Side<C>,
}

/// Options with which failures show soon.
pub(super) fn hasty() -> ConnectOptions {
    ConnectOptions {
        ack_timeout: Duration::from_micros(1049),
        retries: 3,
        ..ConnectOptions::default()
    }
}

impl<C: Context> Pair<C> {
    pub(super) fn new(a: &C, b: &C) -> Result<Self, String> {
        Self::with(a, b, &ConnectOptions::default())
    }

    pub(super) fn with(a: &C, b: &C, options: &ConnectOptions) -> Result<Self, String> {
        let (mut a, mut b) = (Side::new(a)?, Side::new(b)?);
        a.connect(&b, options)?;
        b.connect(&a, options)?;
        Ok(Self { a, b })
    }

    /// Polls both sides until `done` or until time is up.
    pub(super) fn until(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Side<C>, &mut Side<C>) -> bool,
    ) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.a.poll()?;
            self.b.poll()?;
            if done(&mut self.a, &mut self.b) {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{what}: nothing within {PATIENCE:?}");
            std::thread::yield_now();
        }
    }

    /// Waits for the completion of request `id` on side A while both are polled.
    pub(super) fn wait_a(&mut self, id: u64) -> Result<WorkCompletion, String> {
        self.wait(id, |a, _| a)
    }

    /// The same on side B.
    pub(super) fn wait_b(&mut self, id: u64) -> Result<WorkCompletion, String> {
        self.wait(id, |_, b| b)
    }

    fn wait(
        &mut self,
        id: u64,
        side: impl for<'s> Fn(&'s mut Side<C>, &'s mut Side<C>) -> &'s mut Side<C>,
    ) -> Result<WorkCompletion, String> {
        let mut found = None;
        self.until(&format!("completion of request {id}"), |a, b| {
            found = side(a, b).take(id);
            found.is_some()
        })?;
        found.ok_or_else(|| "lost a completion".into())
    }

    /// Polls both sides for a while, for what should *not* happen: often enough, also where this thread
    /// does not run for as long.
    pub(super) fn poll_for(&mut self, time: Duration) -> Result<(), String> {
        const POLLS: usize = 100;
        let end = Instant::now() + time;
        let mut late = 0;
        while late < POLLS {
            late += usize::from(Instant::now() >= end);
            self.a.poll()?;
            self.b.poll()?;
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl<C: Context> Side<C> {
    pub(super) fn new(context: &C) -> Result<Self, String> {
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ;
        Self::with_access(context, access)
    }

    pub(super) fn with_access(context: &C, access: Access) -> Result<Self, String> {
        Self::make(context, access, Service::ReliableConnection)
    }

    /// One that sends and receives datagrams.
    pub(super) fn datagrams(context: &C, queue_key: u32) -> Result<Self, String> {
        let mut side = Self::make(context, Access::LOCAL_WRITE, Service::UnreliableDatagram)?;
        side.queue_pair.activate(&DatagramOptions { queue_key }).map_err(say("activate"))?;
        Ok(side)
    }

    pub(super) fn make(context: &C, access: Access, service: Service) -> Result<Self, String> {
        let queue = context.create_completion_queue(4 * DEPTH).map_err(say("completion queue"))?;
        let inline = context.attributes().max_inline.min(64);
        let queue_pair = context
            .create_queue_pair(&QueuePairInit {
                service,
                send_queue: &queue,
                receive_queue: &queue,
                shared_receive_queue: None,
                send_capacity: DEPTH,
                receive_capacity: DEPTH,
                inline_bytes: inline,
            })
            .map_err(say("queue pair"))?;
        let memory = context.alloc(MEMORY, access).map_err(say("memory"))?;
        Ok(Self { queue_pair, queue, memory, seen: Vec::new() })
    }

    pub(super) fn connect(&mut self, peer: &Self, options: &ConnectOptions) -> Result<(), String> {
        self.queue_pair.connect(&peer.queue_pair.endpoint(), options).map_err(say("connect"))
    }

    /// Polls once; what came waits in `seen`.
    pub(super) fn poll(&mut self) -> Result<usize, String> {
        let mut batch = [WorkCompletion::default(); 16];
        let found = self.queue.poll(&mut batch).map_err(say("poll"))?;
        self.seen.extend_from_slice(&batch[..found]);
        Ok(found)
    }

    /// Takes the completion of request `id`, if it was seen.
    pub(super) fn take(&mut self, id: u64) -> Option<WorkCompletion> {
        let at = self.seen.iter().position(|completion| completion.id == id)?;
        Some(self.seen.remove(at))
    }

    /// Takes everything seen.
    pub(super) fn take_all(&mut self) -> Vec<WorkCompletion> {
        std::mem::take(&mut self.seen)
    }

    pub(super) fn has_seen(&self) -> bool {
        !self.seen.is_empty()
    }

    /// `length` bytes of this side's memory from `offset` on.
    pub(super) fn slice(&self, offset: usize, length: usize) -> LocalSlice {
        assert!(offset + length <= self.memory.len(), "a mistake of the suite");
        LocalSlice {
            address: self.memory.as_ptr().as_ptr() as u64 + offset as u64,
            length: length as u32,
            local_key: self.memory.local_key(),
        }
    }

    /// A WRITE to `offset` of the peer's memory `to`.
    pub(super) fn write_to(to: &Side<C>, offset: usize) -> SendOperation {
        let address = to.memory.remote_address() + offset as u64;
        SendOperation::Write { address, key: to.memory.remote_key() }
    }

    /// A READ from `offset` of the peer's memory `from`.
    pub(super) fn read_from(from: &Side<C>, offset: usize) -> SendOperation {
        let address = from.memory.remote_address() + offset as u64;
        SendOperation::Read { address, key: from.memory.remote_key() }
    }

    pub(super) fn send(&mut self, request: SendRequest) -> Result<(), String> {
        self.try_send(&[request]).map_err(say("post_send"))
    }

    pub(super) fn try_send(&mut self, requests: &[SendRequest]) -> Result<(), PostError> {
        // SAFETY: the slices lie in `self.memory` (or are invalid on purpose, for the device to find
        // out), which outlives the queue pair's requests: fields drop in order, queue pair first.
        unsafe { self.queue_pair.post_send(requests) }
    }

    pub(super) fn try_datagrams(
        &mut self,
        datagrams: &[Datagram<'_, C::AddressHandle>],
    ) -> Result<(), PostError> {
        // SAFETY: as in `try_send`; the checks drop handles after the completions, or the sides.
        unsafe { self.queue_pair.post_datagrams(datagrams) }
    }

    pub(super) fn receive(&mut self, id: u64, slices: &[LocalSlice]) -> Result<(), String> {
        let request = ReceiveRequest { id, local: slices_of(slices) };
        // SAFETY: as in `try_send`.
        unsafe { self.queue_pair.post_receive(&[request]) }.map_err(say("post_receive"))
    }

    /// Fills `length` bytes from `offset` on with a pattern that `seed` decides.
    pub(super) fn fill(&self, offset: usize, length: usize, seed: u64) {
        assert!(offset + length <= self.memory.len(), "a mistake of the suite");
        for (i, byte) in pattern(seed).take(length).enumerate() {
            // SAFETY: in bounds (asserted); no request that is under way covers these bytes.
            unsafe { self.memory.as_ptr().as_ptr().add(offset + i).write_volatile(byte) };
        }
    }

    /// Whether the bytes are those of `fill` with this seed; says where they differ.
    pub(super) fn check(&self, offset: usize, length: usize, seed: u64) -> Result<(), String> {
        assert!(offset + length <= self.memory.len(), "a mistake of the suite");
        for (i, expected) in pattern(seed).take(length).enumerate() {
            let found = self.byte(offset + i);
            ensure!(
                found == expected,
                "byte {i} of {length} at offset {offset} is {found:#04x}, not {expected:#04x}"
            );
        }
        Ok(())
    }

    pub(super) fn byte(&self, offset: usize) -> u8 {
        assert!(offset < self.memory.len(), "a mistake of the suite");
        // SAFETY: in bounds; a volatile read of memory that the peer may write.
        unsafe { self.memory.as_ptr().as_ptr().add(offset).read_volatile() }
    }
}

/// Bytes that look random and that `seed` decides.
pub(super) fn pattern(seed: u64) -> impl Iterator<Item = u8> {
    let mut random = Chance::new(seed);
    std::iter::repeat_with(move || random.next().to_le_bytes()).flatten()
}

/// A small generator (xorshift64*), so that checks repeat.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() >> 16) as usize % bound
    }
}

pub(super) fn slices_of(slices: &[LocalSlice]) -> Slices {
    let mut all = Slices::default();
    slices.iter().for_each(|slice| all.push(*slice));
    all
}

/// A signalled request that is not inline.
pub(super) fn request(id: u64, operation: SendOperation, slices: &[LocalSlice]) -> SendRequest {
    let local = slices_of(slices);
    SendRequest { id, operation, local, signaled: true, inline: false, solicited: false }
}

pub(super) fn expect(completion: &WorkCompletion, allowed: &[Status]) -> Result<(), String> {
    ensure!(
        allowed.contains(&completion.status),
        "request {} ended as {:?} (vendor {:#x}), allowed: {allowed:?}",
        completion.id,
        completion.status,
        completion.vendor_error
    );
    Ok(())
}

pub(super) fn expect_success(completion: &WorkCompletion) -> Result<(), String> {
    expect(completion, &[Status::Success])
}
