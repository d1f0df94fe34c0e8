//! What only the NIC in memory can show: mistakes of the caller that a synchronous copy hides, and links
//! with rate and delay in virtual time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use netchannel_units::Bandwidth;
use netchannel_verbs::error::PostFailure;
use netchannel_verbs::queue_pair::{ConnectOptions, QueuePairInit, Service};
use netchannel_verbs::soft::{self, Clock, LinkModel, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices, Status};
use netchannel_verbs::{
    Access, CompletionQueue as _, Context as _, LocalSlice, MemoryRegion as _, PostError,
    QueuePair as _, ReceiveRequest, SendRequest, WorkCompletion,
};

const MEMORY: usize = 1 << 20;
const CAPACITY: u32 = 16;

/// Queue pairs of one device on one completion queue, with memory.
struct Side {
    queue_pairs: Vec<soft::QueuePair>,
    queue: soft::CompletionQueue,
    memory: soft::MemoryRegion,
}

impl Side {
    fn new(context: &soft::Context, count: usize) -> Self {
        let queue = context.create_completion_queue(256).unwrap();
        let init = QueuePairInit {
            service: Service::ReliableConnection,
            send_queue: &queue,
            receive_queue: &queue,
            shared_receive_queue: None,
            send_capacity: CAPACITY,
            receive_capacity: CAPACITY,
            inline_bytes: 0,
        };
        let queue_pairs = (0..count).map(|_| context.create_queue_pair(&init).unwrap()).collect();
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
        let memory = context.alloc(MEMORY, access).unwrap();
        Self { queue_pairs, queue, memory }
    }

    fn slices(&self, length: usize) -> Slices {
        let address = self.memory.as_ptr().as_ptr() as u64;
        let local_key = self.memory.local_key();
        Slices::one(LocalSlice { address, length: length as u32, local_key })
    }

    fn fill(&self, length: usize, byte: u8) {
        assert!(length <= MEMORY);
        // SAFETY: in bounds; the tests that break the rules of reuse do so on one thread.
        unsafe { self.memory.as_ptr().as_ptr().write_bytes(byte, length) };
    }

    fn byte(&self, at: usize) -> u8 {
        assert!(at < MEMORY);
        // SAFETY: in bounds.
        unsafe { self.memory.as_ptr().as_ptr().add(at).read_volatile() }
    }

    fn receive(&mut self, i: usize, id: u64, length: usize) {
        let request = ReceiveRequest { id, local: self.slices(length) };
        // SAFETY: the memory lives as long as the queue pairs, in this struct.
        unsafe { self.queue_pairs[i].post_receive(&[request]) }.unwrap();
    }

    fn post(&mut self, i: usize, request: SendRequest) -> Result<(), PostError> {
        // SAFETY: as in `receive`.
        unsafe { self.queue_pairs[i].post_send(&[request]) }
    }

    fn send(&mut self, i: usize, id: u64, length: usize) {
        let send = self.request(id, length);
        self.post(i, send).unwrap();
    }

    fn request(&self, id: u64, length: usize) -> SendRequest {
        SendRequest {
            id,
            operation: SendOperation::Send,
            local: self.slices(length),
            signaled: true,
            inline: false,
            solicited: false,
        }
    }

    fn poll(&mut self) -> Vec<WorkCompletion> {
        let mut batch = [WorkCompletion::default(); 64];
        let found = self.queue.poll(&mut batch).unwrap();
        for completion in &batch[..found] {
            assert_eq!(completion.status, Status::Success, "{completion:?}");
        }
        batch[..found].to_vec()
    }
}

fn pair(options: &SoftOptions, count: usize) -> (soft::Context, Side, Side) {
    let context = soft::Context::open(options.clone()).unwrap();
    let other = soft::Context::open(SoftOptions { link: None, links: vec![], ..options.clone() });
    let (mut a, mut b) = (Side::new(&context, count), Side::new(&other.unwrap(), count));
    for (left, right) in a.queue_pairs.iter_mut().zip(&mut b.queue_pairs) {
        left.connect(&right.endpoint(), &ConnectOptions::default()).unwrap();
        right.connect(&left.endpoint(), &ConnectOptions::default()).unwrap();
    }
    (context, a, b)
}

