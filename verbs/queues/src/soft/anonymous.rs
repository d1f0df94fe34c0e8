//! Private memory for regions that no peer reaches.

use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::error::Error;

/// Anonymous pages of this process, zeroed, unmapped on drop.
#[derive(Debug)]
pub(super) struct Anonymous {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: pages belong to the process, not to a thread.
unsafe impl Send for Anonymous {}
// SAFETY: `&self` gives no access to the bytes.
unsafe impl Sync for Anonymous {}

impl Anonymous {
    pub(super) fn new(len: usize) -> Result<Self, Error> {
        let invalid = || Error::Invalid {
            operation: "allocating a region",
            reason: format!("{len} bytes: ask for 1 byte to half the address space"),
        };
        let len = len
            .checked_next_multiple_of(rustix::param::page_size())
            .filter(|rounded| (1..=isize::MAX as usize).contains(rounded))
            .ok_or_else(invalid)?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address that the kernel picks touches no existing one.
        let base =
            unsafe { rustix::mm::mmap_anonymous(null_mut(), len, protection, MapFlags::PRIVATE) };
        let base = base.map_err(|errno| Error::errno("mmap", errno.raw_os_error()))?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(invalid)?;
        for advice in [Advice::LinuxHugepage, Advice::LinuxPopulateWrite] {
            // SAFETY: exactly our mapping, and neither advice changes what it holds. Both are wishes.
            let _ = unsafe { rustix::mm::madvise(base.as_ptr().cast(), len, advice) };
        }
        Ok(Self { base, len })
    }

    pub(super) fn as_ptr(&self) -> NonNull<u8> {
        self.base
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Anonymous {
    fn drop(&mut self) {
        // SAFETY: our own mapping; regions hand out raw pointers only, whose users keep the region.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.len) };
    }
}
