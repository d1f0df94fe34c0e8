//! Unreliable datagrams (UD): one queue pair talks to many.
//!
//! A queue pair of [`Service::UnreliableDatagram`](crate::queue_pair::Service) is not connected but
//! [activated](crate::QueuePair::activate) with its queue key. Each request then names its receiver:
//! an address handle, a queue pair number and that queue pair's key.
//!
//! - One datagram is one packet: at most [`PortAttributes::mtu`](crate::device::PortAttributes) bytes.
//! - A SEND completes when the packet has left; nobody says whether it arrived. A wrong queue key, an
//!   unknown queue pair, no posted receive or one that is too short, a full queue on the way: it is gone.
//! - A receive needs [`Grh::LEN`] bytes more than the payload: see [`grh`](crate::grh).
//!
//! ```
//! use netchannel_verbs::datagram::{Datagram, DatagramEndpoint, DatagramOptions};
//! use netchannel_verbs::queue_pair::{QueuePairInit, Service};
//! use netchannel_verbs::soft::{Context, SoftOptions};
//! use netchannel_verbs::work::{SendOperation, SendRequest, Slices};
//! use netchannel_verbs::{Context as _, QueuePair as _};
//!
//! let nic = Context::open(SoftOptions::default())?;
//! let queue = nic.create_completion_queue(16)?;
//! let mut queue_pair = nic.create_queue_pair(&QueuePairInit {
//!     service: Service::UnreliableDatagram,
//!     send_queue: &queue,
//!     receive_queue: &queue,
//!     shared_receive_queue: None,
//!     send_capacity: 8,
//!     receive_capacity: 8,
//!     inline_bytes: 0,
//! })?;
//! queue_pair.activate(&DatagramOptions { queue_key: 7 })?;
//!
//! // To itself, for brevity; in life the endpoint comes from the peer.
//! let peer = DatagramEndpoint::parse(&queue_pair.endpoint())?;
//! let handle = nic.create_address_handle(&peer.address())?;
//! let request = SendRequest {
//!     id: 1,
//!     operation: SendOperation::SendWithImmediate(42),
//!     local: Slices::default(),
//!     signaled: true,
//!     inline: false,
//!     solicited: false,
//! };
//! let datagram = Datagram::to(&peer, &handle, request);
//! // SAFETY: it has no slices, and the handle lives until the end.
//! unsafe { queue_pair.post_datagrams(&[datagram]) }.unwrap();
//! # Ok::<(), netchannel_verbs::Error>(())
//! ```

use crate::error::{Error, PostFailure};
use crate::grh::{Grh, MAX_FLOW_LABEL};
use crate::queue_pair::Endpoint;
use crate::work::{SendOperation, SendRequest, WorkCompletion};

/// Queue keys from here on belong to the operating system (the specification's *controlled* keys): devices put the
/// sender's own key in their place.
pub const FIRST_PRIVILEGED_KEY: u32 = 1 << 31;

/// Queue pair numbers have 24 bits.
const MAX_NUMBER: u32 = (1 << 24) - 1;

/// Routers between the hosts, at most; the usual default of IP.
const HOP_LIMIT: u8 = 64;

/// How an UD queue pair is activated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramOptions {
    /// Datagrams with another key are dropped. Below [`FIRST_PRIVILEGED_KEY`].
    pub queue_key: u32,
}

impl DatagramOptions {
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.queue_key < FIRST_PRIVILEGED_KEY {
            return Ok(());
        }
        let reason = format!("queue key {:#x} is the operating system's", self.queue_key);
        Err(Error::Invalid { operation: "activate", reason })
    }
}

/// Where datagrams go and how: what an [`AddressHandle`] is made of (the address vector of the
/// specification). They leave by the context's port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressVector {
    /// The receiver's port; all zero for one that has a LID only (InfiniBand, same subnet).
    pub gid: [u8; 16],
    /// The receiver's LID; 0 on Ethernet.
    pub lid: u16,
    /// Index of our own address in the port's GID table; `None` is the one that the context chose.
    pub source_gid_index: Option<u8>,
    /// DSCP (upper six bits) and ECN (lower two): set the latter to 1 or 2 to get marks instead of
    /// losses.
    pub traffic_class: u8,
    /// Tells flows apart for those who spread them over several paths; 20 bits.
    pub flow_label: u32,
    /// Service level (0 to 15).
    pub service_level: u8,
    /// Routers that a datagram passes at most. On RoCE, Linux takes the figure of the route instead.
    pub hop_limit: u8,
}

