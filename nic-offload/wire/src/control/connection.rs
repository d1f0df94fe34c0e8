//! One end of a control connection.

use std::collections::VecDeque;

use netchannel_units::{Class, Duration, Timestamp};

use super::channel::ChannelMessage;
use super::error::ControlError;
use super::event::{ControlEvent, Negotiated};
use super::keepalive::{Due, Keepalive, Path};
use super::message::{Accept, ChannelOffer, ControlMessage, Echo, Farewell, Hello, SessionId};
use super::negotiation::{self, Configuration};
use super::outbox::Outbox;
use super::parameters::Features;
use super::reason::Reason;
use super::record::{self, Assembler};
use super::state::{Role, State};

/// One end of a control connection: a state machine without I/O.
///
/// Inputs are [`receive`](Self::receive), [`on_timeout`](Self::on_timeout) and
/// [`on_disconnect`](Self::on_disconnect), and the caller's decisions [`accept`](Self::accept),
/// [`refuse`](Self::refuse), [`ready`](Self::ready) and [`close`](Self::close). After any of
/// them, take all of [`poll_event`](Self::poll_event), then write
/// [`poll_transmit`](Self::poll_transmit) to the socket, then ask
/// [`next_timeout`](Self::next_timeout). When the socket is readable and a timeout is due at once,
/// read first: a process that was stopped finds its peer's signs of life in the socket.
///
/// ```
/// use netchannel_units::Timestamp;
/// use netchannel_wire::control::{Configuration, Connection, ControlEvent, SessionId, State};
/// let now = Timestamp::ZERO;
/// let configuration = Configuration::new("soft", "soft0");
/// let session = SessionId([7; 16]);
/// let mut client = Connection::client(configuration.clone(), session, Vec::new(), now).unwrap();
/// let mut server = Connection::server(configuration, now).unwrap();
///
/// let hello = client.poll_transmit().unwrap().to_vec();
/// client.transmitted(hello.len());
/// server.receive(now, &hello).unwrap();
/// assert!(matches!(server.poll_event(), Some(ControlEvent::PeerHello(_))));
/// server.accept(Vec::new()).unwrap();
/// assert_eq!(server.state(), State::AwaitReady);
/// ```
#[derive(Debug)]
pub struct Connection {
    role: Role,
    state: State,
    configuration: Configuration,
    /// Client: index, group and class of the Channels that it offered. Server: of the peer's.
    offered: Vec<(u16, u8, Class)>,
    negotiated: Option<Negotiated>,
    assembler: Assembler,
    outbox: Outbox,
    events: VecDeque<ControlEvent>,
    handshake_ends: Timestamp,
    keepalive: Option<Keepalive>,
}

/// Bytes that may wait to be sent before Pings go unanswered: who asks without reading the answers
/// must not make this side keep them.
const PONG_BACKLOG: usize = 1024;

impl Connection {
    /// The end of the side that opened the TCP connection; Hello is ready to be sent. `session`
    /// must be random.
    ///
    /// # Errors
    /// [`ControlError::OutOfRange`], [`ControlError::ChannelOffers`] or
    /// [`ControlError::RecordLength`] if the peer would refuse it.
    pub fn client(
        configuration: Configuration,
        session: SessionId,
        channels: Vec<ChannelOffer>,
        now: Timestamp,
    ) -> Result<Self, ControlError> {
        let mut this = Self::new(Role::Client, State::AwaitAccept, configuration, now)?;
        ChannelOffer::check(&channels)?;
        this.offered = negotiation::names(&channels);
        let hello = Hello {
            min_version: this.configuration.versions.min,
            max_version: this.configuration.versions.max,
            session,
            features: this.configuration.features,
            parameters: this.configuration.parameters.clone(),
            channels,
            authentication: None,
        };
        this.outbox.push(&ControlMessage::Hello(Box::new(hello)))?;
        Ok(this)
    }

    /// The end of the side that accepted the TCP connection.
    ///
    /// # Errors
    /// [`ControlError::OutOfRange`] if no client would take the parameters.
    pub fn server(configuration: Configuration, now: Timestamp) -> Result<Self, ControlError> {
        Self::new(Role::Server, State::AwaitHello, configuration, now)
    }

    fn new(
        role: Role,
        state: State,
        configuration: Configuration,
        now: Timestamp,
    ) -> Result<Self, ControlError> {
        configuration.parameters.check()?;
        Ok(Self {
            role,
            state,
            handshake_ends: now + configuration.handshake_timeout,
            configuration,
            offered: Vec::new(),
            negotiated: None,
            assembler: Assembler::default(),
            outbox: Outbox::default(),
            events: VecDeque::new(),
            keepalive: None,
        })
    }

    /// Which side this is.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Where the conversation is.
    pub fn state(&self) -> State {
        self.state
    }

