//! The NIC in memory alone, with the requests that the stack makes of a batch of chunks: what a
//! device does by itself, on the processor. To be taken off what the stack costs with it.
//!
//! The sender posts a list of WRITEs and an announcement on each of four queue pairs and takes the
//! completions and acknowledgements of the batch before. The receiver takes the announcements,
//! gives their slots back and acknowledges. Each looks at its queues as often as the engines do.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use netchannel_verbs::queue_pair::{ConnectOptions, QueuePairInit, Service};
use netchannel_verbs::soft::{Clock, Context, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices};
use netchannel_verbs::{
    Access, CompletionQueue, Context as _, LocalSlice, MemoryRegion, QueuePair, ReceiveRequest,
    SendRequest, SharedReceiveQueue, WorkCompletion,
};

use super::stack::{CHUNK, CHUNKS, RING};
use crate::case::{Bench, Case};

/// See the module.
pub const CASES: &[Case] = &[
    Case {
        name: "nic/4-KiB-chunk-sender",
        batch: CHUNKS as u64,
        build: || Box::new(Send(Pair::new())),
    },
    Case {
        name: "nic/4-KiB-chunk-receiver",
        batch: CHUNKS as u64,
        build: || Box::new(Receive(Pair::new())),
    },
];

const QUEUE_PAIRS: usize = 4;
/// Bytes of a receive slot.
const SLOT: usize = 8 << 10;
const SLOTS: usize = 64 * QUEUE_PAIRS;
/// A header, and a frame per chunk.
const ANNOUNCEMENT: u32 = 16 + 32 * (CHUNKS / QUEUE_PAIRS) as u32;
const ACKNOWLEDGEMENT: u32 = 16;
const WHAT: &str = "the NIC in memory";

type Memory = <Context as netchannel_verbs::Context>::MemoryRegion;

struct Side {
    // Dropped in this order: queues go before the memory that they may touch.
    pairs: Vec<<Context as netchannel_verbs::Context>::QueuePair>,
    slots_posted: <Context as netchannel_verbs::Context>::SharedReceiveQueue,
    sends: <Context as netchannel_verbs::Context>::CompletionQueue,
    receives: <Context as netchannel_verbs::Context>::CompletionQueue,
    slots: Memory,
    /// The window of one, the send buffer of the other.
    memory: Memory,
    completions: Vec<WorkCompletion>,
    requests: Vec<ReceiveRequest>,
}

impl Side {
    fn new(clock: &Arc<AtomicU64>) -> Self {
        let clock = Clock::Virtual(Arc::clone(clock));
        let context = Context::open(SoftOptions { clock, ..SoftOptions::default() }).expect(WHAT);
        let sends = context.create_completion_queue(1_024).expect(WHAT);
        let receives = context.create_completion_queue(1_024).expect(WHAT);
        let slots_posted = context.create_shared_receive_queue(SLOTS as u32).expect(WHAT);
        let init = QueuePairInit {
            service: Service::ReliableConnection,
            send_queue: &sends,
            receive_queue: &receives,
            shared_receive_queue: Some(&slots_posted),
            send_capacity: 256,
            receive_capacity: 0,
            inline_bytes: 256,
        };
        let pair = |_| context.create_queue_pair(&init).expect(WHAT);
        let pairs = (0..QUEUE_PAIRS).map(pair).collect();
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
        let memory = context.alloc(RING, access).expect(WHAT);
        let slots = context.alloc(SLOTS * SLOT, Access::LOCAL_WRITE).expect(WHAT);
        let completions = vec![WorkCompletion::default(); 32];
        let requests = Vec::new();
        let mut side =
            Self { pairs, slots_posted, sends, receives, slots, memory, completions, requests };
        (0..SLOTS as u64).for_each(|slot| side.give_back(slot));
        side.repost();
        side
    }

    fn connect(&mut self, peer: &Self) {
        for (pair, peer) in self.pairs.iter_mut().zip(&peer.pairs) {
            pair.connect(&peer.endpoint(), &ConnectOptions::default()).expect(WHAT);
        }
    }

