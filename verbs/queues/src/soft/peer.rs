//! Another device of this host, as its peers see it: a socket, a key table and mapped regions.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netchannel_shared_memory as shared;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use shared::memory::{Mapping, SharedMemory};
use shared::passing;

use super::protocol::{MAX_MESSAGE, Reply, Request, Token};
use super::region::{KEY_TABLE_BYTES, index_of, settle};
use crate::error::Error;
use crate::memory::Access;
use crate::work::Status;

/// A service thread answers within microseconds; this covers a machine with many more busy threads than
/// cores.
const PATIENCE: Duration = Duration::from_secs(5);
/// For questions in the middle of a poll.
const PATIENCE_OF_POLL: Duration = Duration::from_secs(1);

/// A device that our queue pairs talk to, shared by all of them.
#[derive(Debug)]
pub(super) struct Peer {
    conversation: Conversation,
    keys: Mapping,
    regions: Mutex<Regions>,
    dead: AtomicBool,
}

/// Questions and answers over one socket, one at a time.
#[derive(Debug)]
struct Conversation {
    socket: OwnedFd,
    /// Number of the last question; held until it was answered.
    sequence: Mutex<u32>,
}

/// By key.
type Regions = HashMap<u32, Arc<RemoteRegion>>;

/// A region of a peer, mapped here.
#[derive(Debug)]
pub(super) struct RemoteRegion {
    pub(super) stamp: u64,
    mapping: Mapping,
    base: u64,
    len: u64,
    access: Access,
}

impl Peer {
    /// Connects to the device with this abstract socket name.
    pub(super) fn connect(name: &[u8]) -> Result<Self, Error> {
        let conversation = Conversation { socket: connect_socket(name)?, sequence: Mutex::new(0) };
        let (_, fds) = conversation.ask(&Request::Hello, &[], PATIENCE)?;
        let [keys] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| unreachable("its greeting lacks the key table"))?;
        let keys = SharedMemory::from_fd(keys, KEY_TABLE_BYTES)
            .and_then(|memory| memory.map_read_only())
            .map_err(|error| unreachable(&error.to_string()))?;
        let (regions, dead) = (Mutex::default(), AtomicBool::new(false));
        Ok(Self { conversation, keys, regions, dead })
    }

    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.conversation.socket.as_fd()
    }

    /// Whether the process has gone, or closed its device.
    #[inline]
    pub(super) fn is_dead(&self) -> bool {
        self.dead.load(Ordering::Acquire)
    }

    pub(super) fn mark_dead(&self) {
        self.dead.store(true, Ordering::Release);
    }

    /// Asks a question and waits for the answer, a bounded time.
    pub(super) fn ask(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        self.conversation.ask(request, fds, PATIENCE)
    }

    /// The stamp of the registered region that `key` names now: see [`region`](super::region).
    #[inline]
    pub(super) fn stamp(&self, key: u32) -> Option<u64> {
        let stamp = self.keys.load_u64(index_of(key) * 8, Ordering::Acquire)?;
        (key != 0 && stamp as u32 == key).then_some(stamp)
    }

    /// The region of this key, mapped on first use.
    pub(super) fn region(
        &self,
        number: u32,
        token: Token,
        key: u32,
    ) -> Result<Arc<RemoteRegion>, Status> {
        let stamp = self.stamp(key).ok_or(Status::RemoteAccess)?;
        if let Some(region) = self.regions().get(&key)
            && region.stamp == stamp
        {
            return Ok(region.clone());
        }
        let (reply, fds) = self
            .conversation
            .ask(&Request::Map { number, token, key }, &[], PATIENCE_OF_POLL)
            .map_err(|_| Status::RetryExceeded)?;
        let Ok([fd]) = <[OwnedFd; 1]>::try_from(fds) else { return Err(Status::RemoteAccess) };
        if reply.refused != 0 {
            return Err(Status::RemoteAccess);
        }
        let region = RemoteRegion::map(stamp, &reply, fd);
        let region = Arc::new(region.map_err(|_: shared::Error| Status::RemoteAccess)?);
        // What was mapped is what the stamp stands for, if that has not changed meanwhile.
        if self.stamp(key) != Some(stamp) {
            return Err(Status::RemoteAccess);
        }
        let mut regions = self.regions();
        // A void region keeps its memory until nobody has it mapped, so it goes at the next chance.
        regions.retain(|key, region| self.stamp(*key) == Some(region.stamp));
        regions.insert(key, region.clone());
        Ok(region)
    }

    /// Forgets a region whose key is void.
    pub(super) fn forget(&self, key: u32) {
        self.regions().remove(&key);
    }

    fn regions(&self) -> MutexGuard<'_, Regions> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Conversation {
    fn ask(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
        patience: Duration,
    ) -> Result<(Reply, Vec<OwnedFd>), Error> {
        let mut sequence = self.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        *sequence = sequence.wrapping_add(1);
        let failed = |error: shared::Error| unreachable(&error.to_string());
        passing::send_with_fds_within(
            self.socket.as_fd(),
            &request.encode(*sequence),
            fds,
            PATIENCE,
        )
        .map_err(failed)?;
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let mut bytes = [0; MAX_MESSAGE];
            let (len, fds) =
                passing::receive_with_fds_within(self.socket.as_fd(), &mut bytes, 1, left)
                    .map_err(failed)?;
            if len == 0 {
                return Err(unreachable("it hung up"));
            }
            let reply = Reply::decode(&bytes[..len]).ok_or_else(|| unreachable("bad answer"))?;
            // Answers to questions that were given up are stepped over.
            if reply.sequence == *sequence {
                return Ok((reply, fds));
            }
        }
    }
}

