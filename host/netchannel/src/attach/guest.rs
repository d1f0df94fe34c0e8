//! One application's conversation, in the engine's process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use netchannel_attach::hello::{Provider as WireProvider, Reception, Welcome};
use netchannel_attach::{
    Answer, AttachError, Event, Failure, FailureKind, Heard, Hearing, MAX_PACKET, StreamOffer,
};
use netchannel_shared_memory::Error as SharedMemoryError;
use netchannel_shared_memory::passing::{receive_with_fds_within, send_with_fds_within};
use netchannel_shared_memory::wake::Wake;
use netchannel_units::Claim;
use netchannel_verbs::device::Provider;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use crate::attach::socket::Visitor;
use crate::boundary::application::{Application, ApplicationId, Export};
use crate::boundary::port::{self, PortShared};
use crate::boundary::region;
use crate::boundary::signal::Signal;
use crate::local::{ConnectReply, RuntimeInner};
use crate::shared::Backlog;
use crate::shared::{SessionShared, StreamSeed};
use crate::sync::lock;

/// Packets that wait for an application to read, at most; then it is dropped.
const MAX_QUEUE: usize = 512;
/// While more than this many wait, nothing is added that nobody asked for.
const SHORT_QUEUE: usize = 64;
/// Packets read at a time, so that none of the others waits long.
const BURST: usize = 32;

/// Why a conversation ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum Parting {
    /// The process or its socket is gone.
    #[error("it is gone")]
    Gone,
    /// It does not keep to the protocol.
    #[error(transparent)]
    Protocol(#[from] AttachError),
    /// It does not read.
    #[error("it does not read what it asked for ({MAX_QUEUE} packets wait)")]
    Deaf,
    /// The socket failed.
    #[error(transparent)]
    Socket(#[from] SharedMemoryError),
}

/// A packet on its way, with descriptors.
struct Outgoing {
    packet: Vec<u8>,
    fds: Vec<Passed>,
}

/// A descriptor on its way.
pub(super) enum Passed {
    Own(OwnedFd),
    Shared(Arc<Export>),
}

impl AsFd for Passed {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Own(fd) => fd.as_fd(),
            Self::Shared(export) => export.fd.as_fd(),
        }
    }
}

/// A stream that is being opened.
pub(super) struct Connecting {
    pub(super) number: u32,
    pub(super) peer: SocketAddr,
    pub(super) claim: Claim,
    pub(super) reply: Arc<ConnectReply>,
}

/// An application.
pub(super) struct Guest {
    visitor: Visitor,
    hearing: Hearing,
    pub(super) application: Arc<Application>,
    /// Wakes the server's thread.
    pub(super) wake: Arc<Wake>,
    queue: VecDeque<Outgoing>,
    /// Hello was said: the engines know it.
    admitted: bool,
    pub(super) ports: BTreeMap<u32, Arc<PortShared>>,
    pub(super) rings: BTreeSet<(u32, u8)>,
    /// Streams that it has not let go, with their sessions.
    pub(super) streams: BTreeMap<u64, Arc<SessionShared>>,
    pub(super) listeners: BTreeMap<u16, (SocketAddr, Arc<Backlog>)>,
    pub(super) connecting: Vec<Connecting>,
    /// Of each stream that has some: what tells of it.
    pub(super) signals: BTreeMap<u64, Vec<Arc<Signal>>>,
    /// Ready lists, with the groups that know each.
    pub(super) lists: BTreeMap<u32, BTreeSet<u8>>,
    /// Regions whose memory it has because a message named them.
    introduced: BTreeSet<u32>,
}

impl Guest {
    pub(super) fn new(visitor: Visitor, id: ApplicationId, wake: Arc<Wake>) -> Self {
        Self {
            visitor,
            hearing: Hearing::default(),
            application: Application::attached(id, Arc::clone(&wake)),
            wake,
            queue: VecDeque::new(),
            admitted: false,
            ports: BTreeMap::new(),
            rings: BTreeSet::new(),
            streams: BTreeMap::new(),
            listeners: BTreeMap::new(),
            connecting: Vec::new(),
            signals: BTreeMap::new(),
            lists: BTreeMap::new(),
            introduced: BTreeSet::new(),
        }
    }

