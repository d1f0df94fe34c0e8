//! The sending half: executes requests on the poster's core. A request completes when its datagram has
//! left: at once, or when the link model says so.

use std::collections::VecDeque;
use std::sync::Arc;

use super::destinations::{Destinations, Key, Packet, Path};
use super::{DatagramStatistics, GRH, Shared};
use crate::datagram::AddressVector;
use crate::error::PostFailure;
use crate::grh::{Ecn, Grh, Layout};
use crate::memory::Access;
use crate::soft::deferred::Deferral;
use crate::soft::link::Link;
use crate::soft::lock::SpinLock;
use crate::soft::send_queue::{Completed, Waiting};
use crate::soft::wire_ring::flag;
use crate::work::{Opcode, SendOperation, SendRequest, Slices, Status, WorkCompletion};

#[derive(Debug)]
pub(super) struct SendSide {
    capacity: usize,
    /// Executed; their datagrams have not left yet, or those before have not.
    leaving: VecDeque<Leaving>,
    /// To be executed later (deferred mode).
    pending: VecDeque<Pending>,
    completions: Completed,
    pub(super) destinations: Destinations,
    pub(super) link: Option<Arc<SpinLock<Link>>>,
    pub(super) deferral: Option<Deferral>,
    /// A request failed: nothing after it is executed.
    halted: bool,
}

#[derive(Clone, Copy, Debug)]
struct Leaving {
    id: u64,
    signaled: bool,
    status: Status,
    /// In nanoseconds; zero without a link model.
    departure: u64,
}

#[derive(Debug)]
struct Pending {
    waiting: Waiting,
    target: Target,
}

/// Where a datagram goes, and how.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) vector: AddressVector,
    pub(super) number: u32,
    pub(super) queue_key: u32,
}

impl SendSide {
    pub(super) fn new(capacity: u32) -> Self {
        let capacity = capacity as usize;
        Self {
            capacity,
            leaving: VecDeque::with_capacity(capacity),
            pending: VecDeque::new(),
            completions: Completed::default(),
            destinations: Destinations::default(),
            link: None,
            deferral: None,
            halted: false,
        }
    }

    pub(super) fn has_requests(&self) -> bool {
        !(self.leaving.is_empty() && self.pending.is_empty())
    }

    /// Completions that wait to be polled.
    pub(super) fn completed(&self) -> usize {
        self.completions.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.leaving.len() + self.pending.len() + self.completions.held() >= self.capacity
    }

    /// Whether there is work that only polling or time brings on.
    pub(super) fn is_delayed(&self) -> bool {
        self.has_requests() || self.deferral.is_some() && !self.completions.is_empty()
    }

    #[inline]
    pub(super) fn take(&mut self, out: &mut [WorkCompletion]) -> usize {
        self.completions.take(out, self.deferral.as_mut())
    }

    /// Executes the request, or queues it. There is room: see `is_full`.
    #[inline]
    pub(super) fn post(
        &mut self,
        qp: &Shared,
        request: &SendRequest,
        target: &Target,
        statistics: &mut DatagramStatistics,
    ) -> Result<(), PostFailure> {
        if request.inline && request.local.bytes() > u64::from(qp.device.options.inline_limit()) {
            let reason = "more inline bytes than the queue pair takes";
            return Err(PostFailure::Invalid(reason));
        }
        let deferred = self.deferral.is_some() && !request.inline;
        if self.halted || deferred || !self.pending.is_empty() {
            // SAFETY: the poster's word.
            let waiting = unsafe { Waiting::new(&qp.device, request) };
            self.pending.push_back(Pending { waiting, target: *target });
            return Ok(());
        }
        self.execute(qp, request, &request.local, !request.inline, target, statistics);
        Ok(())
    }

    /// Executes what waited.
    pub(super) fn push_pending(&mut self, qp: &Shared, statistics: &mut DatagramStatistics) {
        let steps = self.deferral.as_mut().map_or(usize::MAX, Deferral::step);
        for _ in 0..steps {
            if self.halted {
                return;
            }
            let Some(mut pending) = self.pending.pop_front() else { return };
            let local = pending.waiting.source(&qp.device);
            let Pending { waiting, target } = &pending;
            self.execute(qp, &waiting.request, &local, !waiting.is_owned(), target, statistics);
        }
    }