impl RemoteRegion {
    fn map(stamp: u64, reply: &Reply, fd: OwnedFd) -> Result<Self, shared::Error> {
        let len =
            usize::try_from(reply.len).map_err(|_| shared::Error::BadLength { len: usize::MAX })?;
        let memory = SharedMemory::from_fd(fd, len)?;
        let access = Access::from_bits_truncate(reply.access);
        let mapping = if access.contains(Access::REMOTE_WRITE) {
            memory.map()?
        } else {
            memory.map_read_only()?
        };
        settle(&mapping);
        // Bounds are those of what is really mapped.
        let len = memory.len() as u64;
        Ok(Self { stamp, mapping, base: reply.base, len, access })
    }

    /// Its key: the lower half of the stamp.
    pub(super) fn key(&self) -> u32 {
        self.stamp as u32
    }

    /// Where the peer's `len` bytes at `address` are mapped here, if the region allows `right` there.
    #[inline]
    pub(super) fn locate(
        &self,
        address: u64,
        len: u64,
        right: Access,
    ) -> Option<std::ptr::NonNull<u8>> {
        let offset = address.checked_sub(self.base)?;
        let end = offset.checked_add(len)?;
        if end > self.len || !self.access.contains(right) {
            return None;
        }
        // SAFETY: `offset <= end <= len`, the length of the mapping.
        Some(unsafe { self.mapping.as_ptr().add(offset as usize) })
    }
}

fn unreachable(reason: &str) -> Error {
    Error::BadEndpoint { reason: format!("its device does not answer: {reason}") }
}

fn connect_socket(name: &[u8]) -> Result<OwnedFd, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match try_connect(name) {
            Ok(socket) => return Ok(socket),
            // Its backlog is full: its service thread is behind.
            Err(Errno::AGAIN) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(errno) => return Err(unreachable(&format!("connecting: {errno}"))),
        }
    }
}

/// Whether there is a device with this abstract socket name; one that is behind is there.
pub(super) fn find(name: &[u8]) -> Result<(), Error> {
    match try_connect(name) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(unreachable(&format!("connecting: {errno}"))),
    }
}

/// Connects to the device with this abstract socket name, at once or not at all.
pub(super) fn try_connect(name: &[u8]) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new_abstract_name(name)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => return Ok(socket),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}