    fn give_back(&mut self, slot: u64) {
        let address = self.slots.as_ptr().as_ptr() as u64 + slot * SLOT as u64;
        let local_key = self.slots.local_key();
        let slice = LocalSlice { address, length: SLOT as u32, local_key };
        self.requests.push(ReceiveRequest { id: slot, local: Slices::one(slice) });
    }

    fn repost(&mut self) {
        // SAFETY: the slots lie in a region that lives as long as the queue, and nobody reads them
        // before their completion.
        unsafe { self.slots_posted.post_receive(&self.requests) }.expect(WHAT);
        self.requests.clear();
    }

    /// Takes what there is of both kinds. Returns the number of messages.
    fn poll(&mut self, sends_too: bool) -> usize {
        let found = self.receives.poll(&mut self.completions).expect(WHAT);
        for at in 0..found {
            self.give_back(self.completions[at].id);
        }
        if sends_too {
            self.sends.poll(&mut self.completions).expect(WHAT);
        }
        if found > 0 {
            self.repost();
        }
        found
    }

    fn slice(&self, at: usize, length: u32) -> Slices {
        let address = self.memory.as_ptr().as_ptr() as u64 + at as u64;
        Slices::one(LocalSlice { address, length, local_key: self.memory.local_key() })
    }

    /// A message whose bytes leave while it is posted.
    fn message(&self, length: u32, signaled: bool) -> SendRequest {
        let (operation, local) = (SendOperation::Send, self.slice(0, length));
        SendRequest { id: 7, operation, local, signaled, inline: true, solicited: false }
    }

    fn post(&mut self, pair: usize, requests: &[SendRequest]) {
        // SAFETY: inline requests alone, from a region that lives as long as the queue pair.
        unsafe { self.pairs[pair].post_send(requests) }.expect(WHAT);
    }
}

struct Pair {
    sender: Side,
    receiver: Side,
    /// Where in the rings the next batch goes.
    at: usize,
    list: Vec<SendRequest>,
}

impl Pair {
    fn new() -> Self {
        let clock = Arc::new(AtomicU64::new(1_000));
        let (mut sender, mut receiver) = (Side::new(&clock), Side::new(&clock));
        sender.connect(&receiver);
        receiver.connect(&sender);
        Self { sender, receiver, at: 0, list: Vec::new() }
    }

    fn send(&mut self) {
        self.sender.poll(true);
        for pair in 0..QUEUE_PAIRS {
            self.list.clear();
            for _ in 0..CHUNKS / QUEUE_PAIRS {
                let target = &self.receiver.memory;
                let address = target.remote_address() + self.at as u64;
                let operation = SendOperation::Write { address, key: target.remote_key() };
                let local = self.sender.slice(self.at, CHUNK as u32);
                let signaled = false;
                let request = SendRequest {
                    id: 7,
                    operation,
                    local,
                    signaled,
                    inline: true,
                    solicited: false,
                };
                self.list.push(request);
                self.at = (self.at + CHUNK) % RING;
            }
            self.list.push(self.sender.message(ANNOUNCEMENT, true));
            self.sender.post(pair, &self.list);
        }
        self.sender.poll(true);
    }

    fn receive(&mut self) {
        let arrived = self.receiver.poll(false);
        assert_eq!(arrived, QUEUE_PAIRS, "messages of a batch");
        for pair in 0..QUEUE_PAIRS {
            let message = self.receiver.message(ACKNOWLEDGEMENT, false);
            self.receiver.post(pair, &[message]);
        }
        // The pass that finds nothing, the one in which the application reads, and the last.
        (0..3).for_each(|_| {
            self.receiver.poll(false);
        });
    }
}

struct Send(Pair);

impl Bench for Send {
    fn measured(&mut self) {
        self.0.send();
    }
    fn finish(&mut self) {
        self.0.receive();
        // Acknowledgements complete now and then.
        self.0.receiver.poll(true);
    }
}

struct Receive(Pair);

impl Bench for Receive {
    fn prepare(&mut self) {
        self.0.send();
    }
    fn measured(&mut self) {
        self.0.receive();
    }
    fn finish(&mut self) {
        self.0.receiver.poll(true);
    }
}
