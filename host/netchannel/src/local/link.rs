//! One control connection: from dialling or accepting to the end of its session. [`handshake`]: how
//! it begins.

mod handshake;

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use netchannel_units::Timestamp;
use netchannel_wire::control::{
    ChannelMessage, Connection, ControlEvent, Path, Reason, SessionId, State,
};

use crate::clock::now;
use crate::error::Error;
use crate::local::RuntimeInner;
use crate::local::commands::ConnectReply;
use crate::local::link::handshake::configuration;
use crate::local::parts::{self, Made, drop_channels, make_all};
use crate::local::sockets::{self, socket};
use crate::shared::SessionShared;

/// Read at most this much at a time from one connection, so that none holds up the others.
const READ_BYTES: usize = 16 << 10;

/// How far a link is.
pub(super) enum Stage {
    /// TCP is connecting.
    Dialing { deadline: Timestamp },
    /// The handshake runs.
    Handshake,
    /// The session is up.
    Up { session: Arc<SessionShared> },
}

pub(super) struct Link {
    pub(super) socket: TcpStream,
    pub(super) peer: SocketAddr,
    pub(super) connection: Connection,
    pub(super) stage: Stage,
    /// Channels made and not yet given to a session.
    channels: Vec<Made>,
    pub(super) replies: Vec<Arc<ConnectReply>>,
    pub(super) dialed: bool,
}

pub(super) fn dial(inner: &RuntimeInner, peer: SocketAddr) -> Result<Link, Error> {
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
    let channels = make_all(inner, configuration.parameters.slots)?;
    let offers = channels.iter().map(|made| made.offer.clone()).collect();
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
            drop_channels(inner, &channels);
            Err(connect_failure(peer, io::ErrorKind::InvalidInput, error.to_string()))
        }
    }
}

