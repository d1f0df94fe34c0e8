use std::arch::asm;
use std::os::fd::BorrowedFd;
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{
    AtomicI8, AtomicI16, AtomicI32, AtomicI64, AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering,
};

use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::Error;

/// An access outside a mapping, or a write to a read-only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len} bytes at offset {offset} are not accessible in a mapping of {mapped} bytes")]
pub struct OutOfBounds {
    /// The offset asked for, in bytes.
    pub offset: usize,
    /// How many bytes were asked for.
    pub len: usize,
    /// The length of the mapping.
    pub mapped: usize,
}

/// Shared memory in this process's address space, unmapped on drop.
///
/// Another party may write to it at any time, so nothing here makes a `&[u8]`: bytes are copied in and out,
/// words are atomic.
#[derive(Debug)]
pub struct Mapping {
    ptr: NonNull<u8>,
    len: usize,
    writable: bool,
}

// SAFETY: the mapping belongs to the process, not to a thread, and munmap may run on any thread.
unsafe impl Send for Mapping {}
// SAFETY: every access through `&self` is an atomic one or a copy between the mapping and private memory that
// the compiler cannot tell from one made by another process; a racing copy yields mixed bytes, no more.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(super) fn new(fd: BorrowedFd<'_>, len: usize, writable: bool) -> Result<Self, Error> {
        let protection = match writable {
            true => ProtFlags::READ | ProtFlags::WRITE,
            false => ProtFlags::READ,
        };
        // SAFETY: a new mapping at an address that the kernel picks touches no existing one.
        let address =
            unsafe { rustix::mm::mmap(null_mut(), len, protection, MapFlags::SHARED, fd, 0) };
        let address = address.map_err(Error::system("mmap of shared memory"))?;
        let ptr = NonNull::new(address.cast()).ok_or(Error::BadLength { len })?;
        Ok(Self { ptr, len, writable })
    }

    /// The first byte. Who dereferences it keeps in mind that the other party may write, keeps below
    /// [`len`](Self::len), does not outlive the mapping, and does not write where it is read-only.
    pub fn as_ptr(&self) -> NonNull<u8> {
        self.ptr
    }

    /// The length in bytes.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether this process may write through it.
    pub fn is_writable(&self) -> bool {
        self.writable
    }

    /// The atomic (or struct of atomics) at `offset`, if it is aligned and in bounds and the mapping writable.
    pub fn at<T: SharedWord>(&self, offset: usize) -> Option<&T> {
        // Storing through a `&T` is safe code, so a read-only mapping must not yield one.
        self.writable.then_some(())?;
        let pointer = self.aligned::<T>(offset)?;
        // SAFETY: in bounds and aligned (checked), mapped as long as `self` is borrowed, valid for any
        // content and never accessed but atomically (`SharedWord`).
        Some(unsafe { pointer.as_ref() })
    }

    /// `count` atomics (or structs of atomics) from `offset` on, under the conditions of [`at`](Self::at).
    pub fn slice_at<T: SharedWord>(&self, offset: usize, count: usize) -> Option<&[T]> {
        self.writable.then_some(())?;
        let first = self.range(offset, size_of::<T>().checked_mul(count)?)?.cast::<T>();
        first.is_aligned().then_some(())?;
        // SAFETY: as in `at`, for `count` of them in a row.
        Some(unsafe { NonNull::slice_from_raw_parts(first, count).as_ref() })
    }

    /// Loads the word at `offset`, if it is aligned and in bounds; also from a read-only mapping.
    pub fn load_u32(&self, offset: usize, ordering: Ordering) -> Option<u32> {
        let pointer = self.aligned::<AtomicU32>(offset)?;
        // SAFETY: as in `at`; loads of this size do not write on any target, so read-only memory is fine.
        Some(unsafe { pointer.as_ref() }.load(ordering))
    }

    /// Loads the word at `offset`, if it is aligned and in bounds; also from a read-only mapping.
    pub fn load_u64(&self, offset: usize, ordering: Ordering) -> Option<u64> {
        let pointer = self.aligned::<AtomicU64>(offset)?;
        // SAFETY: as in `at`; loads of this size do not write on any 64-bit target, so read-only memory is fine.
        Some(unsafe { pointer.as_ref() }.load(ordering))
    }

    /// Copies `bytes` to `offset`.
    ///
    /// # Errors
    /// [`OutOfBounds`] if they do not fit or the mapping is read-only; nothing was written then.
    #[inline]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let target = self.range(offset, bytes.len()).filter(|_| self.writable);
        let target = target.ok_or(self.out_of_bounds(offset, bytes.len()))?;
        // SAFETY: the target is in bounds and writable (checked); `bytes` is private memory of this process, since
        // no safe code makes a slice over shared memory, so the two do not overlap.
        unsafe { target.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
        others_may_have_written(target);
        Ok(())
    }

    /// Copies the bytes at `offset` out, once: what is validated in `out` is what is used later.
    ///
    /// # Errors
    /// [`OutOfBounds`] if `out` is longer than what lies there; nothing was read then.
    #[inline]
    pub fn copy_out(&self, offset: usize, out: &mut [u8]) -> Result<(), OutOfBounds> {
        let source = self.range(offset, out.len());
        let source = source.ok_or(self.out_of_bounds(offset, out.len()))?;
        let target = NonNull::from(&mut *out).cast::<u8>();
        // SAFETY: the source is in bounds (checked) and mapped; `out` is private memory of this process.
        unsafe { source.copy_to_nonoverlapping(target, out.len()) };
        others_may_have_written(source);
        others_may_have_written(target);
        Ok(())
    }

    /// Makes the kernel provide all pages now, rather than at the first touch of each.
    ///
    /// # Errors
    /// [`Error::System`]; kernels before 5.14 answer EINVAL.
    pub fn populate(&self) -> Result<(), Error> {
        let advice = match self.writable {
            true => Advice::LinuxPopulateWrite,
            false => Advice::LinuxPopulateRead,
        };
        self.advise(advice, "populating shared memory")
    }

    /// Asks for transparent huge pages; a wish that the kernel may ignore.
    ///
    /// # Errors
    /// [`Error::System`]: EINVAL where the kernel has no huge pages. Carry on without.
    pub fn prefer_huge_pages(&self) -> Result<(), Error> {
        self.advise(Advice::LinuxHugepage, "asking for huge pages")
    }

    fn advise(&self, advice: Advice, operation: &'static str) -> Result<(), Error> {
        // SAFETY: exactly our mapping, and neither advice used changes what it holds.
        unsafe { rustix::mm::madvise(self.ptr.as_ptr().cast(), self.len, advice) }
            .map_err(Error::system(operation))
    }

    fn aligned<T>(&self, offset: usize) -> Option<NonNull<T>> {
        let pointer = self.range(offset, size_of::<T>())?.cast::<T>();
        pointer.is_aligned().then_some(pointer)
    }

    fn range(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        // SAFETY: `offset <= end <= self.len`, so the result stays inside the mapping.
        (end <= self.len).then(|| unsafe { self.ptr.add(offset) })
    }

    fn out_of_bounds(&self, offset: usize, len: usize) -> OutOfBounds {
        OutOfBounds { offset, len, mapped: self.len }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping, of this address and length; borrows of it have ended. It cannot fail for
        // such arguments, and there would be nothing to do about it.
        let _ = unsafe { rustix::mm::munmap(self.ptr.as_ptr().cast(), self.len) };
    }
}

