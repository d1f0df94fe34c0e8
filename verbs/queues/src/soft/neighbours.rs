//! The devices that this one sends datagrams to: a connection to each, over which rings are asked for.
//! Only the service thread works here, and it never waits: a question is answered in an event of its
//! own, or the connection ends.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use netchannel_shared_memory as shared;
use shared::passing;

use super::datagram::{Key, path_from_fds};
use super::device::Device;
use super::peer;
use super::protocol::{MAX_MESSAGE, Reply, Request};
use super::service::name_of;

/// Descriptors in an answer: ring, arm word, eventfd.
const MAX_FDS: usize = 3;
/// Connections that are in use are kept, others closed, when there are so many.
const FIRST_SWEEP: usize = 64;

/// A queue pair's question for the ring to another one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Question {
    /// Number of the queue pair that wants to send.
    pub(super) source: u32,
    pub(super) key: Key,
}

#[derive(Debug)]
struct Neighbour {
    gid: [u8; 16],
    socket: OwnedFd,
    /// Told to all who send there.
    connected: Arc<AtomicBool>,
    sequence: u32,
    waiting: HashMap<u32, Question>,
}

#[derive(Debug)]
pub(super) struct Neighbours {
    by_id: HashMap<u64, Neighbour>,
    ids: HashMap<[u8; 16], u64>,
    next_id: u64,
    sweep_at: usize,
}

/// The answer to a question has come, or never will.
fn answer(device: &Device, question: &Question, fds: Option<(Vec<OwnedFd>, &Arc<AtomicBool>)>) {
    let path = fds.and_then(|(fds, connected)| path_from_fds(fds, connected));
    // If the queue pair has gone, dropping the path tells the receiver.
    if let Some(queue_pair) = device.datagrams(question.source) {
        queue_pair.resolved(&question.key, path);
    }
}

impl Neighbours {
    /// Connections get numbers from `first_id` on.
    pub(super) fn new(first_id: u64) -> Self {
        let (by_id, ids) = (HashMap::new(), HashMap::new());
        Self { by_id, ids, next_id: first_id, sweep_at: FIRST_SWEEP }
    }

    /// Asks; `watch` has a new socket watched under its number.
    pub(super) fn ask(
        &mut self,
        device: &Device,
        question: Question,
        watch: impl Fn(BorrowedFd<'_>, u64) -> bool,
    ) {
        let Key { gid, number, queue_key } = question.key;
        let id = self.ids.get(&gid).copied().or_else(|| self.connect(gid, watch));
        let Some(neighbour) = id.and_then(|id| self.by_id.get_mut(&id)) else {
            return answer(device, &question, None);
        };
        neighbour.sequence = neighbour.sequence.wrapping_add(1);
        let request = Request::Datagrams { number, source: question.source, queue_key };
        let bytes = request.encode(neighbour.sequence);
        let sent =
            passing::send_with_fds_within(neighbour.socket.as_fd(), &bytes, &[], Duration::ZERO);
        match sent {
            Ok(()) => {
                neighbour.waiting.insert(neighbour.sequence, question);
            }
            // It is behind with its answers, or gone, which is an event of its own.
            Err(_) => answer(device, &question, None),
        }
    }

    fn connect(
        &mut self,
        gid: [u8; 16],
        watch: impl Fn(BorrowedFd<'_>, u64) -> bool,
    ) -> Option<u64> {
        self.sweep();
        let socket = peer::try_connect(&name_of(&gid)).ok()?;
        let id = self.next_id;
        self.next_id += 1;
        if !watch(socket.as_fd(), id) {
            return None;
        }
        let connected = Arc::new(AtomicBool::new(true));
        let neighbour = Neighbour { gid, socket, connected, sequence: 0, waiting: HashMap::new() };
        self.by_id.insert(id, neighbour);
        self.ids.insert(gid, id);
        Some(id)
    }

    fn sweep(&mut self) {
        if self.by_id.len() < self.sweep_at {
            return;
        }
        self.by_id.retain(|_, neighbour| {
            Arc::strong_count(&neighbour.connected) > 1 || !neighbour.waiting.is_empty()
        });
        self.ids.retain(|_, id| self.by_id.contains_key(id));
        self.sweep_at = (2 * self.by_id.len()).max(FIRST_SWEEP);
    }

    /// An answer, or the end of the connection.
    pub(super) fn on_event(&mut self, device: &Device, id: u64) {
        let Some(neighbour) = self.by_id.get_mut(&id) else { return };
        let mut bytes = [0; MAX_MESSAGE];
        let received = passing::receive_with_fds_within(
            neighbour.socket.as_fd(),
            &mut bytes,
            MAX_FDS,
            Duration::ZERO,
        );
        let answered = match received {
            Ok((len, fds)) => Reply::decode(&bytes[..len]).map(|reply| (reply, fds)),
            Err(shared::Error::TimedOut { .. }) => return,
            Err(_) => None,
        };
        let question = answered.and_then(|(reply, fds)| {
            let question = neighbour.waiting.remove(&reply.sequence)?;
            Some((question, (reply.refused == 0).then_some(fds)))
        });
        match question {
            Some((question, fds)) => {
                answer(device, &question, fds.map(|fds| (fds, &neighbour.connected)));
            }
            // It hung up, or does not keep to the protocol.
            None => self.part(device, id),
        }
    }

    fn part(&mut self, device: &Device, id: u64) {
        let Some(neighbour) = self.by_id.remove(&id) else { return };
        self.ids.remove(&neighbour.gid);
        neighbour.connected.store(false, Ordering::Release);
        for question in neighbour.waiting.values() {
            answer(device, question, None);
        }
    }
}
