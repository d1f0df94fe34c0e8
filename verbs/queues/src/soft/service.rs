//! The set-up thread of a device: it takes rings and questions from peers, asks for the rings of
//! datagrams and notices when peers hang up. It sleeps in `epoll_wait` otherwise and has no part in
//! moving data.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use netchannel_shared_memory::passing;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::connection::Attachment;
use super::device::{Device, locked};
use super::meeting::Meetings;
use super::neighbours::Neighbours;
use super::options::SoftOptions;
use super::peer::Peer;
use super::protocol::{MAX_MESSAGE, Reply, Request};
use super::random;
use crate::error::Error;

/// Peers that connect at once.
const BACKLOG: i32 = 1024;
/// Descriptors in one message at most: a ring and two times two of a queue.
const MAX_FDS: usize = 5;

const LISTENER: u64 = 0;
const WAKE: u64 = 1;
const FIRST: u64 = 2;

/// A device with its thread; the thread ends when the last object of the device has gone.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) device: Arc<Device>,
    pub(super) meetings: Meetings,
    shared: Arc<Sockets>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Sockets {
    epoll: OwnedFd,
    stopping: AtomicBool,
    peers: Mutex<Peers>,
}

#[derive(Debug, Default)]
struct Peers {
    by_name: HashMap<Vec<u8>, Weak<Peer>>,
    by_id: HashMap<u64, Weak<Peer>>,
    next_id: u64,
}

impl Peers {
    fn known(&self, name: &[u8]) -> Option<Arc<Peer>> {
        let peer = self.by_name.get(name).and_then(Weak::upgrade);
        peer.filter(|peer| !peer.is_dead())
    }
}

/// Marks the epoll data of sockets that we opened to peers of connections,
const OURS: u64 = 1 << 63;
/// and to receivers of datagrams.
const NEIGHBOURS: u64 = 1 << 62;

/// Marks GIDs of this provider: the local range of IPv6 (RFC 4193), as they never leave the host.
const LOCAL: u8 = 0xfd;

/// The abstract socket name of the device with this GID.
pub(super) fn name_of(gid: &[u8; 16]) -> Vec<u8> {
    let digits: String = gid.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("netchannel-soft-{digits}").into_bytes()
}

fn os(operation: &'static str) -> impl FnOnce(Errno) -> Error {
    move |errno| Error::errno(operation, errno.raw_os_error())
}

impl Service {
    pub(super) fn start(options: SoftOptions) -> Result<Self, Error> {
        let mut gid = random::token().map_err(|source| Error::Os {
            operation: "reading /dev/urandom",
            source,
            hint: "",
        })?;
        gid[0] = LOCAL;
        let device = Arc::new(Device::new(options, gid)?);
        let listener = listen(&device.name)?;
        let sockets = Arc::new(Sockets {
            epoll: epoll::create(CreateFlags::CLOEXEC).map_err(os("epoll_create1"))?,
            stopping: AtomicBool::new(false),
            peers: Mutex::default(),
        });
        sockets.watch(listener.as_fd(), LISTENER, EventFlags::IN)?;
        sockets.watch(device.service_wake.fd(), WAKE, EventFlags::IN)?;
        let worker = Worker {
            device: device.clone(),
            sockets: sockets.clone(),
            listener,
            connections: HashMap::new(),
            next: FIRST,
            neighbours: Neighbours::new(NEIGHBOURS),
        };
        let thread = std::thread::Builder::new()
            .name("soft-nic".into())
            .spawn(move || worker.run())
            .map_err(|source| Error::Os { operation: "starting a thread", source, hint: "" })?;
        let meetings = Meetings::default();
        Ok(Self { device, meetings, shared: sockets, thread: Some(thread) })
    }

    /// Whether there is a connection to the device of this name.
    pub(super) fn knows(&self, name: &[u8]) -> bool {
        locked(&self.shared.peers).known(name).is_some()
    }

    /// The device of this name, connected to once for all queue pairs.
    pub(super) fn peer(&self, name: &[u8]) -> Result<Arc<Peer>, Error> {
        if let Some(peer) = locked(&self.shared.peers).known(name) {
            return Ok(peer);
        }
        // Not under the lock, which the service thread takes too: the peer may be waiting for that.
        let peer = Arc::new(Peer::connect(name)?);
        let mut peers = locked(&self.shared.peers);
        if let Some(peer) = peers.known(name) {
            return Ok(peer);
        }
        peers.by_name.retain(|_, peer| peer.strong_count() > 0);
        peers.by_id.retain(|_, peer| peer.strong_count() > 0);
        let id = OURS | peers.next_id;
        peers.next_id += 1;
        peers.by_name.insert(name.to_vec(), Arc::downgrade(&peer));
        peers.by_id.insert(id, Arc::downgrade(&peer));
        // Only a hang-up is waited for; the answers are read by those who ask.
        self.shared.watch(peer.socket(), id, EventFlags::RDHUP | EventFlags::ET)?;
        Ok(peer)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        let _ = self.device.service_wake.notify();
        if let Some(thread) = self.thread.take() {
            // The worker never panics; if it did, its sockets are closed all the same.
            let _ = thread.join();
        }
    }
}

