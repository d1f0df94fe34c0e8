//! Chunks: received bytes that the application uses where they arrived.

use std::ffi::{c_int, c_void};
use std::io::{self, Write};
use std::marker::PhantomData;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use netchannel_shared_memory::memory::copy_from_shared;

use crate::error::Error;
use crate::stream::receive::ReceiveHalf;

/// Bytes that [`Chunk::copy_into`] moves at once: a quarter of a first-level cache.
const BOUNCE: usize = 8 << 10;

/// Received bytes in the stream's receive window, from [`ReceiveHalf::borrow`]: one contiguous piece,
/// lent without a copy.
///
/// # Why this is no `&[u8]`
///
/// The peer's NIC writes bulk bytes straight into the window. A peer that keeps the protocol writes no byte
/// twice before it was given back here. But the key to the window's memory stays valid for as long as the
/// session lives, since withdrawing it takes a registration or the end of every queue pair (which is how a
/// session ends, and not how a chunk begins). So a peer that is broken or hostile, or anybody who has its key
/// and a queue pair, **may change these bytes at any time**, also while they are looked at: what was checked
/// need not be what is used. A `&[u8]` would promise the compiler that this cannot happen.
///
/// So there are these ways to the bytes:
/// - [`read_at`](Self::read_at), [`words`](Self::words): a copy of what is wanted, read once;
/// - [`copy_into`](Self::copy_into): all of them through a small buffer, to a hasher or a decoder;
/// - [`write_to`](Self::write_to): straight to a file or socket, by `write(2)`;
/// - [`as_ptr`](Self::as_ptr): the memory itself, for system calls and volatile reads;
/// - [`as_slice`](Self::as_slice), unsafe: for who trusts the peer's host.
///
/// # Giving back
///
/// [`advance`](Self::advance) (and what moves bytes out: `copy_into`, `write_to`) marks bytes at the
/// beginning as done. Dropping the chunk gives those back to the peer as new credit; the others come again with
/// the next [`borrow`](ReceiveHalf::borrow) or read. [`release`](Self::release) does both at once. The memory
/// stays mapped as long as the chunk lives, whatever becomes of the stream, the session or the peer.
///
/// ```
/// use std::io::Write;
/// use netchannel::{Config, Runtime, StreamOptions};
///
/// # let config = || Config { device: "soft".into(), ..Config::default() };
/// let server = Runtime::start(config())?;
/// let listener = server.listen("127.0.0.1:0".parse()?)?;
/// # let address = listener.local_addr();
/// # let writer = std::thread::spawn(move || -> Result<(), netchannel::Error> {
/// #     let mut stream = Runtime::start(config())?.connect(address, &StreamOptions::default())?;
/// #     stream.write_all(&[7; 100_000]).unwrap();
/// #     stream.close()
/// # });
/// let mut stream = listener.accept()?;
/// let mut digest = Vec::new(); // or a hasher
/// while let Some(mut chunk) = stream.receive_half().borrow()? {
///     chunk.copy_into(&mut digest)?;
/// }
/// assert_eq!(digest, [7; 100_000]);
/// # writer.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a chunk that is dropped as it is comes again"]
pub struct Chunk<'a> {
    half: &'a mut ReceiveHalf,
    first: NonNull<u8>,
    len: usize,
    done: usize,
}

impl<'a> Chunk<'a> {
    /// # Safety
    /// `len` bytes from `first` on are mapped until `half` consumes them, and lie at its position.
    pub(super) unsafe fn new(half: &'a mut ReceiveHalf, first: NonNull<u8>, len: usize) -> Self {
        Self { half, first, len, done: 0 }
    }

