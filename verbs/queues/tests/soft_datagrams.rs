//! Datagrams on the NIC in memory, beyond the conformance suite: links, counters, deferred execution,
//! many senders. Link tests run in virtual time, so they are exact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use netchannel_units::Bandwidth;
use netchannel_verbs::datagram::{Datagram, DatagramEndpoint, DatagramOptions};
use netchannel_verbs::error::PostFailure;
use netchannel_verbs::queue_pair::{QueuePairInit, QueuePairState, Service};
use netchannel_verbs::soft::{self, Clock, LinkModel, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices, Status};
use netchannel_verbs::{
    Access, AddressVector, CompletionQueue as _, Context as _, Ecn, Grh, LocalSlice,
    MemoryRegion as _, PostError, QueuePair as _, ReceiveRequest, SendRequest,
    SharedReceiveQueue as _, WorkCompletion,
};

const KEY: u32 = 77;
const SLOT: usize = 8192;
const SLOTS: usize = 64;
/// For what other threads do; nothing takes that long.
const PATIENCE: Duration = Duration::from_secs(20);

struct Side {
    queue_pair: soft::QueuePair,
    queue: soft::CompletionQueue,
    memory: soft::MemoryRegion,
}

fn init(queue: &soft::CompletionQueue) -> QueuePairInit<'_, soft::Context> {
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
    fn new(nic: &soft::Context) -> Self {
        let queue = nic.create_completion_queue(256).unwrap();
        let mut queue_pair = nic.create_queue_pair(&init(&queue)).unwrap();
        queue_pair.activate(&DatagramOptions { queue_key: KEY }).unwrap();
        let memory = nic.alloc(SLOT * SLOTS, Access::LOCAL_WRITE).unwrap();
        Self { queue_pair, queue, memory }
    }

    fn slices(&self, slot: usize, length: usize) -> Slices {
        assert!(slot < SLOTS && length <= SLOT);
        let address = self.memory.as_ptr().as_ptr() as u64 + (slot * SLOT) as u64;
        let local_key = self.memory.local_key();
        Slices::one(LocalSlice { address, length: length as u32, local_key })
    }

    fn bytes(&self, slot: usize, length: usize) -> Vec<u8> {
        assert!(slot < SLOTS && length <= SLOT);
        (slot * SLOT..slot * SLOT + length)
            // SAFETY: in bounds.
            .map(|at| unsafe { self.memory.as_ptr().as_ptr().add(at).read_volatile() })
            .collect()
    }

    fn fill(&self, slot: usize, length: usize, byte: u8) {
        assert!(slot < SLOTS && length <= SLOT);
        // SAFETY: in bounds; a test that breaks the rules of reuse does so on one thread.
        unsafe { self.memory.as_ptr().as_ptr().add(slot * SLOT).write_bytes(byte, length) };
    }

    fn grh(&self, slot: usize) -> Grh {
        Grh::parse(&self.bytes(slot, Grh::LEN).try_into().unwrap()).unwrap()
    }

    fn receive(&mut self, slot: usize, length: usize) {
        let request = ReceiveRequest { id: slot as u64, local: self.slices(slot, length) };
        // SAFETY: the memory lives as long as the queue pair, in this struct.
        unsafe { self.queue_pair.post_receive(&[request]) }.unwrap();
    }

    fn send(&mut self, way: &Way, number: u32, length: usize) -> Result<(), PostError> {
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

    fn poll(&mut self) -> Vec<WorkCompletion> {
        let mut batch = [WorkCompletion::default(); 64];
        let found = self.queue.poll(&mut batch).unwrap();
        batch[..found].to_vec()
    }

    fn statistics(&self) -> soft::DatagramStatistics {
        self.queue_pair.datagram_statistics().unwrap()
    }
}

struct Way {
    handle: soft::AddressHandle,
    peer: DatagramEndpoint,
}

