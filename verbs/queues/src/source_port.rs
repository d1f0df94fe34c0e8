//! The UDP source port of RoCE v2 packets: what spreads connections over the paths of a network.
//!
//! Routers and link aggregation choose a path by a hash of addresses, protocol and ports. RoCE v2
//! packets all go to port 4791; the source port is there to tell flows apart and comes from
//! 0xC000 to 0xFFFF (InfiniBand Architecture Specification, volume 1, Annex A17.9.2).
//!
//! # How a connection gets its port
//! Two queue pairs of one device that go to the same peer must not share a port, so a plain hash,
//! under which 64 Channels collide with a probability of one in eight, will not do. With the low 14
//! bits *q* of the local queue pair number:
//!
//! ```text
//! port = 0xC000 + (h + 10125 q) mod 2^14        h = FNV-1a 64 of: both GIDs, the number >> 14
//! ```
//!
//! 10125 is odd, so *q* to port is one to one: queue pairs have distinct ports as long as their
//! numbers differ in these bits, as those of one process do. It is also near 2^14 divided by the
//! golden ratio, so neighbouring numbers (queue pairs made in a row) lie far apart. A replacement
//! for a failed queue pair has another number and so takes another path. `h` keeps hosts with the
//! same queue pair numbers from using the same ports.
//!
//! # How the device learns it
//! - By the **flow label** of the address vector, from which kernel drivers derive the port
//!   (`rdma_flow_label_to_udp_sport`: mlx5 since Linux 5.8, rxe and irdma since 5.18); see
//!   [`SourcePort::flow_label`]. Over IPv6 it is the flow label of the IP header as well.
//! - By `mlx5dv_modify_qp_udp_sport` on mlx5, once connected; what older kernels need.

/// A UDP source port from 0xC000 to 0xFFFF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SourcePort(u16);

/// What a source port is derived from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// GID of this device.
    pub local: [u8; 16],
    /// GID of the peer's.
    pub remote: [u8; 16],
    /// Number of the local queue pair.
    pub queue_pair: u32,
}

/// Bits of a port that are free.
const BITS: u32 = 14;
const FREE: u16 = (1 << BITS) - 1;

/// Odd, and near 2^14 divided by the golden ratio (10125.9).
const STEP: u32 = 10_125;

impl SourcePort {
    /// The lowest.
    pub const FIRST: u16 = 0xc000;

    /// None below [`SourcePort::FIRST`].
    pub fn new(port: u16) -> Option<Self> {
        (port >= Self::FIRST).then_some(Self(port))
    }

    /// The port of a connection; see the [module](self).
    pub fn of_flow(flow: &Flow) -> Self {
        let block = (flow.queue_pair >> BITS).to_be_bytes();
        let bytes = flow.local.iter().chain(&flow.remote).chain(&block);
        // FNV-1a: offset basis and prime of the 64-bit variant.
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        // Its low bits alone depend on the low bits of the input alone.
        let base = (hash ^ hash >> 32) as u32;
        let offset = base.wrapping_add(flow.queue_pair.wrapping_mul(STEP));
        Self(Self::FIRST | (offset as u16 & FREE))
    }

    /// The port itself.
    pub fn get(self) -> u16 {
        self.0
    }

    /// A flow label from which drivers derive this port. Never 0, which would leave the port to the
    /// driver. (They take the low 14 bits, xor the high 6.)
    pub fn flow_label(self) -> u32 {
        const HIGH: u32 = 1;
        HIGH << BITS | (u32::from(self.0 & FREE) ^ HIGH)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// `ibv_flow_label_to_udp_sport` of verbs.h, `rdma_flow_label_to_udp_sport` of the kernel.
    fn as_drivers_do(label: u32) -> u16 {
        let folded = (label & 0x3fff) ^ (label & 0xfc000) >> 14;
        folded as u16 | 0xc000
    }

    fn flow(queue_pair: u32) -> Flow {
        Flow { local: [1; 16], remote: [2; 16], queue_pair }
    }

    #[test]
    fn drivers_derive_the_port_from_its_label() {
        for port in SourcePort::FIRST..=u16::MAX {
            let label = SourcePort::new(port).unwrap().flow_label();
            assert!(label != 0 && label < 1 << 20);
            assert_eq!(as_drivers_do(label), port);
        }
        assert_eq!(SourcePort::new(0xbfff), None);
    }

    #[test]
    fn queue_pairs_of_a_device_have_distinct_ports() {
        for first in [0, 17, 0x3ff0, 0x00ff_0000] {
            let block = first & !0x3fff;
            let ports: HashSet<_> = (0..1 << 14)
                .map(|n| SourcePort::of_flow(&flow(block | (first + n) & 0x3fff)))
                .collect();
            assert_eq!(ports.len(), 1 << 14);
        }
    }

    /// Whatever bits a router takes: 64 queue pairs in a row reach every one of 8 paths.
    #[test]
    fn queue_pairs_in_a_row_spread_over_paths() {
        for shift in [0, 5, 11] {
            let mut paths = [0; 8];
            for n in 100..164 {
                let port = SourcePort::of_flow(&flow(n)).get();
                paths[usize::from(port >> shift) % 8] += 1;
            }
            assert!(paths.iter().all(|&n| (4..=16).contains(&n)), "shift {shift}: {paths:?}");
        }
    }

    #[test]
    fn peers_with_the_same_numbers_have_different_ports() {
        let ports: HashSet<_> = (0..=255u8)
            .map(|host| SourcePort::of_flow(&Flow { remote: [host; 16], ..flow(17) }))
            .collect();
        assert!(ports.len() > 250, "{}", ports.len());
    }

    #[test]
    fn the_documented_formula() {
        let port = SourcePort::of_flow(&flow(17)).get();
        let next = SourcePort::of_flow(&flow(18)).get();
        assert_eq!(next.wrapping_sub(port) & 0x3fff, 10_125);
    }
}
