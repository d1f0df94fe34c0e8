//! What applications ask of a runtime beside their streams, here and through the attach server.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use netchannel_units::{Claim, GroupId};

use crate::boundary::application::ApplicationId;
use crate::boundary::port::EnginePort;
use crate::boundary::ready::EngineList;
use crate::engine::Drive;
use crate::engine::commands::MAX_LISTS;
use crate::error::Error;
use crate::local::commands::{ConnectReply, HelperCommand};
use crate::local::{RuntimeInner, sockets};
use crate::shared::Backlog;
use crate::shared::{Command, SessionShared, StreamSeed};
use crate::sync::lock;

impl RuntimeInner {
    /// Number of engines.
    pub(crate) fn engines(&self) -> usize {
        self.groups.len()
    }

    /// Runs `f` on each engine, waiting for whoever drives it now.
    pub(crate) fn for_each_engine(&self, mut f: impl FnMut(&mut dyn Drive)) {
        for group in &self.groups {
            self.with_engine(group, &mut f);
        }
    }

    /// The number of a new port.
    pub(crate) fn next_port(&self) -> u32 {
        self.next_port.fetch_add(1, Ordering::Relaxed)
    }

    /// An engine is to know a port of another process.
    pub(crate) fn add_port(&self, group: u8, port: EnginePort) {
        let group = self.group(GroupId(group));
        group.shared.inbox.push(Command::Port(Box::new(port)));
        self.nudge(group);
    }

    /// A number for a ready list.
    pub(crate) fn take_list_number(&self) -> Result<u32, Error> {
        let mut numbers = lock(&self.list_numbers);
        let number = numbers.free.pop().unwrap_or_else(|| {
            numbers.next += 1;
            numbers.next - 1
        });
        if number as usize >= MAX_LISTS {
            numbers.free.push(number);
            return Err(Error::NoMemory { what: "ready lists" });
        }
        Ok(number)
    }

    /// Takes the number of a list back whose engines were told that it is gone.
    pub(crate) fn give_list_number(&self, number: u32) {
        lock(&self.list_numbers).free.push(number);
    }

    /// An engine is to know a ready list.
    pub(crate) fn add_list(&self, group: GroupId, list: EngineList) {
        let group = self.group(group);
        group.shared.inbox.push(Command::List(Box::new(list)));
        self.nudge(group);
    }

    /// An engine is to forget an application's ready list.
    pub(crate) fn remove_list(&self, application: ApplicationId, list: u32, group: GroupId) {
        let group = self.group(group);
        group.shared.inbox.push_from(application, Command::Unlist(list));
        self.nudge(group);
    }

    /// Takes control connections to `address`, and streams to the backlog.
    pub(crate) fn listen(
        &self,
        address: SocketAddr,
        backlog: Arc<Backlog>,
    ) -> Result<SocketAddr, Error> {
        let socket = sockets::listen(address, &self.device)?;
        let local =
            socket.local_addr().map_err(Error::system("asking for the listener's address"))?;
        lock(&self.shared.listeners).insert(local.port(), backlog);
        match self.command(HelperCommand::Listen(socket)) {
            true => Ok(local),
            false => Err(Error::Closed),
        }
    }

    /// Finds or makes a session with a peer. False if the runtime was closed.
    pub(crate) fn dial(&self, peer: SocketAddr, reply: Arc<ConnectReply>) -> bool {
        if let Some(session) = self.dialed_session(peer)
            && !self.is_stopping()
        {
            reply.answer(Ok(session));
            return true;
        }
        self.command(HelperCommand::Connect { peer, reply })
    }

    /// The session that this side has with a peer already. One that has failed is about to end;
    /// the peer may be back by then.
    pub(super) fn dialed_session(&self, peer: SocketAddr) -> Option<Arc<SessionShared>> {
        lock(&self.dialed).get(&peer).filter(|session| session.failure().is_none()).cloned()
    }

    /// Opens a stream for an application.
    pub(crate) fn open_stream(
        &self,
        session: &SessionShared,
        application: ApplicationId,
        service: u16,
        claim: Claim,
    ) -> Result<StreamSeed, Error> {
        let part = self.part_for(session, claim.class)?;
        self.with_engine(self.group(part.group), |engine| {
            engine.control().open_stream(part.slot, application, service, claim)
        })
    }

    /// Gives the command of an application to its stream's engine.
    pub(crate) fn submit_from(&self, application: ApplicationId, command: Command) {
        let Some(stream) = command.stream() else { return };
        let Some(group) = self.groups.get(usize::from(stream.group().0)) else { return };
        group.shared.inbox.push_from(application, command);
        self.nudge(group);
    }
}
