//! Queue pairs and shared receive queues.

use std::time::Duration;

use crate::datagram::{AddressHandle, Datagram, DatagramOptions};
use crate::error::{Error, PostError};
use crate::source_port::SourcePort;
use crate::work::{ReceiveRequest, SendRequest};

/// The transport service of a queue pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    /// Reliable connected (RC): in order, acknowledged, retransmitted by the NIC.
    ReliableConnection,
    /// Unreliable datagram (UD): one queue pair talks to many. See [`datagram`](crate::datagram).
    UnreliableDatagram,
}

/// The states of a queue pair that the stack tells apart (`ibv_qp_state`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueuePairState {
    /// Made; receives may be posted.
    Init,
    /// Connected or activated: both directions work (RTS).
    ReadyToSend,
    /// Failed or fenced: requests complete as flushed.
    Error,
    /// Any other, as the device numbered it.
    Unknown(u32),
}

/// What a peer must know to connect to a queue pair: bytes that only the provider reads, or those
/// of a [`DatagramEndpoint`](crate::datagram::DatagramEndpoint). It travels in the session handshake;
/// `docs/wire.md` describes the contents.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint(pub Vec<u8>);

impl Endpoint {
    /// No provider's endpoint is longer; longer ones from a peer are refused.
    pub const MAX_LEN: usize = 256;
}

/// Sizes of a queue pair to be made.
#[derive(Clone, Copy, Debug)]
pub struct QueuePairInit<'a, C: crate::Context> {
    /// The transport service.
    pub service: Service,
    /// Where send requests complete.
    pub send_queue: &'a C::CompletionQueue,
    /// Where receive requests complete. May be the same.
    pub receive_queue: &'a C::CompletionQueue,
    /// Take receives from here; otherwise the queue pair has a receive queue of its own.
    pub shared_receive_queue: Option<&'a C::SharedReceiveQueue>,
    /// Send requests that may be outstanding.
    pub send_capacity: u32,
    /// Receive requests that may be outstanding (without a shared receive queue).
    pub receive_capacity: u32,
    /// Wanted inline size in bytes; the device may give more.
    pub inline_bytes: u32,
}

/// Reliability and path parameters of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// Time without an acknowledgement until the NIC sends again. Rounded up to 4.096 us x 2^n.
    pub ack_timeout: Duration,
    /// How often it does so before the queue pair fails; 0 to 6 (7 is endless on some devices and
    /// is refused).
    pub retries: u8,
    /// Time the peer's NIC asks to wait when no receive is posted.
    pub receiver_not_ready_timer: Duration,
    /// How often to try again then; 0 to 6, or 7 for ever.
    pub receiver_not_ready_retries: u8,
    /// Traffic class (DSCP and ECN bits of the IP header).
    pub traffic_class: u8,
    /// Service level (0 to 15).
    pub service_level: u8,
    /// UDP source port of RoCE v2 packets; without one it is
    /// [derived from the flow](crate::source_port).
    pub source_port: Option<SourcePort>,
}

impl Default for ConnectOptions {
    /// For data-centre round trips of 1 to 100 us: a dead path shows after about half a second
    /// (67 ms and 6 retries; measured as 470 to 491 ms), since anything shorter fails on emulated
    /// hosts that stop for milliseconds. Receiver-not-ready is endless: credits make it a
    /// transient of a slow poster, not an error.
    fn default() -> Self {
        Self {
            ack_timeout: Duration::from_micros(67_109),
            retries: 6,
            receiver_not_ready_timer: Duration::from_micros(640),
            receiver_not_ready_retries: 7,
            traffic_class: 0,
            service_level: 0,
            source_port: None,
        }
    }
}

/// A queue pair. Made by [`Context::create_queue_pair`](crate::Context::create_queue_pair) in the
/// state [`QueuePairState::Init`]; dropping destroys it.
///
/// Calls on queue pairs and queues that share a completion queue are meant to come from one thread
/// at a time; a provider must be sound, but need not be fast, when they do not.
pub trait QueuePair: Send {
    /// The address handles of this provider.
    type AddressHandle: AddressHandle;

    /// The local number, as in [`WorkCompletion::queue_pair`](crate::WorkCompletion).
    fn number(&self) -> u32;

    /// What the peer needs to connect to this queue pair.
    fn endpoint(&self) -> Endpoint;

    /// Connects to the peer's queue pair; requests may be posted when it returns. Both sides call
    /// it, in any order, and neither waits for the other; requests posted before the peer has
    /// connected wait (or are retried by the NIC).
    ///
    /// # Errors
    /// [`Error::BadEndpoint`] for an endpoint of another provider or an unreachable one,
    /// [`Error::Invalid`] for options out of range and on UD queue pairs, [`Error::Os`] if the device
    /// refuses.
    fn connect(&mut self, peer: &Endpoint, options: &ConnectOptions) -> Result<(), Error>;