    /// Bytes that are left.
    pub fn len(&self) -> usize {
        self.len - self.done
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where the first of them lies in the stream.
    pub fn offset(&self) -> u64 {
        self.half.position() + self.done as u64
    }

    /// The first byte that is left; [`len`](Self::len) bytes can be read from here while the chunk lives.
    ///
    /// They may change at any time: read them with volatile or atomic loads, or let the kernel do it. Memory
    /// that something else still refers to (a pipe after `vmsplice(2)`, a socket with `MSG_ZEROCOPY`) must
    /// not be given back before that is over, or it may show later bytes.
    pub fn as_ptr(&self) -> *const u8 {
        self.left().as_ptr()
    }

    fn left(&self) -> NonNull<u8> {
        // SAFETY: `done <= len`, so this is inside of the piece or one past its end.
        unsafe { self.first.add(self.done) }
    }

    /// The bytes that are left, as a slice.
    ///
    /// # Safety
    /// Until the slice's last use nobody writes these bytes: the peer's host runs a stack that keeps the
    /// protocol, and nobody else has the key to this memory. Nothing on this side can make sure of that; see
    /// the [type's documentation](Self#why-this-is-no-u8). Otherwise the behaviour of the program is
    /// undefined.
    pub unsafe fn as_slice(&self) -> &[u8] {
        // SAFETY: mapped and initialised; that it does not change is the caller's promise.
        unsafe { NonNull::slice_from_raw_parts(self.left(), self.len()).as_ref() }
    }

    /// Copies bytes from offset `at` of what is left to `out`, as many as there are; returns how many.
    pub fn read_at(&self, at: usize, out: &mut [u8]) -> usize {
        let len = self.len().saturating_sub(at).min(out.len());
        if len > 0 {
            // SAFETY: `at + len` bytes are left; `out` is private memory.
            unsafe { copy_from_shared(self.left().add(at), &mut out[..len]) };
            self.half.note_copied(len);
        }
        len
    }

    /// The bytes that are left in words of eight, in the machine's byte order, each read once. What does not
    /// make a whole word is left out: [`read_at`](Self::read_at) `len() & !7` gives it.
    pub fn words(&self) -> Words<'_> {
        Words { next: self.left(), left: self.len() / 8, chunk: PhantomData }
    }

    /// Moves all bytes that are left into `to` through a small buffer, and advances over them.
    ///
    /// # Errors
    /// Those of `to`; what it took before is advanced over.
    pub fn copy_into(&mut self, to: &mut (impl Write + ?Sized)) -> io::Result<usize> {
        let mut bounce = [0; BOUNCE];
        let before = self.done;
        while !self.is_empty() {
            let len = self.read_at(0, &mut bounce);
            match to.write(&bounce[..len]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => self.advance(count.min(len)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.done - before)
    }

    /// Writes bytes that are left to a file, pipe or socket with one `write(2)` from where they lie, and
    /// advances over those that it took.
    ///
    /// # Errors
    /// The system's; nothing is advanced over then.
    pub fn write_to(&mut self, fd: impl AsFd) -> io::Result<usize> {
        // SAFETY: as declared by POSIX.
        unsafe extern "C" {
            safe fn write(fd: c_int, buffer: *const c_void, count: usize) -> isize;
        }
        let fd = fd.as_fd();
        let written = write(fd.as_raw_fd(), self.as_ptr().cast(), self.len());
        let count = usize::try_from(written).map_err(|_| io::Error::last_os_error())?;
        self.advance(count.min(self.len()));
        Ok(count)
    }

    /// The first `len` bytes that are left are done with.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn advance(&mut self, len: usize) {
        assert!(len <= self.len(), "{len} bytes advanced over of {} left", self.len());
        self.done += len;
    }

    /// Gives the first `len` bytes back, and with them all that were advanced over. (The others come again.)
    ///
    /// # Errors
    /// The engine could not be told (this thread could not be given a port); it hears of it with the next
    /// read.
    ///
    /// # Panics
    /// As [`advance`](Self::advance).
    pub fn release(mut self, len: usize) -> Result<(), Error> {
        self.advance(len);
        let done = std::mem::take(&mut self.done);
        self.len = 0;
        self.half.consume(done)
    }
}

impl std::fmt::Debug for Chunk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut chunk = f.debug_struct("Chunk");
        chunk.field("offset", &self.offset()).field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Chunk<'_> {
    fn drop(&mut self) {
        if self.done > 0
            && let Err(error) = self.half.consume(self.done)
        {
            tracing::warn!(%error, "cannot tell the engine what was read");
        }
    }
}

/// Words of a [`Chunk`], from [`Chunk::words`].
#[derive(Debug)]
pub struct Words<'a> {
    next: NonNull<u8>,
    left: usize,
    chunk: PhantomData<&'a ()>,
}

impl Iterator for Words<'_> {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.left = self.left.checked_sub(1)?;
        // SAFETY: `left` whole words lay from `next` on, in a chunk that is borrowed; volatile, because
        // others may write them, and of bytes, because chunks begin anywhere.
        let bytes = unsafe { self.next.cast::<[u8; 8]>().read_volatile() };
        // SAFETY: at most one past the end of the chunk.
        self.next = unsafe { self.next.add(8) };
        Some(u64::from_ne_bytes(bytes))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Words<'_> {}
