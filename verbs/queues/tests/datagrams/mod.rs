//! Queue pairs that exchange datagrams on the NIC in memory.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::time::{Duration, Instant};

use netchannel_verbs::datagram::{Datagram, DatagramEndpoint, DatagramOptions};
use netchannel_verbs::queue_pair::{QueuePairInit, Service};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices};
use netchannel_verbs::{
    Access, AddressVector, CompletionQueue as _, Context as _, Grh, LocalSlice, MemoryRegion as _,
    PostError, QueuePair as _, ReceiveRequest, SendRequest, WorkCompletion,
};

pub(crate) const KEY: u32 = 77;
pub(crate) const SLOT: usize = 8192;
pub(crate) const SLOTS: usize = 64;
/// For what other threads do; nothing takes that long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Side {
    pub(crate) queue_pair: soft::QueuePair,
    pub(crate) queue: soft::CompletionQueue,
    pub(crate) memory: soft::MemoryRegion,
}

pub(crate) fn init(queue: &soft::CompletionQueue) -> QueuePairInit<'_, soft::Context> {
    QueuePairInit {
        service: Service::UnreliableDatagram,
        send_queue: queue,
        receive_queue: queue,
        shared_receive_queue: None,
        send_capacity: SLOTS as u32,
        receive_capacity: SLOTS as u32,
        inline_bytes: 0,
    }
}

impl Side {
    pub(crate) fn new(nic: &soft::Context) -> Self {
        let queue = nic.create_completion_queue(256).unwrap();
        let mut queue_pair = nic.create_queue_pair(&init(&queue)).unwrap();
        queue_pair.activate(&DatagramOptions { queue_key: KEY }).unwrap();
        let memory = nic.alloc(SLOT * SLOTS, Access::LOCAL_WRITE).unwrap();
        Self { queue_pair, queue, memory }
    }

    pub(crate) fn slices(&self, slot: usize, length: usize) -> Slices {
        assert!(slot < SLOTS && length <= SLOT);
        let address = self.memory.as_ptr().as_ptr() as u64 + (slot * SLOT) as u64;
        let local_key = self.memory.local_key();
        Slices::one(LocalSlice { address, length: length as u32, local_key })
    }

    pub(crate) fn bytes(&self, slot: usize, length: usize) -> Vec<u8> {
        assert!(slot < SLOTS && length <= SLOT);
        (slot * SLOT..slot * SLOT + length)
            // SAFETY: in bounds.
            .map(|at| unsafe { self.memory.as_ptr().as_ptr().add(at).read_volatile() })
            .collect()
    }

    pub(crate) fn fill(&self, slot: usize, length: usize, byte: u8) {
        assert!(slot < SLOTS && length <= SLOT);
        // SAFETY: in bounds; a test that breaks the rules of reuse does so on one thread.
        unsafe { self.memory.as_ptr().as_ptr().add(slot * SLOT).write_bytes(byte, length) };
    }

    pub(crate) fn grh(&self, slot: usize) -> Grh {
        Grh::parse(&self.bytes(slot, Grh::LEN).try_into().unwrap()).unwrap()
    }

    pub(crate) fn receive(&mut self, slot: usize, length: usize) {
        let request = ReceiveRequest { id: slot as u64, local: self.slices(slot, length) };
        // SAFETY: the memory lives as long as the queue pair, in this struct.
        unsafe { self.queue_pair.post_receive(&[request]) }.unwrap();
    }

    pub(crate) fn send(&mut self, way: &Way, number: u32, length: usize) -> Result<(), PostError> {
        let request = SendRequest {
            id: number.into(),
            operation: SendOperation::SendWithImmediate(number),
            local: self.slices(0, length),
            signaled: true,
            inline: false,
            solicited: false,
        };
        let Way { handle, peer } = way;
        // SAFETY: as in `receive`, and the tests keep their handles.
        unsafe { self.queue_pair.post_datagrams(&[Datagram::to(peer, handle, request)]) }
    }

    pub(crate) fn poll(&mut self) -> Vec<WorkCompletion> {
        let mut batch = [WorkCompletion::default(); 64];
        let found = self.queue.poll(&mut batch).unwrap();
        batch[..found].to_vec()
    }

    pub(crate) fn statistics(&self) -> soft::DatagramStatistics {
        self.queue_pair.datagram_statistics().unwrap()
    }
}

pub(crate) struct Way {
    pub(crate) handle: soft::AddressHandle,
    pub(crate) peer: DatagramEndpoint,
}

pub(crate) fn way(from: &soft::Context, to: &Side, traffic_class: u8) -> Way {
    let peer = DatagramEndpoint::parse(&to.queue_pair.endpoint()).unwrap();
    let address = AddressVector { traffic_class, ..peer.address() };
    Way { handle: from.create_address_handle(&address).unwrap(), peer }
}

pub(crate) fn open(options: SoftOptions) -> soft::Context {
    soft::Context::open(options).unwrap()
}

/// Polls until `done` says so.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// Two sides at once, which know each other already, and the way to the second.
pub(crate) fn acquainted(options: SoftOptions) -> (soft::Context, Side, Side, Way) {
    let (nic, other) = (open(options.clone()), open(options));
    let (mut a, mut b) = (Side::new(&nic), Side::new(&other));
    let to_b = way(&nic, &b, 0);
    b.receive(0, SLOT);
    a.send(&to_b, 0, 1).unwrap();
    let mut sent = 0;
    until("no ring", || {
        sent += a.poll().len();
        !b.poll().is_empty()
    });
    until("not sent", || {
        sent += a.poll().len();
        sent == 1
    });
    (nic, a, b, to_b)
}
