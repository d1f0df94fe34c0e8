//! Queue pairs: the state machine over a sending and a receiving half.
//!
//! ```text
//! Init --connect--> ReadyToSend --fail, fault, refusal, death of the peer--> Error
//! ```
//!
//! A queue pair that fails refuses in the ring that its peer sends on, so that the peer's next or
//! outstanding request fails too, and waits until the peer has left its memory before it hands out
//! its flushed completions: who has polled them may reuse that memory.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netchannel_units::Timestamp;

use super::arm::RemoteAlarm;
use super::completion_queue::Completions;
use super::device::Device;
use super::lock::SpinLock;
use super::peer::Peer;
use super::protocol::Token;
use super::receive::{Fault, ReceiveSide};
use super::send::SendSide;
use super::wire_ring::{Refusal, Ring};
use crate::context::AsyncEvent;
use crate::queue_pair::QueuePairState;
use crate::work::{Status, WorkCompletion};

/// How long messages of a dead peer may wait for receives before the queue pair fails.
const LAST_MESSAGES: Duration = Duration::from_millis(100);

/// What a queue pair's handle, its completion queues and the service thread share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) number: u32,
    pub(super) token: Token,
    pub(super) device: Arc<Device>,
    pub(super) send_queue: Arc<Completions>,
    pub(super) receive_queue: Arc<Completions>,
    /// What the peer sends on.
    pub(super) ring: Ring,
    pub(super) inline_limit: u32,
    attachment: OnceLock<Attachment>,
    pub(super) remote: OnceLock<Remote>,
    /// Hints that tell a poll, without the lock, whether there is anything to do.
    busy: AtomicBool,
    silent: AtomicBool,
    delayed: AtomicBool,
    failed: AtomicBool,
    consumed: AtomicU64,
    pub(super) core: SpinLock<Core>,
}

/// The peer's queue pair.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) peer: Arc<Peer>,
    pub(super) number: u32,
    pub(super) token: Token,
}

/// What the peer sent us to reach it: the ring that we send on, and its alarms.
#[derive(Debug)]
pub(super) struct Attachment {
    pub(super) ring: Ring,
    pub(super) receive_queue: RemoteAlarm,
    send_queue: Option<RemoteAlarm>,
}

impl Attachment {
    /// From the descriptors of an `Attach` request.
    pub(super) fn from_fds(fds: Vec<OwnedFd>) -> Option<Self> {
        let mut fds = fds.into_iter();
        let ring = Ring::from_fd(fds.next()?).ok()?;
        let receive_queue = RemoteAlarm::from_fds(fds.next()?, fds.next()?).ok()?;
        let send_queue = match (fds.next(), fds.next()) {
            (Some(word), Some(wake)) => Some(RemoteAlarm::from_fds(word, wake).ok()?),
            _ => None,
        };
        Some(Self { ring, receive_queue, send_queue })
    }

    pub(super) fn send_queue(&self) -> &RemoteAlarm {
        self.send_queue.as_ref().unwrap_or(&self.receive_queue)
    }
}

#[derive(Debug)]
pub(super) struct Core {
    pub(super) state: QueuePairState,
    pub(super) send: SendSide,
    pub(super) receive: ReceiveSide,
    /// What the completion queues were told: see `Shared::keep`.
    kept: [usize; 2],
    /// In error, but the peer may still write to our memory.
    fencing: bool,
    dead_since: Option<Timestamp>,
}

impl Shared {
    pub(super) fn new(
        device: &Arc<Device>,
        token: Token,
        ring: Ring,
        queues: [Arc<Completions>; 2],
        core: Core,
    ) -> Self {
        let [send_queue, receive_queue] = queues;
        Self {
            number: device.new_number(),
            token,
            device: device.clone(),
            send_queue,
            receive_queue,
            ring,
            inline_limit: device.options.inline_limit(),
            attachment: OnceLock::new(),
            remote: OnceLock::new(),
            busy: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            delayed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            consumed: AtomicU64::new(0),
            core: SpinLock::new(core),
        }
    }

