//! Handles of opened devices.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use super::address_handle::AddressHandle;
use super::completion_queue::CompletionQueue;
use super::device::{Device, OpenDevice, ProtectionDomain};
use super::device_list::{DeviceList, ListedDevice};
use super::memory::MemoryRegion;
use super::queue_pair::QueuePair;
use super::shared_receive_queue::SharedReceiveQueue;
use super::{attributes, events, library};
use crate::context::AsyncEvent;
use crate::datagram::AddressVector;
use crate::device::DeviceAttributes;
use crate::error::Error;
use crate::memory::Access;
use crate::queue_pair::QueuePairInit;

/// What to use instead of the automatic choice; see
/// [`PortAttributes::reason`](crate::device::PortAttributes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    /// Port, from 1.
    pub port: Option<u8>,
    /// Index in the port's GID table.
    pub gid_index: Option<u32>,
    /// Path MTU in bytes (256, 512, 1024, 2048 or 4096), not above the port's.
    pub mtu: Option<u32>,
    /// The address that this host is to be reached at: a port and a GID that have it are preferred to
    /// others.
    pub address: Option<IpAddr>,
}

/// All devices, as they are when opened without options.
///
/// # Errors
/// [`Error::NoDevice`] if there is none, or no libibverbs; the first failure if none of them can
/// be opened.
pub fn devices() -> Result<Vec<DeviceAttributes>, Error> {
    devices_at(None)
}

/// All devices, as they are when opened for an address of this host.
///
/// # Errors
/// As [`devices`].
pub fn devices_at(address: Option<IpAddr>) -> Result<Vec<DeviceAttributes>, Error> {
    let options = OpenOptions { address, ..OpenOptions::default() };
    let list = DeviceList::new()?;
    let mut devices = Vec::new();
    let mut failure = None;
    for listed in list.iter() {
        match Context::open_listed(listed, &options) {
            Ok(context) => devices.push(context.device.attributes.clone()),
            Err(error) => {
                tracing::warn!(device = listed.name(), %error, "cannot open");
                failure.get_or_insert(error);
            }
        }
    }
    match failure {
        Some(error) if devices.is_empty() => Err(error),
        _ => Ok(devices),
    }
}

/// An opened RDMA device with a protection domain.
#[derive(Clone)]
pub struct Context {
    device: Arc<Device>,
}

impl Context {
    /// Opens the device of this name (`rdma link show`, `ibv_devices`).
    ///
    /// # Errors
    /// [`Error::NoDevice`] and [`Error::UnknownDevice`] if it is not there, [`Error::Invalid`] for
    /// options that do not fit it, [`Error::Os`] if it cannot be opened.
    pub fn open(name: &str, options: &OpenOptions) -> Result<Self, Error> {
        let list = DeviceList::new()?;
        Self::open_listed(list.find(name)?, options)
    }

    fn open_listed(listed: ListedDevice<'_>, options: &OpenOptions) -> Result<Self, Error> {
        let device = OpenDevice::new(listed)?;
        events::set_non_blocking(events::async_fd(&device), "async_fd")?;
        let domain = ProtectionDomain::new(device)?;
        let (attributes, limits) = attributes::query(&domain, listed)?.interpret(options)?;
        let mlx5 = if attributes.mlx5.is_ok() { library::mlx5().ok() } else { None };
        Ok(Self { device: Arc::new(Device { domain, attributes, limits, mlx5 }) })
    }
}

impl crate::Context for Context {
    type CompletionQueue = CompletionQueue;
    type QueuePair = QueuePair;
    type AddressHandle = AddressHandle;
    type SharedReceiveQueue = SharedReceiveQueue;
    type MemoryRegion = MemoryRegion;

    fn attributes(&self) -> &DeviceAttributes {
        &self.device.attributes
    }

    fn create_completion_queue(&self, capacity: u32) -> Result<CompletionQueue, Error> {
        CompletionQueue::new(&self.device, capacity)
    }

    fn create_shared_receive_queue(&self, capacity: u32) -> Result<SharedReceiveQueue, Error> {
        SharedReceiveQueue::new(&self.device, capacity)
    }

    fn create_queue_pair(&self, init: &QueuePairInit<'_, Self>) -> Result<QueuePair, Error> {
        QueuePair::new(&self.device, init)
    }

    fn create_address_handle(&self, address: &AddressVector) -> Result<AddressHandle, Error> {
        AddressHandle::new(&self.device, address)
    }

    fn alloc(&self, len: usize, access: Access) -> Result<MemoryRegion, Error> {
        MemoryRegion::alloc(&self.device, len, access)
    }

    fn alloc_shared(&self, len: usize, access: Access) -> Result<(MemoryRegion, OwnedFd), Error> {
        MemoryRegion::alloc_shared(&self.device, len, access)
    }

    unsafe fn register(
        &self,
        memory: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<MemoryRegion, Error> {
        // SAFETY: the caller keeps the memory mapped while the region lives.
        unsafe { MemoryRegion::register(&self.device, memory, len, access) }
    }

    fn poll_event(&self) -> Result<Option<AsyncEvent>, Error> {
        events::poll(&self.device)
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        events::async_fd(&self.device.domain.device)
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("rdma::Context").field(&self.device.attributes.name).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_rdma_says_why() {
        match devices() {
            Err(Error::NoDevice { reason }) => {
                assert!(!reason.is_empty());
                let error = Context::open("mlx5_0", &OpenOptions::default()).unwrap_err();
                assert!(matches!(error, Error::NoDevice { .. }), "{error}");
            }
            Err(error) => panic!("{error}"),
            Ok(devices) => assert!(devices.iter().all(|device| !device.port.reason.is_empty())),
        }
    }
}
