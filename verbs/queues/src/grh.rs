//! The 40 bytes in front of the payload of every received datagram.
//!
//! A receive of a UD queue pair is scattered like this, whether or not the packet had a global route
//! header ([`WorkCompletion::has_grh`](crate::WorkCompletion::has_grh) says that it had one and so
//! that the bytes mean anything; [`WorkCompletion::bytes`](crate::WorkCompletion::bytes) counts all
//! 40):
//!
//! ```text
//! InfiniBand, RoCE v2 over IPv6:  0 .. 40  the GRH, which has the layout of an IPv6 header
//! RoCE v2 over IPv4:              0 .. 20  undefined
//!                                20 .. 40  the IPv4 header
//! payload                        40 ..
//! ```
//!
//! InfiniBand Architecture Specification, volume 1, 8.3 and 11.4.2.1, and annex A17 (RoCE v2).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

/// A parsed GRH area. It comes from the network, or from whoever claims to be one: its addresses are
/// what the sender says.
///
/// ```
/// use netchannel_verbs::{Ecn, Grh};
///
/// let mut area = [0; Grh::LEN];
/// area[20..].copy_from_slice(&[
///     0x45, 0x2b, 0, 100, 0, 0, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
/// ]);
/// let grh = Grh::parse(&area)?;
/// assert_eq!((grh.ecn(), grh.dscp()), (Ecn::CongestionExperienced, 10));
/// assert_eq!(grh.source_ip().to_string(), "::ffff:10.0.0.1");
/// # Ok::<(), netchannel_verbs::grh::BadGrh>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grh {
    /// Which of the two layouts it has.
    pub layout: Layout,
    /// Where it came from; an IPv4 address is mapped (`::ffff:a.b.c.d`).
    pub source: [u8; 16],
    /// Where it was sent to.
    pub destination: [u8; 16],
    /// DSCP (upper six bits) and ECN (lower two).
    pub traffic_class: u8,
    /// 20 bits; 0 over IPv4, which has none.
    pub flow_label: u32,
    /// Routers that it might still have passed.
    pub hop_limit: u8,
    /// Bytes after this header, as it says itself.
    pub payload_length: u16,
}

/// What the GRH area holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// A GRH or an IPv6 header: the same.
    Ipv6,
    /// An IPv4 header in the last 20 bytes.
    Ipv4,
}

/// The congestion bits of a packet (RFC 3168, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ecn {
    /// Its sender takes no marks.
    NotCapable,
    /// ECT(1).
    Capable1,
    /// ECT(0).
    Capable0,
    /// Marked by a queue on the way.
    CongestionExperienced,
}

/// The GRH area holds neither header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the first 40 bytes of the datagram are no GRH: IP version {first} at byte 0 and {second} at \
     byte 20; is this the receive of a UD queue pair, and did its completion have a GRH?"
)]
pub struct BadGrh {
    first: u8,
    second: u8,
}

impl Ecn {
    /// The lower two bits of a traffic class.
    pub const fn of(traffic_class: u8) -> Self {
        match traffic_class & 3 {
            0 => Self::NotCapable,
            1 => Self::Capable1,
            2 => Self::Capable0,
            _ => Self::CongestionExperienced,
        }
    }
}

const IPV4_AT: usize = 20;
/// Version 4 and a header of five words: RoCE v2 allows no options.
const IPV4_START: u8 = 0x45;
/// Next header of a GRH that is none of IP (InfiniBand), as in the specification.
const NEXT_HEADER_INFINIBAND: u8 = 0x1b;

impl Grh {
    /// Bytes of the area.
    pub const LEN: usize = 40;