fn way(from: &soft::Context, to: &Side, traffic_class: u8) -> Way {
    let peer = DatagramEndpoint::parse(&to.queue_pair.endpoint()).unwrap();
    let address = AddressVector { traffic_class, ..peer.address() };
    Way { handle: from.create_address_handle(&address).unwrap(), peer }
}

fn open(options: SoftOptions) -> soft::Context {
    soft::Context::open(options).unwrap()
}

/// Two sides; the first one sends over `link`. Time stands still until the test moves it.
struct Timed {
    time: Arc<AtomicU64>,
    nic: soft::Context,
    a: Side,
    b: Side,
}

impl Timed {
    /// Sides that know each other already.
    fn new(link: LinkModel) -> Self {
        let time = Arc::new(AtomicU64::new(1));
        let options = SoftOptions { clock: Clock::Virtual(time.clone()), ..SoftOptions::default() };
        let (nic, other) = (open(options.clone()), open(options));
        let (mut a, mut b) = (Side::new(&nic), Side::new(&other));
        b.receive(0, SLOT);
        a.send(&way(&nic, &b, 0), 0, 1).unwrap();
        let start = Instant::now();
        while b.poll().is_empty() {
            assert!(start.elapsed() < PATIENCE, "no ring");
            std::thread::yield_now();
        }
        assert_eq!(a.poll().len(), 1);
        a.queue_pair.set_link(link);
        Self { time, nic, a, b }
    }

    /// Polls both sides at every microsecond of the next ones; what arrived at B when.
    fn run(&mut self, microseconds: u64) -> Vec<(u64, WorkCompletion)> {
        let mut arrived = Vec::new();
        for microsecond in 0..microseconds {
            arrived.extend(self.b.poll().into_iter().map(|completion| (microsecond, completion)));
            self.a.poll();
            self.time.fetch_add(1000, Ordering::AcqRel);
        }
        arrived
    }
}

fn numbers(arrived: &[(u64, WorkCompletion)]) -> Vec<u32> {
    arrived.iter().map(|(_, completion)| completion.immediate.unwrap()).collect()
}

