//! Control connections: one per session, driven by the helper thread, never blocking.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use netchannel_driver::ChannelKey;
use netchannel_units::{Class, Timestamp};
use netchannel_verbs::device::{DeviceAttributes, LinkLayer};
use netchannel_verbs::{DeviceAttributes as Attributes, Endpoint};
use netchannel_vns::streams::Role;
use netchannel_wire::control::{
    ChannelOffer, Configuration, Connection, ControlEvent, Reason, SessionId, State,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::engine::setup::{EAGER_CREDIT, SessionTerms};
use crate::error::Error;
use crate::runtime::helper::{ConnectReply, HelperCommand};
use crate::runtime::{RuntimeInner, now};
use crate::shared::{SessionShared, lock};

/// Control connections that wait for the handshake at most; more are closed at once.
const MAX_HANDSHAKES: usize = 128;
/// Read at most this much at a time from one connection, so that none holds up the others.
const READ_BYTES: usize = 16 << 10;

/// Makes a listening socket, bound to the device's interface where that matters.
pub(super) fn listen(address: SocketAddr, device: &DeviceAttributes) -> Result<TcpListener, Error> {
    let what = || format!("listening on {address}");
    let socket = socket(address, device).map_err(|e| Error::system(what())(e.into()))?;
    let bound = sockopt::set_socket_reuseaddr(&socket, true)
        .and_then(|()| rustix::net::bind(&socket, &address))
        .and_then(|()| rustix::net::listen(&socket, 128));
    bound.map_err(|e| Error::system(what())(e.into()))?;
    Ok(TcpListener::from(socket))
}

/// A socket that shares the fate of the device's link: bound to its interface, if it has one and
/// the system allows it. Loopback addresses are reached through loopback alone.
fn socket(address: SocketAddr, device: &Attributes) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if device.port.link_layer != LinkLayer::Memory
        && !address.ip().is_loopback()
        && let Some(interface) = &device.port.interface
        && let Err(error) = bind_to_device(&socket, interface)
    {
        tracing::debug!(%interface, %error, "control connection not bound to the interface");
    }
    Ok(socket)
}

