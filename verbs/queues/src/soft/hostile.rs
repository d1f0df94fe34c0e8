//! A peer that writes rubbish into everything that it shares with us: an error, never a panic, never
//! an access outside of what was mapped.

use std::sync::atomic::{AtomicU32, Ordering};

use super::context::Context;
use super::options::SoftOptions;
use super::queue_pair::QueuePair;
use super::random::Random;
use super::wire_ring::Ring;
use super::{CompletionQueue, MemoryRegion};
use crate::queue_pair::{ConnectOptions, QueuePairInit, QueuePairState, Service};
use crate::work::{LocalSlice, ReceiveRequest, SendOperation, SendRequest, Slices};
use crate::{
    Access, CompletionQueue as _, Context as _, MemoryRegion as _, QueuePair as _, WorkCompletion,
};

struct Side {
    queue_pair: QueuePair,
    queue: CompletionQueue,
    memory: MemoryRegion,
}

const MEMORY: usize = 1 << 20;

impl Side {
    fn new(context: &Context) -> Self {
        let queue = context.create_completion_queue(256).unwrap();
        let queue_pair = context
            .create_queue_pair(&QueuePairInit {
                service: Service::ReliableConnection,
                send_queue: &queue,
                receive_queue: &queue,
                shared_receive_queue: None,
                send_capacity: 64,
                receive_capacity: 64,
                inline_bytes: 0,
            })
            .unwrap();
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE | Access::REMOTE_READ;
        Self { queue_pair, queue, memory: context.alloc(MEMORY, access).unwrap() }
    }

    fn slice(&self, length: u32) -> Slices {
        let address = self.memory.as_ptr().as_ptr() as u64;
        Slices::one(LocalSlice { address, length, local_key: self.memory.local_key() })
    }

    /// Posts and polls whatever goes; results do not matter.
    fn work(&mut self, random: &mut Random, peer: (u64, crate::RemoteKey)) {
        let length = random.below(200_000) as u32;
        let address = peer.0 + random.below(MEMORY as u64);
        let operation = match random.below(4) {
            0 => SendOperation::Write { address: peer.0, key: peer.1 },
            1 => SendOperation::Read { address: peer.0, key: peer.1 },
            2 if random.below(50) == 0 => SendOperation::Write { address, key: peer.1 },
            _ => SendOperation::Send,
        };
        let send = SendRequest {
            id: 1,
            operation,
            local: self.slice(length),
            signaled: true,
            inline: false,
            solicited: false,
        };
        let receive = ReceiveRequest { id: 2, local: self.slice(MEMORY as u32) };
        // SAFETY: the memory lives as long as the queue pair, in this struct; its bytes do not matter.
        unsafe {
            let _ = self.queue_pair.post_send(&[send]);
            let _ = self.queue_pair.post_receive(&[receive]);
        }
        self.queue.poll(&mut [WorkCompletion::default(); 16]).unwrap();
    }
}

/// Writes one random word, more often where the indices and slots are than elsewhere.
fn scribble(ring: &Ring, random: &mut Random) {
    let map = ring.bytes();
    let area = match random.below(4) {
        0 => 64,
        1 => 256,
        2 => 4096 + 64 * 512,
        _ => map.len(),
    };
    let offset = random.below(area as u64 / 4) as usize * 4;
    let value = match random.below(4) {
        0 => random.below(8) as u32,
        1 => 0x8000_0000 | random.below(4) as u32,
        _ => random.next() as u32,
    };
    map.at::<AtomicU32>(offset).unwrap().store(value, Ordering::Release);
}

#[test]
fn rubbish_in_the_rings_ends_in_an_error_and_nothing_worse() {
    let mut random = Random::new(7);
    let (mut failed, rounds) = (0, 300);
    let a = Context::open(SoftOptions::default()).unwrap();
    let b = Context::open(SoftOptions::default()).unwrap();
    for _ in 0..rounds {
        let (mut a, mut b) = (Side::new(&a), Side::new(&b));
        let options = ConnectOptions::default();
        a.queue_pair.connect(&b.queue_pair.endpoint(), &options).unwrap();
        b.queue_pair.connect(&a.queue_pair.endpoint(), &options).unwrap();
        let of_a = (a.memory.remote_address(), a.memory.remote_key());
        let of_b = (b.memory.remote_address(), b.memory.remote_key());
        for step in 0..60 {
            a.work(&mut random, of_b);
            b.work(&mut random, of_a);
            if step > 10 {
                for _ in 0..random.below(20) {
                    // Both directions: rubbish for the receiver and for the sender of B.
                    scribble(a.queue_pair.outgoing().unwrap(), &mut random);
                    scribble(a.queue_pair.incoming(), &mut random);
                }
            }
        }
        // Else closing waits its time for a peer that claims to be in the middle of a copy.
        for side in [&a, &b] {
            side.queue_pair.incoming().writing().store(0, Ordering::Release);
        }
        failed += usize::from(b.queue_pair.state().unwrap() == QueuePairState::Error);
    }
    assert!(failed > rounds / 2, "only {failed} of {rounds} noticed anything");
}
