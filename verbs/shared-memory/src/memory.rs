//! Sealed memfds and their mappings.
//!
//! ```
//! use netchannel_shared_memory::memory::SharedMemory;
//!
//! let memory = SharedMemory::create("example", 4096)?;
//! let here = memory.map()?;
//! let there = memory.map_read_only()?;
//! here.copy_in(16, b"bytes").unwrap();
//!
//! let mut copy = [0; 5];
//! there.copy_out(16, &mut copy).unwrap();
//! assert_eq!(&copy, b"bytes");
//! assert!(there.copy_in(16, b"other").is_err(), "a read-only mapping");
//! # Ok::<(), netchannel_shared_memory::Error>(())
//! ```

mod mapping;

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};

pub use mapping::{Mapping, OutOfBounds, SharedWord, copy_from_shared};

use crate::Error;

/// Without these three, the other party could shrink the memory under a reader (SIGBUS), or add a
/// seal later that changes what can be done with it.
const REQUIRED_SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

/// `statfs` type of the file system behind plain memfds (`TMPFS_MAGIC` of `linux/magic.h`). Memfds of huge
/// pages live elsewhere (hugetlbfs): touching one whose pool is empty kills the toucher with SIGBUS.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A memfd of fixed size: sealed against shrinking, growing and further seals.
#[derive(Debug)]
pub struct SharedMemory {
    fd: OwnedFd,
    len: usize,
}

impl SharedMemory {
    /// Makes zeroed memory of `len` bytes, rounded up to whole pages. `name` shows up in `/proc/*/maps`.
    ///
    /// # Errors
    /// [`Error::BadLength`] for no bytes or too many, [`Error::System`] when the kernel refuses.
    pub fn create(name: &str, len: usize) -> Result<Self, Error> {
        let memory = Self::create_unsealed(name, len)?;
        memory.seal(REQUIRED_SEALS)?;
        Ok(memory)
    }

    /// Like [`create`](Self::create), but the mapping returned stays the only writable one for ever,
    /// in whatever process and with whatever rights: the kernel refuses all others
    /// (`F_SEAL_FUTURE_WRITE`). [`map`](Self::map) fails on such memory.
    ///
    /// This is the strong form of [`read_only_fd`](Self::read_only_fd).
    ///
    /// # Errors
    /// As [`create`](Self::create) and [`map`](Self::map).
    pub fn create_with_sole_writer(name: &str, len: usize) -> Result<(Self, Mapping), Error> {
        let memory = Self::create_unsealed(name, len)?;
        let mapping = memory.map()?;
        memory.seal(REQUIRED_SEALS | SealFlags::FUTURE_WRITE)?;
        Ok((memory, mapping))
    }

    /// Takes over a descriptor from somebody who is not trusted. `expected_len` is the announced length,
    /// before or after rounding up to pages.
    ///
    /// # Errors
    /// Refuses whatever is not a plain memfd of that size with the seals SHRINK, GROW and SEAL.
    pub fn from_fd(fd: OwnedFd, expected_len: usize) -> Result<Self, Error> {
        let len = round_up_to_pages(expected_len)?;
        // Only memfds, and files of tmpfs, have seals; the latter always lack SHRINK and GROW.
        let seals = rustix::fs::fcntl_get_seals(&fd).map_err(|_| Error::NotSharedMemory)?;
        if !seals.contains(REQUIRED_SEALS) {
            return Err(Error::NotSealed { found: seals.bits() });
        }
        let file_system =
            rustix::fs::fstatfs(&fd).map_err(Error::system("fstatfs of a received memfd"))?;
        #[allow(clippy::unnecessary_cast, reason = "f_type has another type on some architectures")]
        if file_system.f_type as u64 != TMPFS_MAGIC {
            return Err(Error::NotSharedMemory);
        }
        // After the seals were seen, the size cannot change any more.
        let found = rustix::fs::fstat(&fd)
            .map_err(Error::system("fstat of a received memfd"))?
            .st_size as u64;
        if found != len as u64 {
            return Err(Error::WrongSize { expected: len, found });
        }
        Ok(Self { fd, len })
    }

    /// The descriptor, to pass on. Whoever holds it can map the memory writable.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The descriptor alone, for who has mapped what it needs.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The length in bytes, a whole number of pages.
    #[allow(clippy::len_without_is_empty, reason = "it is never empty")]
    pub fn len(&self) -> usize {
        self.len
    }

    /// A descriptor of the same memory, opened for reading only: its holder cannot map it writable.
    ///
    /// Only the kernel's permission check keeps its holder from opening it again for writing
    /// (`/proc/self/fd`). The memfd has mode 0400, so that other users cannot; a process of the same
    /// user, or of root, can. Against those use [`create_with_sole_writer`](Self::create_with_sole_writer).
    ///
    /// # Errors
    /// [`Error::System`], for instance where `/proc` is not mounted.
    pub fn read_only_fd(&self) -> Result<OwnedFd, Error> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::system("opening a memfd again for reading"))
    }

    /// Maps all of it for reading and writing (`MAP_SHARED`).
    ///
    /// # Errors
    /// [`Error::System`]: EPERM or EACCES where the memory or its descriptor is read-only.
    pub fn map(&self) -> Result<Mapping, Error> {
        Mapping::new(self.fd.as_fd(), self.len, true)
    }

    /// Maps all of it for reading (`MAP_SHARED`).
    ///
    /// # Errors
    /// [`Error::System`] when the kernel refuses.
    pub fn map_read_only(&self) -> Result<Mapping, Error> {
        Mapping::new(self.fd.as_fd(), self.len, false)
    }

    fn create_unsealed(name: &str, len: usize) -> Result<Self, Error> {
        let len = round_up_to_pages(len)?;
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create(name, flags).map_err(Error::system("memfd_create"))?;
        // Holders of a read-only descriptor shall not open it again for writing: see `read_only_fd`.
        rustix::fs::fchmod(&fd, Mode::RUSR).map_err(Error::system("fchmod of a memfd"))?;
        rustix::fs::ftruncate(&fd, len as u64).map_err(Error::system("ftruncate of a memfd"))?;
        Ok(Self { fd, len })
    }

    fn seal(&self, seals: SealFlags) -> Result<(), Error> {
        rustix::fs::fcntl_add_seals(&self.fd, seals).map_err(Error::system("sealing a memfd"))
    }
}

fn round_up_to_pages(len: usize) -> Result<usize, Error> {
    len.checked_next_multiple_of(rustix::param::page_size())
        .filter(|rounded| (1..=isize::MAX as usize).contains(rounded))
        .ok_or(Error::BadLength { len })
}
