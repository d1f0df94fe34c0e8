//! Datagrams on the NIC in memory, beyond the conformance suite: counters, deferred execution, many
//! senders.

mod datagrams;

use std::time::Instant;

use datagrams::{KEY, PATIENCE, SLOT, SLOTS, Side, Way, acquainted, init, open, until, way};
use netchannel_verbs::datagram::{DatagramEndpoint, DatagramOptions};
use netchannel_verbs::queue_pair::{QueuePairInit, QueuePairState};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::work::Status;
use netchannel_verbs::{
    Access, AddressVector, Context as _, Grh, QueuePair as _, ReceiveRequest,
    SharedReceiveQueue as _,
};

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
