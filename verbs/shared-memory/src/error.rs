use std::time::Duration;

use rustix::io::Errno;

/// What can go wrong when memory, wake-ups or descriptors are made, taken over or passed on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("{operation} failed: {errno}")]
    System {
        /// What was tried.
        operation: &'static str,
        /// What the kernel answered.
        errno: Errno,
    },
    /// A shared memory of this length cannot exist.
    #[error(
        "shared memory of {len} bytes is not possible: ask for 1 byte to half the address space"
    )]
    BadLength {
        /// The length asked for, in bytes.
        len: usize,
    },
    /// A descriptor is not a plain memfd (it is a file, a device, a memfd of huge pages...).
    #[error("the descriptor is not a plain memfd: refuse it")]
    NotSharedMemory,
    /// A memfd lacks seals: its owner could shrink it under a reader.
    #[error("the memfd lacks the seals SHRINK, GROW and SEAL (it has {found:#x}): refuse it")]
    NotSealed {
        /// The seals found, as `F_SEAL_*` bits.
        found: u32,
    },
    /// A memfd has another size than announced.
    #[error("the memfd has {found} bytes where {expected} were announced: refuse it")]
    WrongSize {
        /// The size announced, rounded up to pages.
        expected: usize,
        /// The size found.
        found: u64,
    },
    /// A descriptor is not an eventfd.
    #[error("the descriptor is not an eventfd: refuse it")]
    NotEventfd,
    /// A message or its descriptors did not fit and the kernel cut them off; what came was closed.
    #[error("the message was cut off ({what}): the peer does not keep to the protocol")]
    Truncated {
        /// What was cut off.
        what: &'static str,
    },
    /// More descriptors than the caller allows, or than one message can carry; those received were closed.
    #[error("{found} descriptors in one message, {limit} allowed")]
    TooManyDescriptors {
        /// How many there were.
        found: usize,
        /// How many may be.
        limit: usize,
    },
    /// Descriptors need at least one byte to travel with.
    #[error("a message needs at least one byte")]
    EmptyMessage,
    /// The socket did not become ready in time.
    #[error("{operation} was not possible within {waited:?}: the peer is stuck or gone")]
    TimedOut {
        /// What was tried.
        operation: &'static str,
        /// The time allowed.
        waited: Duration,
    },
}

impl Error {
    /// The answer of the kernel, where a system call failed.
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Error::System { errno, .. } => Some(*errno),
            _ => None,
        }
    }

    /// For `map_err`: names the operation that failed.
    pub(crate) fn system(operation: &'static str) -> impl FnOnce(Errno) -> Error {
        move |errno| Error::System { operation, errno }
    }
}