#[test]
fn a_link_takes_its_time_and_holds_back_completions() {
    // 1000 bytes with header at 8 Gb/s are 1 us.
    let rate = Bandwidth::from_gbps(8);
    let link = LinkModel { rate, delay: Duration::from_micros(5), ..LinkModel::default() };
    let mut timed = Timed::new(link);
    let to_b = way(&timed.nic, &timed.b, 0);
    let mut posted = 0;
    (0..SLOTS).for_each(|slot| timed.b.receive(slot, SLOT));
    let refusal = loop {
        match timed.a.send(&to_b, posted, 960) {
            Ok(()) => posted += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(refusal.reason, PostFailure::QueueFull), "{refusal}");
    assert_eq!(posted, SLOTS as u32, "the first has not left yet");
    let arrived = timed.run(100);
    assert_eq!(numbers(&arrived), (0..posted).collect::<Vec<_>>());
    let times: Vec<_> = arrived.iter().map(|(time, _)| *time).collect();
    assert_eq!(times, (6..6 + u64::from(posted)).collect::<Vec<_>>());
}

#[test]
fn a_long_queue_marks_those_who_take_marks() {
    let link =
        LinkModel { rate: Bandwidth::from_gbps(8), ecn_threshold: 10_000, ..LinkModel::default() };
    for (traffic_class, marked) in [
        (0x28, Ecn::NotCapable),
        (0x28 | 1, Ecn::CongestionExperienced),
        (0x28 | 2, Ecn::CongestionExperienced),
    ] {
        let mut timed = Timed::new(link);
        let to_b = way(&timed.nic, &timed.b, traffic_class);
        for i in 0..30 {
            timed.b.receive(i, SLOT);
            timed.a.send(&to_b, i as u32, 960).unwrap();
        }
        let arrived = timed.run(100);
        assert_eq!(numbers(&arrived), (0..30).collect::<Vec<_>>(), "marked, not lost");
        for i in 0..30 {
            let grh = timed.b.grh(i);
            // The eleventh is the first that finds 10,000 bytes before it.
            let expected = if i < 10 { Ecn::of(traffic_class) } else { marked };
            assert_eq!((grh.ecn(), grh.dscp()), (expected, 10), "datagram {i}");
        }
    }
}

#[test]
fn what_a_link_loses_is_lost() {
    let full =
        LinkModel { rate: Bandwidth::from_gbps(8), queue_bytes: 20_000, ..LinkModel::default() };
    for link in [LinkModel { loss: 0.3, ..LinkModel::default() }, full] {
        let mut timed = Timed::new(link);
        let to_b = way(&timed.nic, &timed.b, 0);
        let mut all = Vec::new();
        (0..SLOTS).for_each(|slot| timed.b.receive(slot, SLOT));
        for round in 0..10 {
            for i in 0..50 {
                timed.a.send(&to_b, 50 * round + i, 960).unwrap();
            }
            let arrived = timed.run(100);
            arrived.iter().for_each(|(_, done)| timed.b.receive(done.id as usize, SLOT));
            all.extend(numbers(&arrived));
        }
        let statistics = timed.a.queue_pair.link_statistics().unwrap();
        assert_eq!(statistics.transmissions, 500, "nothing is sent again");
        assert!((50..450).contains(&statistics.drops), "{statistics:?}");
        assert_eq!(all.len() as u64, 500 - statistics.drops);
        assert!(all.is_sorted_by(|a, b| a < b), "in order, and none twice: {all:?}");
    }
}

#[test]
fn a_link_reorders() {
    let delay = Duration::from_micros(5);
    let link = LinkModel { delay, reorder: 0.3, ..LinkModel::default() };
    let mut timed = Timed::new(link);
    let to_b = way(&timed.nic, &timed.b, 0);
    for i in 0..SLOTS {
        timed.b.receive(i, SLOT);
        timed.a.fill(0, 100, i as u8);
        timed.a.send(&to_b, i as u32, 100).unwrap();
    }
    let arrived = timed.run(200);
    let mut numbers = numbers(&arrived);
    let swapped = numbers.windows(2).filter(|pair| pair[0] > pair[1]).count();
    let statistics = timed.a.queue_pair.link_statistics().unwrap();
    assert!((5..=statistics.reorderings as usize).contains(&swapped), "{swapped}: {numbers:?}");
    for (_, completion) in &arrived {
        let payload = &timed.b.bytes(completion.id as usize, Grh::LEN + 100)[Grh::LEN..];
        assert_eq!(payload, [completion.immediate.unwrap() as u8; 100]);
    }
    numbers.sort_unstable();
    assert_eq!(numbers, (0..SLOTS as u32).collect::<Vec<_>>(), "all of them, once");
}

#[test]
fn the_last_of_all_is_late_and_not_lost() {
    let delay = Duration::from_micros(500);
    let mut timed = Timed::new(LinkModel { delay, reorder: 1.0, ..LinkModel::default() });
    let to_b = way(&timed.nic, &timed.b, 0);
    timed.b.receive(0, SLOT);
    timed.a.send(&to_b, 9, 100).unwrap();
    let arrived = timed.run(2000);
    assert_eq!(arrived.iter().map(|(time, _)| *time).collect::<Vec<_>>(), [1000]);
}

/// Polls until `done` says so.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::yield_now();
    }
}

