//! The device, opened.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::completion_queue::CompletionQueue;
use super::datagram::AddressHandle;
use super::device::{self, MAX_WORK_REQUESTS};
use super::options::SoftOptions;
use super::queue_pair::{Parts, QueuePair};
use super::region::MemoryRegion;
use super::service::Service;
use super::shared_receive::SharedReceiveQueue;
use crate::context::AsyncEvent;
use crate::datagram::AddressVector;
use crate::device::DeviceAttributes;
use crate::error::Error;
use crate::memory::Access;
use crate::queue_pair::QueuePairInit;

/// A NIC in memory, opened. Each one is a device of its own, with its own keys and numbers.
///
/// ```
/// use netchannel_verbs::soft::{Context, SoftOptions};
/// use netchannel_verbs::Context as _;
///
/// let nic = Context::open(SoftOptions::default())?;
/// assert!(nic.attributes().moves_bytes_while_posting());
/// # Ok::<(), netchannel_verbs::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Context {
    service: Arc<Service>,
}

/// What a device opened with the default options is and can do, for lists of devices.
pub fn attributes() -> DeviceAttributes {
    device::attributes(&SoftOptions::default())
}

impl Context {
    /// Opens a NIC.
    ///
    /// # Errors
    /// [`Error::Os`] if the operating system refuses a thread, a socket or a descriptor.
    pub fn open(options: SoftOptions) -> Result<Self, Error> {
        Ok(Self { service: Arc::new(Service::start(options)?) })
    }

    /// How many sources were changed between posting and execution (deferred mode only): mistakes of
    /// the code above.
    pub fn reuse_violations(&self) -> u64 {
        self.service.device.violations.load(Ordering::Relaxed)
    }
}

fn limit(operation: &'static str, what: &str, value: u32, most: u32) -> Result<(), Error> {
    if (1..=most).contains(&value) {
        return Ok(());
    }
    let reason = format!("{what} is {value}, and the soft device takes 1 to {most}");
    Err(Error::Invalid { operation, reason })
}

impl crate::Context for Context {
    type CompletionQueue = CompletionQueue;
    type QueuePair = QueuePair;
    type AddressHandle = AddressHandle;
    type SharedReceiveQueue = SharedReceiveQueue;
    type MemoryRegion = MemoryRegion;

    fn attributes(&self) -> &DeviceAttributes {
        &self.service.device.attributes
    }

    fn create_completion_queue(&self, capacity: u32) -> Result<CompletionQueue, Error> {
        let most = self.attributes().max_completions;
        limit("creating a completion queue", "the capacity", capacity, most)?;
        CompletionQueue::new(&self.service, capacity)
    }

    fn create_shared_receive_queue(&self, capacity: u32) -> Result<SharedReceiveQueue, Error> {
        limit("creating a shared receive queue", "the capacity", capacity, MAX_WORK_REQUESTS)?;
        Ok(SharedReceiveQueue::new(&self.service, capacity))
    }

    fn create_queue_pair(&self, init: &QueuePairInit<'_, Self>) -> Result<QueuePair, Error> {
        let operation = "creating a queue pair";
        limit(operation, "the send capacity", init.send_capacity, MAX_WORK_REQUESTS)?;
        if init.shared_receive_queue.is_none() {
            limit(operation, "the receive capacity", init.receive_capacity, MAX_WORK_REQUESTS)?;
        }
        let most = self.attributes().max_inline;
        if init.inline_bytes > most {
            let wanted = init.inline_bytes;
            let reason = format!("{wanted} inline bytes, and the device takes at most {most}");
            return Err(Error::Invalid { operation, reason });
        }
        QueuePair::new(
            &self.service,
            init.service,
            Parts {
                send_queue: init.send_queue.shared.clone(),
                receive_queue: init.receive_queue.shared.clone(),
                shared_receives: init.shared_receive_queue.map(|queue| queue.shared.clone()),
                send_capacity: init.send_capacity,
                receive_capacity: init.receive_capacity,
            },
        )
    }

    fn create_address_handle(&self, address: &AddressVector) -> Result<AddressHandle, Error> {
        AddressHandle::new(&self.service, address)
    }

    fn alloc(&self, len: usize, access: Access) -> Result<MemoryRegion, Error> {
        MemoryRegion::alloc(&self.service, len, access)
    }

    fn alloc_shared(&self, len: usize, access: Access) -> Result<(MemoryRegion, OwnedFd), Error> {
        MemoryRegion::alloc_shared(&self.service, len, access)
    }

    unsafe fn register(
        &self,
        memory: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<MemoryRegion, Error> {
        let operation = "registering memory";
        if access.intersects(Access::REMOTE_WRITE | Access::REMOTE_READ) {
            let reason = "peers reach only what `alloc` gave".into();
            return Err(Error::Invalid { operation, reason });
        }
        if len == 0 {
            return Err(Error::Invalid { operation, reason: "there are no bytes".into() });
        }
        MemoryRegion::register(&self.service, memory, len, access)
    }

    fn poll_event(&self) -> Result<Option<AsyncEvent>, Error> {
        Ok(self.service.device.next_event())
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.service.device.event_wake.fd()
    }
}
