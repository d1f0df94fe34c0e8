//! All control connections of a runtime, driven by the helper thread, never blocking.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use netchannel_units::Timestamp;
use netchannel_wire::control::Reason;

use crate::error::Error;
use crate::local::RuntimeInner;
use crate::local::commands::{ConnectReply, HelperCommand};
use crate::local::link::{Link, Stage, answer, dial};
use crate::sync::lock;

/// Control connections that wait for the handshake at most; more are closed at once.
const MAX_HANDSHAKES: usize = 128;

/// All control connections and listening sockets of a runtime.
#[derive(Default)]
pub(super) struct Links {
    listeners: Vec<TcpListener>,
    links: Vec<Link>,
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
        // It may have come while the command waited.
        if let Some(session) = inner.dialed_session(peer) {
            reply.answer(Ok(session));
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
                    if let Stage::Up { session } = &link.stage
                        && link.dialed
                        && session.failure().is_none()
                    {
                        lock(&inner.dialed).insert(link.peer, Arc::clone(session));
                    }
                    index += 1;
                }
                Err(error) => {
                    let link = self.links.swap_remove(index);
                    if let Stage::Up { session } = &link.stage
                        && link.dialed
                    {
                        let mut dialed = lock(&inner.dialed);
                        if dialed.get(&link.peer).is_some_and(|s| Arc::ptr_eq(s, session)) {
                            dialed.remove(&link.peer);
                        }
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
