//! The receiving half of a queue pair: matches what arrived with posted receives.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use netchannel_units::Timestamp;

use super::completion_queue::Polled;
use super::connection::Shared;
use super::deferred::{Deferral, take_visible};
use super::gather::Cursor;
use super::shared_receive::SharedReceives;
use super::wire_ring::{Kind, Receiver, Rubbish, Slot, flag};
use crate::memory::Access;
use crate::work::{Opcode, ReceiveRequest, Status, WorkCompletion};

/// Completions kept for a queue that is not polled, before matching stops.
const KEPT: usize = 1024;

/// Why the receiving half failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A receive was too short for its message.
    TooShort,
    /// No receive was posted for too long.
    NotReady,
    /// A posted receive names memory that it may not.
    Protection,
    /// The sender says that it broke a rule of remote access.
    Violation,
    /// The sender wrote what no NIC writes.
    Rubbish,
}

impl From<Rubbish> for Fault {
    fn from(_: Rubbish) -> Self {
        Self::Rubbish
    }
}

#[derive(Debug)]
pub(super) struct ReceiveSide {
    pub(super) queue: VecDeque<ReceiveRequest>,
    pub(super) capacity: usize,
    pub(super) shared: Option<Arc<SharedReceives>>,
    pub(super) completions: VecDeque<WorkCompletion>,
    receiver: Receiver,
    /// The message whose segments arrive now.
    current: Option<Message>,
    /// Since when a message waits for a receive.
    waits_since: Option<Timestamp>,
    pub(super) not_ready_timer: Duration,
    /// A message lies in the ring whose time has not come.
    early: bool,
    pub(super) deferral: Option<Deferral>,
    /// The peer was refused: nothing of it is taken any more.
    stopped: bool,
}

#[derive(Clone, Copy, Debug)]
struct Message {
    request: ReceiveRequest,
    total: u32,
    done: u32,
}

impl ReceiveSide {
    pub(super) fn new(capacity: u32, shared: Option<Arc<SharedReceives>>) -> Self {
        let capacity = if shared.is_some() { 0 } else { capacity as usize };
        Self {
            queue: VecDeque::with_capacity(capacity),
            capacity,
            shared,
            completions: VecDeque::new(),
            receiver: Receiver::default(),
            current: None,
            waits_since: None,
            not_ready_timer: Duration::ZERO,
            early: false,
            deferral: None,
            stopped: false,
        }
    }

    /// Slots consumed.
    #[inline]
    pub(super) fn consumed(&self) -> u64 {
        self.receiver.consumed()
    }

    /// Whether polling would bring anything on, even if nothing arrives.
    #[inline]
    pub(super) fn is_busy(&self) -> bool {
        !self.completions.is_empty() || self.receiver.owes_any()
    }

    /// Whether a message waits for a receive.
    pub(super) fn is_waiting(&self) -> bool {
        self.waits_since.is_some()
    }

    /// Whether there is work that only polling or time brings on.
    pub(super) fn is_delayed(&self) -> bool {
        self.early || self.deferral.is_some() && !self.completions.is_empty()
    }

    /// Takes out completions that may be seen now.
    #[inline]
    pub(super) fn take(&mut self, polled: &mut Polled<'_>) {
        if self.completions.is_empty() {
            return;
        }
        polled.fill(|out| {
            take_visible(&mut self.completions, self.deferral.as_mut(), out, |completion| {
                completion
            })
        });
    }

    /// Matches what has arrived, until `budget` completions wait or were handed to `polled`, and
    /// gives the slots back.
    #[inline]
    pub(super) fn drain(
        &mut self,
        qp: &Shared,
        budget: usize,
        polled: &mut Polled<'_>,
    ) -> Result<(), Fault> {
        if self.stopped {
            return Ok(());
        }
        if !qp.ring.published(self.receiver.consumed()) {
            self.show(qp, false);
            return Ok(());
        }
        let mut notify = false;
        let result = self.match_slots(qp, budget.min(KEPT), polled, &mut notify);
        // A sender that waits for none of it hears of it when there is nothing else to do: the line
        // comes from its core and would hold up the message that has just arrived.
        if notify || result.is_err() {
            self.show(qp, notify);
        }
        result
    }