pub(super) fn answer(
    inner: &RuntimeInner,
    socket: TcpStream,
    peer: SocketAddr,
) -> Result<Link, Error> {
    sockets::retry_steadily(&socket, inner.config.keepalive.outage);
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
    pub(super) fn next_timeout(&self) -> Option<Timestamp> {
        match self.stage {
            // The socket's writability is looked at every millisecond while it dials: rare, short,
            // and simpler than another kind of interest.
            Stage::Dialing { deadline } => {
                Some(deadline.min(now() + std::time::Duration::from_millis(1)))
            }
            _ => self.connection.next_timeout(),
        }
    }

    pub(super) fn run(&mut self, inner: &RuntimeInner) -> Result<(), Error> {
        if let Stage::Dialing { deadline } = self.stage {
            self.dialing(inner, deadline)?;
            if matches!(self.stage, Stage::Dialing { .. }) {
                return Ok(());
            }
        }
        if let Stage::Up { session } = &self.stage
            && let Some(error) = session.failure()
        {
            // The data path gave up; tell the peer why.
            self.connection.close(Reason::NotSupported, &self.words(&error));
            let _ = self.write();
            return Err(error);
        }
        self.read(inner)?;
        let time = now();
        if self.connection.next_timeout().is_some_and(|at| at <= time) {
            self.connection.on_path(time, sockets::path(&self.socket));
            self.connection.on_timeout(time);
        }
        let outcome = self.events(inner).and_then(|()| self.say());
        let written = self.write();
        outcome?;
        written?;
        if self.connection.state() == State::Closed {
            // Refused by this side: the reason is on its way, nothing more is to be said.
            return Err(self.fault(io::ErrorKind::ConnectionAborted, "refused"));
        }
        Ok(())
    }

    fn dialing(&mut self, inner: &RuntimeInner, deadline: Timestamp) -> Result<(), Error> {
        if let Ok(Some(error)) = self.socket.take_error() {
            return Err(connect_error(self.peer, &error));
        }
        match self.socket.peer_addr() {
            Ok(_) => {
                let _ = self.socket.set_nodelay(true);
                sockets::retry_steadily(&self.socket, inner.config.keepalive.outage);
                self.stage = Stage::Handshake;
                Ok(())
            }
            Err(_) if now() < deadline => Ok(()),
            Err(_) => Err(connect_error(self.peer, &io::ErrorKind::TimedOut.into())),
        }
    }

    /// What this side and the other are in the session.
    fn sides(&self) -> (&'static str, &'static str) {
        if self.dialed { ("the client", "the server") } else { ("the server", "the client") }
    }

    /// What to tell the peer of an error. It reads this as its own user does, to whom "the peer" is this
    /// side: both are called by what they are in the session.
    fn words(&self, error: &Error) -> String {
        let text = match error {
            Error::Session { reason, .. }
            | Error::Connect { reason, .. }
            | Error::Config { reason } => reason.clone(),
            other => other.to_string(),
        };
        let (own, other) = self.sides();
        text.replace("the peer", other).replace("this side", own).chars().take(200).collect()
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
                let time = now();
                if let Stage::Up { session } = &self.stage {
                    session.hear(time);
                }
                let received = self.connection.receive(time, &buffer[..count]);
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

    pub(super) fn write(&mut self) -> Result<(), Error> {
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
                        format!("the server refused the session: {}", farewell.text),
                    ));
                }
                ControlEvent::Goodbye(farewell) => {
                    if let Stage::Up { session } = &self.stage {
                        parts::take_last_words(inner, session);
                    }
                    return Err(self.fault(
                        io::ErrorKind::ConnectionAborted,
                        format!("{} ended it: {}", self.sides().1, farewell.text),
                    ));
                }
                ControlEvent::Channel(message) => self.on_channel_news(inner, &message)?,
                ControlEvent::PeerDead { silent, path } => {
                    let what = match path {
                        Path::Works | Path::Unknown => "its host answers: the process is stopped",
                        Path::Out => "neither does its host answer: it is down, or every path is",
                    };
                    let silent = silent.as_millis();
                    return Err(self.fault(
                        io::ErrorKind::TimedOut,
                        format!("the peer gave no sign of life for {silent} ms; {what}"),
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
                    let reason = match self.stage {
                        Stage::Up { .. } => "the control connection was closed; the peer has died",
                        _ => {
                            "the control connection was closed; the peer died or does not speak the \
                             NetChannel protocol"
                        }
                    };
                    return Err(self.fault(io::ErrorKind::ConnectionReset, reason));
                }
            }
        }
        Ok(())
    }

    /// The peer said something of a Channel.
    fn on_channel_news(
        &mut self,
        inner: &RuntimeInner,
        message: &ChannelMessage,
    ) -> Result<(), Error> {
        let Stage::Up { session } = &self.stage else { return Ok(()) };
        if parts::on_channel_news(inner, session, message) {
            return Ok(());
        }
        let of = message.of;
        let reason = format!("the peer speaks of {of:?}, which is none of the session's Channels");
        Err(self.fault(io::ErrorKind::InvalidData, reason))
    }

    /// What the engine has to say of Channels.
    fn say(&mut self) -> Result<(), Error> {
        let Stage::Up { session } = &self.stage else { return Ok(()) };
        // A server's queue pair may fail before the client is ready; that can wait.
        if self.connection.state() != State::Established {
            return Ok(());
        }
        for message in session.take_said() {
            self.connection
                .say(message)
                .map_err(|e| self.fault(io::ErrorKind::InvalidInput, e.to_string()))?;
        }
        Ok(())
    }

    fn drop_channels(&mut self, inner: &RuntimeInner) {
        drop_channels(inner, &std::mem::take(&mut self.channels));
    }

    /// The link is over: streams and callers learn why.
    pub(super) fn end(mut self, inner: &RuntimeInner, error: Error) {
        tracing::debug!(peer = %self.peer, %error, "control connection ended");
        self.drop_channels(inner);
        if let Stage::Up { session } = &self.stage {
            parts::end(inner, session, session.parts(), &error);
        }
        for reply in self.replies.drain(..) {
            reply.answer(Err(error.clone()));
        }
    }
}
