//! UDP source ports and traffic classes, as they are on the wire. Needs a second device that packets reach over a
//! network interface (`NETCHANNEL_RDMA_PEER`), and the right to listen to that (CAP_NET_RAW).

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::time::Instant;

use netchannel_verbs::queue_pair::ConnectOptions;
use netchannel_verbs::rdma::{self, OpenOptions};
use netchannel_verbs::work::{SendOperation, Status};
use netchannel_verbs::{Context, QueuePair, SourcePort};
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

use super::side::{PATIENCE, Side, connect, open};

const ETH_P_IP: u16 = 0x0800;
const UDP: u8 = 17;
const ROCE_V2_PORT: u16 = 4791;

/// Receives every IPv4 packet that comes in on any interface, from its IP header on.
fn tap() -> OwnedFd {
    let protocol = NonZeroU32::new(ETH_P_IP.to_be().into()).map(Protocol::from_raw);
    socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::NONBLOCK, protocol)
        .expect("listening to packets needs CAP_NET_RAW")
}

/// Where the network may see what a packet belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Marks {
    source_port: u16,
    traffic_class: u8,
}

/// Destination queue pair and marks, if it is a RoCE v2 packet to this address. (Numbers of queue pairs are
/// those of one device.)
fn dissect(packet: &[u8], to: &[u8]) -> Option<(u32, Marks)> {
    let header = usize::from(packet.first()? & 15) * 4;
    let wanted = packet.get(9) == Some(&UDP) && packet.get(16..20) == Some(to);
    let udp = packet.get(header..).filter(|_| wanted)?;
    let half = |at: usize| Some(u16::from_be_bytes(udp.get(at..at + 2)?.try_into().ok()?));
    if half(2)? != ROCE_V2_PORT {
        return None;
    }
    // Behind 8 bytes of UDP header, the base transport header: bytes 5 to 7 are the queue pair.
    let number = udp.get(13..16)?;
    let number = u32::from_be_bytes([0, number[0], number[1], number[2]]);
    Some((number, Marks { source_port: half(0)?, traffic_class: *packet.get(1)? }))
}

#[test]
#[ignore = "needs two RDMA devices joined by a network"]
fn packets_have_the_marks_of_their_queue_pair() {
    let name = std::env::var("NETCHANNEL_RDMA_PEER").expect("NETCHANNEL_RDMA_PEER names a device");
    let (here, there) = (open(), rdma::Context::open(&name, &OpenOptions::default()).unwrap());
    let asked = SourcePort::new(0xd5a7).unwrap();
    let mut expected = BTreeMap::new();
    let mut sides = Vec::new();
    // None, and DSCP 46 (expedited forwarding), 10 and 1.
    for (n, traffic_class) in [0, 184, 40, 4].into_iter().enumerate() {
        let (mut left, mut right) = (Side::new(&here, None), Side::new(&there, None));
        assert_eq!(left.pair.source_port(), None, "before it is connected");
        let source_port = if n == 0 { Some(asked) } else { None };
        let options = ConnectOptions { source_port, traffic_class, ..Default::default() };
        connect(&mut left, &mut right, &options);
        let port = left.pair.source_port().expect("RoCE v2 has one");
        assert!(n != 0 || port == asked);
        expected.insert(right.pair.number(), Marks { source_port: port.get(), traffic_class });
        sides.push((left, right));
    }
    let mut ports: Vec<_> = expected.values().map(|marks| marks.source_port).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), expected.len(), "distinct per queue pair: {expected:?}");

    let gid = there.attributes().port.gid.expect("RoCE v2 has a GID");
    let tap = tap();
    for (left, right) in &mut sides {
        right.receive(0..1);
        left.post(&[left.send(1, SendOperation::Send, 16)]).unwrap();
        assert_eq!(left.reap_statuses(1), [(1, Status::Success)]);
        right.reap(1);
    }
    let (mut seen, mut buffer) = (BTreeMap::new(), [0u8; 128]);
    let start = Instant::now();
    while seen.len() < expected.len() && start.elapsed() < PATIENCE {
        let Ok((length, _)) = recv(&tap, &mut buffer[..], RecvFlags::empty()) else {
            std::thread::yield_now();
            continue;
        };
        let found = dissect(&buffer[..length], &gid.value[12..]);
        seen.extend(found.filter(|(number, _)| expected.contains_key(number)));
    }
    assert_eq!(seen, expected);
}
