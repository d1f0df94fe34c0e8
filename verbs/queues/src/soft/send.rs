//! The sending half of a queue pair: executes requests on the poster's core and completes them in
//! order.
//!
//! A request is *executed* when its bytes have been moved (a SEND into the wire ring, a WRITE into
//! the peer's memory, a READ out of it) and then *outstanding* until every SEND up to it has been
//! matched by the peer. What cannot be executed yet (no ring yet, ring full) is *pending*.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::completion_queue::Polled;
use super::connection::Shared;
use super::deferred::Deferral;
use super::gather::Cursor;
use super::link::Link;
use super::lock::SpinLock;
use super::remote_access::RegionCache;
use super::send_queue::{Completed, Waiting};
use super::wire_ring::{IN_SLOT, Kind, Refusal, SEGMENT, Sender, Slot, flag};
use crate::error::PostFailure;
use crate::work::{Opcode, SendOperation, SendRequest, Status, WorkCompletion};

mod execute;

/// No send completion is awaited: see [`SendSide::awaited`].
pub(super) const NOTHING: u64 = u64::MAX;

#[derive(Debug)]
pub(super) struct SendSide {
    capacity: usize,
    outstanding: VecDeque<Outstanding>,
    pending: VecDeque<Pending>,
    pub(super) completions: Completed,
    sender: Sender,
    pub(super) regions: RegionCache,
    /// `end` of the first request that will make a completion; [`NOTHING`] if none will.
    awaited: u64,
    /// A request will complete of which the peer hears nothing, so that it wakes nobody here.
    unheard: bool,
    /// A request failed: nothing after it is executed.
    halted: bool,
    /// The peer was told our retries.
    introduced: bool,
    /// The word `writing` is set: see [`Ring::writing`](super::wire_ring::Ring::writing).
    writing: bool,
    /// Slots were published since the last `end_batch`; whether one of them is solicited.
    published: Option<bool>,
    pub(super) path: Path,
    pub(super) link: Option<Arc<SpinLock<Link>>>,
    /// When the request that is executed now will be acknowledged; zero without a link model.
    ready: u64,
    /// The request in front has been executed, but its acknowledgement is still on the way.
    early: bool,
    pub(super) deferral: Option<Deferral>,
}

/// What the sender does when the peer does not answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    pub(super) ack_timeout: Duration,
    pub(super) retries: u8,
    pub(super) not_ready_retries: u8,
}

/// An executed request.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    id: u64,
    /// Slots that the peer must have consumed.
    end: u64,
    /// When its acknowledgement arrives, in nanoseconds; zero without a link model.
    ready: u64,
    bytes: u32,
    status: Status,
    opcode: Opcode,
    signaled: bool,
}

impl Outstanding {
    /// Whether it makes a completion: errors always do.
    #[inline]
    fn completes(&self) -> bool {
        self.signaled || !self.status.is_success()
    }
}

/// A request that waits.
#[derive(Debug)]
struct Pending {
    waiting: Waiting,
    /// Bytes sent already.
    done: u32,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Execution {
    Done,
    Blocked,
    /// It completes with this status, nothing after it is executed.
    Failed(Status),
}

impl SendSide {
    pub(super) fn new(capacity: u32) -> Self {
        let capacity = capacity as usize;
        Self {
            capacity,
            outstanding: VecDeque::with_capacity(capacity),
            pending: VecDeque::new(),
            completions: Completed::default(),
            sender: Sender::new(),
            regions: RegionCache::default(),
            awaited: NOTHING,
            unheard: false,
            halted: false,
            introduced: false,
            writing: false,
            published: None,
            path: Path::default(),
            link: None,
            ready: 0,
            early: false,
            deferral: None,
        }
    }

    /// Whether requests could not be executed yet.
    #[inline]
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Slots that the peer must have consumed for the next completion; [`NOTHING`] if none is to come.
    #[inline]
    pub(super) fn awaited(&self) -> u64 {
        self.awaited
    }

    /// Whether requests have not completed yet.
    pub(super) fn has_requests(&self) -> bool {
        !(self.outstanding.is_empty() && self.pending.is_empty())
    }

    pub(super) fn is_full(&self) -> bool {
        self.outstanding.len() + self.pending.len() + self.completions.held() >= self.capacity
    }

