//! Posted receives, and what became of them.

use std::collections::VecDeque;
use std::ptr::NonNull;
use std::sync::Arc;

use super::{DatagramStatistics, Shared};
use crate::memory::Access;
use crate::soft::deferred::{Deferral, take_visible};
use crate::soft::gather::Cursor;
use crate::soft::shared_receive::SharedReceives;
use crate::soft::wire_ring::{Receiver, Ring, Slot, flag};
use crate::work::{Opcode, ReceiveRequest, Status, WorkCompletion};

#[derive(Debug)]
pub(super) struct Receives {
    queue: VecDeque<ReceiveRequest>,
    capacity: usize,
    pub(super) shared: Option<Arc<SharedReceives>>,
    completions: VecDeque<WorkCompletion>,
    pub(super) deferral: Option<Deferral>,
}

/// A posted receive names memory that it may not: the queue pair fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BadReceive;

/// Where the bytes of a datagram are.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bytes<'a> {
    /// In the slot that was looked at last.
    InRing(&'a Ring, &'a Receiver),
    Taken(&'a [u8]),
}

impl Receives {
    pub(super) fn new(capacity: u32, shared: Option<Arc<SharedReceives>>) -> Self {
        let capacity = if shared.is_some() { 0 } else { capacity as usize };
        let (queue, completions) = (VecDeque::with_capacity(capacity), VecDeque::new());
        Self { queue, capacity, shared, completions, deferral: None }
    }

    /// Appends as many requests as there is room for; how many.
    pub(super) fn post(&mut self, requests: &[ReceiveRequest]) -> usize {
        let room = self.capacity.saturating_sub(self.queue.len());
        let posted = requests.len().min(room);
        self.queue.extend(&requests[..posted]);
        posted
    }

    /// Completions that wait to be polled.
    pub(super) fn completed(&self) -> usize {
        self.completions.len()
    }

    /// Takes out completions that may be seen now.
    #[inline]
    pub(super) fn take(&mut self, out: &mut [WorkCompletion]) -> usize {
        take_visible(&mut self.completions, self.deferral.as_mut(), out, |completion| completion)
    }

    /// Matches a datagram with a receive, or drops it (counted). Whether a receive was completed.
    #[inline]
    pub(super) fn deliver(
        &mut self,
        qp: &Shared,
        source: u32,
        slot: &Slot,
        bytes: Bytes<'_>,
        statistics: &mut DatagramStatistics,
    ) -> Result<bool, BadReceive> {
        let Some(request) = self.next_request(qp, slot, statistics) else { return Ok(false) };
        let slices = request.local.as_slice();
        if let Err(status) = qp.device.regions.check(slices, Access::LOCAL_WRITE) {
            self.fail_request(qp, request.id, status);
            return Err(BadReceive);
        }
        let mut target = Cursor::new(slices, 0);
        match bytes {
            Bytes::InRing(ring, receiver) => receiver.copy(ring, slot, &mut target),
            Bytes::Taken(bytes) => {
                if let Some(start) = NonNull::new(bytes.as_ptr().cast_mut()) {
                    // SAFETY: `bytes` is readable; the slices have room for `slot.len` of them (that is
                    // their length, and `next_request` compared) and their keys were checked.
                    unsafe { target.copy_in(start, bytes.len() as u32) };
                }
            }
        }
        self.completions.push_back(WorkCompletion {
            id: request.id,
            status: Status::Success,
            opcode: Opcode::Receive,
            bytes: slot.len,
            queue_pair: qp.number,
            immediate: slot.has(flag::IMMEDIATE).then_some(slot.immediate),
            source_queue_pair: source,
            has_grh: true,
            ..WorkCompletion::default()
        });
        Ok(true)
    }

    /// The receive for a datagram, if there is one and it is long enough. As the specification has it
    /// (volume 1, 9.9.3, classes D and E of responder errors), one that is too short stays posted; but if
    /// it came out of a shared queue, it completes so, and the queue pair goes on.
    #[inline]
    fn next_request(
        &mut self,
        qp: &Shared,
        slot: &Slot,
        statistics: &mut DatagramStatistics,
    ) -> Option<ReceiveRequest> {
        let next = match &self.shared {
            Some(shared) => shared.take(),
            None => self.queue.front().copied(),
        };
        let Some(request) = next else {
            statistics.no_receive += 1;
            return None;
        };
        let is_long_enough = request.local.bytes() >= u64::from(slot.len);
        match (is_long_enough, &self.shared) {
            (true, Some(_)) => Some(request),
            (true, None) => self.queue.pop_front(),
            (false, shared) => {
                statistics.too_short += 1;
                if shared.is_some() {
                    self.fail_request(qp, request.id, Status::LocalLength);
                }
                None
            }
        }
    }

    fn fail_request(&mut self, qp: &Shared, id: u64, status: Status) {
        self.completions.push_back(WorkCompletion {
            id,
            status,
            opcode: Opcode::Receive,
            queue_pair: qp.number,
            ..WorkCompletion::default()
        });
    }

    /// Completes everything as flushed; requests of a shared queue stay there.
    pub(super) fn flush(&mut self, qp: &Shared) {
        while let Some(request) = self.queue.pop_front() {
            self.fail_request(qp, request.id, Status::Flushed);
        }
    }
}