/// Copies bytes that another party may be writing out of shared memory, once: what is validated in `out` is
/// what is used later. For memory of which only the address is at hand; else [`Mapping::copy_out`].
///
/// # Safety
/// `source` is valid for reads of `out.len()` bytes and does not overlap `out`.
#[inline]
pub unsafe fn copy_from_shared(source: NonNull<u8>, out: &mut [u8]) {
    let target = NonNull::from(&mut *out).cast::<u8>();
    // SAFETY: the caller's promise; `out` is private memory of this process.
    unsafe { source.copy_to_nonoverlapping(target, out.len()) };
    others_may_have_written(source);
    others_may_have_written(target);
}

/// Tells the compiler that the bytes may have changed, because somebody outside its view may write.
///
/// On the shared source of a copy: otherwise the compiler could replace uses of the private copy by second
/// reads of the source, and a check of the copy would not hold for what is used. On the private copy: a byte
/// copied while it changed has no defined value to the compiler; coming out of this it is just some value.
#[inline(always)]
fn others_may_have_written(bytes: NonNull<u8>) {
    // SAFETY: no instruction at all; without `nomem` the compiler takes it for one that may read and write
    // any memory reachable from `bytes`.
    unsafe { asm!("/* {0} */", in(reg) bytes.as_ptr(), options(nostack, preserves_flags)) };
}

/// A type that may be borrowed from shared memory: an atomic, or a `#[repr(C)]` struct made of atomics.
///
/// # Safety
/// The type is valid for any content, has no drop glue, consists only of atomics (so that a `&T` permits
/// others to write) and of padding, and holds no address.
pub unsafe trait SharedWord: Sync {}

macro_rules! shared_words {
    ($($atomic:ty),*) => {
        $(
            // SAFETY: an atomic integer, valid for any content.
            unsafe impl SharedWord for $atomic {}
        )*
    };
}

shared_words!(AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicI8, AtomicI16, AtomicI32, AtomicI64);

// SAFETY: an array has the layout of its elements one after the other.
unsafe impl<T: SharedWord, const N: usize> SharedWord for [T; N] {}
