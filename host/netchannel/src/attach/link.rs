//! An application's end of the conversation with an engine in another process, and the thread that
//! listens to it.

use std::collections::{BTreeMap, HashMap};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use netchannel_attach::hello::Reception;
use netchannel_attach::{
    Answer, AttachError, Event, Hello, MAX_DESCRIPTORS, MAX_PACKET, Operation, Request,
    StreamOffer, Welcome,
};
use netchannel_shared_memory::Error as SharedMemoryError;
use netchannel_shared_memory::passing::{receive_with_fds_within, send_with_fds_within};
use netchannel_units::Claim;
use rustix::io::Errno;

use crate::attach::memory::Memory;
use crate::attach::pending::Pending;
use crate::attach::socket;
use crate::boundary::StreamKey;
use crate::boundary::port::PortShared;
use crate::boundary::ready::ListMemory;
use crate::boundary::signal::Signal;
use crate::error::Error;
use crate::shared::Backlog;
use crate::shared::{SessionPart, SessionShared, StreamSeed};
use crate::sync::lock;

/// How long an engine may take to answer hello or to read a request: it never waits for anybody, so
/// this covers a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);
/// An engine that is asked nothing says nothing.
const FOR_EVER: Duration = Duration::MAX;

/// The conversation.
pub(super) struct Link {
    socket: OwnedFd,
    pub(super) path: PathBuf,
    pub(super) welcome: Welcome,
    pub(super) memory: Memory,
    pub(super) pending: Mutex<BTreeMap<u32, Arc<Pending>>>,
    next_request: Mutex<u32>,
    backlogs: Mutex<HashMap<u16, Arc<Backlog>>>,
    /// Whoever waits for something, and is told when the engine is gone.
    waiting: Mutex<Waiting>,
    over: AtomicBool,
    error: Mutex<Option<Error>>,
}

fn cannot(path: &Path, reason: String, kind: ErrorKind) -> Error {
    Error::Attach { path: path.to_owned(), reason, kind }
}

fn kind_of(error: &SharedMemoryError) -> ErrorKind {
    match error {
        SharedMemoryError::TimedOut { .. } => ErrorKind::TimedOut,
        error => error.errno().map_or(ErrorKind::InvalidData, |e| std::io::Error::from(e).kind()),
    }
}

fn hung_up(error: &SharedMemoryError) -> bool {
    matches!(error.errno(), Some(Errno::PIPE | Errno::CONNRESET))
}

/// The next packet. Where the engine hung up with packets of ours unread, the system tells that before
/// the last that the engine said, which still waits.
fn hear(
    socket: &OwnedFd,
    packet: &mut [u8],
    max_fds: usize,
    patience: Duration,
) -> Result<(usize, Vec<OwnedFd>), SharedMemoryError> {
    match receive_with_fds_within(socket.as_fd(), packet, max_fds, patience) {
        Err(error) if hung_up(&error) => {
            receive_with_fds_within(socket.as_fd(), packet, max_fds, patience)
        }
        other => other,
    }
}

#[derive(Default)]
struct Waiting {
    ports: Vec<Weak<PortShared>>,
    signals: Vec<Weak<Signal>>,
    /// By number, and then by group.
    lists: BTreeMap<u32, Vec<ListMemory>>,
}