    /// Reads the area. The destination of the datagram is not compared with anything.
    ///
    /// # Errors
    /// [`BadGrh`] if it holds neither layout.
    pub fn parse(area: &[u8; Self::LEN]) -> Result<Self, BadGrh> {
        let is_ipv6 = area[0] >> 4 == 6;
        let is_ipv4 = area[IPV4_AT] == IPV4_START;
        // Bytes 0 to 20 are undefined over IPv4 and may look like version 6; bytes 20 to 24 lie in
        // the source address over IPv6 and may look like version 4. The checksum of 20 bytes decides.
        if is_ipv4 && (!is_ipv6 || checksum_holds(area)) {
            return Ok(Self::parse_ipv4(area));
        }
        if is_ipv6 {
            return Ok(Self::parse_ipv6(area));
        }
        Err(BadGrh { first: area[0] >> 4, second: area[IPV4_AT] >> 4 })
    }

    fn parse_ipv4(area: &[u8; Self::LEN]) -> Self {
        let mapped = |at: usize| {
            let octets = [area[at], area[at + 1], area[at + 2], area[at + 3]];
            Ipv4Addr::from(octets).to_ipv6_mapped().octets()
        };
        let total = u16::from_be_bytes([area[22], area[23]]);
        Self {
            layout: Layout::Ipv4,
            source: mapped(32),
            destination: mapped(36),
            traffic_class: area[21],
            flow_label: 0,
            hop_limit: area[28],
            payload_length: total.saturating_sub(20),
        }
    }

    fn parse_ipv6(area: &[u8; Self::LEN]) -> Self {
        let gid = |at: usize| {
            let mut gid = [0; 16];
            gid.copy_from_slice(&area[at..at + 16]);
            gid
        };
        let first = u32::from_be_bytes([area[0], area[1], area[2], area[3]]);
        Self {
            layout: Layout::Ipv6,
            source: gid(8),
            destination: gid(24),
            traffic_class: (first >> 20) as u8,
            flow_label: first & MAX_FLOW_LABEL,
            hop_limit: area[7],
            payload_length: u16::from_be_bytes([area[4], area[5]]),
        }
    }

    /// The area as a device of InfiniBand writes it; the layout is IPv6 whatever `self` says.
    pub(crate) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut area = [0; Self::LEN];
        let first =
            6 << 28 | u32::from(self.traffic_class) << 20 | self.flow_label & MAX_FLOW_LABEL;
        area[..4].copy_from_slice(&first.to_be_bytes());
        area[4..6].copy_from_slice(&self.payload_length.to_be_bytes());
        area[6] = NEXT_HEADER_INFINIBAND;
        area[7] = self.hop_limit;
        area[8..24].copy_from_slice(&self.source);
        area[24..].copy_from_slice(&self.destination);
        area
    }

    /// Congestion on the way.
    pub const fn ecn(&self) -> Ecn {
        Ecn::of(self.traffic_class)
    }

    /// The differentiated services code point.
    pub const fn dscp(&self) -> u8 {
        self.traffic_class >> 2
    }

    /// [`source`](Self::source) as an IP address.
    pub const fn source_ip(&self) -> Ipv6Addr {
        Ipv6Addr::from_octets(self.source)
    }
}

/// Flow labels have 20 bits.
pub(crate) const MAX_FLOW_LABEL: u32 = (1 << 20) - 1;

