//! The handle of a queue pair for datagrams.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::receive::ReceiveSide;
use super::receives::Receives;
use super::send::{SendSide, Target};
use super::{AddressHandle, Core, DatagramStatistics, Shared};
use crate::datagram::{self, Datagram, DatagramEndpoint, DatagramOptions};
use crate::error::{Error, PostError, PostFailure};
use crate::queue_pair::{Endpoint, QueuePairState};
use crate::soft::completion_queue::Member;
use crate::soft::deferred::Deferral;
use crate::soft::device::shared_link;
use crate::soft::link::{LinkModel, LinkStatistics};
use crate::soft::lock::SpinLock;
use crate::soft::queue_pair::Parts;
use crate::soft::service::Service;
use crate::work::ReceiveRequest;

/// See [`Shared`]; dropping it destroys the queue pair.
#[derive(Debug)]
pub(in crate::soft) struct DatagramPair {
    shared: Arc<Shared>,
    _service: Arc<Service>,
}

fn refused<T>(posted: usize, reason: PostFailure) -> Result<T, PostError> {
    Err(PostError { posted, reason })
}

impl DatagramPair {
    pub(in crate::soft) fn new(service: &Arc<Service>, parts: Parts) -> Self {
        let device = &service.device;
        let mut send = SendSide::new(parts.send_capacity);
        let mut receives = Receives::new(parts.receive_capacity, parts.shared_receives);
        send.link = device.new_link();
        if device.options.deferred {
            send.deferral = Some(Deferral::new(device.new_seed()));
            receives.deferral = Some(Deferral::new(device.new_seed()));
        }
        let core = Core {
            state: QueuePairState::Init,
            queue_key: 0,
            send,
            receive: ReceiveSide::new(receives),
            statistics: DatagramStatistics::default(),
            kept: [0; 2],
        };
        let shared = Arc::new(Shared {
            number: device.new_number(),
            device: device.clone(),
            mtu: device.attributes.port.mtu,
            send_queue: parts.send_queue,
            receive_queue: parts.receive_queue,
            alive: AtomicBool::new(false),
            delayed: AtomicBool::new(false),
            core: SpinLock::new(core),
        });
        device.add_datagrams(&shared);
        shared.send_queue.add(Member::Datagrams(shared.clone()));
        if !Arc::ptr_eq(&shared.send_queue, &shared.receive_queue) {
            shared.receive_queue.add(Member::Datagrams(shared.clone()));
        }
        Self { shared, _service: service.clone() }
    }

    pub(in crate::soft) fn number(&self) -> u32 {
        self.shared.number
    }

    pub(in crate::soft) fn inline_limit(&self) -> u32 {
        self.shared.device.options.inline_limit()
    }

    pub(in crate::soft) fn state(&self) -> QueuePairState {
        self.shared.core.lock().state
    }

    pub(in crate::soft) fn statistics(&self) -> DatagramStatistics {
        self.shared.core.lock().statistics
    }

    pub(in crate::soft) fn set_link(&mut self, model: LinkModel) {
        let link = shared_link(model, self.shared.device.new_seed());
        self.shared.core.lock().send.link = Some(link);
    }

    pub(in crate::soft) fn link_statistics(&self) -> Option<LinkStatistics> {
        let core = self.shared.core.lock();
        core.send.link.as_ref().map(|link| link.lock().statistics())
    }

    pub(in crate::soft) fn endpoint(&self) -> Endpoint {
        let queue_key = self.shared.core.lock().queue_key;
        let (number, gid) = (self.shared.number, self.shared.device.gid);
        DatagramEndpoint { number, queue_key, lid: 0, gid }.encode()
    }

    pub(in crate::soft) fn activate(&mut self, options: &DatagramOptions) -> Result<(), Error> {
        options.check()?;
        let mut core = self.shared.core.lock();
        if core.state != QueuePairState::Init {
            let reason = format!("it is in the state {:?}, not Init", core.state);
            return Err(Error::Invalid { operation: "activate", reason });
        }
        core.queue_key = options.queue_key;
        core.state = QueuePairState::ReadyToSend;
        self.shared.publish_hints(&mut core);
        Ok(())
    }

    pub(in crate::soft) fn fail(&mut self) {
        let mut core = self.shared.core.lock();
        core.fail(&self.shared);
        self.shared.publish_hints(&mut core);
    }

    /// # Safety
    /// As [`QueuePair::post_datagrams`](crate::QueuePair::post_datagrams).
    pub(in crate::soft) unsafe fn post_datagrams(
        &mut self,
        datagrams: &[Datagram<'_, AddressHandle>],
    ) -> Result<(), PostError> {
        let shared = &*self.shared;
        let mut core = shared.core.lock();
        if core.state != QueuePairState::ReadyToSend {
            return refused(0, PostFailure::WrongState);
        }
        let mut result = Ok(());
        for (posted, datagram) in datagrams.iter().enumerate() {
            if let Err(reason) = core.post(shared, datagram) {
                result = refused(posted, reason);
                break;
            }
        }
        core.send.end_batch();
        core.reap(shared);
        if core.send.completed() > 0 {
            shared.send_queue.alarm.notify_if_armed();
        }
        shared.publish_hints(&mut core);
        result
    }

    pub(in crate::soft) fn post_receive(
        &mut self,
        requests: &[ReceiveRequest],
    ) -> Result<(), PostError> {
        let shared = &*self.shared;
        let mut core = shared.core.lock();
        let receives = &mut core.receive.receives;
        if receives.shared.is_some() {
            return refused(0, PostFailure::Invalid("it takes receives from a shared queue"));
        }
        let posted = receives.post(requests);
        if core.state == QueuePairState::Error {
            core.receive.flush(shared);
            shared.publish_hints(&mut core);
        }
        if posted < requests.len() { refused(posted, PostFailure::QueueFull) } else { Ok(()) }
    }

    #[cfg(test)]
    pub(in crate::soft) fn with_rings(&self, mut look: impl FnMut(&crate::soft::wire_ring::Ring)) {
        self.shared.core.lock().send.destinations.rings().for_each(&mut look);
    }
}

impl Core {
    #[inline]
    fn post(
        &mut self,
        qp: &Shared,
        datagram: &Datagram<'_, AddressHandle>,
    ) -> Result<(), PostFailure> {
        let Datagram { request, handle, queue_pair, queue_key } = *datagram;
        if !handle.is_of(&qp.device) {
            return Err(datagram::FOREIGN_HANDLE);
        }
        datagram::check(&request, queue_key, qp.mtu).map_err(PostFailure::Invalid)?;
        if self.send.is_full() {
            // Unsignalled requests leave without being polled.
            self.reap(qp);
            if self.state != QueuePairState::ReadyToSend {
                return Err(PostFailure::WrongState);
            }
            if self.send.is_full() {
                return Err(PostFailure::QueueFull);
            }
        }
        let target = Target { vector: handle.vector, number: queue_pair, queue_key };
        self.send.post(qp, &request, &target, &mut self.statistics)
    }
}

impl Drop for DatagramPair {
    fn drop(&mut self) {
        let shared = &self.shared;
        shared.device.remove_queue_pair(shared.number);
        let mut core = shared.core.lock();
        core.fail(shared);
        shared.keep(&mut core, [0; 2]);
        drop(core);
        shared.send_queue.remove(shared.number);
        shared.receive_queue.remove(shared.number);
    }
}
