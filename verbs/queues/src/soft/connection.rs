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
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netchannel_units::Timestamp;

use super::arm::RemoteAlarm;
use super::completion_queue::{Completions, Polled, Takes};
use super::device::Device;
use super::lock::SpinLock;
use super::peer::Peer;
use super::protocol::Token;
use super::receive::{Fault, ReceiveSide};
use super::send::{NOTHING, SendSide};
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
    hints: Hints,
    pub(super) core: SpinLock<Core>,
}

/// What tells a poll, without the lock, whether there is anything to do.
#[derive(Debug)]
struct Hints {
    /// Those of [`hint`].
    bits: AtomicU8,
    /// Slots consumed in our ring.
    consumed: AtomicU64,
    /// Slots that the peer must have consumed for the next send completion.
    awaited: AtomicU64,
}

mod hint {
    /// There is work that needs nothing from outside: completions that were not taken, requests that
    /// could not be executed.
    pub(super) const RESTLESS: u8 = 1;
    /// Some of it is brought on by time.
    pub(super) const DELAYED: u8 = 2;
    /// In error: nothing new happens.
    pub(super) const FAILED: u8 = 4;
    /// Requests have not completed, so that it matters whether the peer refuses them.
    pub(super) const REQUESTS: u8 = 8;
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
            hints: Hints {
                bits: AtomicU8::new(0),
                consumed: AtomicU64::new(0),
                awaited: AtomicU64::new(NOTHING),
            },
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

    /// Whether the peer's device knows our ring, and we its memory.
    pub(super) fn has_met(&self) -> bool {
        self.remote.get().is_some()
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

    /// The peer's device knows our ring.
    pub(super) fn on_met(&self, remote: Remote) {
        // Once per queue pair: it leaves the state Init for this.
        let _ = self.remote.set(remote);
        // Requests may have waited for it.
        fence(Ordering::SeqCst);
        self.send_queue.alarm.notify_if_armed();
    }

    /// The peer's device does not want us, or does not answer.
    pub(super) fn on_not_met(&self) {
        let mut core = self.core.lock();
        if core.state == QueuePairState::ReadyToSend {
            self.device.raise(AsyncEvent::QueuePairFatal(self.number));
            core.fail(self, Status::RetryExceeded);
            self.publish_hints(&mut core);
        }
    }

    /// Whether a poll would find anything for a queue that takes these completions.
    #[inline]
    pub(super) fn needs_poll(&self, takes: Takes) -> bool {
        let bits = self.hints.bits.load(Ordering::Relaxed);
        if bits & hint::RESTLESS != 0 {
            return true;
        }
        bits & hint::FAILED == 0
            && (self.ring.published(self.hints.consumed.load(Ordering::Relaxed))
                || bits & hint::REQUESTS != 0
                    && self.has_answer(takes, self.hints.awaited.load(Ordering::Relaxed))
                || self.peer().is_some_and(Peer::is_dead))
    }

    /// Whether the peer refuses, or has consumed the slots that are `awaited`. Only who takes send
    /// completions looks at its progress: every look costs both sides a transfer of that line.
    #[inline]
    fn has_answer(&self, takes: Takes, awaited: u64) -> bool {
        let Some(attachment) = self.attachment() else { return false };
        attachment.ring.refusal(Ordering::Relaxed).is_some()
            || takes.sends && awaited != NOTHING && attachment.ring.has_consumed(awaited)
    }

    /// Whether the peer is in the middle of a copy into our memory.
    pub(super) fn is_peer_inside(&self) -> bool {
        // Acquire: the peer's copies come before what happens here next.
        let writing = self.ring.writing().load(Ordering::Acquire) != 0;
        writing && !self.peer().is_some_and(Peer::is_dead)
    }

    /// Whether there is work that only time brings on.
    pub(super) fn is_delayed(&self) -> bool {
        self.hints.bits.load(Ordering::Relaxed) & hint::DELAYED != 0
    }

    /// Moves bytes, matches, and takes out the completions that belong to `queue`.
    pub(super) fn poll(
        &self,
        queue: &Completions,
        takes: Takes,
        out: &mut [WorkCompletion],
    ) -> usize {
        let budget = out.len();
        let mut polled = Polled::new(out);
        let mut core = self.core.lock();
        core.progress(self, takes, budget, &mut polled);
        if !core.fencing {
            if takes.receives {
                core.receive.take(&mut polled);
            }
            if takes.sends {
                core.send.take(&mut polled);
            }
        }
        self.publish_hints(&mut core);
        if self.is_delayed() {
            // The caller may be about to sleep: only more polls bring this on.
            queue.alarm.notify_if_armed();
        }
        polled.found()
    }

    /// For `needs_poll`; called at the end of whatever changes the core.
    #[inline]
    pub(super) fn publish_hints(&self, core: &mut Core) {
        let kept = [core.send.completions.len(), core.receive.completions.len()];
        if kept != core.kept {
            self.keep(core, kept);
        }
        let mut bits = 0;
        if core.send.has_pending() || kept[0] > 0 || core.receive.is_busy() || core.fencing {
            bits |= hint::RESTLESS;
        }
        if core.receive.is_delayed() || core.send.is_delayed() {
            bits |= hint::RESTLESS | hint::DELAYED;
        }
        if core.state == QueuePairState::Error {
            bits |= hint::FAILED;
        }
        if core.send.has_requests() {
            bits |= hint::REQUESTS;
        }
        self.hints.bits.store(bits, Ordering::Relaxed);
        self.hints.consumed.store(core.receive.consumed(), Ordering::Relaxed);
        self.hints.awaited.store(core.send.awaited(), Ordering::Relaxed);
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
    fn progress(&mut self, qp: &Shared, takes: Takes, budget: usize, polled: &mut Polled<'_>) {
        match self.state {
            QueuePairState::ReadyToSend => {}
            QueuePairState::Error if self.fencing => return self.end_fence(qp),
            _ => return,
        }
        // Asked before the ring is drained: what a peer published before it died is seen.
        let dead = qp.peer().is_some_and(Peer::is_dead);
        let mut nowhere = Polled::nowhere();
        let received = if takes.receives { &mut *polled } else { &mut nowhere };
        if let Err(fault) = self.receive.drain(qp, budget, received) {
            return self.on_fault(qp, fault);
        }
        if self.send.has_pending() {
            self.send.push_pending(qp);
            self.send.end_batch(qp);
        }
        if self.send.has_requests() && (dead || qp.has_answer(takes, self.send.awaited())) {
            let sent = if takes.sends { polled } else { &mut nowhere };
            if let Err(status) = self.send.reap(qp, sent) {
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
        // What the peer has consumed is done, though nobody has looked yet.
        let _ = self.send.reap(qp, &mut Polled::nowhere());
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