/// `SO_BINDTODEVICE`; the standard library and rustix do not have it.
fn bind_to_device(socket: &rustix::fd::OwnedFd, interface: &str) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    const SOL_SOCKET: i32 = 1;
    const SO_BINDTODEVICE: i32 = 25;
    unsafe extern "C" {
        fn setsockopt(
            socket: i32,
            level: i32,
            name: i32,
            value: *const std::ffi::c_void,
            len: u32,
        ) -> i32;
    }
    // SAFETY: the value is valid for its length during the call, which keeps nothing.
    let result = unsafe {
        setsockopt(
            socket.as_raw_fd(),
            SOL_SOCKET,
            SO_BINDTODEVICE,
            interface.as_ptr().cast(),
            interface.len() as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// How far a link is.
enum Stage {
    /// TCP is connecting.
    Dialing { deadline: Timestamp },
    /// The handshake runs.
    Handshake,
    /// The session is up.
    Up { slot: u32, session: Arc<SessionShared> },
}

struct Link {
    socket: TcpStream,
    peer: SocketAddr,
    connection: Connection,
    stage: Stage,
    /// Channels made and not yet given to a session.
    channels: Vec<ChannelKey>,
    replies: Vec<Arc<ConnectReply>>,
    dialed: bool,
}

/// All control connections and listening sockets of a runtime.
#[derive(Default)]
pub(super) struct Links {
    listeners: Vec<TcpListener>,
    links: Vec<Link>,
    /// Sessions that this side dialled, by address.
    sessions: HashMap<SocketAddr, (u32, Arc<SessionShared>)>,
}

impl Links {
    pub(super) fn add_fds<'a>(&'a self, fds: &mut Vec<BorrowedFd<'a>>) {
        fds.extend(self.listeners.iter().map(|l| l.as_fd()));
        // A socket that is dialling becomes readable only with its first bytes: see `run`.
        fds.extend(self.links.iter().map(|l| l.socket.as_fd()));
    }

    pub(super) fn command(&mut self, inner: &RuntimeInner, command: HelperCommand) {
        match command {
            HelperCommand::Listen(socket) => self.listeners.push(socket),
            HelperCommand::Unlisten(address) => {
                self.listeners.retain(|l| l.local_addr().is_ok_and(|a| a != address));
            }
            HelperCommand::Connect { peer, reply } => self.connect(inner, peer, reply),
        }
    }

    fn connect(&mut self, inner: &RuntimeInner, peer: SocketAddr, reply: Arc<ConnectReply>) {
        // One that has failed is about to end; the peer may be back already.
        let session = self.sessions.get(&peer).filter(|(_, session)| session.failure().is_none());
        if let Some((slot, _)) = session {
            reply.answer(Ok(*slot));
            return;
        }
        let dialing = |link: &&mut Link| {
            link.dialed && link.peer == peer && !matches!(link.stage, Stage::Up { .. })
        };
        if let Some(link) = self.links.iter_mut().find(dialing) {
            link.replies.push(reply);
            return;
        }
        match dial(inner, peer) {
            Ok(mut link) => {
                link.replies.push(reply);
                self.links.push(link);
            }
            Err(error) => reply.answer(Err(error)),
        }
    }

    /// Does what can be done without waiting; returns when to come back.
    pub(super) fn run(&mut self, inner: &RuntimeInner) -> Option<Timestamp> {
        self.accept(inner);
        let mut index = 0;
        while index < self.links.len() {
            match self.links[index].run(inner) {
                Ok(()) => {
                    let link = &self.links[index];
                    if let Stage::Up { slot, session } = &link.stage
                        && link.dialed
                        && session.failure().is_none()
                    {
                        self.sessions.insert(link.peer, (*slot, Arc::clone(session)));
                    }
                    index += 1;
                }
                Err(error) => {
                    let link = self.links.swap_remove(index);
                    if let Stage::Up { session, .. } = &link.stage
                        && link.dialed
                        && self.sessions.get(&link.peer).is_some_and(|s| Arc::ptr_eq(&s.1, session))
                    {
                        self.sessions.remove(&link.peer);
                    }
                    link.end(inner, error);
                }
            }
        }
        self.links.iter().filter_map(Link::next_timeout).min()
    }

    fn accept(&mut self, inner: &RuntimeInner) {
        for listener in &self.listeners {
            loop {
                match listener.accept() {
                    Ok((socket, peer)) => {
                        let handshakes =
                            self.links.iter().filter(|l| !matches!(l.stage, Stage::Up { .. }));
                        if handshakes.count() >= MAX_HANDSHAKES {
                            tracing::warn!(%peer, "too many handshakes at once; closed");
                            continue;
                        }
                        match answer(inner, socket, peer) {
                            Ok(link) => self.links.push(link),
                            Err(error) => tracing::warn!(%peer, %error, "cannot take a session"),
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => {
                        tracing::warn!(%error, "accepting a control connection failed");
                        break;
                    }
                }
            }
        }
    }

    /// The runtime ends: peers need not wait for a timeout.
    pub(super) fn say_goodbye(mut self, inner: &RuntimeInner) {
        for mut link in self.links.drain(..) {
            link.connection.close(Reason::Done, "the application closed");
            let _ = link.write();
            link.end(inner, Error::Closed);
        }
    }
}

fn configuration(inner: &RuntimeInner) -> Configuration {
    let provider = inner.device.provider.to_string();
    let mut configuration = Configuration::new(&provider, &inner.device.name);
    configuration.parameters.keepalive = inner.config.keepalive.interval;
    configuration.parameters.death_timeout = inner.config.keepalive.timeout;
    configuration.parameters.initial_credit = EAGER_CREDIT;
    configuration.parameters.process = Some(std::process::id());
    let sizes = netchannel_driver::GroupConfig::default();
    configuration.parameters.slots = sizes.receive_slots;
    configuration.parameters.slot_bytes = sizes.slot_bytes;
    configuration
}

fn dial(inner: &RuntimeInner, peer: SocketAddr) -> Result<Link, Error> {
    let failed = |e: rustix::io::Errno| connect_error(peer, &io::Error::from(e));
    let socket = socket(peer, &inner.device).map_err(failed)?;
    match rustix::net::connect(&socket, &peer) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
        Err(error) => return Err(failed(error)),
    }
    let configuration = configuration(inner);
    let time = now();
    let deadline = time + configuration.handshake_timeout;
    // The peer's number of slots is not known yet; credit begins with what every side has.
    let slots = configuration.parameters.slots;
    let made =
        inner.with_engine_quietly(|e| e.control().make_channels(inner.config.channels, slots))?;
    let (channels, offers) = offers(made);
    let connection = Connection::client(configuration, session_id(), offers, time);
    match connection {
        Ok(connection) => Ok(Link {
            socket: TcpStream::from(socket),
            peer,
            connection,
            stage: Stage::Dialing { deadline },
            channels,
            replies: Vec::new(),
            dialed: true,
        }),
        Err(error) => {
            inner.with_engine_quietly(|e| e.control().drop_channels(&channels));
            Err(connect_failure(peer, io::ErrorKind::InvalidInput, error.to_string()))
        }
    }
}

fn answer(inner: &RuntimeInner, socket: TcpStream, peer: SocketAddr) -> Result<Link, Error> {
    socket
        .set_nonblocking(true)
        .and_then(|()| socket.set_nodelay(true))
        .map_err(Error::system("setting up a control connection"))?;
    let connection = Connection::server(configuration(inner), now())
        .map_err(|e| Error::Config { reason: e.to_string() })?;
    Ok(Link {
        socket,
        peer,
        connection,
        stage: Stage::Handshake,
        channels: Vec::new(),
        replies: Vec::new(),
        dialed: false,
    })
}

fn offers(made: Vec<(ChannelKey, Endpoint)>) -> (Vec<ChannelKey>, Vec<ChannelOffer>) {
    let offer = |(number, (key, endpoint)): (usize, (ChannelKey, Endpoint))| {
        let offer =
            ChannelOffer { index: number as u16, class: Class::Throughput, endpoint: endpoint.0 };
        (key, offer)
    };
    made.into_iter().enumerate().map(offer).unzip()
}

fn session_id() -> SessionId {
    let mut id = [0; 16];
    // Names, no secrets: a failing source of randomness only makes them less distinct.
    let _ = rustix::rand::getrandom(&mut id, rustix::rand::GetRandomFlags::empty());
    SessionId(id)
}

fn connect_failure(peer: SocketAddr, kind: io::ErrorKind, reason: String) -> Error {
    Error::Connect { peer, reason, kind }
}

fn connect_error(peer: SocketAddr, error: &io::Error) -> Error {
    let advice = match error.kind() {
        io::ErrorKind::ConnectionRefused => "; is the other side listening there?",
        io::ErrorKind::TimedOut => "; is the address right and the host up?",
        _ => "",
    };
    connect_failure(peer, error.kind(), format!("{error}{advice}"))
}

impl Link {
    fn next_timeout(&self) -> Option<Timestamp> {
        match self.stage {
            // The socket's writability is looked at every millisecond while it dials: rare, short,
            // and simpler than another kind of interest.
            Stage::Dialing { deadline } => {
                Some(deadline.min(now() + std::time::Duration::from_millis(1)))
            }
            _ => self.connection.next_timeout(),
        }
    }

    fn run(&mut self, inner: &RuntimeInner) -> Result<(), Error> {
        if let Stage::Dialing { deadline } = self.stage {
            self.dialing(deadline)?;
            if matches!(self.stage, Stage::Dialing { .. }) {
                return Ok(());
            }
        }
        if let Stage::Up { session, .. } = &self.stage
            && let Some(error) = session.failure()
        {
            // The data path gave up; tell the peer why.
            self.connection.close(Reason::NotSupported, &shorten(&error.to_string()));
            let _ = self.write();
            return Err(error);
        }
        self.read(inner)?;
        let time = now();
        if self.connection.next_timeout().is_some_and(|at| at <= time) {
            self.connection.on_timeout(time);
        }
        let outcome = self.events(inner);
        let written = self.write();
        outcome?;
        written?;
        if self.connection.state() == State::Closed {
            // Refused by this side: the reason is on its way, nothing more is to be said.
            return Err(self.fault(io::ErrorKind::ConnectionAborted, "refused"));
        }
        Ok(())
    }

    fn dialing(&mut self, deadline: Timestamp) -> Result<(), Error> {
        if let Ok(Some(error)) = self.socket.take_error() {
            return Err(connect_error(self.peer, &error));
        }
        match self.socket.peer_addr() {
            Ok(_) => {
                let _ = self.socket.set_nodelay(true);
                self.stage = Stage::Handshake;
                Ok(())
            }
            Err(_) if now() < deadline => Ok(()),
            Err(_) => Err(connect_error(self.peer, &io::ErrorKind::TimedOut.into())),
        }
    }

    fn fault(&self, kind: io::ErrorKind, reason: impl Into<String>) -> Error {
        let reason = reason.into();
        match self.stage {
            Stage::Up { .. } => Error::Session { peer: self.peer, reason, kind },
            _ => connect_failure(self.peer, kind, reason),
        }
    }

    fn read(&mut self, inner: &RuntimeInner) -> Result<(), Error> {
        let mut buffer = [0; READ_BYTES];
        match self.socket.read(&mut buffer) {
            Ok(0) => {
                self.connection.on_disconnect();
                Ok(())
            }
            Ok(count) => {
                let received = self.connection.receive(now(), &buffer[..count]);
                // What came before the fault still counts, and the peer is told why.
                let fault =
                    received.err().map(|e| self.fault(io::ErrorKind::InvalidData, e.to_string()));
                match fault {
                    None => Ok(()),
                    Some(fault) => {
                        let outcome = self.events(inner);
                        let _ = self.write();
                        outcome.and(Err(fault))
                    }
                }
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(())
            }
            Err(error) => Err(self.fault(
                error.kind(),
                format!("the control connection failed: {error}; the peer may have died"),
            )),
        }
    }

    fn write(&mut self) -> Result<(), Error> {
        while let Some(bytes) = self.connection.poll_transmit() {
            match self.socket.write(bytes) {
                Ok(count) => self.connection.transmitted(count),
                // Read and keepalive come back here soon; a peer that does not read is dead.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => {
                    return Err(self.fault(
                        error.kind(),
                        format!("the control connection failed: {error}; the peer may have died"),
                    ));
                }
            }
        }
        Ok(())
    }

    fn events(&mut self, inner: &RuntimeInner) -> Result<(), Error> {
        while let Some(event) = self.connection.poll_event() {
            match event {
                ControlEvent::PeerHello(hello) => self.on_hello(inner, &hello.channels),
                ControlEvent::Accepted(accept) => self.on_accepted(inner, &accept.channels)?,
                ControlEvent::Ready => {}
                ControlEvent::Refused(farewell) => {
                    return Err(self.fault(
                        io::ErrorKind::ConnectionRefused,
                        format!("the peer refused the session: {}", farewell.text),
                    ));
                }
                ControlEvent::Goodbye(farewell) => {
                    return Err(self.fault(
                        io::ErrorKind::ConnectionAborted,
                        format!("the peer ended it: {}", farewell.text),
                    ));
                }
                ControlEvent::PeerDead { silent } => {
                    return Err(self.fault(
                        io::ErrorKind::TimedOut,
                        format!(
                            "no sign of life for {} ms; the peer is stopped or unreachable",
                            silent.as_millis()
                        ),
                    ));
                }
                ControlEvent::HandshakeTimeout { state } => {
                    return Err(self.fault(
                        io::ErrorKind::TimedOut,
                        format!(
                            "the handshake took too long (waited in {state:?}); does the \
                                 other side speak the NetChannel protocol?"
                        ),
                    ));
                }
                ControlEvent::Disconnected { .. } => {
                    return Err(self.fault(
                        io::ErrorKind::ConnectionReset,
                        "the control connection was closed; the peer died or does not speak the \
                         NetChannel protocol",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Server: makes and connects Channels, and takes the session.
    fn on_hello(&mut self, inner: &RuntimeInner, theirs: &[ChannelOffer]) {
        let outcome = self.take_session(inner, theirs);
        if let Err(error) = outcome {
            tracing::warn!(peer = %self.peer, %error, "refusing a session");
            self.drop_channels(inner);
            let _ = self.connection.refuse(Reason::Resources, &shorten(&error.to_string()));
        }
    }

    fn take_session(&mut self, inner: &RuntimeInner, theirs: &[ChannelOffer]) -> Result<(), Error> {
        let count = theirs.len().min(usize::from(inner.config.channels).max(theirs.len().min(64)));
        let theirs = &theirs[..count];
        if theirs.is_empty() {
            return Err(Error::Config { reason: "the peer offered no Channels".into() });
        }
        let terms = self.terms(Role::Server)?;
        let made = inner
            .with_engine_quietly(|e| e.control().make_channels(count as u16, terms.peer_slots))?;
        let (keys, mut ours) = offers(made);
        self.channels = keys;
        // The answer names the same Channels in the same classes.
        for (our, their) in ours.iter_mut().zip(theirs) {
            our.index = their.index;
            our.class = their.class;
        }
        self.start_session(inner, theirs, terms)?;
        self.connection
            .accept(ours)
            .map_err(|e| self.fault(io::ErrorKind::InvalidData, e.to_string()))
    }

    /// Client: connects the Channels to the server's, drops those that it did not take.
    fn on_accepted(&mut self, inner: &RuntimeInner, theirs: &[ChannelOffer]) -> Result<(), Error> {
        if theirs.is_empty() {
            return Err(self.fault(
                io::ErrorKind::ConnectionRefused,
                "the peer took none of the offered Channels",
            ));
        }
        let terms = self.terms(Role::Client)?;
        let keep: Vec<ChannelKey> = theirs
            .iter()
            .filter_map(|their| self.channels.get(usize::from(their.index)).copied())
            .collect();
        let spare: Vec<ChannelKey> =
            self.channels.iter().filter(|key| !keep.contains(key)).copied().collect();
        inner.with_engine_quietly(|e| e.control().drop_channels(&spare));
        self.channels = keep;
        self.start_session(inner, theirs, terms)?;
        self.connection
            .ready(now())
            .map_err(|e| self.fault(io::ErrorKind::InvalidData, e.to_string()))
    }

    fn terms(&self, role: Role) -> Result<SessionTerms, Error> {
        let negotiated = self.connection.negotiated().ok_or_else(|| {
            self.fault(io::ErrorKind::InvalidData, "the peer said nothing of itself")
        })?;
        Ok(SessionTerms {
            role,
            peer_slots: negotiated.peer.slots,
            peer_slot_bytes: negotiated.peer.slot_bytes,
            peer_eager_credit: negotiated.peer.initial_credit,
        })
    }

    fn start_session(
        &mut self,
        inner: &RuntimeInner,
        theirs: &[ChannelOffer],
        terms: SessionTerms,
    ) -> Result<(), Error> {
        let pairs: Vec<(ChannelKey, Endpoint)> = self
            .channels
            .iter()
            .copied()
            .zip(theirs.iter().map(|their| Endpoint(their.endpoint.clone())))
            .collect();
        let session = SessionShared::new(self.peer, pairs.len() as u16);
        let shared = Arc::clone(&session);
        // Memory first, off the polling cores.
        let slab = lock(&inner.slab_maker).make(&inner.shared.regions)?;
        let channels = std::mem::take(&mut self.channels);
        let slot = inner.with_engine_quietly(|engine| {
            let control = engine.control();
            if let Err(error) = control.connect_channels(&pairs, terms.peer_slots) {
                control.drop_channels(&channels);
                return Err(error);
            }
            let slot = control.add_session(shared, terms, channels);
            control.add_slab(slot, slab);
            Ok(slot)
        })?;
        self.stage = Stage::Up { slot, session };
        for reply in self.replies.drain(..) {
            reply.answer(Ok(slot));
        }
        Ok(())
    }

    fn drop_channels(&mut self, inner: &RuntimeInner) {
        let channels = std::mem::take(&mut self.channels);
        inner.with_engine_quietly(|e| e.control().drop_channels(&channels));
    }

    /// The link is over: streams and callers learn why.
    fn end(mut self, inner: &RuntimeInner, error: Error) {
        tracing::debug!(peer = %self.peer, %error, "control connection ended");
        self.drop_channels(inner);
        if let Stage::Up { slot, session } = &self.stage {
            let error = error.clone();
            inner.with_engine_quietly(|e| e.control().end_session(*slot, session, error));
        }
        for reply in self.replies.drain(..) {
            reply.answer(Err(error.clone()));
        }
    }
}

/// A text that fits into a farewell.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}
