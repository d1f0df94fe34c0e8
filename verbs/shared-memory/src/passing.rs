//! Messages with descriptors over unix sockets (`SCM_RIGHTS`).
//!
//! Every call is bounded in time whatever the flags of the socket: the peer may be stopped.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, RecvMsg, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
};

use crate::Error;
use crate::wake::{retry, wait_for};

/// The most descriptors that one message can carry (the kernel's `SCM_MAX_FD`).
pub const MAX_DESCRIPTORS: usize = 253;

/// How long [`send_with_fds`] and [`receive_with_fds`] wait. A live peer on the same host answers a set-up
/// message within milliseconds; a second covers a busy machine.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1);

const CONTROL_SPACE: usize = rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS), ScmCredentials(1));

/// Sends `bytes` (at least one) and with the first of them `fds`, within [`DEFAULT_TIMEOUT`].
///
/// # Errors
/// As [`send_with_fds_within`].
pub fn send_with_fds(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), Error> {
    send_with_fds_within(socket, bytes, fds, DEFAULT_TIMEOUT)
}

/// Sends `bytes` (at least one) and with the first of them `fds`. A timeout of zero never waits.
///
/// # Errors
/// [`Error::TimedOut`] if the peer does not read: over a stream socket a part may have been sent, so close it.
/// [`Error::System`] with EPIPE or ECONNRESET if the peer is gone; never a SIGPIPE.
pub fn send_with_fds_within(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    timeout: Duration,
) -> Result<(), Error> {
    if bytes.is_empty() {
        return Err(Error::EmptyMessage);
    }
    if fds.len() > MAX_DESCRIPTORS {
        return Err(Error::TooManyDescriptors { found: fds.len(), limit: MAX_DESCRIPTORS });
    }
    let deadline = Deadline::after(timeout);
    let (mut rest, mut fds) = (bytes, fds);
    while !rest.is_empty() {
        match retry(|| send_once(socket, rest, fds)) {
            Ok(sent) => {
                rest = &rest[sent.min(rest.len())..];
                // They travelled with the first byte.
                fds = &[];
            }
            Err(Errno::AGAIN) => deadline.wait(socket, PollFlags::OUT, "sending a message")?,
            Err(errno) => return Err(Error::System { operation: "sending descriptors", errno }),
        }
    }
    Ok(())
}

/// Receives bytes and the descriptors that came with them, within [`DEFAULT_TIMEOUT`].
///
/// # Errors
/// As [`receive_with_fds_within`].
pub fn receive_with_fds(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    max_fds: usize,
) -> Result<(usize, Vec<OwnedFd>), Error> {
    receive_with_fds_within(socket, buffer, max_fds, DEFAULT_TIMEOUT)
}

/// Receives bytes and the descriptors that came with them, closed on exec. No bytes: the peer closed its end.
/// A timeout of zero never waits. Over a stream socket the bytes may be a part of what was sent, or more.
///
/// # Errors
/// [`Error::TooManyDescriptors`] if more than `max_fds` came, [`Error::Truncated`] if the kernel cut
/// something off: all that came with the message are closed then. [`Error::TimedOut`] if nothing came.
pub fn receive_with_fds_within(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    max_fds: usize,
    timeout: Duration,
) -> Result<(usize, Vec<OwnedFd>), Error> {
    if buffer.is_empty() {
        return Err(Error::EmptyMessage);
    }
    let deadline = Deadline::after(timeout);
    // Dropping it closes the descriptors that were not taken out of it.
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    loop {
        let mut control = RecvAncillaryBuffer::new(&mut space);
        match retry(|| receive_once(socket, buffer, &mut control)) {
            Ok(message) => {
                let fds = take_fds(&mut control);
                check(&message, fds.len(), max_fds)?;
                return Ok((message.bytes, fds));
            }
            Err(Errno::AGAIN) => deadline.wait(socket, PollFlags::IN, "receiving a message")?,
            Err(errno) => return Err(Error::System { operation: "receiving descriptors", errno }),
        }
    }
}

fn send_once(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); CONTROL_SPACE];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::TOOMANYREFS);
    }
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    rustix::net::sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags)
}

fn receive_once(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    control: &mut RecvAncillaryBuffer<'_>,
) -> Result<RecvMsg, Errno> {
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(socket, &mut [IoSliceMut::new(buffer)], control, flags)
}

fn take_fds(control: &mut RecvAncillaryBuffer<'_>) -> Vec<OwnedFd> {
    let rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    rights.flatten().collect()
}

fn check(message: &RecvMsg, found: usize, limit: usize) -> Result<(), Error> {
    if message.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Error::Truncated { what: "descriptors" });
    }
    if message.flags.contains(ReturnFlags::TRUNC) {
        return Err(Error::Truncated { what: "bytes" });
    }
    if found > limit {
        return Err(Error::TooManyDescriptors { found, limit });
    }
    Ok(())
}

struct Deadline {
    /// None: so far away that it never comes.
    at: Option<Instant>,
    timeout: Duration,
}

impl Deadline {
    fn after(timeout: Duration) -> Self {
        Self { at: Instant::now().checked_add(timeout), timeout }
    }

    /// Waits after a call would have blocked. At the end it does not ask the socket again: some kinds call
    /// themselves ready while the peer's queue is full.
    fn wait(
        &self,
        socket: BorrowedFd<'_>,
        what: PollFlags,
        operation: &'static str,
    ) -> Result<(), Error> {
        let left = self.at.map(|at| at.saturating_duration_since(Instant::now()));
        let timed_out = Error::TimedOut { operation, waited: self.timeout };
        if left.is_some_and(|left| left.is_zero()) {
            return Err(timed_out);
        }
        match wait_for(socket, what, left) {
            Ok(true) => Ok(()),
            Ok(false) => Err(timed_out),
            Err(errno) => Err(Error::System { operation, errno }),
        }
    }
}