    /// Says no to a visitor, as far as its socket takes it.
    pub(super) fn refuse(visitor: &Visitor, text: &str) {
        let packet = Reception::refusal(text).encode();
        let _ = send_with_fds_within(visitor.fd.as_fd(), &packet, &[], Duration::ZERO);
    }

    pub(super) fn add_fds<'a>(&'a self, fds: &mut Vec<PollFd<'a>>) {
        let mut what = PollFlags::IN;
        if !self.queue.is_empty() {
            what |= PollFlags::OUT;
        }
        fds.push(PollFd::from_borrowed_fd(self.visitor.fd.as_fd(), what));
        fds.extend(self.visitor.end.as_ref().map(|end| PollFd::new(end, PollFlags::IN)));
    }

    /// Does what can be done without waiting.
    pub(super) fn run(&mut self, inner: &RuntimeInner) -> Result<(), Parting> {
        if self.has_ended() {
            return Err(Parting::Gone);
        }
        self.hear(inner)?;
        self.finish_connecting(inner);
        self.pass_news();
        self.flush()?;
        if self.queue.len() > MAX_QUEUE { Err(Parting::Deaf) } else { Ok(()) }
    }

    fn has_ended(&self) -> bool {
        let Some(end) = &self.visitor.end else { return false };
        let mut fds = [PollFd::new(end, PollFlags::IN)];
        let now = rustix::time::Timespec::default();
        rustix::event::poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0)
    }

    fn hear(&mut self, inner: &RuntimeInner) -> Result<(), Parting> {
        let mut packet = vec![0; MAX_PACKET];
        for _ in 0..BURST {
            let came =
                receive_with_fds_within(self.visitor.fd.as_fd(), &mut packet, 4, Duration::ZERO);
            let (length, descriptors) = match came {
                Ok((0, _)) => return Err(Parting::Gone),
                Ok(came) => came,
                Err(SharedMemoryError::TimedOut { .. }) => return Ok(()),
                Err(error) if error.errno() == Some(Errno::CONNRESET) => return Err(Parting::Gone),
                Err(error) => return Err(error.into()),
            };
            match self.hearing.on_packet(&packet[..length], descriptors.len()) {
                Ok(Heard::Hello(hello)) => {
                    tracing::info!(
                        application = self.application.id.0,
                        process = self.visitor.process,
                        name = hello.name,
                        "attached"
                    );
                    self.admit(inner);
                }
                Ok(Heard::Request(request)) => self.on_request(inner, request),
                Err(error) => {
                    // Somebody of another version should hear why.
                    if !self.admitted {
                        self.send(Reception::refusal(&error.to_string()).encode(), Vec::new());
                        let _ = self.flush();
                    }
                    return Err(error.into());
                }
            }
            if self.queue.len() > MAX_QUEUE {
                return Err(Parting::Deaf);
            }
        }
        // More may have come: the socket is still readable.
        Ok(())
    }

    fn admit(&mut self, inner: &RuntimeInner) {
        self.admitted = true;
        inner.for_each_engine(|engine| {
            engine.control().add_application(Arc::clone(&self.application));
        });
        let welcome = Welcome {
            application: self.application.id.0,
            device: inner.device.name.clone(),
            provider: match inner.device.provider {
                Provider::Soft => WireProvider::Soft,
                Provider::Rdma => WireProvider::Rdma,
            },
            reason: inner.reason.clone(),
            groups: inner.engines() as u8,
            window: inner.config.window as u64,
            policy: inner.config.policy.to_string(),
            ring: port::CAPACITY as u32,
        };
        self.send(Reception::Welcome(welcome).encode(), Vec::new());
    }

    /// What nobody asked for, as far as the application keeps up: memory that is gone, and streams
    /// that peers opened.
    fn pass_news(&mut self) {
        if self.queue.len() < SHORT_QUEUE {
            for region in self.application.take_forgotten() {
                self.introduced.remove(&region);
                self.say(&Event::Forget(region), Vec::new());
            }
        }
        let services: Vec<u16> = self.listeners.keys().copied().collect();
        for service in services {
            while self.queue.len() < SHORT_QUEUE
                && let Some((_, backlog)) = self.listeners.get(&service)
                && let Ok(Some(seed)) = backlog.pop()
            {
                let offer = self.offer(seed);
                self.say(&Event::Incoming(service, offer), Vec::new());
            }
        }
    }

    /// A stream for the application, which has the memory of its cell afterwards.
    pub(super) fn offer(&mut self, seed: StreamSeed) -> StreamOffer {
        let cell = seed.cell.place();
        if let Some((region, _)) = region::unpack(cell)
            && let Some(export) = self.application.export(region.0)
            && self.introduced.insert(region.0)
        {
            let event = Event::Region(region.0, export.len as u64, export.writable);
            self.say(&event, vec![Passed::Shared(export)]);
        }
        let offer = StreamOffer {
            stream: seed.key.0,
            cell,
            peer: seed.session.peer,
            channels: seed.channels(),
            class: seed.claim.class,
            weight: seed.claim.weight,
        };
        self.streams.insert(seed.key.0, seed.session);
        offer
    }

    pub(super) fn answer(&mut self, number: u32, answer: Answer, fds: Vec<Passed>) {
        self.say(&Event::Answer(number, answer), fds);
    }

    fn say(&mut self, event: &Event, fds: Vec<Passed>) {
        self.send(event.encode(), fds);
    }

    fn send(&mut self, packet: Vec<u8>, fds: Vec<Passed>) {
        self.queue.push_back(Outgoing { packet, fds });
    }

    /// Sends what the socket takes now.
    fn flush(&mut self) -> Result<(), Parting> {
        while let Some(Outgoing { packet, fds }) = self.queue.front() {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            match send_with_fds_within(self.visitor.fd.as_fd(), packet, &fds, Duration::ZERO) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(SharedMemoryError::TimedOut { .. }) => return Ok(()),
                Err(error) => match error.errno() {
                    Some(Errno::PIPE | Errno::CONNRESET) => return Err(Parting::Gone),
                    // Too many descriptors are on their way to processes that do not read.
                    Some(Errno::TOOMANYREFS) => return Ok(()),
                    _ => return Err(error.into()),
                },
            }
        }
        Ok(())
    }

    /// The conversation is over: everything that was the application's goes.
    pub(super) fn leave(mut self, inner: &RuntimeInner, parting: &Parting) {
        let (application, process) = (self.application.id.0, self.visitor.process);
        match parting {
            Parting::Gone => tracing::info!(application, process, "detached"),
            other => {
                tracing::warn!(application, process, reason = %other, "dropping an application")
            }
        }
        for (service, (address, backlog)) in std::mem::take(&mut self.listeners) {
            lock(&inner.shared.listeners).remove(&service);
            inner.stop_listening(address);
            backlog.close();
        }
        if self.admitted {
            let id = self.application.id;
            inner.for_each_engine(|engine| engine.control().end_application(id));
        }
        // No engine knows them any more.
        self.lists.keys().for_each(|list| inner.give_list_number(*list));
    }

    /// The engine ends.
    pub(super) fn send_off(mut self, inner: &RuntimeInner) {
        let text = "the engine was closed";
        let kind = std::io::ErrorKind::ConnectionAborted;
        self.say(&Event::Farewell(Failure::new(FailureKind::Closed, kind, text)), Vec::new());
        let _ = self.flush();
        self.leave(inner, &Parting::Gone);
    }
}