/// The checksum of the IPv4 header (RFC 791, 3.1): the ones' complement sum of all of it is all ones.
fn checksum_holds(area: &[u8; Grh::LEN]) -> bool {
    let words = area[IPV4_AT..].as_chunks::<2>().0.iter();
    let mut sum: u32 = words.map(|&word| u32::from(u16::from_be_bytes(word))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

impl fmt::Display for Grh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let destination = Ipv6Addr::from_octets(self.destination);
        let (source, dscp, ecn) = (self.source_ip(), self.dscp(), self.ecn());
        write!(f, "{source} to {destination}, DSCP {dscp}, {ecn:?}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// An area as RoCE v2 over IPv4 leaves it, with its right checksum.
    fn ipv4(tos: u8, source: [u8; 4], rest: [u8; 20]) -> [u8; 40] {
        let mut area = [0; 40];
        area[..20].copy_from_slice(&rest);
        area[20..32].copy_from_slice(&[0x45, tos, 0x04, 0x00, 9, 9, 0x40, 0, 64, 17, 0, 0]);
        area[32..36].copy_from_slice(&source);
        area[36..].copy_from_slice(&[10, 0, 0, 2]);
        let sum: u32 = (20..40)
            .step_by(2)
            .map(|at| u32::from(u16::from_be_bytes([area[at], area[at + 1]])))
            .sum();
        let folded = (sum & 0xffff) + (sum >> 16);
        area[30..32].copy_from_slice(&(!(folded as u16)).to_be_bytes());
        area
    }

    fn ipv6() -> Grh {
        Grh {
            layout: Layout::Ipv6,
            source: [0xfd; 16],
            destination: [0xfe; 16],
            traffic_class: 0xb9,
            flow_label: 0xabcde,
            hop_limit: 7,
            payload_length: 4096,
        }
    }

    #[test]
    fn ipv4_is_found_whatever_stands_before_it() {
        for rest in [[0; 20], [0x45; 20], [0x60; 20], [0xff; 20]] {
            let grh = Grh::parse(&ipv4(0xba, [192, 168, 1, 77], rest)).unwrap();
            assert_eq!(grh.layout, Layout::Ipv4);
            assert_eq!((grh.ecn(), grh.dscp(), grh.hop_limit), (Ecn::Capable0, 46, 64));
            assert_eq!(grh.source_ip().to_string(), "::ffff:192.168.1.77");
            assert_eq!(grh.destination[12..], [10, 0, 0, 2]);
            assert_eq!((grh.payload_length, grh.flow_label), (0x400 - 20, 0));
        }
    }

    #[test]
    fn a_header_that_was_never_sent_has_no_checksum() {
        let mut area = ipv4(1, [10, 0, 0, 1], [0; 20]);
        area[30..32].fill(0);
        assert_eq!(Grh::parse(&area).unwrap().ecn(), Ecn::Capable1, "as rxe gives it to itself");
    }

    #[test]
    fn an_ipv6_address_that_looks_like_ipv4_stays_ipv6() {
        let mut grh = ipv6();
        grh.source[12] = 0x45;
        assert_eq!(Grh::parse(&grh.to_bytes()), Ok(grh));
    }

    #[test]
    fn the_layout_of_ipv6_is_that_of_the_header() {
        let bytes = ipv6().to_bytes();
        assert_eq!(bytes[..8], [0x6b, 0x9a, 0xbc, 0xde, 0x10, 0x00, 0x1b, 7]);
        let grh = Grh::parse(&bytes).unwrap();
        assert_eq!((grh.ecn(), grh.dscp()), (Ecn::Capable1, 46));
    }

    #[test]
    fn rubbish_says_what_it_is() {
        let mut area = [0; 40];
        (area[0], area[20]) = (0x30, 0x52);
        let error = Grh::parse(&area).unwrap_err();
        assert_eq!(error, BadGrh { first: 3, second: 5 });
        assert!(error.to_string().contains("UD queue pair"), "{error}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_calmly(area in any::<[u8; 40]>()) {
            if let Ok(grh) = Grh::parse(&area) {
                prop_assert!(grh.flow_label <= MAX_FLOW_LABEL);
                prop_assert_eq!(grh.dscp() << 2 | grh.traffic_class & 3, grh.traffic_class);
                // An IPv4 area is not written back, as no device of ours makes one.
                if grh.layout == Layout::Ipv6 && area[6] == NEXT_HEADER_INFINIBAND {
                    prop_assert_eq!(grh.to_bytes(), area);
                }
            }
        }

        #[test]
        fn both_layouts_survive_a_changed_byte(
            at in 0usize..40, value in any::<u8>(), tos in any::<u8>(), four in any::<bool>(),
        ) {
            let mut area = if four { ipv4(tos, [1, 2, 3, 4], [0; 20]) } else { ipv6().to_bytes() };
            area[at] = value;
            let _ = Grh::parse(&area);
        }
    }
}
