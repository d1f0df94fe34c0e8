//! Wake-ups for a party that sleeps.
//!
//! [`Wake`] is an eventfd, for threads and processes that trust each other not to block each other.
//! [`SocketWake`] is for a peer that is not trusted: whether a send blocks is decided by the call, where
//! whether an eventfd blocks is decided by a flag that every holder can change.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::Error;

/// An eventfd, non-blocking and closed on exec.
#[derive(Debug)]
pub struct Wake {
    fd: OwnedFd,
}

impl Wake {
    /// Makes one, not signalled.
    ///
    /// # Errors
    /// [`Error::System`] when the kernel refuses.
    pub fn new() -> Result<Self, Error> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let fd = rustix::event::eventfd(0, flags).map_err(Error::system("eventfd"))?;
        Ok(Self { fd })
    }

    /// Takes over a received descriptor, and makes it non-blocking.
    ///
    /// The sender still shares the flag that keeps it from blocking: a hostile one may clear it. Use
    /// [`SocketWake`] where that matters.
    ///
    /// # Errors
    /// [`Error::NotEventfd`] for anything else than an eventfd.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
        let target = rustix::fs::readlink(path, Vec::new())
            .map_err(Error::system("looking at a received eventfd"))?;
        if target.as_bytes() != b"anon_inode:[eventfd]" {
            return Err(Error::NotEventfd);
        }
        let flags = rustix::fs::fcntl_getfl(&fd)
            .map_err(Error::system("reading the flags of an eventfd"))?;
        rustix::fs::fcntl_setfl(&fd, flags | OFlags::NONBLOCK)
            .map_err(Error::system("making an eventfd non-blocking"))?;
        Ok(Self { fd })
    }

    /// Wakes the sleeper, or keeps the next one from sleeping.
    ///
    /// # Errors
    /// [`Error::System`]. A counter that is full is no error: the sleeper has been woken.
    pub fn notify(&self) -> Result<(), Error> {
        retry(|| match rustix::io::write(&self.fd, &1u64.to_ne_bytes()) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        })
        .map_err(Error::system("writing to an eventfd"))
    }

    /// Takes the signal back; true if there was one.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn drain(&self) -> Result<bool, Error> {
        let mut count = [0; 8];
        retry(|| match rustix::io::read(&self.fd, &mut count) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno),
        })
        .map_err(Error::system("reading an eventfd"))
    }

    /// Sleeps until a signal is there, which it leaves there; false if `timeout` (none: for ever) ran out.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        wait_for(self.fd(), PollFlags::IN, timeout).map_err(Error::system("waiting for an eventfd"))
    }

    /// The descriptor, to pass on or to put into an epoll set (readable: signalled).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Another descriptor of the same eventfd.
    ///
    /// # Errors
    /// [`Error::System`] when there are too many descriptors.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(Error::system("duplicating an eventfd"))?;
        Ok(Self { fd })
    }
}

/// One end of a socket pair as a wake-up: a notification sends a byte and never blocks, whatever the
/// peer does with its end. It works both ways, and tells when the peer is gone.
#[derive(Debug)]
pub struct SocketWake {
    fd: OwnedFd,
}

impl SocketWake {
    /// Makes both ends.
    ///
    /// # Errors
    /// [`Error::System`] when the kernel refuses.
    pub fn pair() -> Result<(Self, Self), Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let (a, b) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(Error::system("socketpair"))?;
        Ok((Self { fd: a }, Self { fd: b }))
    }

    /// Takes over a received end.
    ///
    /// # Errors
    /// [`Error::System`] (ENOTSOCK...) unless it is a stream socket.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let operation = "looking at a received socket";
        match rustix::net::sockopt::socket_type(&fd).map_err(Error::system(operation))? {
            SocketType::STREAM => Ok(Self { fd }),
            _ => Err(Error::System { operation, errno: Errno::PROTOTYPE }),
        }
    }

    /// Wakes the peer.
    ///
    /// # Errors
    /// [`Error::System`] with EPIPE or ECONNRESET when the peer is gone. A full socket is no error: the peer
    /// has not yet taken earlier wake-ups.
    pub fn notify(&self) -> Result<(), Error> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        retry(|| match rustix::net::send(&self.fd, &[1], flags) {
            Ok(_) | Err(Errno::AGAIN) => Ok(()),
            Err(errno) => Err(errno),
        })
        .map_err(Error::system("waking the peer over a socket"))
    }

    /// Takes back the signals that have arrived; true if there was one. A peer that sends faster than this reads
    /// does not hold it: what is left shows at the next call.
    ///
    /// # Errors
    /// [`Error::System`] with ECONNRESET when the peer is gone.
    pub fn drain(&self) -> Result<bool, Error> {
        let mut bytes = [0; 256];
        retry(|| match rustix::net::recv(&self.fd, &mut bytes, RecvFlags::DONTWAIT) {
            Ok((0, _)) => Err(Errno::CONNRESET),
            Ok(_) => Ok(true),
            Err(Errno::AGAIN) => Ok(false),
            Err(errno) => Err(errno),
        })
        .map_err(Error::system("reading wake-ups from a socket"))
    }

    /// Sleeps until a signal is there or the peer is gone; false if `timeout` (none: for ever) ran out.
    ///
    /// # Errors
    /// [`Error::System`].
    pub fn wait(&self, timeout: Option<Duration>) -> Result<bool, Error> {
        wait_for(self.fd(), PollFlags::IN, timeout).map_err(Error::system("waiting for a socket"))
    }

    /// Another descriptor of the same end.
    ///
    /// # Errors
    /// [`Error::System`] when there are too many descriptors.
    pub fn try_clone(&self) -> Result<Self, Error> {
        let fd = rustix::io::fcntl_dupfd_cloexec(&self.fd, 0)
            .map_err(Error::system("duplicating a socket"))?;
        Ok(Self { fd })
    }

    /// The descriptor alone.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// The descriptor, to pass on or to put into an epoll set (readable: signalled, or the peer is gone).
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Waits until `fd` is ready for `what`, or hung up; false if `timeout` (none: for ever) ran out.
pub(crate) fn wait_for(
    fd: BorrowedFd<'_>,
    what: PollFlags,
    timeout: Option<Duration>,
) -> Result<bool, Errno> {
    let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let left =
            left.map(|left| Timespec::try_from(left).map_err(|_| Errno::INVAL)).transpose()?;
        match rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, what)], left.as_ref()) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
    }
}

/// Tries again after a signal handler ran.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => continue,
            result => return result,
        }
    }
}