/// Sends one message, optionally changing its source at once; what arrived.
fn send_once(options: &SoftOptions, reuse_early: bool) -> (u64, u8) {
    let (context, mut a, mut b) = pair(options, 1);
    a.fill(1000, 1);
    b.receive(0, 7, 1000);
    a.send(0, 8, 1000);
    if reuse_early {
        a.fill(1000, 2);
    }
    while b.poll().is_empty() {
        a.poll();
    }
    (context.reuse_violations(), b.byte(999))
}

#[test]
fn deferred_mode_finds_sources_that_are_reused_too_early() {
    let at_once = SoftOptions::default();
    assert_eq!(send_once(&at_once, true), (0, 1), "a synchronous copy hides it");
    for seed in 0..10 {
        let deferred = SoftOptions { deferred: true, seed, ..SoftOptions::default() };
        assert_eq!(send_once(&deferred, false), (0, 1));
        assert_eq!(send_once(&deferred, true), (1, 0xdb), "poison");
    }
}

#[test]
fn deferred_mode_frees_slots_when_a_later_completion_was_polled() {
    let options = SoftOptions { deferred: true, ..SoftOptions::default() };
    let (_context, mut a, mut b) = pair(&options, 1);
    for id in 0..CAPACITY {
        b.receive(0, u64::from(id), 8);
        let silent = SendRequest { signaled: false, ..a.request(u64::from(id), 8) };
        a.post(0, silent).unwrap();
    }
    let mut received = 0;
    while received < CAPACITY as usize {
        assert!(a.poll().is_empty());
        received += b.poll().len();
    }
    a.poll();
    let full = a.post(0, a.request(99, 8)).unwrap_err();
    assert!(matches!(full.reason, PostFailure::QueueFull), "nothing signalled, nothing freed");
}

/// A device in virtual time, which stands still until the test moves it.
fn virtual_time(links: Vec<LinkModel>) -> (Arc<AtomicU64>, SoftOptions) {
    let time = Arc::new(AtomicU64::new(1));
    let clock = Clock::Virtual(time.clone());
    (time, SoftOptions { links, clock, ..SoftOptions::default() })
}

/// Virtual microseconds until message and completion of each queue pair were there.
fn times(links: Vec<LinkModel>, length: usize) -> Vec<(u64, u64)> {
    let count = links.len();
    let (time, options) = virtual_time(links);
    let (_context, mut a, mut b) = pair(&options, count);
    for i in 0..count {
        b.receive(i, i as u64, length);
        a.send(i, i as u64, length);
    }
    let mut times = vec![(0, 0); count];
    for microsecond in 0..50_000 {
        time.store(1 + microsecond * 1000, Ordering::Release);
        b.poll().iter().for_each(|completion| times[completion.id as usize].0 = microsecond);
        a.poll().iter().for_each(|completion| times[completion.id as usize].1 = microsecond);
    }
    times
}

#[test]
fn one_of_four_queue_pairs_is_delayed() {
    let quick = LinkModel { delay: Duration::from_micros(5), ..LinkModel::default() };
    let slow = LinkModel { delay: Duration::from_millis(10), ..LinkModel::default() };
    let times = times(vec![quick, quick, slow, quick], 1000);
    assert_eq!(times, [(5, 10), (5, 10), (10_000, 20_000), (5, 10)]);
}

#[test]
fn one_queue_pair_is_ten_times_slower() {
    let rate = |gbps| LinkModel { rate: Bandwidth::from_gbps(gbps), ..LinkModel::default() };
    // 100,000 bytes at 8 Gb/s are 100 us.
    let times = times(vec![rate(8), rate(80)], 100_000);
    assert_eq!(times, [(100, 100), (10, 10)]);
}

#[test]
fn a_link_can_be_put_before_one_queue_pair_later() {
    let (time, options) = virtual_time(vec![]);
    let (_context, mut a, mut b) = pair(&options, 1);
    let lossy = LinkModel { loss: 0.3, ..LinkModel::default() };
    a.queue_pairs[0].set_link(lossy);
    let mut arrived = 0;
    for round in 0..100 {
        b.receive(0, round, 100);
        a.send(0, round, 100);
        while b.poll().is_empty() {
            time.fetch_add(1_000_000, Ordering::AcqRel);
        }
        arrived += 1;
        while a.poll().is_empty() {
            time.fetch_add(1_000_000, Ordering::AcqRel);
        }
    }
    let statistics = a.queue_pairs[0].link_statistics().unwrap();
    assert_eq!(arrived, 100, "a loss is a delay, nothing is lost");
    assert_eq!(statistics.transmissions, 100 + statistics.drops);
    assert!(statistics.drops > 10, "{statistics:?}");
}