impl Link {
    /// Says hello to the engine at `path`.
    pub(super) fn open(path: &Path) -> Result<Arc<Self>, Error> {
        let socket = socket::connect(path)?;
        let failed = |error: SharedMemoryError| cannot(path, error.to_string(), kind_of(&error));
        let hello = Hello::new(&name_of_this_program()).encode();
        let said = send_with_fds_within(socket.as_fd(), &hello, &[], PATIENCE);
        // An engine that does not want this process says so and hangs up, perhaps before it hears hello.
        said.or_else(|error| if hung_up(&error) { Ok(()) } else { Err(error) }).map_err(failed)?;
        let mut packet = vec![0; MAX_PACKET];
        let (length, _) = hear(&socket, &mut packet, 0, PATIENCE).map_err(failed)?;
        if length == 0 {
            let reason = "it closed the connection without a word".into();
            return Err(cannot(path, reason, ErrorKind::ConnectionAborted));
        }
        let protocol = |error: AttachError| cannot(path, error.to_string(), ErrorKind::InvalidData);
        match Reception::decode(&packet[..length]).map_err(protocol)? {
            Reception::Refusal(text) => {
                Err(cannot(path, format!("it refused: {text}"), ErrorKind::PermissionDenied))
            }
            Reception::Welcome(welcome) => Ok(Arc::new(Self {
                socket,
                path: path.to_owned(),
                welcome,
                memory: Memory::new(),
                pending: Mutex::default(),
                next_request: Mutex::default(),
                backlogs: Mutex::default(),
                waiting: Mutex::default(),
                over: AtomicBool::new(false),
                error: Mutex::default(),
            })),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Why it is over.
    pub(super) fn error(&self) -> Error {
        lock(&self.error).clone().unwrap_or(Error::Closed)
    }

    /// Asks, and waits for the answer.
    pub(super) fn ask(&self, operation: Operation) -> Result<(Answer, Vec<OwnedFd>), Error> {
        self.start_asking(operation, None)?.wait(self)
    }

    /// Asks, and waits for nothing.
    pub(super) fn start_asking(
        &self,
        operation: Operation,
        backlog: Option<Arc<Backlog>>,
    ) -> Result<Arc<Pending>, Error> {
        let number = {
            let mut next = lock(&self.next_request);
            *next = next.wrapping_add(1);
            *next
        };
        let pending = Pending::new(backlog);
        lock(&self.pending).insert(number, Arc::clone(&pending));
        if let Err(error) = self.send(&Request { number, operation }) {
            let hung_up =
                matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset);
            if hung_up && !self.is_over() {
                // The thread that listens reads what the engine said last, and wakes whoever waits.
                return Ok(pending);
            }
            lock(&self.pending).remove(&number);
            return Err(error);
        }
        Ok(pending)
    }

    /// Tells the engine something that it does not answer. If it is gone, so is what was meant.
    pub(super) fn tell(&self, operation: Operation) {
        if let Err(error) = self.send(&Request { number: 0, operation }) {
            tracing::debug!(%error, "telling the engine");
        }
    }

    fn send(&self, request: &Request) -> Result<(), Error> {
        if self.is_over() {
            return Err(self.error());
        }
        let sent = send_with_fds_within(self.socket.as_fd(), &request.encode(), &[], PATIENCE);
        // The thread that listens finds out more about a socket that failed.
        sent.map_err(|error| self.gone(&error.to_string(), kind_of(&error)))
    }

    fn gone(&self, reason: &str, kind: ErrorKind) -> Error {
        Error::EngineGone { path: self.path.clone(), reason: reason.to_owned(), kind }
    }

    pub(super) fn listen(&self, address: SocketAddr) -> Result<(SocketAddr, Arc<Backlog>), Error> {
        let backlog = Backlog::new();
        let asked = self.start_asking(Operation::Listen { address }, Some(Arc::clone(&backlog)))?;
        match asked.wait(self)?.0 {
            Answer::Listening(local) => Ok((local, backlog)),
            other => Err(self.unexpected(&other)),
        }
    }

    pub(super) fn unlisten(&self, address: SocketAddr) {
        lock(&self.backlogs).remove(&address.port());
        self.tell(Operation::Unlisten { service: address.port() });
    }

    pub(super) fn unexpected(&self, answer: &Answer) -> Error {
        self.gone(
            &format!("it gave an answer to another question: {answer:?}"),
            ErrorKind::InvalidData,
        )
    }

    /// Wakes the port's thread when the engine is gone.
    pub(super) fn add_port(&self, port: &Arc<PortShared>) {
        let ports = &mut lock(&self.waiting).ports;
        ports.retain(|port| port.strong_count() > 0);
        ports.push(Arc::downgrade(port));
    }

    /// Makes a descriptor readable when the engine is gone.
    pub(super) fn add_signal(&self, signal: &Arc<Signal>) {
        let signals = &mut lock(&self.waiting).signals;
        if signals.len() == signals.capacity() {
            // Those that are gone go before there is more room for others.
            signals.retain(|signal| signal.strong_count() > 0);
        }
        signals.push(Arc::downgrade(signal));
    }

    /// Tells a ready list when the engine is gone.
    pub(super) fn add_list(&self, list: u32, memory: ListMemory) {
        lock(&self.waiting).lists.entry(list).or_default().push(memory);
    }

    pub(super) fn remove_list(&self, list: u32) {
        lock(&self.waiting).lists.remove(&list);
    }

    /// A stream that the engine made.
    pub(super) fn seed(&self, offer: &StreamOffer) -> Result<StreamSeed, Error> {
        let nowhere = || self.gone("it named a cell that is nowhere", ErrorKind::InvalidData);
        let cell = self.memory.cell(offer.cell).ok_or_else(nowhere)?;
        if self.is_over() {
            // Who ends the streams may have come before this one.
            self.memory.end_streams();
        }
        let StreamOffer { class, weight, .. } = *offer;
        let key = StreamKey(offer.stream);
        let session = SessionShared::new(0, offer.peer);
        let (group, slot, channels) = (key.group(), key.session(), offer.channels);
        session.set_parts(vec![SessionPart { group, slot, class, channels }]);
        Ok(StreamSeed { key, cell, session, claim: Claim { class, weight } })
    }

    /// Ends the conversation from this side.
    pub(super) fn hang_up(&self) {
        // Fails if the engine has done so.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }

    /// The thread that listens.
    pub(super) fn listen_to_engine(&self) {
        let mut packet = vec![0; MAX_PACKET];
        let error = loop {
            match hear(&self.socket, &mut packet, MAX_DESCRIPTORS, FOR_EVER) {
                Ok((0, _)) => {
                    let reason = "it closed the connection; did it end or drop this application?";
                    break self.gone(reason, ErrorKind::ConnectionAborted);
                }
                Ok((length, fds)) => match self.on_packet(&packet[..length], fds) {
                    Ok(()) => {}
                    Err(error) => break error,
                },
                Err(error) => break self.gone(&error.to_string(), kind_of(&error)),
            }
        };
        self.end(error);
    }

    fn on_packet(&self, packet: &[u8], mut fds: Vec<OwnedFd>) -> Result<(), Error> {
        let event = Event::decode(packet)
            .map_err(|error| self.gone(&error.to_string(), ErrorKind::InvalidData))?;
        match event {
            Event::Answer(number, answer) => {
                let Some(pending) = lock(&self.pending).remove(&number) else { return Ok(()) };
                if let (Answer::Listening(address), Some(backlog)) = (&answer, &pending.backlog) {
                    lock(&self.backlogs).insert(address.port(), Arc::clone(backlog));
                }
                if let Some(Answer::Stream(offer)) = pending.answer(answer, fds) {
                    self.let_go(&offer)?;
                }
            }
            Event::Incoming(service, offer) => self.on_incoming(service, &offer)?,
            Event::Forget(number) => self.memory.forget(number),
            Event::Region(number, len, writable) => {
                let nothing =
                    || self.gone("memory came without a descriptor", ErrorKind::InvalidData);
                self.memory.add(number, len, writable, fds.pop().ok_or_else(nothing)?)?;
            }
            Event::Farewell(failure) => {
                return Err(self.gone(&failure.text, failure.error_kind()));
            }
        }
        Ok(())
    }

    fn on_incoming(&self, service: u16, offer: &StreamOffer) -> Result<(), Error> {
        let seed = self.seed(offer)?;
        let backlog = lock(&self.backlogs).get(&service).cloned();
        let left = match backlog {
            Some(backlog) => backlog.push(seed).err(),
            None => Some(seed),
        };
        // The listener was dropped meanwhile.
        if left.is_some() { self.let_go(offer) } else { Ok(()) }
    }

    /// A stream came that nobody waits for any more.
    pub(super) fn let_go(&self, offer: &StreamOffer) -> Result<(), Error> {
        let seed = self.seed(offer)?;
        self.memory.drop_cell(seed.cell.place());
        self.tell(Operation::Release { stream: seed.key.0 });
        Ok(())
    }

    /// The conversation is over: whoever waits for anything learns why.
    fn end(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
        self.over.store(true, Ordering::Release);
        self.memory.end_streams();
        for pending in std::mem::take(&mut *lock(&self.pending)).into_values() {
            pending.wake();
        }
        for backlog in std::mem::take(&mut *lock(&self.backlogs)).into_values() {
            backlog.close();
        }
        let Waiting { ports, signals, lists } = std::mem::take(&mut *lock(&self.waiting));
        lists.values().flatten().for_each(ListMemory::look_at_all);
        for signal in signals.iter().filter_map(Weak::upgrade) {
            if let Err(error) = signal.notify() {
                tracing::warn!(%error, "cannot signal a stream's descriptor");
            }
        }
        for port in ports.iter().filter_map(Weak::upgrade) {
            // One that cannot be woken finds out by its socket.
            let _ = port.wake.notify();
        }
    }
}

fn name_of_this_program() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name);
    name.map_or_else(|| "?".into(), |name| name.to_string_lossy().into_owned())
}
