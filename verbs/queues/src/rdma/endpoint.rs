//! The bytes of an [`Endpoint`] of this provider.
//!
//! Version 1, 36 bytes, integers big-endian:
//!
//! | offset | bytes | field | values |
//! |---|---|---|---|
//! | 0 | 4 | provider and version | `rdm1` |
//! | 4 | 1 | transport service | 1: RC |
//! | 5 | 1 | link layer | 1: InfiniBand, 2: Ethernet (RoCE v2) |
//! | 6 | 1 | path MTU | 1: 256, 2: 512, 3: 1024, 4: 2048, 5: 4096 bytes |
//! | 7 | 1 | READs that it executes at a time | 0: it refuses them |
//! | 8 | 4 | queue pair number | 24 bits, not 0 |
//! | 12 | 4 | first packet sequence number that it sends | 24 bits |
//! | 16 | 2 | LID | 0 on Ethernet |
//! | 18 | 2 | reserved | 0 |
//! | 20 | 16 | GID | all zero: none (InfiniBand only) |

use crate::error::Error;
use crate::queue_pair::Endpoint;

/// Provider and version.
const TAG: [u8; 4] = *b"rdm1";
const SERVICE_RC: u8 = 1;
const LEN: usize = 36;
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
    /// 1024 bytes: fits into an Ethernet MTU of 1500, for devices that say nothing we know.
    pub(super) const DEFAULT: Self = Self(3);

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
        bytes.extend_from_slice(&TAG);
        bytes.extend_from_slice(&[SERVICE_RC, self.link_layer, self.mtu.0, self.reads]);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.psn.to_be_bytes());
        bytes.extend_from_slice(&self.lid.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.gid);
        Endpoint(bytes)
    }

    pub(super) fn parse(endpoint: &Endpoint) -> Result<Self, Error> {
        let refuse = |reason: String| Error::BadEndpoint { reason };
        let bytes = endpoint.0.as_slice();
        if !bytes.starts_with(&TAG) {
            let tag = bytes.get(..TAG.len()).unwrap_or(bytes).escape_ascii();
            return Err(refuse(format!("it begins with `{tag}`, not `{}`", TAG.escape_ascii())));
        }
        let bytes: &[u8; LEN] = bytes
            .try_into()
            .map_err(|_| refuse(format!("it has {} bytes, not {LEN}", bytes.len())))?;
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let [service, link_layer, mtu, reads] = [bytes[4], bytes[5], bytes[6], bytes[7]];

        if service != SERVICE_RC {
            return Err(refuse(format!("transport service {service} is not RC")));
        }
        if !matches!(link_layer, INFINIBAND | ETHERNET) {
            return Err(refuse(format!("unknown link layer {link_layer}")));
        }
        let mtu = PathMtu::from_code(mtu.into())
            .ok_or_else(|| refuse(format!("unknown path MTU code {mtu}")))?;
        let (number, psn) = (word(8), word(12));
        if number == 0 || number > MAX_24_BITS || psn > MAX_24_BITS {
            return Err(refuse(format!("queue pair {number} or sequence number {psn}")));
        }
        if half(18) != 0 {
            return Err(refuse("reserved bytes are not 0".into()));
        }
        let mut gid = [0; 16];
        gid.copy_from_slice(&bytes[20..]);
        if link_layer == ETHERNET && gid == [0; 16] {
            return Err(refuse("it has no GID, which Ethernet needs".into()));
        }
        Ok(Self { link_layer, number, psn, lid: half(16), mtu, reads, gid })
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
        let mut expected = b"rdm1".to_vec();
        expected.extend([1, 2, 5, 16, 0, 1, 2, 3, 0, 4, 5, 6, 7, 8, 0, 0]);
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
