//! Registered memory.

use std::ffi::c_int;
use std::fmt;
use std::os::fd::OwnedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use netchannel_shared_memory::memory::{self as shared, SharedMemory};
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::bindings::{self as sys, ibv_mr};
use super::device::{Device, warn_if_failed};
use super::library;
use crate::error::Error;
use crate::memory::{Access, RemoteKey};

/// Pages that this process mapped for itself.
struct Mapping {
    first: NonNull<u8>,
    len: usize,
}

/// Pages that a region keeps mapped.
enum Pages {
    Private { _mapping: Mapping },
    Shared { _mapping: shared::Mapping },
}

/// Registered memory; see [`crate::MemoryRegion`].
pub struct MemoryRegion {
    raw: Option<NonNull<ibv_mr>>,
    first: NonNull<u8>,
    len: usize,
    local_key: u32,
    remote_key: RemoteKey,
    device: Arc<Device>,
    pages: Option<Pages>,
}

// SAFETY: it hands out addresses, never references; libibverbs may be called from any thread.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl Mapping {
    fn new(len: usize) -> Result<Self, Error> {
        let (protection, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
        // SAFETY: the kernel chooses a free range of addresses.
        let first = unsafe { mmap_anonymous(ptr::null_mut(), len, protection, flags) }
            .map_err(|errno| Error::errno("mmap", errno.raw_os_error()))?;
        let first = NonNull::new(first.cast()).ok_or_else(|| Error::last_os("mmap"))?;
        Ok(Self { first, len })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped in `new` and unmapped once, when no device knows it any more.
        if let Err(errno) = unsafe { munmap(self.first.as_ptr().cast(), self.len) } {
            warn_if_failed(Err(Error::errno("munmap", errno.raw_os_error())));
        }
    }
}

impl MemoryRegion {
    pub(super) fn alloc(device: &Arc<Device>, len: usize, access: Access) -> Result<Self, Error> {
        check(device, "alloc", len, access)?;
        let page = rustix::param::page_size();
        let len = len.checked_next_multiple_of(page).ok_or_else(|| Error::errno("mmap", 12))?;
        let mapping = Mapping::new(len)?;
        // SAFETY: the mapping moves into the region, which drops it after deregistering.
        let mut region = unsafe { Self::new(device, mapping.first, len, access)? };
        region.pages = Some(Pages::Private { _mapping: mapping });
        Ok(region)
    }

    pub(super) fn alloc_shared(
        device: &Arc<Device>,
        len: usize,
        access: Access,
    ) -> Result<(Self, OwnedFd), Error> {
        check(device, "alloc_shared", len, access)?;
        if !access.intersects(Access::REMOTE_READ | Access::REMOTE_WRITE) {
            let reason = "memory without REMOTE_WRITE or REMOTE_READ is private".into();
            return Err(Error::Invalid { operation: "alloc_shared", reason });
        }
        let failed = |error| Error::Os {
            operation: "making memory to share",
            source: std::io::Error::other(error),
            hint: "",
        };
        // The device writes through this mapping; no other writable one can ever be made.
        let (memory, mapping) =
            SharedMemory::create_with_sole_writer("netchannel-region", len).map_err(failed)?;
        let fd = memory.read_only_fd().map_err(failed)?;
        // SAFETY: the mapping moves into the region, which drops it after deregistering.
        let mut region = unsafe { Self::new(device, mapping.as_ptr(), mapping.len(), access)? };
        region.pages = Some(Pages::Shared { _mapping: mapping });
        Ok((region, fd))
    }