/// Two sides at once, which know each other already, and the way to the second.
fn acquainted(options: SoftOptions) -> (soft::Context, Side, Side, Way) {
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

#[test]
fn what_does_not_arrive_is_counted() {
    let (nic, mut a, mut b, to_b) = acquainted(SoftOptions::default());
    a.send(&to_b, 1, 100).unwrap();
    assert!(b.poll().is_empty());
    b.receive(1, Grh::LEN + 99);
    a.send(&to_b, 2, 100).unwrap();
    assert!(b.poll().is_empty());
    let wrong = Way {
        handle: nic.create_address_handle(&to_b.peer.address()).unwrap(),
        peer: DatagramEndpoint { queue_key: KEY + 1, ..to_b.peer },
    };
    a.send(&wrong, 3, 99).unwrap();
    until("the answer", || a.statistics().unreachable == 1);
    assert!(b.poll().is_empty());
    let counted = soft::DatagramStatistics {
        no_receive: 1,
        too_short: 1,
        wrong_key: 1,
        ..soft::DatagramStatistics::default()
    };
    assert_eq!(b.statistics(), counted);
    a.send(&to_b, 4, 99).unwrap();
    let arrived = b.poll();
    assert_eq!((arrived[0].immediate, arrived[0].id), (Some(4), 1), "the short one stayed posted");

    let nobody =
        Way { peer: DatagramEndpoint { number: to_b.peer.number ^ 1, ..to_b.peer }, ..wrong };
    a.poll();
    a.send(&nobody, 5, 100).unwrap();
    until("the answer", || a.statistics().unreachable == 2);
    // A GID of nobody: the device is not there.
    let gid = [0xfd; 16];
    let handle = nic.create_address_handle(&AddressVector::new(gid)).unwrap();
    let nowhere = Way { handle, peer: DatagramEndpoint { gid, ..to_b.peer } };
    a.send(&nowhere, 6, 100).unwrap();
    until("the answer", || a.statistics().unreachable == 3);
}

#[test]
fn a_full_ring_loses_and_goes_on() {
    let (_nic, mut a, mut b, to_b) = acquainted(SoftOptions::default());
    let mut sent = 0;
    while a.statistics().ring_full < 100 {
        a.send(&to_b, sent, 4096).unwrap();
        assert_eq!(a.poll().len(), 1, "the sender does not notice");
        sent += 1;
        assert!(sent < 10_000, "the ring is endless");
    }
    (0..SLOTS).for_each(|slot| b.receive(slot, SLOT));
    let mut seen = Vec::new();
    while seen.len() < sent as usize - 100 {
        let arrived = b.poll();
        assert!(!arrived.is_empty(), "{} of {} were in the ring", seen.len(), sent - 100);
        for completion in arrived {
            seen.extend(completion.immediate);
            b.receive(completion.id as usize, SLOT);
        }
    }
    assert_eq!(seen, (0..sent - 100).collect::<Vec<_>>());
    a.send(&to_b, 4711, 4096).unwrap();
    assert_eq!(b.poll()[0].immediate, Some(4711));
    assert_eq!(b.statistics(), soft::DatagramStatistics::default());
}

#[test]
fn deferred_mode_finds_sources_that_are_reused_too_early() {
    for seed in 0..10 {
        let options = SoftOptions { deferred: true, seed, ..SoftOptions::default() };
        let (nic, mut a, mut b, to_b) = acquainted(options);
        for (number, reused_early) in [(1, false), (2, true)] {
            b.receive(0, SLOT);
            a.fill(0, 500, 1);
            a.send(&to_b, number, 500).unwrap();
            if reused_early {
                a.fill(0, 500, 2);
            }
            until("nothing arrived", || {
                a.poll();
                !b.poll().is_empty()
            });
            let expected = if reused_early { 0xdb } else { 1 };
            assert_eq!(b.bytes(0, Grh::LEN + 500)[Grh::LEN..], [expected; 500]);
            assert_eq!(nic.reuse_violations(), u64::from(reused_early));
        }
    }
}

#[test]
fn a_short_receive_of_a_shared_queue_completes_so() {
    let nic = open(SoftOptions::default());
    let mut a = Side::new(&nic);
    let mut b = Side::new(&nic);
    let mut receives = nic.create_shared_receive_queue(8).unwrap();
    let init = QueuePairInit { shared_receive_queue: Some(&receives), ..init(&b.queue) };
    b.queue_pair = nic.create_queue_pair(&init).unwrap();
    b.queue_pair.activate(&DatagramOptions { queue_key: KEY }).unwrap();
    let requests =
        [139, 140].map(|length| ReceiveRequest { id: length as u64, local: b.slices(0, length) });
    // SAFETY: the memory lives until the end.
    unsafe { receives.post_receive(&requests) }.unwrap();
    let to_b = way(&nic, &b, 0);
    let mut seen = Vec::new();
    for number in [1, 2] {
        a.send(&to_b, number, 100).unwrap();
        until("nothing", || {
            seen.extend(b.poll());
            seen.len() == number as usize
        });
    }
    let summary: Vec<_> = seen.iter().map(|done| (done.id, done.status, done.immediate)).collect();
    assert_eq!(summary, [(139, Status::LocalLength, None), (140, Status::Success, Some(2))]);
    assert_eq!(b.queue_pair.state().unwrap(), QueuePairState::ReadyToSend);
}

#[test]
fn a_handle_keeps_its_device() {
    let nic = open(SoftOptions::default());
    let gid = nic.attributes().port.gid.unwrap().value;
    let handle = nic.create_address_handle(&AddressVector::new(gid)).unwrap();
    // Its peers find a device by a socket with its GID in the name.
    let digits: String = gid.iter().map(|byte| format!("{byte:02x}")).collect();
    let is_open = || std::fs::read_to_string("/proc/net/unix").unwrap().contains(&digits);
    drop(nic);
    assert!(is_open());
    drop(handle);
    assert!(!is_open());
}

#[test]
fn more_senders_than_rings_all_arrive() {
    const SENDERS: usize = 300;
    let (nic, other) = (open(SoftOptions::default()), open(SoftOptions::default()));
    let mut b = Side::new(&other);
    let to_b = way(&nic, &b, 0);
    let queue = nic.create_completion_queue(16).unwrap();
    let memory = nic.alloc(4096, Access::LOCAL_WRITE).unwrap();
    let mut a = Side { queue_pair: nic.create_queue_pair(&init(&queue)).unwrap(), queue, memory };
    let mut senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let mut queue_pair = nic.create_queue_pair(&init(&a.queue)).unwrap();
            queue_pair.activate(&DatagramOptions { queue_key: KEY }).unwrap();
            queue_pair
        })
        .collect();
    for round in 0..2 {
        for sender in &mut senders {
            b.receive(0, SLOT);
            std::mem::swap(sender, &mut a.queue_pair);
            let number = a.queue_pair.number();
            let start = Instant::now();
            let arrived = 'sent: loop {
                assert!(start.elapsed() < PATIENCE, "round {round}: {:?}", a.statistics());
                a.send(&to_b, round, 8).unwrap();
                // What was in a ring when it had to make room is lost: then it is sent again.
                for _ in 0..1000 {
                    a.poll();
                    if let Some(completion) = b.poll().first() {
                        break 'sent completion.source_queue_pair;
                    }
                    std::thread::yield_now();
                }
            };
            assert_eq!(arrived, number);
            std::mem::swap(sender, &mut a.queue_pair);
        }
    }
}

#[test]
fn a_receiver_comes_back_under_another_number() {
    let (nic, mut a, b, to_b) = acquainted(SoftOptions::default());
    drop(b);
    let start = Instant::now();
    while a.statistics().unreachable < 3 {
        a.send(&to_b, 1, 10).unwrap();
        a.poll();
        std::thread::yield_now();
        assert!(start.elapsed() < PATIENCE, "{:?}", a.statistics());
    }
    let other = open(SoftOptions::default());
    let mut b = Side::new(&other);
    let to_b = way(&nic, &b, 0);
    b.receive(0, SLOT);
    a.send(&to_b, 2, 10).unwrap();
    until("nothing arrived", || b.poll().first().is_some_and(|done| done.immediate == Some(2)));
}
