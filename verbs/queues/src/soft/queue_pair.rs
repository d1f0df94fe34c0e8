//! Queue pairs: the state machine over a sending and a receiving half.
//!
//! ```text
//! Init --connect--> ReadyToSend --fail, fault, refusal, death of the peer--> Error
//! ```
//!
//! A queue pair that fails refuses in the ring that its peer sends on, so that the peer's next or
//! outstanding request fails too, and waits until the peer has left its memory before it hands out
//! its flushed completions: who has polled them may reuse that memory.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netchannel_units::Timestamp;

use super::arm::RemoteAlarm;
use super::completion_queue::Completions;
use super::deferred::Deferral;
use super::device::{Device, shared_link};
use super::link::{LinkModel, LinkStatistics};
use super::lock::SpinLock;
use super::peer::Peer;
use super::protocol::{Address, Request, Token};
use super::receive::{Fault, ReceiveSide};
use super::send::{Path, SendSide};
use super::service::Service;
use super::shared_receive::SharedReceives;
use super::wire_ring::{Refusal, Ring};
use crate::context::AsyncEvent;
use crate::error::{Error, PostError, PostFailure};
use crate::queue_pair::{ConnectOptions, Endpoint, QueuePairState};
use crate::work::{ReceiveRequest, SendRequest, Status, WorkCompletion};

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
    remote: OnceLock<Remote>,
    /// Hints that tell a poll, without the lock, whether there is anything to do.
    busy: AtomicBool,
    delayed: AtomicBool,
    failed: AtomicBool,
    consumed: AtomicU64,
    core: SpinLock<Core>,
}

/// The peer's queue pair.
#[derive(Debug)]
struct Remote {
    peer: Arc<Peer>,
    number: u32,
    token: Token,
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
struct Core {
    state: QueuePairState,
    send: SendSide,
    receive: ReceiveSide,
    /// In error, but the peer may still write to our memory.
    fencing: bool,
    dead_since: Option<Timestamp>,
}

impl Shared {
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

    /// Whether a poll would find anything.
    #[inline]
    pub(super) fn needs_poll(&self) -> bool {
        if self.busy.load(Ordering::Relaxed) {
            return true;
        }
        !self.failed.load(Ordering::Relaxed)
            && (self.ring.published(self.consumed.load(Ordering::Relaxed))
                || self.peer().is_some_and(Peer::is_dead))
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
        self.publish_hints(&core);
        if self.is_delayed() {
            // The caller may be about to sleep: only more polls bring this on.
            queue.alarm.notify_if_armed();
        }
        found
    }

    fn publish_hints(&self, core: &Core) {
        let busy = core.send.is_busy() || !core.receive.completions.is_empty() || core.fencing;
        self.busy.store(busy, Ordering::Relaxed);
        let delayed = core.receive.is_delayed() || core.send.is_delayed();
        self.delayed.store(delayed, Ordering::Relaxed);
        self.failed.store(core.state == QueuePairState::Error, Ordering::Relaxed);
        self.consumed.store(core.receive.consumed(), Ordering::Relaxed);
    }
}

impl Core {
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
    fn fail(&mut self, qp: &Shared, first: Status) {
        if self.state == QueuePairState::Error {
            return;
        }
        self.state = QueuePairState::Error;
        self.send.end_batch(qp);
        self.send.flush(qp, first);
        self.send.regions.clear();
        self.receive.flush(qp);
        qp.ring.refuse(Refusal::Gone);
        // With the fence in `SendSide::write`: whoever writes after this has seen the refusal.
        fence(Ordering::SeqCst);
        self.fencing = true;
        self.wake_peer(qp);
        qp.send_queue.alarm.notify_if_armed();
        qp.receive_queue.alarm.notify_if_armed();
        self.end_fence(qp);
    }