    #[inline]
    pub(super) fn attachment(&self) -> Option<&Attachment> {
        self.attachment.get()
    }

    #[inline]
    pub(super) fn peer(&self) -> Option<&Peer> {
        self.remote.get().map(|remote| &*remote.peer)
    }

    pub(super) fn peer_number(&self) -> u32 {
        self.remote.get().map_or(0, |remote| remote.number)
    }

    pub(super) fn peer_token(&self) -> Token {
        self.remote.get().map_or([0; 16], |remote| remote.token)
    }

    pub(super) fn now(&self) -> Timestamp {
        self.device.options.clock.now()
    }

    /// Takes the peer's ring; false if there is one already. Called by the service thread.
    pub(super) fn attach(&self, attachment: Attachment) -> bool {
        let attached = self.attachment.set(attachment).is_ok();
        if attached {
            // Requests may have waited for it.
            fence(Ordering::SeqCst);
            self.send_queue.alarm.notify_if_armed();
        }
        attached
    }

    /// Whether a poll of `queue` would find anything.
    #[inline]
    pub(super) fn needs_poll(&self, queue: &Completions) -> bool {
        if self.busy.load(Ordering::Relaxed) {
            return true;
        }
        // Requests that complete in silence can only fail: who polls for receives alone need not
        // fetch the line in which the peer shows its progress.
        if self.silent.load(Ordering::Relaxed) && std::ptr::eq(&*self.send_queue, queue) {
            return true;
        }
        !self.failed.load(Ordering::Relaxed)
            && (self.ring.published(self.consumed.load(Ordering::Relaxed))
                || self.peer().is_some_and(Peer::is_dead))
    }

    /// Whether the peer is in the middle of a copy into our memory.
    pub(super) fn is_peer_inside(&self) -> bool {
        // Acquire: the peer's copies come before what happens here next.
        let writing = self.ring.writing().load(Ordering::Acquire) != 0;
        writing && !self.peer().is_some_and(Peer::is_dead)
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
        if !core.fencing {
            if std::ptr::eq(&*self.receive_queue, queue) {
                found += core.receive.take(out);
            }
            if std::ptr::eq(&*self.send_queue, queue) {
                found += core.send.take(&mut out[found..]);
            }
        }
        self.publish_hints(&mut core);
        if self.is_delayed() {
            // The caller may be about to sleep: only more polls bring this on.
            queue.alarm.notify_if_armed();
        }
        found
    }

    /// For `needs_poll`; called at the end of whatever changes the core.
    pub(super) fn publish_hints(&self, core: &mut Core) {
        let kept = [core.send.completions.len(), core.receive.completions.len()];
        if kept != core.kept {
            self.keep(core, kept);
        }
        let busy = core.send.is_busy() || core.receive.is_busy() || core.fencing;
        self.busy.store(busy, Ordering::Relaxed);
        self.silent.store(core.send.has_requests(), Ordering::Relaxed);
        let delayed = core.receive.is_delayed() || core.send.is_delayed();
        self.delayed.store(delayed, Ordering::Relaxed);
        self.failed.store(core.state == QueuePairState::Error, Ordering::Relaxed);
        self.consumed.store(core.receive.consumed(), Ordering::Relaxed);
    }
}

impl Shared {
    /// Tells the completion queues how many completions are kept for them (sends, receives).
    #[cold]
    pub(super) fn keep(&self, core: &mut Core, now: [usize; 2]) {
        let before = std::mem::replace(&mut core.kept, now);
        self.send_queue.keep(&self.device, before[0], now[0]);
        self.receive_queue.keep(&self.device, before[1], now[1]);
    }
}

impl Core {
    pub(super) fn new(send: SendSide, receive: ReceiveSide) -> Self {
        let state = QueuePairState::Init;
        Self { state, send, receive, kept: [0; 2], fencing: false, dead_since: None }
    }