    /// What was agreed on: known to the client once accepted, to the server from the Hello on.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.negotiated.as_ref()
    }

    /// Time from the last answered Ping to its Pong (client).
    pub fn round_trip(&self) -> Option<Duration> {
        self.keepalive.as_ref().and_then(Keepalive::round_trip)
    }

    /// Bytes came, cut anyhow.
    ///
    /// # Errors
    /// The connection is closed then; the peer is told why by what is left to transmit.
    pub fn receive(&mut self, now: Timestamp, mut bytes: &[u8]) -> Result<(), ControlError> {
        if let Some(keepalive) = &mut self.keepalive
            && !bytes.is_empty()
        {
            keepalive.on_bytes(now);
        }
        while self.state != State::Closed {
            let outcome = match self.assembler.next(&mut bytes) {
                Ok(None) => return Ok(()),
                Ok(Some(body)) => {
                    let message = record::decode(&body);
                    self.assembler.recycle(body);
                    message.and_then(|message| match message {
                        Some(message) => self.on_message(now, message),
                        None => Ok(()),
                    })
                }
                Err(error) => Err(error),
            };
            if let Err(error) = outcome {
                self.fail(&error);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Server: takes the session, with a queue pair for each Channel that it takes.
    ///
    /// # Errors
    /// [`ControlError::Misuse`] without an unanswered Hello; else as [`client`](Self::client), or
    /// [`ControlError::NotOffered`]. Nothing was sent then.
    pub fn accept(&mut self, channels: Vec<ChannelOffer>) -> Result<(), ControlError> {
        self.expect(State::Answering, "accept")?;
        negotiation::check_answer(&self.offered, &channels)?;
        let Some(negotiated) = &self.negotiated else {
            return Err(ControlError::Misuse { operation: "accept", state: self.state });
        };
        let accept = Accept {
            version: negotiated.version,
            features: negotiated.features,
            parameters: self.configuration.parameters.clone(),
            channels,
        };
        self.outbox.push(&ControlMessage::Accept(Box::new(accept)))?;
        self.state = State::AwaitReady;
        Ok(())
    }

    /// Server: does not take it.
    ///
    /// # Errors
    /// [`ControlError::Misuse`] without an unanswered Hello.
    pub fn refuse(&mut self, reason: Reason, text: &str) -> Result<(), ControlError> {
        self.expect(State::Answering, "refuse")?;
        self.part(reason, text);
        Ok(())
    }

    /// Client: its queue pairs are connected; the session is up.
    ///
    /// # Errors
    /// [`ControlError::Misuse`] unless just accepted.
    pub fn ready(&mut self, now: Timestamp) -> Result<(), ControlError> {
        self.expect(State::Connecting, "ready")?;
        self.outbox.push(&ControlMessage::Ready)?;
        self.establish(now);
        Ok(())
    }

    /// Says something of a queue pair.
    ///
    /// # Errors
    /// [`ControlError::Misuse`] unless the session is up, [`ControlError::NotOffered`] if the peer
    /// does not know these messages.
    pub fn say(&mut self, message: ChannelMessage) -> Result<(), ControlError> {
        self.expect(State::Established, "say")?;
        self.check_failover()?;
        self.outbox.push(&ControlMessage::Channel(message))
    }

    fn check_failover(&self) -> Result<(), ControlError> {
        let features = self.negotiated.as_ref().map_or(Features::default(), |n| n.features);
        if features.contains(Features::FAILOVER) {
            return Ok(());
        }
        Err(ControlError::NotOffered { what: "feature", value: Features::FAILOVER.0 })
    }

    /// What the transport knows of the bytes that this side sent: to be told before
    /// [`on_timeout`](Self::on_timeout). Without it every silence is the peer's own.
    pub fn on_path(&mut self, now: Timestamp, path: Path) {
        if let Some(keepalive) = &mut self.keepalive {
            keepalive.on_path(now, path);
        }
    }

    /// Ends the session: the peer is told, and what it still sends is not read. Does nothing if
    /// it is over already.
    pub fn close(&mut self, reason: Reason, text: &str) {
        self.part(reason, text);
    }

    /// The socket reports the end of the stream, or an error.
    pub fn on_disconnect(&mut self) {
        if self.state != State::Closed {
            let partial = self.assembler.partial();
            self.events.push_back(ControlEvent::Disconnected { state: self.state, partial });
            self.state = State::Closed;
        }
    }

    /// The next thing that the caller must know.
    pub fn poll_event(&mut self) -> Option<ControlEvent> {
        self.events.pop_front()
    }

    /// Bytes to write to the socket. Say with [`transmitted`](Self::transmitted) how many it took.
    pub fn poll_transmit(&mut self) -> Option<&[u8]> {
        Some(self.outbox.waiting()).filter(|waiting| !waiting.is_empty())
    }

    /// The socket took the first `count` bytes of [`poll_transmit`](Self::poll_transmit).
    pub fn transmitted(&mut self, count: usize) {
        self.outbox.on_transmitted(count);
    }

    /// When to call [`on_timeout`](Self::on_timeout).
    pub fn next_timeout(&self) -> Option<Timestamp> {
        if self.state.is_handshake() {
            return Some(self.handshake_ends);
        }
        let keepalive = self.keepalive.as_ref().filter(|_| self.state == State::Established);
        keepalive.map(Keepalive::next_timeout)
    }

    /// Time has passed; harmless when nothing is due.
    pub fn on_timeout(&mut self, now: Timestamp) {
        if self.state.is_handshake() {
            if now >= self.handshake_ends {
                self.events.push_back(ControlEvent::HandshakeTimeout { state: self.state });
                let text = format!("the handshake took too long (waited in {:?})", self.state);
                self.part(Reason::Timeout, &text);
            }
            return;
        }
        let Some(keepalive) = &mut self.keepalive else { return };
        if self.state != State::Established {
            return;
        }
        match keepalive.on_timeout(now) {
            Due::Nothing => {}
            Due::Ask(nonce) => self.send_short(&ControlMessage::Ping(Echo { nonce })),
            Due::Dead { silent, path } => {
                self.events.push_back(ControlEvent::PeerDead { silent, path });
                let silent_side = match self.role {
                    Role::Client => "server",
                    Role::Server => "client",
                };
                let silent = silent.as_millis();
                self.part(
                    Reason::Timeout,
                    &format!("nothing came from the {silent_side} for {silent} ms"),
                );
            }
        }
    }

    fn on_message(&mut self, now: Timestamp, message: ControlMessage) -> Result<(), ControlError> {
        let (state, kind) = (self.state, message.kind());
        let next = state.after(kind).ok_or(ControlError::OutOfOrder { state, kind })?;
        match message {
            ControlMessage::Hello(hello) => {
                self.negotiated = Some(negotiation::judge_hello(&self.configuration, &hello)?);
                self.offered = negotiation::names(&hello.channels);
                self.events.push_back(ControlEvent::PeerHello(hello));
            }
            ControlMessage::Accept(accept) => {
                let offered = &self.offered;
                self.negotiated =
                    Some(negotiation::judge_accept(&self.configuration, offered, &accept)?);
                self.events.push_back(ControlEvent::Accepted(accept));
            }
            ControlMessage::Refuse(farewell) => {
                self.events.push_back(ControlEvent::Refused(farewell));
            }
            ControlMessage::Ready => {
                self.establish(now);
                self.events.push_back(ControlEvent::Ready);
            }
            ControlMessage::Ping(echo) => {
                if self.outbox.waiting().len() <= PONG_BACKLOG {
                    self.send_short(&ControlMessage::Pong(echo));
                }
            }
            ControlMessage::Pong(Echo { nonce }) => {
                if let Some(keepalive) = &mut self.keepalive {
                    keepalive.on_pong(nonce, now);
                }
            }
            ControlMessage::Goodbye(farewell) => {
                self.events.push_back(ControlEvent::Goodbye(farewell));
            }
            ControlMessage::Channel(message) => {
                self.check_failover()?;
                self.events.push_back(ControlEvent::Channel(message));
            }
        }
        self.state = next;
        Ok(())
    }

    fn establish(&mut self, now: Timestamp) {
        let ours = &self.configuration.parameters;
        let interval = self.negotiated.as_ref().map_or(ours.keepalive, |n| n.keepalive);
        let timeouts = [ours.death_timeout, self.configuration.outage_timeout];
        self.keepalive = Some(Keepalive::new(self.role, interval, timeouts, now));
        self.state = State::Established;
    }

    fn expect(&self, state: State, operation: &'static str) -> Result<(), ControlError> {
        if self.state == state {
            return Ok(());
        }
        Err(ControlError::Misuse { operation, state: self.state })
    }

    /// Closes after an error. Who does not speak the protocol is not answered in it.
    fn fail(&mut self, error: &ControlError) {
        if matches!(error, ControlError::Magic { record: 0, .. }) {
            self.state = State::Closed;
            return;
        }
        let text = match error {
            ControlError::Refused { text, .. } => text.clone(),
            other => other.to_string(),
        };
        self.part(error.reason(), &text);
    }

    /// Last words, in the form that the peer's state allows.
    fn part(&mut self, reason: Reason, text: &str) {
        let farewell = Farewell::new(reason, text);
        match self.state {
            State::Closed => return,
            State::AwaitHello | State::Answering => {
                self.send_short(&ControlMessage::Refuse(farewell));
            }
            _ => self.send_short(&ControlMessage::Goodbye(farewell)),
        }
        self.state = State::Closed;
    }

    /// For messages that are far shorter than the longest record.
    fn send_short(&mut self, message: &ControlMessage) {
        let outcome = self.outbox.push(message);
        debug_assert_eq!(outcome, Ok(()));
    }
}