    /// Ends the fence when the peer is not inside of our memory any more.
    fn end_fence(&mut self, qp: &Shared) {
        // Acquire: the peer's copies come before what happens here next.
        let inside = qp.ring.writing().load(Ordering::Acquire) != 0;
        if inside && !qp.peer().is_some_and(Peer::is_dead) {
            return;
        }
        self.fencing = false;
        if self.receive.shared.is_some() {
            qp.device.raise(AsyncEvent::LastReceiveReached(qp.number));
        }
    }
}

/// A queue pair of a NIC in memory.
#[derive(Debug)]
pub struct QueuePair {
    shared: Arc<Shared>,
    service: Arc<Service>,
}

/// What a queue pair is made of.
pub(super) struct Parts {
    pub(super) send_queue: Arc<Completions>,
    pub(super) receive_queue: Arc<Completions>,
    pub(super) shared_receives: Option<Arc<SharedReceives>>,
    pub(super) send_capacity: u32,
    pub(super) receive_capacity: u32,
}

impl QueuePair {
    pub(super) fn new(service: &Arc<Service>, parts: Parts) -> Result<Self, Error> {
        let device = &service.device;
        let ring = Ring::create().map_err(super::shared_memory_failed("making a wire ring"))?;
        let token = super::random::token().map_err(|source| Error::Os {
            operation: "reading /dev/urandom",
            source,
            hint: "",
        })?;
        let mut send = SendSide::new(parts.send_capacity);
        let mut receive = ReceiveSide::new(parts.receive_capacity, parts.shared_receives);
        send.link = device.new_link();
        if device.options.deferred {
            send.deferral = Some(Deferral::new(device.new_seed()));
            receive.deferral = Some(Deferral::new(device.new_seed()));
        }
        let core =
            Core { state: QueuePairState::Init, send, receive, fencing: false, dead_since: None };
        let shared = Arc::new(Shared {
            number: device.new_number(),
            token,
            device: device.clone(),
            send_queue: parts.send_queue,
            receive_queue: parts.receive_queue,
            ring,
            inline_limit: device.options.inline_limit(),
            attachment: OnceLock::new(),
            remote: OnceLock::new(),
            busy: AtomicBool::new(false),
            delayed: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            consumed: AtomicU64::new(0),
            core: SpinLock::new(core),
        });
        device.add_queue_pair(&shared);
        shared.send_queue.add(&shared);
        if !Arc::ptr_eq(&shared.send_queue, &shared.receive_queue) {
            shared.receive_queue.add(&shared);
        }
        Ok(Self { shared, service: service.clone() })
    }

    /// Puts a link of its own before this queue pair's sends, instead of the port's.
    pub fn set_link(&mut self, model: LinkModel) {
        let link = shared_link(model, self.shared.device.new_seed());
        self.shared.core.lock().send.link = Some(link);
    }

    /// What the link before this queue pair has done, if there is a link model.
    pub fn link_statistics(&self) -> Option<LinkStatistics> {
        let core = self.shared.core.lock();
        core.send.link.as_ref().map(|link| link.lock().statistics())
    }

    #[cfg(test)]
    pub(super) fn incoming(&self) -> &Ring {
        &self.shared.ring
    }

    #[cfg(test)]
    pub(super) fn outgoing(&self) -> Option<&Ring> {
        self.shared.attachment().map(|attachment| &attachment.ring)
    }

    fn introduce(&self, address: &Address) -> Result<Arc<Peer>, Error> {
        let shared = &self.shared;
        let peer = self.service.peer(&address.name)?;
        let mut fds: Vec<BorrowedFd<'_>> = vec![shared.ring.fd()];
        for queue in [&shared.receive_queue, &shared.send_queue] {
            fds.extend([queue.alarm.word_fd(), queue.alarm.fd()]);
        }
        if Arc::ptr_eq(&shared.receive_queue, &shared.send_queue) {
            fds.truncate(3);
        }
        let request = Request::Attach { number: address.number, token: address.token };
        let (reply, _) = peer.ask(&request, &fds)?;
        if reply.refused != 0 {
            let reason = "there is no such queue pair, or it is connected already".into();
            return Err(Error::BadEndpoint { reason });
        }
        Ok(peer)
    }
}

fn refused<T>(posted: usize, reason: PostFailure) -> Result<T, PostError> {
    Err(PostError { posted, reason })
}

impl crate::QueuePair for QueuePair {
    fn number(&self) -> u32 {
        self.shared.number
    }

