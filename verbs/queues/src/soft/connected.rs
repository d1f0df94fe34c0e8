//! The handle of a connection: making, connecting, posting, closing.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use super::clock::Clock;
use super::completion_queue::{Member, Polled, Takes};
use super::connection::{Core, Shared};
use super::deferred::Deferral;
use super::device::shared_link;
use super::link::{LinkModel, LinkStatistics};
use super::meeting;
use super::protocol::Address;
use super::queue_pair::Parts;
use super::receive::ReceiveSide;
use super::send::{Path, SendSide};
use super::service::Service;
use super::wire_ring::Ring;
use crate::error::{Error, PostError, PostFailure};
use crate::queue_pair::{ConnectOptions, Endpoint, QueuePairState};
use crate::work::{ReceiveRequest, SendRequest, Status};

/// See [`Shared`]; dropping it destroys the connection.
#[derive(Debug)]
pub(super) struct ConnectedPair {
    shared: Arc<Shared>,
    service: Arc<Service>,
}

impl ConnectedPair {
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
        let queues = [parts.send_queue, parts.receive_queue];
        let core = Core::new(send, receive);
        let shared = Arc::new(Shared::new(device, token, ring, queues, core));
        device.add_queue_pair(&shared);
        let shares = Arc::ptr_eq(&shared.send_queue, &shared.receive_queue);
        let member = |takes| Member::Connection(shared.clone(), takes);
        shared.send_queue.add(member(Takes { sends: true, receives: shares }));
        if !shares {
            shared.receive_queue.add(member(Takes { sends: false, receives: true }));
        }
        Ok(Self { shared, service: service.clone() })
    }

    /// Puts a link of its own before this queue pair's sends, instead of the port's.
    pub(super) fn set_link(&mut self, model: LinkModel) {
        let link = shared_link(model, self.shared.device.new_seed());
        self.shared.core.lock().send.link = Some(link);
    }

    /// What the link before this queue pair has done, if there is a link model.
    pub(super) fn link_statistics(&self) -> Option<LinkStatistics> {
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
}

/// The longest copy (1 GiB) takes about this long; a peer that takes longer was stopped in the middle.
const LAST_COPY: Duration = Duration::from_millis(500);

fn refused<T>(posted: usize, reason: PostFailure) -> Result<T, PostError> {
    Err(PostError { posted, reason })
}

impl ConnectedPair {
    pub(super) fn number(&self) -> u32 {
        self.shared.number
    }

    pub(super) fn endpoint(&self) -> Endpoint {
        let name = self.shared.device.name.clone();
        let (number, token) = (self.shared.number, self.shared.token);
        Address { name, number, token }.to_endpoint()
    }

    pub(super) fn connect(
        &mut self,
        peer: &Endpoint,
        options: &ConnectOptions,
    ) -> Result<(), Error> {
        let address = self.check(peer, options)?;
        let device = self.service.peer(&address.name)?;
        let remote = meeting::introduce(&self.shared, &device, &address)?.ok_or_else(|| {
            let reason = "there is no such queue pair, or it is connected already".into();
            Error::BadEndpoint { reason }
        })?;
        self.shared.on_met(remote);
        self.begin(options);
        Ok(())
    }

    pub(super) fn start_connect(
        &mut self,
        peer: &Endpoint,
        options: &ConnectOptions,
    ) -> Result<(), Error> {
        if matches!(self.shared.device.options.clock, Clock::Virtual(_)) {
            // What a thread does in its own time is no part of a run that a seed is to reproduce.
            return self.connect(peer, options);
        }
        let address = self.check(peer, options)?;
        // Before anything can come of the meeting.
        self.begin(options);
        meeting::arrange(&self.service, &self.shared, address).inspect_err(|_| self.fail())
    }

    /// Whether it may be connected so; the peer's address.
    fn check(&self, peer: &Endpoint, options: &ConnectOptions) -> Result<Address, Error> {
        let invalid =
            |reason: String| Err(Error::Invalid { operation: "connecting a queue pair", reason });
        if options.retries > 6 || options.receiver_not_ready_retries > 7 {
            return invalid("retries are 0 to 6, receiver-not-ready retries 0 to 7".into());
        }
        let state = self.shared.core.lock().state;
        if state != QueuePairState::Init {
            return invalid(format!("it is in the state {state:?}, not Init"));
        }
        Address::from_endpoint(peer)
    }

    /// Takes requests from now on; nothing leaves before the peer's device was met.
    fn begin(&self, options: &ConnectOptions) {
        let mut core = self.shared.core.lock();
        core.send.path = Path {
            ack_timeout: options.ack_timeout,
            retries: options.retries,
            not_ready_retries: options.receiver_not_ready_retries,
        };
        core.receive.not_ready_timer = options.receiver_not_ready_timer;
        core.state = QueuePairState::ReadyToSend;
    }

    pub(super) fn state(&self) -> QueuePairState {
        self.shared.core.lock().state
    }

    pub(super) fn fail(&mut self) {
        let mut core = self.shared.core.lock();
        core.fail(&self.shared, Status::Flushed);
        self.shared.publish_hints(&mut core);
    }

    pub(super) fn is_drained(&self) -> bool {
        self.shared.core.lock().is_drained(&self.shared)
    }

    pub(super) fn inline_limit(&self) -> u32 {
        self.shared.inline_limit
    }

    /// # Safety
    /// As [`QueuePair::post_send`](crate::QueuePair::post_send).
    pub(super) unsafe fn post_send(&mut self, requests: &[SendRequest]) -> Result<(), PostError> {
        let shared = &*self.shared;
        let mut core = shared.core.lock();
        if core.state != QueuePairState::ReadyToSend {
            return refused(0, PostFailure::WrongState);
        }
        let mut result = Ok(());
        for (posted, request) in requests.iter().enumerate() {
            if core.send.is_full() {
                // Unsignalled requests leave without being polled.
                let _ = core.send.reap(shared, &mut Polled::nowhere());
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
        if core.send.completes_now(shared) {
            shared.send_queue.alarm.notify_if_armed();
        }
        shared.publish_hints(&mut core);
        result
    }

    pub(super) fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
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
            shared.publish_hints(&mut core);
        }
        drop(core);
        if waiting {
            fence(Ordering::SeqCst);
            shared.receive_queue.alarm.notify_if_armed();
        }
        if posted < requests.len() { refused(posted, PostFailure::QueueFull) } else { Ok(()) }
    }
}

impl Drop for ConnectedPair {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.device.remove_queue_pair(shared.number);
        let mut core = shared.core.lock();
        core.fail(shared, Status::Flushed);
        shared.keep(&mut core, [0; 2]);
        drop(core);
        shared.send_queue.remove(shared.number);
        shared.receive_queue.remove(shared.number);
        // Who destroys a queue pair may reuse its memory: let the peer finish its copy.
        let deadline = Instant::now() + LAST_COPY;
        while shared.is_peer_inside() && Instant::now() < deadline {
            std::thread::yield_now();
        }
    }
}