    #[inline]
    fn execute(
        &mut self,
        qp: &Shared,
        request: &SendRequest,
        local: &Slices,
        check_keys: bool,
        target: &Target,
        statistics: &mut DatagramStatistics,
    ) {
        let mut leaving = Leaving {
            id: request.id,
            signaled: request.signaled,
            status: Status::Success,
            departure: 0,
        };
        let slices = local.as_slice();
        if check_keys && let Err(status) = qp.device.regions.check(slices, Access::empty()) {
            self.halted = true;
            leaving.status = status;
        } else if let Some(packet) = self.travel(qp, request, local, target, &mut leaving) {
            let Target { number, queue_key, .. } = *target;
            let key = Key { gid: target.vector.gid, number, queue_key };
            // SAFETY: registered or inline slices that the poster gave away, or bytes of our own.
            unsafe { self.destinations.send(qp, &key, &packet, slices, statistics) };
        }
        self.leaving.push_back(leaving);
    }

    /// Over the link model: the packet as it comes out, unless it is lost there.
    #[inline]
    fn travel(
        &mut self,
        qp: &Shared,
        request: &SendRequest,
        local: &Slices,
        target: &Target,
        leaving: &mut Leaving,
    ) -> Option<Packet> {
        let vector = &target.vector;
        let payload = local.bytes() as u32;
        let (mut traffic_class, mut flags, mut arrival) = (vector.traffic_class, 0, 0);
        if let Some(link) = &self.link {
            let mut link = link.lock();
            let passage = link.transmit(qp.now(), u64::from(payload + GRH));
            leaving.departure = passage.departure.as_nanos();
            let mut at = passage.arrival?;
            if passage.marked && Ecn::of(traffic_class) != Ecn::NotCapable {
                traffic_class |= 3;
            }
            flags |= flag::TIMED;
            if passage.reordered {
                flags |= flag::OVERTAKEN;
                at = at + link.lateness();
            }
            arrival = at.as_nanos();
        }
        let mut immediate = 0;
        if let SendOperation::SendWithImmediate(value) = request.operation {
            immediate = value;
            flags |= flag::IMMEDIATE;
        }
        flags |= if request.solicited { flag::SOLICITED } else { 0 };
        let grh = Grh {
            layout: Layout::Ipv6,
            source: qp.device.gid,
            destination: vector.gid,
            traffic_class,
            flow_label: vector.flow_label,
            hop_limit: vector.hop_limit,
            payload_length: payload as u16,
        };
        let queue_key = target.queue_key;
        Some(Packet { grh: grh.to_bytes(), payload, queue_key, immediate, flags, arrival })
    }

    #[inline]
    pub(super) fn end_batch(&mut self) {
        self.destinations.end_batch();
    }

    /// See [`Destinations::resolved`].
    pub(super) fn resolved(
        &mut self,
        qp: &Shared,
        key: &Key,
        path: Option<Path>,
        statistics: &mut DatagramStatistics,
    ) {
        self.destinations.resolved(qp, key, path, statistics);
    }

    /// Completes what has left; fails when a request in front could not be executed.
    #[inline]
    pub(super) fn reap(&mut self, qp: &Shared) -> Result<(), ()> {
        while let Some(&first) = self.leaving.front() {
            if first.departure != 0 && first.departure > qp.now().as_nanos() {
                return Ok(());
            }
            self.leaving.pop_front();
            if first.signaled || !first.status.is_success() {
                self.completions.push(WorkCompletion {
                    id: first.id,
                    status: first.status,
                    opcode: Opcode::Send,
                    queue_pair: qp.number,
                    ..WorkCompletion::default()
                });
            } else {
                self.completions.skip(self.deferral.is_some());
            }
            if !first.status.is_success() {
                return Err(());
            }
        }
        Ok(())
    }

    /// Completes everything that is left.
    pub(super) fn flush(&mut self, qp: &Shared, status: Status) {
        self.halted = true;
        let left = self.leaving.drain(..).map(|leaving| leaving.id);
        let pending = self.pending.drain(..).map(|pending| pending.waiting.request.id);
        for id in left.chain(pending) {
            self.completions.push(WorkCompletion {
                id,
                status,
                queue_pair: qp.number,
                ..WorkCompletion::default()
            });
        }
        self.destinations.clear();
    }
}