    /// Whether there is work that only polling or time brings on.
    pub(super) fn is_delayed(&self) -> bool {
        self.early && self.awaited != NOTHING
            || self.deferral.is_some() && !(self.pending.is_empty() && self.completions.is_empty())
    }

    /// Takes out completions that may be seen now.
    #[inline]
    pub(super) fn take(&mut self, polled: &mut Polled<'_>) {
        if !self.completions.is_empty() {
            polled.fill(|out| self.completions.take(out, self.deferral.as_mut()));
        }
    }

    /// Whether a request has completed while it was posted, so that nobody else wakes who waits for it.
    #[inline]
    pub(super) fn completes_now(&mut self, qp: &Shared) -> bool {
        std::mem::take(&mut self.unheard)
            && qp.attachment().is_some_and(|to| to.ring.has_consumed(self.awaited))
    }

    /// Executes `request`, or queues it behind others. There is room: see `is_full`.
    #[inline]
    pub(super) fn post(&mut self, qp: &Shared, request: &SendRequest) -> Result<(), PostFailure> {
        check(request, qp.inline_limit)?;
        let deferred = self.deferral.is_some() && !request.inline;
        if self.halted || deferred || !self.pending.is_empty() {
            self.queue(qp, request, 0);
            return Ok(());
        }
        let mut done = 0;
        let execution = self.execute(qp, request, &request.local, !request.inline, &mut done);
        if execution == Execution::Blocked {
            self.queue(qp, request, done);
        } else {
            self.finish(qp, request, execution);
        }
        Ok(())
    }

    #[cold]
    fn queue(&mut self, qp: &Shared, request: &SendRequest, done: u32) {
        // SAFETY: the poster's word.
        let waiting = unsafe { Waiting::new(&qp.device, request) };
        self.pending.push_back(Pending { waiting, done });
    }

    /// Executes what waited, as far as it goes.
    pub(super) fn push_pending(&mut self, qp: &Shared) {
        let mut steps = self.deferral.as_mut().map_or(usize::MAX, Deferral::step);
        while steps > 0
            && !self.halted
            && let Some(mut pending) = self.pending.pop_front()
        {
            steps -= 1;
            let local = pending.waiting.source(&qp.device);
            let Pending { waiting, done } = &mut pending;
            let keyed = !waiting.is_owned();
            let execution = self.execute(qp, &waiting.request, &local, keyed, done);
            if execution == Execution::Blocked {
                self.pending.push_front(pending);
                return;
            }
            self.finish(qp, &pending.waiting.request, execution);
        }
    }

    #[inline]
    fn finish(&mut self, qp: &Shared, request: &SendRequest, execution: Execution) {
        let status = match execution {
            Execution::Failed(status) => status,
            _ => Status::Success,
        };
        // A violation wakes by itself.
        let completes = request.signaled || !status.is_success();
        if completes && status != Status::RemoteAccess && self.sender.is_unheard() {
            self.await_slots(qp);
        }
        // Before the violation slot, which the peer never consumes.
        let end = self.sender.published();
        if !status.is_success() {
            self.halt(qp, status);
        }
        let (opcode, bytes) = match request.operation {
            SendOperation::Send | SendOperation::SendWithImmediate(_) => (Opcode::Send, 0),
            SendOperation::Write { .. } => (Opcode::Write, 0),
            SendOperation::Read { .. } => (Opcode::Read, request.local.bytes() as u32),
        };
        let ready = std::mem::take(&mut self.ready);
        let signaled = request.signaled;
        let executed = Outstanding { id: request.id, end, ready, bytes, status, opcode, signaled };
        if executed.completes() {
            self.awaited = self.awaited.min(end);
            self.unheard |= opcode != Opcode::Send || !status.is_success();
        }
        self.outstanding.push_back(executed);
    }

    /// What has just been executed sends nothing of its own, and completes when the peer has consumed what
    /// was sent before: the peer is to say when that is so, or else who sleeps would not hear of it.
    #[cold]
    fn await_slots(&mut self, qp: &Shared) {
        let Some(attachment) = qp.attachment() else { return };
        // A peer that breaks the rules is found out when its progress is asked for next.
        let _ = self.sender.refresh(&attachment.ring);
        if self.sender.is_unheard() {
            let slot = Slot { flags: flag::NOTIFY, ..Slot::bare(Kind::Awaited) };
            self.sender.push(&attachment.ring, &slot, &mut Cursor::new(&[], 0));
            self.published = Some(self.published.unwrap_or(false));
        }
    }

