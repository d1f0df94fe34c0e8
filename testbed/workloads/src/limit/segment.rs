//! Memory that two processes share: some counters, each on cache lines of its own, then bytes.

use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Bytes before the data.
const HEADER: usize = 4096;
/// Bytes between two counters: two cache lines, because processors fetch lines in pairs.
const COUNTER_STRIDE: usize = 128;
/// Number of counters.
const COUNTERS: usize = HEADER / COUNTER_STRIDE;

/// A mapping of a memfd. The counters are only touched as atomics; who may touch which data bytes
/// is what the counters say.
pub struct Segment {
    base: NonNull<c_void>,
    len: usize,
    descriptor: OwnedFd,
}

// SAFETY: the mapping stays where it is until drop, and `Segment` has no interior state of its own;
// shared access is through atomics and through `unsafe` copies whose callers keep the protocol.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// New memory for `bytes` data bytes.
    pub fn create(bytes: usize) -> io::Result<Self> {
        let descriptor = memfd_create("netchannel-limit", MemfdFlags::CLOEXEC)?;
        ftruncate(&descriptor, (HEADER + bytes) as u64)?;
        Self::open(descriptor)
    }

    /// Memory that another process created.
    pub fn open(descriptor: OwnedFd) -> io::Result<Self> {
        let len = usize::try_from(fstat(&descriptor)?.st_size).unwrap_or(0);
        if len < HEADER {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a shared segment"));
        }
        // SAFETY: a fresh mapping at an address that the kernel chooses aliases nothing.
        // POPULATE keeps page faults out of what is measured.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | MapFlags::POPULATE,
                descriptor.as_fd(),
                0,
            )?
        };
        let base = NonNull::new(base).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { base, len, descriptor })
    }

    /// A descriptor of the same memory, for another process.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.descriptor.try_clone()
    }

    /// Data bytes.
    pub fn bytes(&self) -> usize {
        self.len - HEADER
    }

    /// Counter `index`, on a cache line of its own.
    pub fn counter(&self, index: usize) -> &AtomicU64 {
        assert!(index < COUNTERS, "counter {index} of {COUNTERS}");
        // SAFETY: in bounds (asserted), aligned to 128 bytes in a page-aligned mapping that lives as
        // long as `self`; every process touches these words as atomics only.
        unsafe { self.base.cast::<u8>().add(index * COUNTER_STRIDE).cast::<AtomicU64>().as_ref() }
    }

    /// Copies `source` to data byte `offset`.
    ///
    /// # Safety
    /// Nobody else touches these data bytes until the caller says so through a counter.
    pub unsafe fn copy_in(&self, offset: usize, source: &[u8]) {
        let target = self.data(offset, source.len());
        // SAFETY: `data` checked the bounds; `source` is private memory, so there is no overlap;
        // the caller guarantees that nobody else touches the target.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(source).cast(), source.len()) };
    }

    /// Copies data bytes from `offset` on into `target`.
    ///
    /// # Safety
    /// Nobody else writes these data bytes until the caller says so through a counter.
    pub unsafe fn copy_out(&self, offset: usize, target: &mut [u8]) {
        let source = self.data(offset, target.len());
        // SAFETY: as in `copy_in`, the other way round.
        unsafe { source.copy_to_nonoverlapping(NonNull::from(&mut *target).cast(), target.len()) };
        // The compiler would leave out a copy whose result nobody looks at.
        std::hint::black_box(target);
    }

    fn data(&self, offset: usize, len: usize) -> NonNull<u8> {
        let end = offset.checked_add(len).filter(|end| *end <= self.bytes());
        assert!(end.is_some(), "{len} bytes at {offset} of {}", self.bytes());
        // SAFETY: in bounds of the mapping (asserted).
        unsafe { self.base.cast::<u8>().add(HEADER + offset) }
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: `base` and `len` are what `mmap` returned; no reference outlives `self`.
        let unmapped = unsafe { munmap(self.base.as_ptr(), self.len) };
        debug_assert!(unmapped.is_ok(), "munmap: {unmapped:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::*;

    #[test]
    fn two_mappings_show_the_same_memory() {
        let one = Segment::create(10_000).unwrap();
        let two = Segment::open(one.descriptor().unwrap()).unwrap();
        one.counter(3).store(7, SeqCst);
        // SAFETY: this thread alone touches the memory.
        unsafe { one.copy_in(9_990, b"0123456789") };
        let mut bytes = [0; 10];
        // SAFETY: as above.
        unsafe { two.copy_out(9_990, &mut bytes) };
        assert_eq!((two.counter(3).load(SeqCst), &bytes), (7, b"0123456789"));
    }

    #[test]
    #[should_panic(expected = "11 bytes at 9990")]
    fn no_copy_out_of_bounds() {
        let segment = Segment::create(10_000).unwrap();
        // SAFETY: this thread alone touches the memory.
        unsafe { segment.copy_in(9_990, &[0; 11]) };
    }
}