impl AddressVector {
    /// To a port, with nothing special.
    pub const fn new(gid: [u8; 16]) -> Self {
        Self {
            gid,
            lid: 0,
            source_gid_index: None,
            traffic_class: 0,
            flow_label: 0,
            service_level: 0,
            hop_limit: HOP_LIMIT,
        }
    }

    /// Back to the sender of a datagram; `grh` is its parsed GRH area, if it had one
    /// ([`WorkCompletion::has_grh`]). The reply gets its DSCP and service level; the ECN bits are
    /// zero, since those of the datagram say how *it* fared.
    pub fn reply(completion: &WorkCompletion, grh: Option<&Grh>) -> Self {
        let gid = grh.map_or([0; 16], |grh| grh.source);
        Self {
            lid: completion.source_lid,
            traffic_class: grh.map_or(0, |grh| grh.dscp() << 2),
            flow_label: grh.map_or(0, |grh| grh.flow_label),
            service_level: completion.service_level,
            ..Self::new(gid)
        }
    }

    /// What no device takes.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let reason = if self.flow_label > MAX_FLOW_LABEL {
            format!("flow label {:#x} has more than 20 bits", self.flow_label)
        } else if self.service_level > 15 {
            format!("service level {} is above 15", self.service_level)
        } else if self.gid == [0; 16] && self.lid == 0 {
            "it has neither GID nor LID".into()
        } else {
            return Ok(());
        };
        Err(Error::Invalid { operation: "create_address_handle", reason })
    }
}

/// A resolved [`AddressVector`], made by
/// [`Context::create_address_handle`](crate::Context::create_address_handle). It keeps its device
/// and protection domain open; dropping destroys it. One handle serves any number of queue pairs of
/// its context and receivers behind the port.
pub trait AddressHandle: Send + Sync {
    /// Destroys it.
    ///
    /// # Errors
    /// [`Error::Os`] if the device refuses; it is gone for this process all the same.
    fn close(self) -> Result<(), Error>;
}

/// A request for the send queue of an UD queue pair.
#[derive(Debug)]
pub struct Datagram<'a, H> {
    /// What to send: a SEND, with or without immediate.
    pub request: SendRequest,
    /// The way to the receiver's port.
    pub handle: &'a H,
    /// The receiver behind it.
    pub queue_pair: u32,
    /// The receiver's queue key, below [`FIRST_PRIVILEGED_KEY`].
    pub queue_key: u32,
}

// By hand: the handle itself need not be `Copy`.
impl<H> Copy for Datagram<'_, H> {}

impl<H> Clone for Datagram<'_, H> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, H> Datagram<'a, H> {
    /// `request` for `peer`, to which `handle` leads.
    pub fn to(peer: &DatagramEndpoint, handle: &'a H, request: SendRequest) -> Self {
        Self { request, handle, queue_pair: peer.number, queue_key: peer.queue_key }
    }
}

/// What no device takes, or some take and drop.
#[inline]
pub(crate) fn check(request: &SendRequest, queue_key: u32, mtu: u32) -> Result<(), &'static str> {
    if !matches!(request.operation, SendOperation::Send | SendOperation::SendWithImmediate(_)) {
        return Err("a datagram is a SEND, with or without immediate");
    }
    if request.local.bytes() > u64::from(mtu) {
        return Err("a datagram is longer than the port's MTU; it would be dropped");
    }
    if queue_key >= FIRST_PRIVILEGED_KEY {
        return Err("the queue key is one of the operating system's (its highest bit is set)");
    }
    Ok(())
}

/// `requests` can go as they are, those of a reliable connection.
pub(crate) const NEEDS_ADDRESS: PostFailure =
    PostFailure::Invalid("datagrams need an address: use post_datagrams");

/// The queue pair has a peer already.
pub(crate) const NEEDS_NO_ADDRESS: PostFailure =
    PostFailure::Invalid("only UD queue pairs take datagrams: use post_send");

/// A protection domain's handles are for its own queue pairs.
pub(crate) const FOREIGN_HANDLE: PostFailure =
    PostFailure::Invalid("the address handle is of another context");

/// What an UD queue pair's [`endpoint`](crate::QueuePair::endpoint) holds, the same for all
/// providers.
///
/// 32 bytes, integers big-endian:
///
/// | offset | bytes | field | values |
/// |---|---|---|---|
/// | 0 | 4 | tag and version | `dgm1` |
/// | 4 | 4 | queue pair number | 24 bits, not 0 |
/// | 8 | 4 | queue key | below 2^31; 0 before it was activated |
/// | 12 | 2 | LID | 0 on Ethernet |
/// | 14 | 2 | reserved | 0 |
/// | 16 | 16 | GID | all zero: none (InfiniBand only) |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramEndpoint {
    /// The queue pair.
    pub number: u32,
    /// Its key.
    pub queue_key: u32,
    /// LID of its port.
    pub lid: u16,
    /// GID of its port.
    pub gid: [u8; 16],
}

