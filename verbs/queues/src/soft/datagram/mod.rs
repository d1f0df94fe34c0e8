//! Queue pairs for datagrams: many senders, many receivers, nothing reliable.
//!
//! ```text
//! Init --activate--> ReadyToSend --fail, a request with a wrong local key--> Error
//! ```
//!
//! Each (sending, receiving) pair of queue pairs has a wire ring of its own, so that each ring keeps
//! one producer and one consumer: a sender killed at any instruction leaves at worst an unpublished
//! slot. The receiver makes the ring, on first use (`neighbours`), for senders that know its queue
//! key; it has at most [`MAX_SENDERS`](receive::MAX_SENDERS) of them, each of 300 KiB, whose pages
//! appear as they are used. A message in the ring is what the receive gets, byte for byte: the GRH,
//! then the payload.
//!
//! - `pair`: the handle; `address_handle`: the ways to ports.
//! - `send`: executes requests; `destinations`: the rings to the receivers, and what waits for them.
//! - `receive`: the rings of the senders; `receives`: what they are matched with.
//!
//! What cannot go on is dropped and counted, as on a network: [`DatagramStatistics`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use netchannel_units::Timestamp;

use super::arm::RemoteAlarm;
use super::completion_queue::Completions;
use super::device::Device;
use super::lock::SpinLock;
use super::wire_ring::Ring;
use crate::context::AsyncEvent;
use crate::grh::Grh;
use crate::queue_pair::QueuePairState;
use crate::work::{Status, WorkCompletion};

mod address_handle;
mod destinations;
mod pair;
mod receive;
mod receives;
mod send;

pub use address_handle::AddressHandle;
pub(super) use destinations::{Key, Path};
pub(super) use pair::DatagramPair;

use receive::{Incoming, ReceiveSide};
use send::SendSide;

/// Bytes of the header in front of every message in a ring.
const GRH: u32 = Grh::LEN as u32;

/// What became of datagrams that did not end in a receive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DatagramStatistics {
    /// Sent, and dropped because the receiver's ring (or what waits for one) was full.
    pub ring_full: u64,
    /// Sent, and dropped because there is no such device or queue pair, or its queue key is another.
    pub unreachable: u64,
    /// Arrived, or asked for a ring, with a wrong queue key. (Who is refused a ring asks again after a
    /// millisecond at the earliest.)
    pub wrong_key: u64,
    /// Arrived when no receive was posted.
    pub no_receive: u64,
    /// Arrived for a receive that was too short.
    pub too_short: u64,
    /// Senders cut off because they wrote what no NIC writes.
    pub malformed: u64,
}

/// What the handle, the completion queues and the service thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) number: u32,
    pub(super) device: Arc<Device>,
    /// Bytes of payload, at most.
    mtu: u32,
    send_queue: Arc<Completions>,
    receive_queue: Arc<Completions>,
    /// Hints that tell a poll, without the lock, whether there is anything to do.
    alive: AtomicBool,
    delayed: AtomicBool,
    core: SpinLock<Core>,
}

#[derive(Debug)]
struct Core {
    state: QueuePairState,
    queue_key: u32,
    send: SendSide,
    receive: ReceiveSide,
    statistics: DatagramStatistics,
    /// What the completion queues were told (sends, receives).
    kept: [usize; 2],
}

impl Shared {
    fn now(&self) -> Timestamp {
        self.device.options.clock.now()
    }

    /// Whether a poll might find anything.
    #[inline]
    pub(super) fn needs_poll(&self) -> bool {
        self.alive.load(Ordering::Relaxed)
    }

    /// Whether there is work that only time brings on.
    pub(super) fn is_delayed(&self) -> bool {
        self.delayed.load(Ordering::Relaxed)
    }

    /// Moves bytes, matches, and takes out the completions that belong to `queue`.
    pub(super) fn poll(&self, queue: &Completions, out: &mut [WorkCompletion]) -> usize {
        let mut core = self.core.lock();
        core.progress(self, out.len());
        let mut found = 0;
        if std::ptr::eq(&*self.receive_queue, queue) {
            found += core.receive.receives.take(out);
        }
        if std::ptr::eq(&*self.send_queue, queue) {
            found += core.send.take(&mut out[found..]);
        }
        self.publish_hints(&mut core);
        if self.is_delayed() {
            // The caller may be about to sleep: only more polls bring this on.
            queue.alarm.notify_if_armed();
        }
        found
    }

