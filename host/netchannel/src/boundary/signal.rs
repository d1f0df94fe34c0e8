//! What makes a descriptor readable that an application sleeps on elsewhere.

use std::os::fd::{BorrowedFd, OwnedFd};

use netchannel_shared_memory::Error;
use netchannel_shared_memory::wake::{SocketWake, Wake};

/// A descriptor to wait on, and the way to make it readable.
#[derive(Debug)]
pub(crate) enum Signal {
    /// Application and engine are in one process.
    Here(Wake),
    /// The application is in another process: the end of a socket that makes the other one readable.
    /// The engine never blocks on a descriptor whose flags an application could change.
    There(SocketWake),
    /// The engine is in another process.
    Attached {
        /// What the application waits on.
        end: SocketWake,
        /// What makes it readable: the engine has this end, too.
        other: SocketWake,
        /// What the engine calls it, of those of the stream.
        number: u8,
    },
}

impl Signal {
    pub(crate) fn new() -> Result<Self, Error> {
        Wake::new().map(Self::Here)
    }

    /// The engine's part, for an application of another process, and the two ends for that.
    pub(crate) fn attached() -> Result<(Self, [OwnedFd; 2]), Error> {
        let (ours, theirs) = SocketWake::pair()?;
        let other = ours.try_clone()?;
        Ok((Self::There(ours), [theirs.into_fd(), other.into_fd()]))
    }

    /// The application's part of what another process made.
    pub(crate) fn from_fds([end, other]: [OwnedFd; 2], number: u8) -> Result<Self, Error> {
        let (end, other) = (SocketWake::from_fd(end)?, SocketWake::from_fd(other)?);
        Ok(Self::Attached { end, other, number })
    }

    /// Makes the descriptor readable.
    pub(crate) fn notify(&self) -> Result<(), Error> {
        match self {
            Self::Here(wake) => wake.notify(),
            Self::There(other) | Self::Attached { other, .. } => other.notify(),
        }
    }

    /// Makes it unreadable.
    pub(crate) fn drain(&self) -> Result<(), Error> {
        match self {
            Self::Here(wake) => wake.drain().map(drop),
            Self::There(end) => end.drain().map(drop),
            // Whatever the engine sent: an armed direction is told of once, so this ends soon.
            Self::Attached { end, .. } => {
                while end.drain()? {}
                Ok(())
            }
        }
    }

    /// What to wait on.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Here(wake) => wake.fd(),
            Self::There(end) | Self::Attached { end, .. } => end.fd(),
        }
    }
}