const TAG: [u8; 4] = *b"dgm1";
const LEN: usize = 32;

impl DatagramEndpoint {
    /// For [`QueuePair::endpoint`](crate::QueuePair::endpoint).
    pub(crate) fn encode(&self) -> Endpoint {
        let mut bytes = Vec::with_capacity(LEN);
        bytes.extend_from_slice(&TAG);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.queue_key.to_be_bytes());
        bytes.extend_from_slice(&self.lid.to_be_bytes());
        bytes.extend_from_slice(&[0, 0]);
        bytes.extend_from_slice(&self.gid);
        Endpoint(bytes)
    }

    /// Reads what a peer says of its queue pair.
    ///
    /// # Errors
    /// [`Error::BadEndpoint`] unless it is the endpoint of an UD queue pair.
    pub fn parse(endpoint: &Endpoint) -> Result<Self, Error> {
        let refuse = |reason: String| Error::BadEndpoint { reason };
        let bytes: &[u8; LEN] = endpoint.0.as_slice().try_into().map_err(|_| {
            refuse(format!("it has {} bytes, that of an UD queue pair {LEN}", endpoint.0.len()))
        })?;
        if bytes[..4] != TAG {
            let (found, tag) = (bytes[..4].escape_ascii(), TAG.escape_ascii());
            return Err(refuse(format!("it begins with `{found}`, not `{tag}`")));
        }
        let half = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let word = |at: usize| u32::from(half(at)) << 16 | u32::from(half(at + 2));
        let (number, queue_key, lid) = (word(4), word(8), half(12));
        if number == 0 || number > MAX_NUMBER || queue_key >= FIRST_PRIVILEGED_KEY {
            return Err(refuse(format!("queue pair {number} with queue key {queue_key:#x}")));
        }
        if half(14) != 0 {
            return Err(refuse("reserved bytes are not 0".into()));
        }
        let mut gid = [0; 16];
        gid.copy_from_slice(&bytes[16..]);
        if gid == [0; 16] && lid == 0 {
            return Err(refuse("it has neither GID nor LID".into()));
        }
        Ok(Self { number, queue_key, lid, gid })
    }

    /// The way there, with nothing special.
    pub const fn address(&self) -> AddressVector {
        AddressVector { lid: self.lid, ..AddressVector::new(self.gid) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn endpoint() -> DatagramEndpoint {
        DatagramEndpoint { number: 0x01_0203, queue_key: 0x0405_0607, lid: 0x0809, gid: [9; 16] }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let mut expected = b"dgm1".to_vec();
        expected.extend([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0]);
        expected.extend([9; 16]);
        assert_eq!(endpoint().encode().0, expected);
        assert_eq!(DatagramEndpoint::parse(&endpoint().encode()).unwrap(), endpoint());
    }

    #[test]
    fn address_vectors_that_no_device_takes() {
        let good = endpoint().address();
        good.check().unwrap();
        for bad in [
            AddressVector { flow_label: 1 << 20, ..good },
            AddressVector { service_level: 16, ..good },
            AddressVector { gid: [0; 16], lid: 0, ..good },
        ] {
            assert!(matches!(bad.check(), Err(Error::Invalid { .. })), "{bad:?}");
        }
    }

    #[test]
    fn a_reply_mirrors_what_concerns_it() {
        let mut area = [0; Grh::LEN];
        area[0] = 0x6b;
        area[1] = 0xb1;
        area[8..24].fill(3);
        let grh = Grh::parse(&area).unwrap();
        let completion =
            WorkCompletion { source_lid: 5, service_level: 2, ..WorkCompletion::default() };
        let reply = AddressVector::reply(&completion, Some(&grh));
        assert_eq!((reply.gid, reply.lid, reply.service_level), ([3; 16], 5, 2));
        assert_eq!((grh.traffic_class, reply.traffic_class), (0xbb, 0xb8));
        assert_eq!(AddressVector::reply(&completion, None).gid, [0; 16]);
    }

    proptest! {
        #[test]
        fn a_changed_endpoint_is_refused_or_round_trips(
            at in 0usize..LEN, value in any::<u8>(), cut in 0usize..=LEN,
        ) {
            let mut bytes = endpoint().encode();
            bytes.0[at] = value;
            if let Ok(parsed) = DatagramEndpoint::parse(&bytes) {
                prop_assert_eq!(parsed.encode(), bytes.clone());
            }
            bytes.0.truncate(cut);
            prop_assert!(cut == LEN || DatagramEndpoint::parse(&bytes).is_err());
        }
    }
}
