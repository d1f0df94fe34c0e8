//! The bytes of an [`Endpoint`] of this provider.
//!
//! Version 1, RC; integers are big-endian:
//!
//! | offset | bytes | field | values |
//! |---|---|---|---|
//! | 0 | 1 | provider | 1: rdma |
//! | 1 | 1 | version of this layout | 1 |
//! | 2 | 1 | transport service | 1: RC |
//! | 3 | 1 | link layer | 1: InfiniBand, 2: Ethernet (RoCE v2) |
//! | 4 | 4 | queue pair number | 24 bits, not 0 |
//! | 8 | 4 | first packet sequence number it sends | 24 bits |
//! | 12 | 2 | LID | 0 on Ethernet |
//! | 14 | 1 | path MTU | 1: 256, 2: 512, 3: 1024, 4: 2048, 5: 4096 bytes |
//! | 15 | 1 | READs that it executes at a time | 0: it refuses them |
//! | 16 | 16 | GID | all zero: none (InfiniBand only) |
//!
//! 32 bytes; another length is another version.

use crate::error::Error;
use crate::queue_pair::Endpoint;

const PROVIDER_RDMA: u8 = 1;
const VERSION: u8 = 1;
const SERVICE_RC: u8 = 1;
const LEN: usize = 32;
/// Queue pair numbers and packet sequence numbers have 24 bits.
pub(super) const MAX_24_BITS: u32 = 0x00ff_ffff;

/// Link layers as `ibv_port_attr` numbers them, and as they are on the wire.
pub(super) const INFINIBAND: u8 = 1;
/// See [`INFINIBAND`].
pub(super) const ETHERNET: u8 = 2;

/// A path MTU, as the InfiniBand specification encodes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PathMtu(u8);

impl PathMtu {
    /// From the code that devices use (1 to 5).
    pub(super) fn from_code(code: u32) -> Option<Self> {
        u8::try_from(code).ok().filter(|code| (1..=5).contains(code)).map(Self)
    }

    /// From a number of bytes, which must be 256, 512, 1024, 2048 or 4096.
    pub(super) fn from_bytes(bytes: u32) -> Option<Self> {
        (1..=5).map(Self).find(|mtu| mtu.bytes() == bytes)
    }

    pub(super) fn code(self) -> u32 {
        u32::from(self.0)
    }

    pub(super) fn bytes(self) -> u32 {
        128 << self.0
    }
}

/// What the peer must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RcEndpoint {
    pub(super) link_layer: u8,
    pub(super) number: u32,
    pub(super) psn: u32,
    pub(super) lid: u16,
    pub(super) mtu: PathMtu,
    pub(super) reads: u8,
    pub(super) gid: [u8; 16],
}

