//! Walking through the slices of a request.

use std::ptr::{self, NonNull};

use crate::work::LocalSlice;

/// A position in a list of slices.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    slices: &'a [LocalSlice],
    /// Bytes of the first slice that were passed already.
    offset: u32,
}

impl<'a> Cursor<'a> {
    /// `offset` bytes into `slices`.
    #[inline]
    pub(super) fn new(slices: &'a [LocalSlice], offset: u32) -> Self {
        Self { slices, offset }
    }

    /// The next contiguous piece of at most `len` bytes, stepped over.
    #[inline]
    fn step(&mut self, len: u32) -> Option<(*mut u8, u32)> {
        let mut first = self.slices.first()?;
        while self.offset >= first.length {
            self.offset -= first.length;
            self.slices = &self.slices[1..];
            first = self.slices.first()?;
        }
        let len = len.min(first.length - self.offset);
        let address = first.address + u64::from(self.offset);
        self.offset += len;
        Some((address as usize as *mut u8, len))
    }

    /// Copies the next `len` bytes of the slices to `target`.
    ///
    /// # Safety
    /// The slices are readable and `target` is writable for `len` bytes.
    #[inline]
    pub(super) unsafe fn copy_out(&mut self, target: NonNull<u8>, len: u32) {
        let mut done = 0;
        while done < len {
            let Some((piece, n)) = self.step(len - done) else { return };
            // SAFETY: by the caller's word; `done + n <= len`. Slices and target are different
            // mappings, or a request that names its own target, which leaves mixed bytes there.
            unsafe {
                ptr::copy_nonoverlapping(piece, target.as_ptr().add(done as usize), n as usize)
            };
            done += n;
        }
    }

    /// Copies `len` bytes from `source` into the slices.
    ///
    /// # Safety
    /// The slices are writable and `source` is readable for `len` bytes.
    #[inline]
    pub(super) unsafe fn copy_in(&mut self, source: NonNull<u8>, len: u32) {
        let mut done = 0;
        while done < len {
            let Some((piece, n)) = self.step(len - done) else { return };
            // SAFETY: as in `copy_out`.
            unsafe {
                ptr::copy_nonoverlapping(source.as_ptr().add(done as usize), piece, n as usize)
            };
            done += n;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cursor;
    use crate::work::LocalSlice;
    use std::ptr::NonNull;

    #[test]
    fn gathers_over_empty_slices_and_from_the_middle() {
        let bytes: Vec<u8> = (0..20).collect();
        let slice = |at: usize, length| LocalSlice {
            address: bytes[at..].as_ptr() as u64,
            length,
            local_key: 0,
        };
        let slices = [slice(0, 3), slice(0, 0), slice(10, 5), slice(0, 0)];
        let mut out = [0u8; 8];
        let mut cursor = Cursor::new(&slices, 2);
        // SAFETY: six bytes are left in the slices, and `out` has eight.
        unsafe { cursor.copy_out(NonNull::from(&mut out).cast(), 8) };
        assert_eq!(out, [2, 10, 11, 12, 13, 14, 0, 0]);
    }
}
