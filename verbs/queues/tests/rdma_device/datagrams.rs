//! Datagrams over a device: what needs a network, or more than one context.

use std::process::Command;

use netchannel_verbs::datagram::{Datagram, DatagramEndpoint, DatagramOptions};
use netchannel_verbs::queue_pair::{QueuePairInit, QueuePairState, Service};
use netchannel_verbs::rdma::{self, OpenOptions};
use netchannel_verbs::work::{SendOperation, Status};
use netchannel_verbs::{
    AddressHandle, AddressVector, Context, Ecn, Grh, MemoryRegion, QueuePair, ReceiveRequest,
};

use super::side::{Side, open};

const KEY: u32 = 5;
/// Payload of one datagram, and its place in the receiver's memory.
const PAYLOAD: u32 = 960;
const PLACE: u64 = 1024;
const COUNT: u64 = 60;

fn peer_device() -> rdma::Context {
    let name = std::env::var("NETCHANNEL_RDMA_PEER").expect("NETCHANNEL_RDMA_PEER names a device");
    rdma::Context::open(&name, &OpenOptions::default()).unwrap()
}

fn datagrams(context: &rdma::Context) -> Side {
    let mut side = Side::new(context, None);
    side.pair = context
        .create_queue_pair(&QueuePairInit {
            service: Service::UnreliableDatagram,
            send_queue: &side.queue,
            receive_queue: &side.queue,
            shared_receive_queue: None,
            send_capacity: 64,
            receive_capacity: 64,
            inline_bytes: 0,
        })
        .unwrap();
    side.pair.activate(&DatagramOptions { queue_key: KEY }).unwrap();
    side
}

fn send(side: &mut Side, handle: &rdma::AddressHandle, peer: &DatagramEndpoint, id: u64) {
    let request = side.send(id, SendOperation::SendWithImmediate(id as u32), PAYLOAD);
    // SAFETY: the source lies in the side's memory; the tests keep their handles.
    unsafe { side.pair.post_datagrams(&[Datagram::to(peer, handle, request)]) }.unwrap();
}

fn receive(side: &mut Side, id: u64, length: u32) {
    let request = ReceiveRequest { id, local: side.slice(id * PLACE, length) };
    // SAFETY: it lies in the side's memory, which nobody else uses.
    unsafe { side.pair.post_receive(&[request]) }.unwrap();
}

fn grh(side: &Side, id: u64) -> Grh {
    let mut area = [0; Grh::LEN];
    for (at, byte) in (id * PLACE..).zip(&mut area) {
        // SAFETY: in bounds; the receive has completed.
        *byte = unsafe { side.memory.as_ptr().as_ptr().add(at as usize).read_volatile() };
    }
    Grh::parse(&area).unwrap()
}

/// A queue of 10 Mbit/s in front of the peer, which marks what waits longer than a millisecond.
struct SlowPort(String);

impl SlowPort {
    fn new(peer: &rdma::Context) -> Self {
        let interface = peer.attributes().port.interface.clone().unwrap();
        let port = Self(interface.replace("h_", "p_"));
        let tbf = ["root", "handle", "1:", "tbf", "rate", "10mbit", "burst", "3kb", "limit", "1mb"];
        port.queue("add", &tbf);
        let codel = ["parent", "1:", "codel", "limit", "1000", "target", "10s", "interval", "100s"];
        port.queue("add", &[&codel[..], &["ecn", "ce_threshold", "1ms"]].concat());
        port
    }

    fn queue(&self, action: &str, words: &[&str]) {
        let command = [&["qdisc", action, "dev", &self.0], words].concat();
        let status = Command::new("tc").args(&command).status().unwrap();
        assert!(status.success(), "tc {command:?}");
    }
}

impl Drop for SlowPort {
    fn drop(&mut self) {
        self.queue("del", &["root"]);
    }
}

#[test]
#[ignore = "needs two RDMA devices joined by a network"]
fn a_queue_on_the_way_marks_datagrams() {
    let (here, there) = (open(), peer_device());
    let (mut left, mut right) = (datagrams(&here), datagrams(&there));
    let peer = DatagramEndpoint::parse(&right.pair.endpoint()).unwrap();
    let slow = SlowPort::new(&there);
    for (traffic_class, takes_marks) in [(0x28, false), (0x28 | 2, true), (0x28 | 1, true)] {
        let address = AddressVector { traffic_class, ..peer.address() };
        let handle = here.create_address_handle(&address).unwrap();
        for id in 0..COUNT {
            receive(&mut right, id, PLACE as u32);
            send(&mut left, &handle, &peer, id);
        }
        left.reap(COUNT as usize);
        let arrived = right.reap(COUNT as usize);
        let mut marked = 0;
        for (id, completion) in (0..).zip(arrived) {
            assert_eq!((completion.id, completion.immediate), (id, Some(id as u32)));
            assert_eq!(completion.source_queue_pair, left.pair.number());
            let grh = grh(&right, id);
            assert_eq!(grh.dscp(), 10, "{grh}");
            if grh.ecn() == Ecn::CongestionExperienced {
                marked += 1;
            } else {
                assert_eq!(grh.ecn(), Ecn::of(traffic_class));
            }
        }
        println!("traffic class {traffic_class:#x}: {marked} of {COUNT} marked");
        assert_eq!(marked > 0, takes_marks, "{marked} of class {traffic_class:#x}");
    }
    drop(slow);
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_handle_keeps_its_device_open() {
    let (here, other) = (open(), open());
    let right = datagrams(&other);
    let peer = DatagramEndpoint::parse(&right.pair.endpoint()).unwrap();
    let handle = here.create_address_handle(&peer.address()).unwrap();
    drop(here);
    handle.close().unwrap();
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_receive_that_is_too_short() {
    let context = open();
    let (mut left, mut right) = (datagrams(&context), datagrams(&context));
    let peer = DatagramEndpoint::parse(&right.pair.endpoint()).unwrap();
    let handle = context.create_address_handle(&peer.address()).unwrap();
    receive(&mut right, 0, PAYLOAD);
    receive(&mut right, 1, PLACE as u32);
    send(&mut left, &handle, &peer, 7);
    assert_eq!(left.reap_statuses(1), [(7, Status::Success)], "the sender does not notice");
    // SoftRoCE fails the receive and the queue pair; others may drop the datagram.
    let name = context.attributes().description.clone();
    if name.contains("rxe") {
        let expected = [(0, Status::LocalOperation), (1, Status::Flushed)];
        assert_eq!(right.reap_statuses(2), expected);
        assert_eq!(right.pair.state().unwrap(), QueuePairState::Error);
    }
}
