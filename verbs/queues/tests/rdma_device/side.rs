//! One end of a connection over a device.

use std::time::{Duration, Instant};

use netchannel_verbs::queue_pair::{ConnectOptions, QueuePairInit, Service};
use netchannel_verbs::rdma::{self, OpenOptions};
use netchannel_verbs::work::{SendOperation, Slices, Status};
use netchannel_verbs::{
    Access, CompletionQueue, Context, LocalSlice, MemoryRegion, PostError, QueuePair,
    ReceiveRequest, SendRequest, WorkCompletion,
};

/// Emulated guests are slow; nothing here takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) fn open() -> rdma::Context {
    let devices = rdma::devices().unwrap();
    let name = std::env::var("NETCHANNEL_RDMA_DEVICE").unwrap_or_else(|_| devices[0].name.clone());
    rdma::Context::open(&name, &OpenOptions::default()).unwrap()
}

pub(crate) struct Side {
    pub(crate) queue: rdma::CompletionQueue,
    pub(crate) memory: rdma::MemoryRegion,
    pub(crate) pair: rdma::QueuePair,
}

impl Side {
    pub(crate) fn new(context: &rdma::Context, shared: Option<&rdma::SharedReceiveQueue>) -> Self {
        Self::with_capacity(context, shared, 64)
    }

    pub(crate) fn with_capacity(
        context: &rdma::Context,
        shared: Option<&rdma::SharedReceiveQueue>,
        capacity: u32,
    ) -> Self {
        let queue = context.create_completion_queue(4 * capacity).unwrap();
        let init = QueuePairInit {
            service: Service::ReliableConnection,
            send_queue: &queue,
            receive_queue: &queue,
            shared_receive_queue: shared,
            send_capacity: capacity,
            receive_capacity: capacity,
            inline_bytes: 64,
        };
        let pair = context.create_queue_pair(&init).unwrap();
        let memory = context.alloc(65_536, Access::all()).unwrap();
        Self { queue, memory, pair }
    }

    pub(crate) fn slice(&self, offset: u64, length: u32) -> Slices {
        let address = self.memory.as_ptr().addr().get() as u64 + offset;
        Slices::one(LocalSlice { address, length, local_key: self.memory.local_key() })
    }

    pub(crate) fn send(&self, id: u64, operation: SendOperation, length: u32) -> SendRequest {
        let local = self.slice(0, length);
        SendRequest { id, operation, local, signaled: true, inline: false, solicited: false }
    }

    pub(crate) fn post(&mut self, requests: &[SendRequest]) -> Result<(), PostError> {
        // SAFETY: all slices lie in `memory`, which nobody reads or writes in these tests.
        unsafe { self.pair.post_send(requests) }
    }

    pub(crate) fn receive(&mut self, ids: std::ops::Range<u64>) {
        let local = self.slice(32_768, 32_768);
        let requests: Vec<_> = ids.map(|id| ReceiveRequest { id, local }).collect();
        // SAFETY: as in `post`.
        unsafe { self.pair.post_receive(&requests) }.unwrap();
    }

    /// Waits for `count` completions.
    pub(crate) fn reap(&mut self, count: usize) -> Vec<WorkCompletion> {
        let start = Instant::now();
        let mut found = Vec::new();
        while found.len() < count {
            let mut out = [WorkCompletion::default(); 64];
            let room = (count - found.len()).min(64);
            let n = self.queue.poll(&mut out[..room]).unwrap();
            found.extend_from_slice(&out[..n]);
            assert!(start.elapsed() < PATIENCE, "only {found:?} of {count}");
            std::thread::yield_now();
        }
        found
    }

    pub(crate) fn reap_statuses(&mut self, count: usize) -> Vec<(u64, Status)> {
        self.reap(count).iter().map(|done| (done.id, done.status)).collect()
    }
}

pub(crate) fn connect(left: &mut Side, right: &mut Side, options: &ConnectOptions) {
    left.pair.connect(&right.pair.endpoint(), options).unwrap();
    right.pair.connect(&left.pair.endpoint(), options).unwrap();
}

pub(crate) fn connected(context: &rdma::Context) -> (Side, Side) {
    let (mut left, mut right) = (Side::new(context, None), Side::new(context, None));
    connect(&mut left, &mut right, &ConnectOptions::default());
    (left, right)
}
