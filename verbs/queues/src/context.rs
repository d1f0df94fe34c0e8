//! An opened device.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;

use crate::completion::CompletionQueue;
use crate::datagram::{AddressHandle, AddressVector};
use crate::device::DeviceAttributes;
use crate::error::Error;
use crate::memory::{Access, MemoryRegion};
use crate::queue_pair::{QueuePair, QueuePairInit, SharedReceiveQueue};

/// An opened device with one protection domain. Clones are handles to the same device; objects
/// keep it open.
pub trait Context: Clone + Send + Sync + 'static {
    /// Where requests complete.
    type CompletionQueue: CompletionQueue + 'static;
    /// A connection, or a queue pair for datagrams.
    type QueuePair: QueuePair<AddressHandle = Self::AddressHandle> + 'static;
    /// The way to a port.
    type AddressHandle: AddressHandle + 'static;
    /// A receive queue for several queue pairs.
    type SharedReceiveQueue: SharedReceiveQueue + 'static;
    /// Registered memory.
    type MemoryRegion: MemoryRegion + 'static;

    /// What the device is and can do, as it was when it was opened.
    fn attributes(&self) -> &DeviceAttributes;

    /// Makes a completion queue for at least `capacity` completions.
    ///
    /// # Errors
    /// [`Error::Invalid`] above the device's limit, [`Error::Os`] if the device refuses.
    fn create_completion_queue(&self, capacity: u32) -> Result<Self::CompletionQueue, Error>;

    /// Makes a shared receive queue for at least `capacity` requests.
    ///
    /// # Errors
    /// [`Error::Invalid`] above the device's limit, [`Error::Os`] if the device refuses.
    fn create_shared_receive_queue(&self, capacity: u32)
    -> Result<Self::SharedReceiveQueue, Error>;

    /// Makes a queue pair in the state `Init`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a service that the device lacks, [`Error::Invalid`] above its
    /// limits, [`Error::Os`] if it refuses.
    fn create_queue_pair(&self, init: &QueuePairInit<'_, Self>) -> Result<Self::QueuePair, Error>;

    /// Makes the way to a port, for datagrams. Waits for nobody, except where the device must ask the
    /// network for a hardware address.
    ///
    /// # Errors
    /// [`Error::Invalid`] for fields out of range, [`Error::Os`] if the device refuses, as it may when
    /// no route leads there.
    fn create_address_handle(&self, address: &AddressVector) -> Result<Self::AddressHandle, Error>;

    /// Allocates and registers zeroed, page-aligned memory, which peers may then reach if `access`
    /// says so. `len` is rounded up to whole pages.
    ///
    /// # Errors
    /// [`Error::Os`] if there is no memory or the device refuses (often `RLIMIT_MEMLOCK`).
    fn alloc(&self, len: usize, access: Access) -> Result<Self::MemoryRegion, Error>;

    /// Like [`alloc`](Self::alloc), in a sealed memfd of its own: also returns a descriptor with
    /// which another process may map the memory, for reading only.
    ///
    /// # Errors
    /// As [`alloc`](Self::alloc); [`Error::Invalid`] for memory that no peer reaches.
    fn alloc_shared(
        &self,
        len: usize,
        access: Access,
    ) -> Result<(Self::MemoryRegion, OwnedFd), Error>;

    /// Registers existing memory as a local source or, with [`Access::LOCAL_WRITE`], sink.
    ///
    /// # Errors
    /// [`Error::Invalid`] for remote rights (peers reach only what [`alloc`](Self::alloc) gave),
    /// [`Error::Os`] if the device refuses.
    ///
    /// # Safety
    /// The memory stays mapped until the region is closed or dropped.
    unsafe fn register(
        &self,
        memory: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Self::MemoryRegion, Error>;

    /// Takes the next event of the device, if there is one.
    ///
    /// # Errors
    /// [`Error::Os`] if the device is gone.
    fn poll_event(&self) -> Result<Option<AsyncEvent>, Error>;

    /// Becomes readable when [`poll_event`](Self::poll_event) has something. Non-blocking.
    fn event_fd(&self) -> BorrowedFd<'_>;
}

/// Something happened to the device or one of its objects (`ibv_async_event`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncEvent {
    /// The port is up.
    PortActive,
    /// The port is down.
    PortDown,
    /// The device is gone.
    DeviceFatal,
    /// A completion queue broke, most often because more completed than it has room for: its
    /// [`poll`](CompletionQueue::poll) says so.
    CompletionQueueFatal,
    /// This queue pair failed.
    QueuePairFatal(u32),
    /// A peer broke the protocol on this queue pair.
    AccessViolation(u32),
    /// A shared receive queue fell below its armed limit.
    ReceiveQueueLimit,
    /// No receive will be taken from the shared queue for this failed queue pair any more.
    LastReceiveReached(u32),
    /// Any other, as the device numbered it.
    Unknown(u32),
}