    /// For `needs_poll`; called at the end of whatever changes the core.
    fn publish_hints(&self, core: &mut Core) {
        let kept = [core.send.completed(), core.receive.receives.completed()];
        if kept != core.kept {
            self.keep(core, kept);
        }
        let alive = core.state == QueuePairState::ReadyToSend || kept != [0; 2];
        self.alive.store(alive, Ordering::Relaxed);
        let delayed = core.receive.is_delayed() || core.send.is_delayed();
        self.delayed.store(delayed, Ordering::Relaxed);
    }

    #[cold]
    fn keep(&self, core: &mut Core, now: [usize; 2]) {
        let before = std::mem::replace(&mut core.kept, now);
        self.send_queue.keep(&self.device, before[0], now[0]);
        self.receive_queue.keep(&self.device, before[1], now[1]);
    }

    /// Makes a ring for the queue pair `source` of another device, whose connection is up as long as
    /// `connected`: ring, arm word and eventfd for it. Nothing for those who do not know the queue key.
    /// Called by the service thread.
    pub(super) fn admit(
        &self,
        source: u32,
        queue_key: u32,
        connected: &Arc<AtomicBool>,
    ) -> Option<[OwnedFd; 3]> {
        if !self.accepts(queue_key) {
            return None;
        }
        let ring = Ring::create().ok()?;
        let alarm = &self.receive_queue.alarm;
        let fds = [ring.fd(), alarm.word_fd(), alarm.fd()].map(|fd| fd.try_clone_to_owned().ok());
        let [Some(ring_fd), Some(word), Some(wake)] = fds else { return None };
        let incoming = Incoming::new(ring, source, connected.clone());
        let displaced = {
            let mut core = self.core.lock();
            if core.state != QueuePairState::ReadyToSend {
                return None;
            }
            core.receive.admit(incoming)
        };
        // Unmapped here, not under the lock.
        drop(displaced);
        Some([ring_fd, word, wake])
    }

    fn accepts(&self, queue_key: u32) -> bool {
        let mut core = self.core.lock();
        if core.state != QueuePairState::ReadyToSend {
            return false;
        }
        let is_right = core.queue_key == queue_key;
        core.statistics.wrong_key += u64::from(!is_right);
        is_right
    }

    /// The receiver `key` was asked for a ring: here it is, or there is none. Called by the service
    /// thread.
    pub(super) fn resolved(&self, key: &Key, path: Option<Path>) {
        let mut core = self.core.lock();
        let Core { send, statistics, state, .. } = &mut *core;
        if *state == QueuePairState::ReadyToSend {
            send.resolved(self, key, path, statistics);
        }
    }
}

/// From the descriptors of an answer to [`Request::Datagrams`](super::protocol::Request).
pub(super) fn path_from_fds(fds: Vec<OwnedFd>, connected: &Arc<AtomicBool>) -> Option<Path> {
    let [ring, word, wake] = <[OwnedFd; 3]>::try_from(fds).ok()?;
    let ring = Ring::from_fd(ring).ok()?;
    let alarm = RemoteAlarm::from_fds(word, wake).ok()?;
    Some(Path::new(ring, alarm, connected.clone()))
}

impl Core {
    #[inline]
    fn progress(&mut self, qp: &Shared, budget: usize) {
        if self.state != QueuePairState::ReadyToSend {
            return;
        }
        let key = self.queue_key;
        if self.receive.drain(qp, key, budget, &mut self.statistics).is_err() {
            return self.fail(qp);
        }
        if self.send.has_requests() {
            self.send.push_pending(qp, &mut self.statistics);
            self.send.end_batch();
            self.reap(qp);
        }
    }

    /// Completes what has left. A request that could not be executed ends the queue pair.
    fn reap(&mut self, qp: &Shared) {
        if self.send.reap(qp).is_err() {
            self.fail(qp);
        }
    }

    /// To the state `Error`: all requests complete as flushed, all senders are refused.
    #[cold]
    fn fail(&mut self, qp: &Shared) {
        if self.state == QueuePairState::Error {
            return;
        }
        let was_ready = self.state == QueuePairState::ReadyToSend;
        self.state = QueuePairState::Error;
        self.send.end_batch();
        self.send.flush(qp, Status::Flushed);
        self.receive.flush(qp);
        if was_ready && self.receive.receives.shared.is_some() {
            qp.device.raise(AsyncEvent::LastReceiveReached(qp.number));
        }
        fence(Ordering::SeqCst);
        qp.send_queue.alarm.notify_if_armed();
        qp.receive_queue.alarm.notify_if_armed();
    }
}
