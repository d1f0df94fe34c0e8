//! A peer that writes rubbish into everything that it shares with us: an error, never a panic, never
//! an access outside of what was mapped.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::context::Context;
use super::options::SoftOptions;
use super::queue_pair::QueuePair;
use super::random::Random;
use super::wire_ring::Ring;
use super::{CompletionQueue, MemoryRegion};
use crate::datagram::{Datagram, DatagramEndpoint, DatagramOptions};
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
const KEY: u32 = 5;

impl Side {
    fn new(context: &Context) -> Self {
        Self::of(context, Service::ReliableConnection)
    }

    fn datagrams(context: &Context) -> Self {
        let mut side = Self::of(context, Service::UnreliableDatagram);
        side.queue_pair.activate(&DatagramOptions { queue_key: KEY }).unwrap();
        side
    }

    fn of(context: &Context, service: Service) -> Self {
        let queue = context.create_completion_queue(256).unwrap();
        let queue_pair = context
            .create_queue_pair(&QueuePairInit {
                service,
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
        0 => 72,
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

/// Publishes a slot of the first turn that says anything, somewhere.
fn forge_slot(ring: &Ring, random: &mut Random) {
    let offset = 4096 + 64 * random.below(512) as usize;
    let small = |random: &mut Random| random.next() >> random.below(64);
    let words = [0x8000_0000 | small(random) << 32, small(random), small(random), small(random)];
    for (i, word) in words.into_iter().enumerate().rev() {
        ring.bytes().at::<AtomicU64>(offset + 8 * i).unwrap().store(word, Ordering::Release);
    }
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

/// Sends to `peer` along `handle` and posts receives, enough for the turns of two senders; what was
/// received.
fn exchange(
    side: &mut Side,
    handle: &super::AddressHandle,
    peer: &DatagramEndpoint,
    length: u32,
) -> Vec<WorkCompletion> {
    let request = SendRequest {
        id: 1,
        operation: SendOperation::SendWithImmediate(length),
        local: side.slice(length),
        signaled: false,
        inline: false,
        solicited: false,
    };
    let receive = ReceiveRequest { id: 2, local: side.slice(8192) };
    // SAFETY: the memory lives as long as the queue pair, in this struct; its bytes do not matter.
    unsafe {
        let _ = side.queue_pair.post_datagrams(&[Datagram::to(peer, handle, request)]);
        let _ = side.queue_pair.post_receive(&[receive; 48]);
    }
    let mut batch = [WorkCompletion::default(); 64];
    let found = side.queue.poll(&mut batch).unwrap();
    batch[..found].to_vec()
}

#[test]
fn rubbish_in_a_ring_of_datagrams_harms_its_own_sender_alone() {
    let mut random = Random::new(11);
    let nics = [0, 1, 2]
        .map(|seed| Context::open(SoftOptions { seed, ..SoftOptions::default() }).unwrap());
    let mut cut_off = 0;
    for round in 0..50 {
        let [mut hostile, mut good, mut receiver] = nics.each_ref().map(Side::datagrams);
        let peer = DatagramEndpoint::parse(&receiver.queue_pair.endpoint()).unwrap();
        let [by_hostile, by_good] =
            [&nics[0], &nics[1]].map(|nic| nic.create_address_handle(&peer.address()).unwrap());
        let own = nics[2].create_address_handle(&peer.address()).unwrap();
        let number = good.queue_pair.number();
        let mut from_good = 0;
        let start = Instant::now();
        let mut step = 0;
        // The service threads have their part, on a machine that others use.
        while from_good < 200 && start.elapsed() < Duration::from_secs(30) {
            step += 1;
            exchange(&mut hostile, &by_hostile, &peer, random.below(4097) as u32);
            exchange(&mut good, &by_good, &peer, 100);
            for completion in exchange(&mut receiver, &own, &peer, 8) {
                assert!(completion.status.is_success(), "{completion:?}");
                assert!(completion.bytes <= 4096 + 40, "{completion:?}");
                if completion.source_queue_pair == number {
                    assert_eq!((completion.bytes, completion.immediate), (140, Some(100)));
                    from_good += 1;
                }
            }
            if step > 10 {
                hostile.queue_pair.with_datagram_rings(|ring| {
                    let write = if round % 2 == 0 { scribble } else { forge_slot };
                    (0..random.below(30)).for_each(|_| write(ring, &mut random));
                });
            }
            std::thread::yield_now();
        }
        assert!(from_good >= 200, "only {from_good} of the good sender arrived");
        assert_eq!(receiver.queue_pair.state().unwrap(), QueuePairState::ReadyToSend);
        cut_off += receiver.queue_pair.datagram_statistics().unwrap().malformed;
    }
    assert!(cut_off > 20, "only {cut_off} noticed");
}
