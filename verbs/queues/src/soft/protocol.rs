//! What two NICs in memory say to each other over their sockets, and what an endpoint contains.
//!
//! Every message is one packet of a SOCK_SEQPACKET unix socket; integers are in host byte order,
//! since both ends are on one host. Each request is answered by one reply with its sequence number.

use crate::error::Error;
use crate::queue_pair::Endpoint;

/// First bytes of an endpoint and of a request: provider and version.
const TAG: [u8; 4] = *b"sof2";
/// The longest abstract name that a peer may announce (the limit of `sun_path`).
const MAX_NAME: usize = 107;
/// No message is longer.
pub(super) const MAX_MESSAGE: usize = 256;

/// Proof that its bearer was given the endpoint.
pub(super) type Token = [u8; 16];

/// A queue pair, as its peers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// Abstract name of the socket of its device.
    pub(super) name: Vec<u8>,
    pub(super) number: u32,
    pub(super) token: Token,
}

impl Address {
    pub(super) fn to_endpoint(&self) -> Endpoint {
        let mut bytes = TAG.to_vec();
        bytes.extend(self.number.to_ne_bytes());
        bytes.extend(self.token);
        bytes.extend(&self.name);
        Endpoint(bytes)
    }

    pub(super) fn from_endpoint(endpoint: &Endpoint) -> Result<Self, Error> {
        let bad = |reason: &str| Error::BadEndpoint { reason: reason.into() };
        let mut input = Input(&endpoint.0);
        if input.take() != Some(TAG) {
            return Err(bad("it is not an endpoint of the soft provider, or of another version"));
        }
        let (Some(number), Some(token)) = (input.u32(), input.take()) else {
            return Err(bad("it is too short"));
        };
        if !(1..=MAX_NAME).contains(&input.0.len()) {
            return Err(bad("it has no socket name, or one that is too long"));
        }
        Ok(Self { name: input.0.to_vec(), number, token })
    }
}

/// A question to another device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// The key table, please.
    Hello,
    /// Here is the ring that you shall send to me on, and what wakes my queues (descriptors: ring,
    /// arm word and eventfd of the receive queue, the same of the send queue).
    Attach { number: u32, token: Token },
    /// A ring for the datagrams of my queue pair `source` to yours, whose queue key I know, and what
    /// wakes its receive queue, please (descriptors in the answer: ring, arm word and eventfd).
    Datagrams { number: u32, source: u32, queue_key: u32 },
    /// The memory behind this key, please; I am connected to that queue pair.
    Map { number: u32, token: Token, key: u32 },
}

impl Request {
    pub(super) fn encode(&self, sequence: u32) -> Vec<u8> {
        let mut bytes = TAG.to_vec();
        bytes.extend(sequence.to_ne_bytes());
        match self {
            Self::Hello => bytes.push(0),
            Self::Attach { number, token } => {
                bytes.push(1);
                bytes.extend(number.to_ne_bytes());
                bytes.extend(token);
            }
            Self::Map { number, token, key } => {
                bytes.push(2);
                bytes.extend(number.to_ne_bytes());
                bytes.extend(token);
                bytes.extend(key.to_ne_bytes());
            }
            Self::Datagrams { number, source, queue_key } => {
                bytes.push(3);
                bytes.extend(number.to_ne_bytes());
                bytes.extend(source.to_ne_bytes());
                bytes.extend(queue_key.to_ne_bytes());
            }
        }
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<(u32, Self)> {
        let mut input = Input(bytes);
        if input.take() != Some(TAG) {
            return None;
        }
        let sequence = input.u32()?;
        let [kind] = input.take()?;
        let request = match kind {
            0 => Self::Hello,
            1 => Self::Attach { number: input.u32()?, token: input.take()? },
            2 => Self::Map { number: input.u32()?, token: input.take()?, key: input.u32()? },
            3 => Self::Datagrams {
                number: input.u32()?,
                source: input.u32()?,
                queue_key: input.u32()?,
            },
            _ => return None,
        };
        input.0.is_empty().then_some((sequence, request))
    }
}

/// The answer to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) sequence: u32,
    /// Zero: granted.
    pub(super) refused: u32,
    /// For a mapping: where the owner has it, its length and rights.
    pub(super) base: u64,
    pub(super) len: u64,
    pub(super) access: u32,
}

impl Reply {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = self.sequence.to_ne_bytes().to_vec();
        bytes.extend(self.refused.to_ne_bytes());
        bytes.extend(self.base.to_ne_bytes());
        bytes.extend(self.len.to_ne_bytes());
        bytes.extend(self.access.to_ne_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes);
        let reply = Self {
            sequence: input.u32()?,
            refused: input.u32()?,
            base: input.u64()?,
            len: input.u64()?,
            access: input.u32()?,
        };
        input.0.is_empty().then_some(reply)
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_ne_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn messages_survive_the_trip() {
        let token = [7; 16];
        for request in [
            Request::Hello,
            Request::Attach { number: 5, token },
            Request::Map { number: 5, token, key: 9 },
            Request::Datagrams { number: 5, source: 6, queue_key: 7 },
        ] {
            assert_eq!(Request::decode(&request.encode(3)), Some((3, request)));
        }
        let reply = Reply { sequence: 1, refused: 2, base: 3, len: 4, access: 5 };
        assert_eq!(Reply::decode(&reply.encode()), Some(reply));
        let address = Address { name: b"name".to_vec(), number: 5, token };
        assert_eq!(Address::from_endpoint(&address.to_endpoint()).unwrap(), address);
    }

    proptest! {
        #[test]
        fn rubbish_is_refused_calmly(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Request::decode(&bytes);
            let _ = Reply::decode(&bytes);
            let _ = Address::from_endpoint(&Endpoint(bytes));
        }
    }
}
