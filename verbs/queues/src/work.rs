//! Work requests and work completions.

use crate::memory::RemoteKey;

/// Most slices that one request can gather or scatter.
pub const MAX_SLICES: usize = 4;

/// A piece of local memory named in a work request (a scatter/gather element).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalSlice {
    /// Address of the first byte in this process.
    pub address: u64,
    /// Length in bytes.
    pub length: u32,
    /// Key of the region it lies in; ignored for inline requests.
    pub local_key: u32,
}

/// Up to [`MAX_SLICES`] slices, without allocation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slices {
    len: u8,
    items: [LocalSlice; MAX_SLICES],
}

impl Slices {
    /// One slice.
    pub fn one(slice: LocalSlice) -> Self {
        let mut slices = Self::default();
        slices.items[0] = slice;
        slices.len = 1;
        slices
    }

    /// Appends a slice.
    ///
    /// # Panics
    /// If there are [`MAX_SLICES`] already: a mistake of the caller, never of a peer.
    pub fn push(&mut self, slice: LocalSlice) {
        self.items[usize::from(self.len)] = slice;
        self.len += 1;
    }

    /// The slices.
    pub fn as_slice(&self) -> &[LocalSlice] {
        &self.items[..usize::from(self.len)]
    }

    /// Bytes in all slices.
    #[inline]
    pub fn bytes(&self) -> u64 {
        // Those that are not used are empty.
        self.items.iter().map(|s| u64::from(s.length)).sum()
    }
}

/// What a send request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendOperation {
    /// Into the receive request that the peer posted first.
    Send,
    /// The same, with 32 bits that appear in the peer's completion (host byte order here).
    SendWithImmediate(u32),
    /// Into the peer's memory; the peer sees no completion.
    Write {
        /// Address in the peer's terms.
        address: u64,
        /// Key of the peer's region.
        key: RemoteKey,
    },
    /// From the peer's memory into the local slices.
    Read {
        /// Address in the peer's terms.
        address: u64,
        /// Key of the peer's region.
        key: RemoteKey,
    },
}

/// A request for the send queue.
#[derive(Clone, Copy, Debug)]
pub struct SendRequest {
    /// Comes back in the completion.
    pub id: u64,
    /// What to do.
    pub operation: SendOperation,
    /// Source (or, for READ, destination).
    pub local: Slices,
    /// Make a completion on success. Errors complete always.
    pub signaled: bool,
    /// Copy the source while posting; it needs no key then and is the caller's again at once. At
    /// most [`QueuePair::max_inline`](crate::QueuePair::max_inline) bytes; not for READ.
    pub inline: bool,
    /// Ask for a completion event at the peer even if it armed for solicited events only.
    pub solicited: bool,
}

/// A request for a receive queue.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveRequest {
    /// Comes back in the completion.
    pub id: u64,
    /// Destination.
    pub local: Slices,
}

/// How a request ended (`ibv_wc_status`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Status {
    /// Done.
    #[default]
    Success,
    /// A receive was too short for the message, or a local length was wrong.
    LocalLength,
    /// The queue pair could not execute the request.
    LocalOperation,
    /// A local key or bound was wrong.
    LocalProtection,
    /// The queue pair went to error before the request was executed.
    Flushed,
    /// The peer found the request invalid (for one, its receive was too short).
    RemoteInvalidRequest,
    /// A remote key, bound or right was wrong.
    RemoteAccess,
    /// The peer failed while executing the request.
    RemoteOperation,
    /// The peer did not answer.
    RetryExceeded,
    /// The peer had no receive posted for too long.
    ReceiverNotReady,
    /// Any other status, as the device numbered it.
    Unknown(u32),
}

impl Status {
    /// Whether the request was executed.
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Success)
    }
}

/// What completed (`ibv_wc_opcode`). Only meaningful on success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A SEND of either form left.
    #[default]
    Send,
    /// A WRITE was executed.
    Write,
    /// A READ was executed.
    Read,
    /// A message arrived.
    Receive,
    /// Any other, as the device numbered it.
    Unknown(u32),
}

/// The end of one work request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkCompletion {
    /// The request's `id`.
    pub id: u64,
    /// How it ended.
    pub status: Status,
    /// What it was; only meaningful if `status` is success.
    pub opcode: Opcode,
    /// Bytes received (receives and READs that succeeded). Of a datagram: with the 40 of the GRH area.
    pub bytes: u32,
    /// Number of the local queue pair.
    pub queue_pair: u32,
    /// The sender's 32 bits (host byte order), if it sent some.
    pub immediate: Option<u32>,
    /// Vendor's reason for a failure; zero if there is none.
    pub vendor_error: u32,
    /// Number of the queue pair that sent a datagram. This and the following fields mean something
    /// only for receives of UD queue pairs.
    pub source_queue_pair: u32,
    /// LID of the port that sent it; 0 on Ethernet.
    pub source_lid: u16,
    /// Service level that it came with.
    pub service_level: u8,
    /// Whether the GRH area holds a header: see [`grh`](crate::grh).
    pub has_grh: bool,
}