    fn endpoint(&self) -> Endpoint {
        let name = self.shared.device.name.clone();
        let (number, token) = (self.shared.number, self.shared.token);
        Address { name, number, token }.to_endpoint()
    }

    fn connect(&mut self, peer: &Endpoint, options: &ConnectOptions) -> Result<(), Error> {
        let invalid =
            |reason: String| Err(Error::Invalid { operation: "connecting a queue pair", reason });
        if options.retries > 6 || options.receiver_not_ready_retries > 7 {
            return invalid("retries are 0 to 6, receiver-not-ready retries 0 to 7".into());
        }
        let state = self.shared.core.lock().state;
        if state != QueuePairState::Init {
            return invalid(format!("it is in the state {state:?}, not Init"));
        }
        let address = Address::from_endpoint(peer)?;
        let peer = self.introduce(&address)?;
        let mut core = self.shared.core.lock();
        let remote = Remote { peer, number: address.number, token: address.token };
        if core.state != QueuePairState::Init || self.shared.remote.set(remote).is_err() {
            return invalid("it was connected by somebody else meanwhile".into());
        }
        core.send.path = Path {
            ack_timeout: options.ack_timeout,
            retries: options.retries,
            not_ready_retries: options.receiver_not_ready_retries,
        };
        core.receive.not_ready_timer = options.receiver_not_ready_timer;
        core.state = QueuePairState::ReadyToSend;
        Ok(())
    }

    fn state(&self) -> Result<QueuePairState, Error> {
        Ok(self.shared.core.lock().state)
    }

    fn fail(&mut self) -> Result<(), Error> {
        let mut core = self.shared.core.lock();
        core.fail(&self.shared, Status::Flushed);
        self.shared.publish_hints(&core);
        Ok(())
    }

    fn max_inline(&self) -> u32 {
        self.shared.inline_limit
    }

    unsafe fn post_send(&mut self, requests: &[SendRequest]) -> Result<(), PostError> {
        let shared = &*self.shared;
        let mut core = shared.core.lock();
        if core.state != QueuePairState::ReadyToSend {
            return refused(0, PostFailure::WrongState);
        }
        let mut result = Ok(());
        for (posted, request) in requests.iter().enumerate() {
            if core.send.is_full() {
                // Unsignalled requests leave without being polled.
                let _ = core.send.reap(shared);
                if core.send.is_full() {
                    result = refused(posted, PostFailure::QueueFull);
                    break;
                }
            }
            if let Err(reason) = core.send.post(shared, request) {
                result = refused(posted, reason);
                break;
            }
        }
        core.send.end_batch(shared);
        if core.send.completes_now() {
            shared.send_queue.alarm.notify_if_armed();
        }
        shared.publish_hints(&core);
        result
    }

    unsafe fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
        let shared = &*self.shared;
        let mut core = shared.core.lock();
        let receive = &mut core.receive;
        if receive.shared.is_some() {
            return refused(0, PostFailure::Invalid("it takes receives from a shared queue"));
        }
        let room = receive.capacity - receive.queue.len().min(receive.capacity);
        let posted = requests.len().min(room);
        receive.queue.extend(&requests[..posted]);
        let waiting = receive.is_waiting();
        if core.state == QueuePairState::Error {
            core.receive.flush(shared);
            shared.publish_hints(&core);
        }
        drop(core);
        if waiting {
            fence(Ordering::SeqCst);
            shared.receive_queue.alarm.notify_if_armed();
        }
        if posted < requests.len() { refused(posted, PostFailure::QueueFull) } else { Ok(()) }
    }

    fn close(self) -> Result<(), Error> {
        Ok(())
    }
}

impl Drop for QueuePair {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.device.remove_queue_pair(shared.number);
        shared.core.lock().fail(shared, Status::Flushed);
        shared.send_queue.remove(shared.number);
        shared.receive_queue.remove(shared.number);
    }
}