    /// As [`connect`](Self::connect), for threads that must not wait for the peer: requests may be
    /// posted at once. If its device refuses or does not answer, the queue pair fails: its requests
    /// complete with [`Status::RetryExceeded`](crate::work::Status), and there is
    /// [`AsyncEvent::QueuePairFatal`](crate::context::AsyncEvent). Devices that need no answer of the
    /// peer have nothing to do here.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), as far as this side knows.
    fn start_connect(&mut self, peer: &Endpoint, options: &ConnectOptions) -> Result<(), Error> {
        self.connect(peer, options)
    }

    /// Makes an UD queue pair ready to send and to receive. Its sequence numbers begin at random.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a privileged queue key, twice, and on connections; [`Error::Os`] if the
    /// device refuses.
    fn activate(&mut self, options: &DatagramOptions) -> Result<(), Error>;

    /// Asks the device for the state.
    ///
    /// # Errors
    /// [`Error::Os`] if the device does not answer.
    fn state(&self) -> Result<QueuePairState, Error>;

    /// Moves to [`QueuePairState::Error`]: every outstanding request completes, those not executed
    /// as [`Status::Flushed`](crate::work::Status). The peer's requests are refused from then on.
    ///
    /// # Errors
    /// [`Error::Os`] if the device refuses.
    fn fail(&mut self) -> Result<(), Error>;

    /// The UDP source port that the device was told for this connection; none before it is
    /// connected, and where packets are no UDP.
    fn source_port(&self) -> Option<SourcePort> {
        None
    }

    /// After [`fail`](Self::fail): whether the device is done with the queue pair, so that every
    /// completion that it will ever make can be polled now and no peer is in the middle of writing
    /// to this side's memory. `None` if the device does not say: then
    /// [`AsyncEvent::LastReceiveReached`](crate::context::AsyncEvent) does on most devices, and
    /// destroying the queue pair on all of them.
    fn is_drained(&self) -> Option<bool> {
        None
    }

    /// Bytes that an inline request can carry; `u32::MAX` where posting itself moves the bytes.
    fn max_inline(&self) -> u32;

    /// Appends to the send queue, in order.
    ///
    /// # Errors
    /// See [`PostError`]; requests before [`PostError::posted`] are on the queue.
    ///
    /// # Safety
    /// Every slice lies in memory that stays valid, and is not written (for READ: not touched),
    /// until the request's completion, or that of a later one of this queue pair, was polled; for
    /// inline requests until this call returns.
    unsafe fn post_send(&mut self, requests: &[SendRequest]) -> Result<(), PostError>;

    /// Appends datagrams to the send queue of an UD queue pair, in order.
    ///
    /// # Errors
    /// As [`post_send`](Self::post_send); `Invalid` above the port's MTU and on connections.
    ///
    /// # Safety
    /// As for [`post_send`](Self::post_send), and each handle lives as long as the source of its
    /// datagram must.
    unsafe fn post_datagrams(
        &mut self,
        datagrams: &[Datagram<'_, Self::AddressHandle>],
    ) -> Result<(), PostError>;

    /// Appends to the receive queue, in order.
    ///
    /// # Errors
    /// As [`post_send`](Self::post_send); `Invalid` with a shared receive queue.
    ///
    /// # Safety
    /// Every slice lies in memory that stays valid and untouched until the completion was polled.
    unsafe fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError>;

    /// Destroys it.
    ///
    /// # Errors
    /// [`Error::Os`] if the device refuses; it is gone for this process all the same.
    fn close(self) -> Result<(), Error>;
}

/// A receive queue that several queue pairs take from.
pub trait SharedReceiveQueue: Send {
    /// Appends receive requests, in order.
    ///
    /// # Errors
    /// As [`QueuePair::post_send`].
    ///
    /// # Safety
    /// Every slice lies in memory that stays valid and untouched until the completion was polled
    /// or the queue was destroyed.
    unsafe fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError>;

    /// Asks for one [`AsyncEvent::ReceiveQueueLimit`](crate::context::AsyncEvent) when fewer than
    /// `limit` requests are left.
    ///
    /// # Errors
    /// [`Error::Os`] if the device refuses.
    fn arm_limit(&mut self, limit: u32) -> Result<(), Error>;

    /// Destroys it.
    ///
    /// # Errors
    /// [`Error::Os`] if the device refuses (queue pairs still use it).
    fn close(self) -> Result<(), Error>;
}