    #[inline]
    fn progress(&mut self, qp: &Shared, budget: usize) {
        match self.state {
            QueuePairState::ReadyToSend => {}
            QueuePairState::Error if self.fencing => return self.end_fence(qp),
            _ => return,
        }
        // Asked before the ring is drained: what a peer published before it died is seen.
        let dead = qp.peer().is_some_and(Peer::is_dead);
        if let Err(fault) = self.receive.drain(qp, budget) {
            return self.on_fault(qp, fault);
        }
        if self.send.has_requests() {
            self.send.push_pending(qp);
            self.send.end_batch(qp);
            if let Err(status) = self.send.reap(qp) {
                return self.fail(qp, status);
            }
        }
        if dead {
            self.on_death(qp);
        }
    }

    #[cold]
    fn on_death(&mut self, qp: &Shared) {
        if qp.ring.published(self.receive.consumed()) {
            let now = qp.now();
            let since = *self.dead_since.get_or_insert(now);
            if !self.receive.is_waiting() || now.saturating_since(since) < LAST_MESSAGES {
                return;
            }
        }
        qp.device.raise(AsyncEvent::QueuePairFatal(qp.number));
        self.fail(qp, Status::RetryExceeded);
    }

    #[cold]
    fn on_fault(&mut self, qp: &Shared, fault: Fault) {
        match fault {
            Fault::TooShort => qp.ring.refuse(Refusal::TooShort),
            Fault::NotReady => {
                // The requester fails; the responder of RC stays as it is, with nobody to talk to.
                qp.ring.refuse(Refusal::NotReady);
                self.receive.stop();
                return self.wake_peer(qp);
            }
            Fault::Protection => qp.ring.refuse(Refusal::Failed),
            Fault::Rubbish => {
                qp.ring.refuse(Refusal::Failed);
                qp.device.raise(AsyncEvent::AccessViolation(qp.number));
            }
            Fault::Violation => qp.device.raise(AsyncEvent::AccessViolation(qp.number)),
        }
        self.fail(qp, Status::Flushed);
    }

    /// The peer's requests have failed: it is to look.
    fn wake_peer(&self, qp: &Shared) {
        fence(Ordering::SeqCst);
        if let Some(attachment) = qp.attachment() {
            attachment.send_queue().notify_if_armed(true);
        }
    }

    /// To the state `Error`; the first send request that is left completes with `first`.
    #[cold]
    pub(super) fn fail(&mut self, qp: &Shared, first: Status) {
        if self.state == QueuePairState::Error {
            return;
        }
        self.state = QueuePairState::Error;
        self.send.end_batch(qp);
        self.send.flush(qp, first);
        self.send.regions.clear();
        self.receive.flush(qp);
        self.receive.show(qp, false);
        qp.ring.refuse(Refusal::Gone);
        // With the fence in `SendSide::write`: whoever writes after this has seen the refusal.
        fence(Ordering::SeqCst);
        self.fencing = true;
        self.wake_peer(qp);
        qp.send_queue.alarm.notify_if_armed();
        qp.receive_queue.alarm.notify_if_armed();
        self.end_fence(qp);
    }

    /// In error, left by the peer, and every receive completion taken.
    pub(super) fn is_drained(&mut self, qp: &Shared) -> bool {
        if self.fencing {
            self.end_fence(qp);
        }
        let failed = self.state == QueuePairState::Error;
        failed && !self.fencing && self.receive.completions.is_empty()
    }

    /// Ends the fence when the peer is not inside of our memory any more.
    fn end_fence(&mut self, qp: &Shared) {
        if qp.is_peer_inside() {
            return;
        }
        self.fencing = false;
        if self.receive.shared.is_some() {
            qp.device.raise(AsyncEvent::LastReceiveReached(qp.number));
        }
    }
}