impl Sockets {
    fn watch(&self, fd: BorrowedFd<'_>, data: u64, flags: EventFlags) -> Result<(), Error> {
        epoll::add(&self.epoll, fd, EventData::new_u64(data), flags).map_err(os("epoll_ctl"))
    }
}

fn listen(name: &[u8]) -> Result<OwnedFd, Error> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
        .map_err(os("socket"))?;
    let address = SocketAddrUnix::new_abstract_name(name).map_err(os("naming a socket"))?;
    rustix::net::bind(&socket, &address).map_err(os("bind"))?;
    rustix::net::listen(&socket, BACKLOG).map_err(os("listen"))?;
    Ok(socket)
}

struct Worker {
    device: Arc<Device>,
    sockets: Arc<Sockets>,
    listener: OwnedFd,
    connections: HashMap<u64, Connection>,
    next: u64,
    neighbours: Neighbours,
}

/// A device that asks us.
struct Connection {
    socket: OwnedFd,
    /// Told to the receivers of its datagrams.
    up: Arc<AtomicBool>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.up.store(false, Ordering::Release);
    }
}

impl Worker {
    fn run(mut self) {
        let mut events = Vec::with_capacity(64);
        while !self.sockets.stopping.load(Ordering::Acquire) {
            events.clear();
            match epoll::wait(
                &self.sockets.epoll,
                rustix::buffer::spare_capacity(&mut events),
                None,
            ) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => {
                    tracing::error!(%errno, "the soft NIC cannot wait for its peers any more");
                    return;
                }
            }
            for event in &events {
                self.on_event(event);
            }
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event.data.u64() {
            WAKE => self.on_wake(),
            LISTENER => self.on_connection(),
            id if id & NEIGHBOURS != 0 => self.neighbours.on_event(&self.device, id),
            id if id & OURS != 0 => self.on_hang_up(id),
            id => self.on_request(id),
        }
    }

    fn on_wake(&mut self) {
        // Before the questions are taken: a later one wakes anew.
        let _ = self.device.service_wake.drain();
        for question in self.device.take_questions() {
            let watch =
                |socket: BorrowedFd<'_>, id| self.sockets.watch(socket, id, EventFlags::IN).is_ok();
            self.neighbours.ask(&self.device, question, watch);
        }
    }

    fn on_connection(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let Ok(socket) = rustix::net::accept_with(&self.listener, flags) else {
            // Out of descriptors, most likely: let the others have the processor before a retry.
            std::thread::sleep(Duration::from_millis(1));
            return;
        };
        if self.sockets.watch(socket.as_fd(), self.next, EventFlags::IN).is_ok() {
            let up = Arc::new(AtomicBool::new(true));
            self.connections.insert(self.next, Connection { socket, up });
        }
        self.next += 1;
    }

    fn on_hang_up(&self, id: u64) {
        let peer = locked(&self.sockets.peers).by_id.get(&id).and_then(Weak::upgrade);
        if let Some(peer) = peer {
            peer.mark_dead();
            self.device.wake_all();
        }
    }

    /// Answers one request; a peer that hung up or does not keep to the protocol is dropped.
    fn on_request(&mut self, id: u64) {
        let Some(connection) = self.connections.get(&id) else { return };
        let mut bytes = [0; MAX_MESSAGE];
        let received = passing::receive_with_fds_within(
            connection.socket.as_fd(),
            &mut bytes,
            MAX_FDS,
            Duration::ZERO,
        );
        let answered = received.ok().and_then(|(len, fds)| {
            let (sequence, request) = Request::decode(&bytes[..len])?;
            self.answer(connection, sequence, &request, fds)
        });
        if answered.is_none() {
            self.connections.remove(&id);
        }
    }

    fn answer(
        &self,
        connection: &Connection,
        sequence: u32,
        request: &Request,
        fds: Vec<OwnedFd>,
    ) -> Option<()> {
        let send = |reply: &Reply, fds: &[BorrowedFd<'_>]| {
            let socket = connection.socket.as_fd();
            passing::send_with_fds_within(socket, &reply.encode(), fds, Duration::ZERO).ok()
        };
        let granted = Reply { sequence, ..Reply::default() };
        let refused = Reply { refused: 1, ..granted };
        match *request {
            Request::Hello => send(&granted, &[self.device.regions.keys_fd()]),
            Request::Attach { number, token } => {
                let attached = self.device.queue_pair(number, &token).is_some_and(|queue_pair| {
                    Attachment::from_fds(fds).is_some_and(|ring| queue_pair.attach(ring))
                });
                send(if attached { &granted } else { &refused }, &[])
            }
            Request::Datagrams { number, source, queue_key } => {
                let queue_pair = self.device.datagrams(number);
                match queue_pair.and_then(|pair| pair.admit(source, queue_key, &connection.up)) {
                    Some(fds) => send(&granted, &fds.each_ref().map(|fd| fd.as_fd())),
                    None => send(&refused, &[]),
                }
            }
            Request::Map { number, token, key } => {
                let known = self.device.queue_pair(number, &token).is_some();
                match self.device.regions.export(key).filter(|_| known) {
                    Some(region) => {
                        let reply = Reply {
                            base: region.base,
                            len: region.len,
                            access: region.access.bits(),
                            ..granted
                        };
                        send(&reply, &[region.fd.as_fd()])
                    }
                    None => send(&refused, &[]),
                }
            }
        }
    }
}
