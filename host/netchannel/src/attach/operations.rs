//! What an attached application asks for, and what comes of it. Every number that it names is
//! looked up among its own.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use netchannel_attach::{Answer, Failure, FailureKind, Operation, Request};
use netchannel_shared_memory::wake::SocketWake;
use netchannel_units::Claim;

use crate::attach::convert::{to_failure, to_statistics};
use crate::attach::guest::{Connecting, Guest, Passed};
use crate::boundary::StreamKey;
use crate::boundary::port::{self, PortShared, PortWake};
use crate::error::Error;
use crate::local::{ConnectReply, RuntimeInner};
use crate::shared::Backlog;
use crate::shared::Command;
use crate::sync::lock;

/// Threads of an application that may have ports.
const MAX_PORTS: usize = 256;
/// Listeners of an application.
const MAX_LISTENERS: usize = 64;
/// Connections that an application may wait for.
const MAX_CONNECTING: usize = 256;

pub(super) fn too_many(what: &'static str, limit: usize) -> Failure {
    let text = format!("an application may have {limit} {what}");
    Failure::new(FailureKind::Limit, ErrorKind::OutOfMemory, &text)
}

pub(super) fn unknown(what: &str) -> Failure {
    let text = format!("no such {what} of this application");
    Failure::new(FailureKind::Unknown, ErrorKind::NotFound, &text)
}

/// An answer with the descriptors that go with it, or why there is none.
pub(super) type Answered = Result<(Answer, Vec<Passed>), Failure>;

impl Guest {
    pub(super) fn on_request(&mut self, inner: &RuntimeInner, request: Request) {
        let number = request.number;
        let answered = match request.operation {
            Operation::Connect { peer, class, weight } => {
                return self.connect(inner, number, peer, Claim { class, weight });
            }
            Operation::Listen { address } => self.listen(inner, address),
            Operation::Unlisten { service } => return self.unlisten(inner, service),
            Operation::Finish { stream } => return self.command(inner, stream, Command::Finish),
            Operation::Reset { stream, code } => {
                return self.command(inner, stream, |key| Command::Reset(key, code));
            }
            Operation::Stop { stream, code } => {
                return self.command(inner, stream, |key| Command::Stop(key, code));
            }
            Operation::Release { stream } => {
                self.command(inner, stream, Command::Release);
                self.streams.remove(&stream);
                self.signals.remove(&stream);
                return;
            }
            Operation::Port => self.add_port(inner),
            Operation::Ring { port, group } => self.add_ring(inner, port, group),
            Operation::ClosePort { port } => return self.close_port(inner, port),
            Operation::Region { number } => self.region(number),
            Operation::Statistics => {
                Ok((Answer::Statistics(to_statistics(&inner.stats())), Vec::new()))
            }
            Operation::Unfinished => Ok((Answer::Unfinished(self.unfinished(inner)), Vec::new())),
            Operation::Fate { stream } => Ok((self.fate(stream), Vec::new())),
            Operation::Descriptor { stream } => self.add_signal(stream),
            Operation::List => self.add_list(inner),
            Operation::ListRing { list, group } => self.add_list_ring(inner, list, group),
            Operation::CloseList { list } => return self.close_list(inner, list),
            Operation::Watch { stream, writing, by } => {
                return self.watch(inner, stream, writing, by);
            }
        };
        match answered {
            Ok((answer, fds)) => self.answer(number, answer, fds),
            Err(failure) => self.fail(number, failure),
        }
    }

    fn fail(&mut self, number: u32, failure: Failure) {
        self.answer(number, Answer::Failed(failure), Vec::new());
    }

    fn connect(&mut self, inner: &RuntimeInner, number: u32, peer: SocketAddr, claim: Claim) {
        if self.connecting.len() >= MAX_CONNECTING {
            return self.fail(number, too_many("connections under way", MAX_CONNECTING));
        }
        let reply = Arc::new(ConnectReply::notifying(Arc::clone(&self.wake)));
        if !inner.dial(peer, Arc::clone(&reply)) {
            return self.fail(number, to_failure(&Error::Closed));
        }
        self.connecting.push(Connecting { number, peer, claim, reply });
    }