impl RcEndpoint {
    pub(super) fn encode(&self) -> Endpoint {
        let mut bytes = Vec::with_capacity(LEN);
        bytes.extend_from_slice(&[PROVIDER_RDMA, VERSION, SERVICE_RC, self.link_layer]);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.psn.to_be_bytes());
        bytes.extend_from_slice(&self.lid.to_be_bytes());
        bytes.extend_from_slice(&[self.mtu.0, self.reads]);
        bytes.extend_from_slice(&self.gid);
        Endpoint(bytes)
    }

    pub(super) fn parse(endpoint: &Endpoint) -> Result<Self, Error> {
        let refuse = |reason: String| Error::BadEndpoint { reason };
        match endpoint.0.as_slice() {
            [PROVIDER_RDMA, VERSION, ..] => {}
            [PROVIDER_RDMA, version, ..] => {
                return Err(refuse(format!("version {version}; this side speaks {VERSION}")));
            }
            [other, ..] => {
                return Err(refuse(format!("it is of provider {other}, not of an RDMA device")));
            }
            [] => return Err(refuse("it is empty".into())),
        }
        let bytes: &[u8; LEN] = endpoint.0.as_slice().try_into().map_err(|_| {
            refuse(format!("{} bytes, version {VERSION} has {LEN}", endpoint.0.len()))
        })?;
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };

        if bytes[2] != SERVICE_RC {
            return Err(refuse(format!("transport service {} is not RC", bytes[2])));
        }
        let link_layer = bytes[3];
        if !matches!(link_layer, INFINIBAND | ETHERNET) {
            return Err(refuse(format!("unknown link layer {link_layer}")));
        }
        let (number, psn) = (word(4), word(8));
        if number == 0 || number > MAX_24_BITS || psn > MAX_24_BITS {
            return Err(refuse(format!("queue pair {number} or sequence number {psn}")));
        }
        let mtu = PathMtu::from_code(bytes[14].into())
            .ok_or_else(|| refuse(format!("unknown path MTU code {}", bytes[14])))?;
        let mut gid = [0; 16];
        gid.copy_from_slice(&bytes[16..]);
        if link_layer == ETHERNET && gid == [0; 16] {
            return Err(refuse("no GID, which Ethernet needs".into()));
        }
        let lid = u16::from_be_bytes([bytes[12], bytes[13]]);
        Ok(Self { link_layer, number, psn, lid, mtu, reads: bytes[15], gid })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_endpoint() -> impl Strategy<Value = RcEndpoint> {
        (1u8..=2, 1..=MAX_24_BITS, 0..=MAX_24_BITS, any::<u16>(), 1u32..=5, any::<u8>(), 1u8..)
            .prop_map(|(link_layer, number, psn, lid, mtu, reads, gid)| RcEndpoint {
                link_layer,
                number,
                psn,
                lid,
                mtu: PathMtu::from_code(mtu).unwrap(),
                reads,
                gid: [gid; 16],
            })
    }

    proptest! {
        #[test]
        fn round_trip(endpoint in any_endpoint()) {
            let bytes = endpoint.encode();
            prop_assert!(bytes.0.len() <= Endpoint::MAX_LEN);
            prop_assert_eq!(RcEndpoint::parse(&bytes).unwrap(), endpoint);
        }

        #[test]
        fn rubbish_is_refused_or_round_trips(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let endpoint = Endpoint(bytes);
            if let Ok(parsed) = RcEndpoint::parse(&endpoint) {
                prop_assert_eq!(parsed.encode(), endpoint);
            }
        }

        #[test]
        fn a_changed_byte_never_panics(
            endpoint in any_endpoint(), at in 0usize..LEN, value in any::<u8>(), cut in 0usize..=LEN,
        ) {
            let mut bytes = endpoint.encode();
            bytes.0[at] = value;
            if let Ok(parsed) = RcEndpoint::parse(&bytes) {
                prop_assert_eq!(parsed.encode(), bytes.clone());
            }
            bytes.0.truncate(cut);
            prop_assert_eq!(RcEndpoint::parse(&bytes).is_ok() && cut < LEN, false);
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let endpoint = RcEndpoint {
            link_layer: ETHERNET,
            number: 0x01_0203,
            psn: 0x04_0506,
            lid: 0x0708,
            mtu: PathMtu::from_bytes(4096).unwrap(),
            reads: 16,
            gid: [9; 16],
        };
        let mut expected = vec![1, 1, 1, 2, 0, 1, 2, 3, 0, 4, 5, 6, 7, 8, 5, 16];
        expected.extend([9; 16]);
        assert_eq!(endpoint.encode().0, expected);
    }

    #[test]
    fn path_mtus() {
        for (code, bytes) in [(1, 256), (2, 512), (3, 1024), (4, 2048), (5, 4096)] {
            assert_eq!(PathMtu::from_code(code), PathMtu::from_bytes(bytes));
            assert_eq!(PathMtu::from_code(code).map(PathMtu::bytes), Some(bytes));
        }
        assert_eq!(PathMtu::from_code(0), None);
        assert_eq!(PathMtu::from_code(6), None);
        assert_eq!(PathMtu::from_bytes(1500), None);
    }
}
