//! Reservations: space in a send buffer for bytes that are never copied on this side.

use crate::error::Error;
use crate::stream::buffer::Space;
use crate::stream::send::SendHalf;

/// Space in a stream's registered send buffer, from [`SendHalf::reserve`].
///
/// The application makes its bytes here, in any order, then [`commit`](Self::commit)s as many from the
/// beginning as it likes. The buffer is a ring, so the space is in two pieces where it wraps around. What the
/// space holds at first is what was sent through the buffer before.
///
/// Dropping a reservation gives the space back unused; nothing that was written to the stream before is
/// affected. (Leaking one with [`std::mem::forget`] does the same, once the stream is written to again.)
/// While it lives the stream's writing direction is borrowed; [`Write`](std::io::Write) and reservations may
/// alternate.
///
/// ```
/// use std::io::Read;
/// use netchannel::{Config, Runtime, StreamOptions};
///
/// # let config = || Config { device: "soft".into(), ..Config::default() };
/// # let server = Runtime::start(config())?;
/// # let listener = server.listen("127.0.0.1:0".parse()?)?;
/// # let address = listener.local_addr();
/// # let reader = std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
/// #     let mut bytes = Vec::new();
/// #     listener.accept()?.read_to_end(&mut bytes)?;
/// #     Ok(bytes)
/// # });
/// # let client = Runtime::start(config())?;
/// let mut stream = client.connect(address, &StreamOptions::default())?;
/// let mut file: &[u8] = &[7; 100_000];
/// while !file.is_empty() {
///     let mut space = stream.send_half().reserve(65_536)?;
///     // Straight from the source into the memory that the NIC reads.
///     let count = file.read(space.as_mut_slices().0)?;
///     space.commit(count)?;
/// }
/// stream.close()?;
/// # assert_eq!(reader.join().unwrap()?, [7; 100_000]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "nothing is sent without a commit"]
pub struct Reservation<'a> {
    half: &'a mut SendHalf,
    space: Space,
}

impl<'a> Reservation<'a> {
    /// Up to `len` bytes of the space that `half` has claimed.
    pub(super) fn new(half: &'a mut SendHalf, space: Space) -> Self {
        Self { half, space }
    }

    /// Bytes in both pieces: at least one.
    #[expect(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.space.len()
    }

    /// The pieces, in order; the second is empty unless the space wraps around.
    pub fn as_mut_slices(&mut self) -> (&mut [u8], &mut [u8]) {
        // SAFETY: the half claimed the buffer for this reservation and is borrowed by it, so nothing
        // is committed but through it; `&mut self` makes these the only references.
        unsafe { self.space.as_mut_slices() }
    }

    /// Copies `bytes` to offset `at` of the space, over the wrap if need be.
    ///
    /// # Panics
    /// If they do not fit.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        let (first, second) = self.as_mut_slices();
        let cut = first.len().saturating_sub(at).min(bytes.len());
        if cut > 0 {
            first[at..at + cut].copy_from_slice(&bytes[..cut]);
        }
        if cut < bytes.len() {
            let at = at + cut - first.len();
            second[at..at + bytes.len() - cut].copy_from_slice(&bytes[cut..]);
        }
    }

    /// Writes the first `len` bytes of the space to the stream; the rest is given back.
    ///
    /// # Errors
    /// The engine could not be told (this thread could not be given a port): the bytes go with the next
    /// write.
    ///
    /// # Panics
    /// If `len` is more than [`len`](Self::len).
    pub fn commit(self, len: usize) -> Result<(), Error> {
        assert!(len <= self.len(), "{len} bytes committed of {} reserved", self.len());
        self.half.commit(len)
    }
}

impl std::fmt::Debug for Reservation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reservation").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        // After a commit there is no claim any more.
        self.half.unclaim();
    }
}