    /// # Safety
    /// The memory stays mapped until the region is closed or dropped.
    pub(super) unsafe fn register(
        device: &Arc<Device>,
        memory: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Self, Error> {
        check(device, "register", len, access)?;
        if access.intersects(Access::REMOTE_READ | Access::REMOTE_WRITE) {
            let reason = "peers reach only memory that `alloc` gave".into();
            return Err(Error::Invalid { operation: "register", reason });
        }
        // SAFETY: the caller keeps the memory mapped.
        unsafe { Self::new(device, memory, len, access) }
    }

    /// # Safety
    /// The memory stays mapped until the region is closed or dropped.
    unsafe fn new(
        device: &Arc<Device>,
        first: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Self, Error> {
        let verbs = device.verbs();
        let domain = device.domain.raw.as_ptr();
        let address = first.as_ptr().cast();
        let flags = access_flags(access);
        // SAFETY: the domain is alive, and the caller keeps the memory mapped.
        let raw = unsafe {
            if device.attributes.capabilities.relaxed_ordering {
                // Completions still come after the bytes they announce, and nothing polls memory.
                let flags = flags | sys::IBV_ACCESS_RELAXED_ORDERING;
                verbs.ibv_reg_mr_iova2(domain, address, len, first.addr().get() as u64, flags)
            } else {
                verbs.ibv_reg_mr(domain, address, len, flags as c_int)
            }
        };
        let raw = NonNull::new(raw).ok_or_else(|| {
            Error::last_os("ibv_reg_mr")
                .advise("; is RLIMIT_MEMLOCK (`ulimit -l`) large enough for the registered memory?")
        })?;
        // SAFETY: the region was just made.
        let (local_key, remote_key) = unsafe { ((*raw.as_ptr()).lkey, (*raw.as_ptr()).rkey) };
        Ok(Self {
            raw: Some(raw),
            first,
            len,
            local_key,
            remote_key: RemoteKey(remote_key),
            device: Arc::clone(device),
            pages: None,
        })
    }

    fn deregister(&mut self) -> Result<(), Error> {
        let Some(raw) = self.raw.take() else { return Ok(()) };
        // SAFETY: registered in `new` and, having been taken out, deregistered once.
        let answer = unsafe { self.device.verbs().ibv_dereg_mr(raw.as_ptr()) };
        let result = library::check("ibv_dereg_mr", answer);
        if result.is_err() {
            // The device may still write to the pages: they must never become somebody else's.
            std::mem::forget(self.pages.take());
        }
        result
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        warn_if_failed(self.deregister());
    }
}

impl crate::MemoryRegion for MemoryRegion {
    fn as_ptr(&self) -> NonNull<u8> {
        self.first
    }

    fn len(&self) -> usize {
        self.len
    }

    fn local_key(&self) -> u32 {
        self.local_key
    }

    fn remote_key(&self) -> RemoteKey {
        self.remote_key
    }

    fn remote_address(&self) -> u64 {
        self.first.addr().get() as u64
    }

    fn close(mut self) -> Result<(), Error> {
        self.deregister()
    }
}

impl fmt::Debug for MemoryRegion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("rdma::MemoryRegion")
            .field("first", &self.first)
            .field("len", &self.len)
            .field("remote_key", &self.remote_key)
            .finish_non_exhaustive()
    }
}

fn check(
    device: &Device,
    operation: &'static str,
    len: usize,
    access: Access,
) -> Result<(), Error> {
    let limit = device.attributes.max_region;
    if len == 0 || len as u64 > limit {
        let reason = format!("{len} bytes are not from 1 to {limit}");
        return Err(Error::Invalid { operation, reason });
    }
    if access.contains(Access::REMOTE_WRITE) && !access.contains(Access::LOCAL_WRITE) {
        let reason = "REMOTE_WRITE needs LOCAL_WRITE".into();
        return Err(Error::Invalid { operation, reason });
    }
    Ok(())
}

fn access_flags(access: Access) -> u32 {
    [
        (Access::LOCAL_WRITE, sys::IBV_ACCESS_LOCAL_WRITE),
        (Access::REMOTE_WRITE, sys::IBV_ACCESS_REMOTE_WRITE),
        (Access::REMOTE_READ, sys::IBV_ACCESS_REMOTE_READ),
    ]
    .into_iter()
    .filter(|&(right, _)| access.contains(right))
    .fold(0, |flags, (_, flag)| flags | flag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_become_flags() {
        assert_eq!(access_flags(Access::empty()), 0);
        assert_eq!(access_flags(Access::all()), 1 | 2 | 4);
        assert_eq!(access_flags(Access::REMOTE_READ), sys::IBV_ACCESS_REMOTE_READ);
    }
}