    /// After a failure: the peer is told if it was a violation of its memory.
    #[cold]
    fn halt(&mut self, qp: &Shared, status: Status) {
        self.halted = true;
        if status != Status::RemoteAccess {
            return;
        }
        if let Some(attachment) = qp.attachment() {
            let flags = flag::FIRST | flag::LAST | flag::SOLICITED;
            let slot = Slot { flags, ..Slot::bare(Kind::Violation) };
            // There is always one slot left for it: see `has_room`.
            self.sender.push(&attachment.ring, &slot, &mut Cursor::new(&[], 0));
            self.published = Some(true);
        }
    }

    /// Completes what the peer has matched. An error is the status of the request in front.
    #[inline]
    pub(super) fn reap(&mut self, qp: &Shared, polled: &mut Polled<'_>) -> Result<(), Status> {
        let Some(attachment) = qp.attachment() else { return Ok(()) };
        // Before the progress: who refused has shown all progress before.
        let mut refusal = attachment.ring.refusal(Ordering::Acquire);
        if self.sender.refresh(&attachment.ring).is_err() {
            refusal = Some(Refusal::Failed);
        }
        self.complete_consumed(qp, polled)?;
        match refusal {
            Some(refusal) if self.has_requests() && !self.early => Err(match refusal {
                Refusal::TooShort => Status::RemoteInvalidRequest,
                Refusal::NotReady => Status::ReceiverNotReady,
                Refusal::Gone => Status::RetryExceeded,
                Refusal::Failed => Status::RemoteOperation,
            }),
            _ => Ok(()),
        }
    }

    /// Completes the requests whose slots were consumed; an error is the status of one that failed.
    #[inline]
    fn complete_consumed(&mut self, qp: &Shared, polled: &mut Polled<'_>) -> Result<(), Status> {
        let consumed = self.sender.consumed();
        let deferred = self.deferral.is_some();
        self.early = false;
        while let Some(first) = self.outstanding.front()
            && first.end <= consumed
        {
            if first.ready != 0 && first.ready > qp.now().as_nanos() {
                self.early = true;
                break;
            }
            if !first.status.is_success() {
                return Err(first.status);
            }
            if first.signaled {
                let completion = WorkCompletion {
                    id: first.id,
                    status: Status::Success,
                    opcode: first.opcode,
                    bytes: first.bytes,
                    queue_pair: qp.number,
                    ..WorkCompletion::default()
                };
                self.completions.complete(completion, deferred, polled);
            } else {
                self.completions.skip(deferred);
            }
            self.outstanding.pop_front();
        }
        if self.awaited <= consumed {
            let next = self.outstanding.iter().find(|request| request.completes());
            self.awaited = next.map_or(NOTHING, |request| request.end);
        }
        Ok(())
    }

    /// Completes everything that is left: the first request with `first`, the others as flushed.
    pub(super) fn flush(&mut self, qp: &Shared, first: Status) {
        self.halted = true;
        self.early = false;
        self.awaited = NOTHING;
        let mut status = first;
        loop {
            let id = match (self.outstanding.pop_front(), self.pending.front()) {
                (Some(executed), _) => executed.id,
                (None, Some(pending)) => {
                    let id = pending.waiting.request.id;
                    self.pending.pop_front();
                    id
                }
                (None, None) => return,
            };
            self.completions.push(WorkCompletion {
                id,
                status,
                queue_pair: qp.number,
                ..WorkCompletion::default()
            });
            status = Status::Flushed;
        }
    }
}

#[inline]
fn check(request: &SendRequest, inline_limit: u32) -> Result<(), PostFailure> {
    let bytes = request.local.bytes();
    if bytes > u64::from(super::device::MAX_MESSAGE) {
        return Err(PostFailure::Invalid("the message is longer than 1 GiB"));
    }
    if request.inline {
        if matches!(request.operation, SendOperation::Read { .. }) {
            return Err(PostFailure::Invalid("a READ cannot be inline"));
        }
        if bytes > u64::from(inline_limit) {
            return Err(PostFailure::Invalid("more inline bytes than the queue pair takes"));
        }
    }
    Ok(())
}

// `IN_SLOT` bytes always fit a segment, so that `send` publishes small messages in one slot.
const _: () = assert!(IN_SLOT < SEGMENT);