    fn match_slots(
        &mut self,
        qp: &Shared,
        budget: usize,
        polled: &mut Polled<'_>,
        notify: &mut bool,
    ) -> Result<(), Fault> {
        self.early = false;
        while self.completions.len() + polled.found() < budget {
            let Some(slot) = self.receiver.peek(&qp.ring)? else { break };
            if slot.arrival != 0 && slot.arrival > qp.now().as_nanos() {
                self.early = true;
                break;
            }
            match slot.kind {
                Kind::Send => {}
                // One per poll, so that nobody keeps this thread with nothing else.
                Kind::Awaited if self.current.is_none() && slot.len == 0 => {
                    self.receiver.advance(&slot);
                    *notify = true;
                    break;
                }
                Kind::Awaited => return Err(Fault::Rubbish),
                Kind::Violation => return Err(Fault::Violation),
                Kind::Datagram | Kind::Unknown => return Err(Fault::Rubbish),
            }
            if !self.on_segment(qp, &slot, polled)? {
                break;
            }
            *notify |= slot.has(flag::NOTIFY);
            if self.receiver.owes_much() {
                self.receiver.show(&qp.ring);
            }
        }
        Ok(())
    }

    /// Takes one segment; false if there is no receive for it yet.
    #[inline]
    fn on_segment(
        &mut self,
        qp: &Shared,
        slot: &Slot,
        polled: &mut Polled<'_>,
    ) -> Result<bool, Fault> {
        let mut message = match self.current {
            Some(message) if !slot.has(flag::FIRST) => message,
            None if slot.has(flag::FIRST) => {
                let Some(request) = self.take_request() else {
                    self.on_not_ready(qp)?;
                    return Ok(false);
                };
                self.waits_since = None;
                self.begin(qp, request, slot.total)?
            }
            _ => return Err(Fault::Rubbish),
        };
        let last = slot.has(flag::LAST);
        let left = message.total - message.done;
        if slot.len > left || last != (slot.len == left) {
            self.current = Some(message);
            return Err(Fault::Rubbish);
        }
        let mut target = Cursor::new(message.request.local.as_slice(), message.done);
        self.receiver.copy(&qp.ring, slot, &mut target);
        self.receiver.advance(slot);
        message.done += slot.len;
        if !last {
            self.current = Some(message);
            return Ok(true);
        }
        self.current = None;
        let completion = WorkCompletion {
            id: message.request.id,
            status: Status::Success,
            opcode: Opcode::Receive,
            bytes: message.total,
            queue_pair: qp.number,
            immediate: slot.has(flag::IMMEDIATE).then_some(slot.immediate),
            ..WorkCompletion::default()
        };
        if self.deferral.is_none() && self.completions.is_empty() && polled.has_room() {
            polled.push(completion);
        } else {
            self.completions.push_back(completion);
        }
        Ok(true)
    }

    #[inline]
    fn take_request(&mut self) -> Option<ReceiveRequest> {
        match &self.shared {
            Some(shared) => shared.take(),
            None => self.queue.pop_front(),
        }
    }

    /// Checks a receive against the message that it is to hold; on failure it completes so.
    #[inline]
    fn begin(
        &mut self,
        qp: &Shared,
        request: ReceiveRequest,
        total: u32,
    ) -> Result<Message, Fault> {
        let (status, fault) = if request.local.bytes() < u64::from(total) {
            (Status::LocalLength, Fault::TooShort)
        } else {
            let slices = request.local.as_slice();
            match qp.device.regions.check(slices, Access::LOCAL_WRITE) {
                Ok(()) => return Ok(Message { request, total, done: 0 }),
                Err(status) => (status, Fault::Protection),
            }
        };
        self.fail_request(qp, request.id, status);
        Err(fault)
    }

    #[cold]
    fn on_not_ready(&mut self, qp: &Shared) -> Result<(), Fault> {
        let now = qp.now();
        let since = *self.waits_since.get_or_insert(now);
        if let Some(shared) = &self.shared {
            shared.wake_when_posted(&qp.receive_queue);
        }
        // Zero: the sender has not said; seven: for ever.
        let retries = match qp.ring.retries().load(Ordering::Acquire) {
            said @ 1..=7 => said - 1,
            _ => return Ok(()),
        };
        let patience = self.not_ready_timer.saturating_mul(retries);
        if now.saturating_since(since) >= patience { Err(Fault::NotReady) } else { Ok(()) }
    }

    /// Gives the consumed slots back and wakes the sender if it sleeps on one of them.
    #[inline]
    pub(super) fn show(&mut self, qp: &Shared, notify: bool) {
        self.receiver.show(&qp.ring);
        if notify && let Some(attachment) = qp.attachment() {
            // The progress before the load of the arm word: see `arm`.
            fence(Ordering::SeqCst);
            attachment.send_queue().notify_if_armed(true);
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

    /// Takes nothing more.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.waits_since = None;
    }

    /// Completes everything as flushed; requests of a shared queue that were not taken stay there.
    pub(super) fn flush(&mut self, qp: &Shared) {
        self.stop();
        self.early = false;
        if let Some(message) = self.current.take() {
            self.fail_request(qp, message.request.id, Status::Flushed);
        }
        while let Some(request) = self.queue.pop_front() {
            self.fail_request(qp, request.id, Status::Flushed);
        }
    }
}