    /// Answers for the connections that came to something.
    pub(super) fn finish_connecting(&mut self, inner: &RuntimeInner) {
        for waiting in std::mem::take(&mut self.connecting) {
            let Some(found) = waiting.reply.take() else {
                self.connecting.push(waiting);
                continue;
            };
            let Connecting { number, peer, claim, .. } = waiting;
            let application = self.application.id;
            let opened = found
                .and_then(|session| inner.open_stream(&session, application, peer.port(), claim));
            match opened {
                Ok(seed) => {
                    let offer = self.offer(seed);
                    self.answer(number, Answer::Stream(offer), Vec::new());
                }
                Err(error) => self.fail(number, to_failure(&error)),
            }
        }
    }

    fn listen(&mut self, inner: &RuntimeInner, address: SocketAddr) -> Answered {
        if self.listeners.len() >= MAX_LISTENERS {
            return Err(too_many("listeners", MAX_LISTENERS));
        }
        let backlog = Backlog::attached(self.application.id, Arc::clone(&self.wake));
        let local =
            inner.listen(address, Arc::clone(&backlog)).map_err(|error| to_failure(&error))?;
        self.listeners.insert(local.port(), (local, backlog));
        Ok((Answer::Listening(local), Vec::new()))
    }

    fn unlisten(&mut self, inner: &RuntimeInner, service: u16) {
        let Some((address, backlog)) = self.listeners.remove(&service) else { return };
        lock(&inner.shared.listeners).remove(&service);
        inner.stop_listening(address);
        for seed in backlog.close() {
            inner.submit_from(self.application.id, Command::Release(seed.key));
        }
    }

    pub(super) fn command(
        &mut self,
        inner: &RuntimeInner,
        stream: u64,
        command: impl FnOnce(StreamKey) -> Command,
    ) {
        // One that is unknown was let go before, or is not its own.
        if self.streams.contains_key(&stream) {
            inner.submit_from(self.application.id, command(StreamKey(stream)));
        }
    }

    fn add_port(&mut self, inner: &RuntimeInner) -> Answered {
        if self.ports.len() >= MAX_PORTS {
            return Err(too_many("threads with ports", MAX_PORTS));
        }
        let making = Error::shared_memory("making a port");
        let (ours, theirs) = SocketWake::pair().map_err(|error| to_failure(&making(error)))?;
        let number = inner.next_port();
        self.ports.insert(number, PortShared::new(number, PortWake::There(ours)));
        Ok((Answer::Port(number), vec![Passed::Own(theirs.into_fd())]))
    }

    fn add_ring(&mut self, inner: &RuntimeInner, number: u32, group: u8) -> Answered {
        let port = self.ports.get(&number).ok_or_else(|| unknown("port"))?;
        if usize::from(group) >= inner.engines() || !self.rings.insert((number, group)) {
            return Err(unknown("group without a ring from this port"));
        }
        let made = port::attached(self.application.id, Arc::clone(port));
        let (end, memory) = made.map_err(|error| to_failure(&error))?;
        inner.add_port(group, end);
        Ok((Answer::Ring, vec![Passed::Own(memory)]))
    }

    fn close_port(&mut self, inner: &RuntimeInner, number: u32) {
        if let Some(port) = self.ports.remove(&number) {
            self.rings.retain(|(port, _)| *port != number);
            port.close();
            // The engines free their ends before they sleep again.
            inner.for_each_engine(|_| ());
        }
    }

    fn region(&mut self, number: u32) -> Answered {
        let export = self.application.export(number).ok_or_else(|| unknown("memory"))?;
        let answer = Answer::Region(export.len as u64, export.writable);
        Ok((answer, vec![Passed::Shared(export)]))
    }

    fn unfinished(&self, inner: &RuntimeInner) -> u64 {
        let id = self.application.id;
        let mut sum = 0;
        inner.for_each_engine(|engine| sum += engine.control().unfinished_of(id));
        sum as u64
    }

    fn fate(&self, stream: u64) -> Answer {
        Answer::Failed(match self.streams.get(&stream).map(|session| session.error()) {
            Some(error) => to_failure(&error),
            None => unknown("stream"),
        })
    }
}
