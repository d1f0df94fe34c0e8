//! The sending half of a queue pair: executes requests on the poster's core and completes them in
//! order.
//!
//! A request is *executed* when its bytes have been moved (a SEND into the wire ring, a WRITE into
//! the peer's memory, a READ out of it) and then *outstanding* until every SEND up to it has been
//! matched by the peer. What cannot be executed yet (no ring yet, ring full) is *pending*.

use std::collections::VecDeque;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::connection::Shared;
use super::deferred::{Deferral, checksum, poison};
use super::gather::Cursor;
use super::link::Link;
use super::lock::SpinLock;
use super::remote_access::RegionCache;
use super::wire_ring::{IN_SLOT, Kind, Refusal, SEGMENT, Sender, Slot, flag};
use crate::error::PostFailure;
use crate::memory::Access;
use crate::work::{LocalSlice, Opcode, SendOperation, SendRequest, Slices, Status, WorkCompletion};

mod execute;

#[derive(Debug)]
pub(super) struct SendSide {
    capacity: usize,
    outstanding: VecDeque<Outstanding>,
    pending: VecDeque<Pending>,
    pub(super) completions: VecDeque<Finished>,
    sender: Sender,
    pub(super) regions: RegionCache,
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
    /// Finished requests whose slots are not free yet: see `Finished`.
    held: usize,
    unsignaled: usize,
}

/// What the sender does when the peer does not answer.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Path {
    pub(super) ack_timeout: Duration,
    pub(super) retries: u8,
    pub(super) not_ready_retries: u8,
}

/// A completion and the slots of the send queue that are free once it was polled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Finished {
    pub(super) completion: WorkCompletion,
    slots: usize,
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

/// A request that waits.
#[derive(Debug)]
struct Pending {
    request: SendRequest,
    /// The bytes of an inline request.
    owned: Option<Box<[u8]>>,
    /// Bytes sent already.
    done: u32,
    /// Sum of the source when it was posted (deferred mode).
    sum: Option<u64>,
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
            completions: VecDeque::new(),
            sender: Sender::new(),
            regions: RegionCache::default(),
            halted: false,
            introduced: false,
            writing: false,
            published: None,
            path: Path::default(),
            link: None,
            ready: 0,
            early: false,
            deferral: None,
            held: 0,
            unsignaled: 0,
        }
    }

    /// Whether there is anything that polling could bring on.
    pub(super) fn is_busy(&self) -> bool {
        !(self.outstanding.is_empty() && self.pending.is_empty() && self.completions.is_empty())
    }

    /// Whether requests have not completed yet.
    pub(super) fn has_requests(&self) -> bool {
        !(self.outstanding.is_empty() && self.pending.is_empty())
    }

    pub(super) fn is_full(&self) -> bool {
        self.outstanding.len() + self.pending.len() + self.held >= self.capacity
    }

    /// Whether there is work that only polling or time brings on.
    pub(super) fn is_delayed(&self) -> bool {
        self.early
            || self.deferral.is_some() && !(self.pending.is_empty() && self.completions.is_empty())
    }

    /// Takes out completions that may be seen now.
    #[inline]
    pub(super) fn take(&mut self, out: &mut [WorkCompletion]) -> usize {
        let mut count = self.completions.len();
        if let Some(deferral) = &mut self.deferral {
            count = deferral.release(count);
        }
        let count = count.min(out.len());
        for (place, finished) in out.iter_mut().zip(self.completions.drain(..count)) {
            *place = finished.completion;
            self.held -= finished.slots;
        }
        count
    }

    /// Whether a request that was executed while posting has completed already.
    pub(super) fn completes_now(&self) -> bool {
        self.outstanding.front().is_some_and(|first| first.end <= self.sender.consumed())
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
        let slices = request.local.as_slice();
        let watched = self.deferral.is_some()
            && !request.inline
            && !matches!(request.operation, SendOperation::Read { .. })
            && qp.device.regions.check(slices, Access::empty()).is_ok();
        // SAFETY: the slices lie in registered memory, and the poster's word is that it stays valid.
        let sum = watched.then(|| unsafe { checksum(slices) });
        let owned = request.inline.then(|| {
            let mut bytes = vec![0u8; request.local.bytes() as usize].into_boxed_slice();
            if let Some(start) = ptr::NonNull::new(bytes.as_mut_ptr()) {
                let mut source = Cursor::new(slices, 0);
                // SAFETY: the poster's word for inline sources; the box has room for all of them.
                unsafe { source.copy_out(start, bytes.len() as u32) };
            }
            bytes
        });
        self.pending.push_back(Pending { request: *request, owned, done, sum });
    }

    /// Executes what waited, as far as it goes.
    pub(super) fn push_pending(&mut self, qp: &Shared) {
        let mut steps = self.deferral.as_mut().map_or(usize::MAX, Deferral::step);
        while steps > 0
            && !self.halted
            && let Some(mut pending) = self.pending.pop_front()
        {
            steps -= 1;
            let slices = pending.request.local.as_slice();
            // SAFETY: as in `queue`; the request has not completed.
            if pending.sum.is_some_and(|sum| sum != unsafe { checksum(slices) }) {
                let length = pending.request.local.bytes() as usize;
                pending.owned = Some(poison(&qp.device, pending.request.id, length));
                pending.sum = None;
            }
            let local = match &pending.owned {
                Some(bytes) => Slices::one(LocalSlice {
                    address: bytes.as_ptr() as u64,
                    length: bytes.len() as u32,
                    local_key: 0,
                }),
                None => pending.request.local,
            };
            let Pending { request, owned, done, .. } = &mut pending;
            let execution = self.execute(qp, request, &local, owned.is_none(), done);
            if execution == Execution::Blocked {
                self.pending.push_front(pending);
                return;
            }
            self.finish(qp, &pending.request, execution);
        }
    }

    #[inline]
    fn finish(&mut self, qp: &Shared, request: &SendRequest, execution: Execution) {
        let status = match execution {
            Execution::Failed(status) => status,
            _ => Status::Success,
        };
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
        self.outstanding.push_back(Outstanding {
            id: request.id,
            end,
            ready: std::mem::take(&mut self.ready),
            bytes,
            status,
            opcode,
            signaled: request.signaled,
        });
    }

    /// After a failure: the peer is told if it was a violation of its memory.
    #[cold]
    fn halt(&mut self, qp: &Shared, status: Status) {
        self.halted = true;
        if status != Status::RemoteAccess {
            return;
        }
        if let Some(attachment) = qp.attachment() {
            let slot = Slot {
                kind: Kind::Violation,
                flags: flag::FIRST | flag::LAST | flag::SOLICITED,
                len: 0,
                immediate: 0,
                total: 0,
                arrival: 0,
            };
            // There is always one slot left for it: see `has_room`.
            self.sender.push(&attachment.ring, &slot, &mut Cursor::new(&[], 0));
            self.published = Some(true);
        }
    }

    /// Completes what the peer has matched. An error is the status of the request in front.
    #[inline]
    pub(super) fn reap(&mut self, qp: &Shared) -> Result<(), Status> {
        if !self.has_requests() {
            return Ok(());
        }
        let Some(attachment) = qp.attachment() else { return Ok(()) };
        // Before the progress: who refused has shown all progress before.
        let mut refusal = attachment.ring.refusal(Ordering::Acquire);
        if self.sender.refresh(&attachment.ring).is_err() {
            refusal = Some(Refusal::Failed);
        }
        self.early = false;
        while let Some(&first) = self.outstanding.front()
            && first.end <= self.sender.consumed()
        {
            if first.ready != 0 && first.ready > qp.now().as_nanos() {
                self.early = true;
                return Ok(());
            }
            if !first.status.is_success() {
                return Err(first.status);
            }
            self.outstanding.pop_front();
            if first.signaled {
                self.complete(WorkCompletion {
                    id: first.id,
                    status: Status::Success,
                    opcode: first.opcode,
                    bytes: first.bytes,
                    queue_pair: qp.number,
                    ..WorkCompletion::default()
                });
            } else if self.deferral.is_some() {
                self.unsignaled += 1;
                self.held += 1;
            }
        }
        match refusal {
            Some(refusal) if self.has_requests() => Err(match refusal {
                Refusal::TooShort => Status::RemoteInvalidRequest,
                Refusal::NotReady => Status::ReceiverNotReady,
                Refusal::Gone => Status::RetryExceeded,
                Refusal::Failed => Status::RemoteOperation,
            }),
            _ => Ok(()),
        }
    }

    /// Completes everything that is left: the first request with `first`, the others as flushed.
    pub(super) fn flush(&mut self, qp: &Shared, first: Status) {
        self.halted = true;
        self.early = false;
        let mut status = first;
        loop {
            let id = match (self.outstanding.pop_front(), self.pending.front()) {
                (Some(executed), _) => executed.id,
                (None, Some(pending)) => {
                    let id = pending.request.id;
                    self.pending.pop_front();
                    id
                }
                (None, None) => return,
            };
            self.complete(WorkCompletion {
                id,
                status,
                queue_pair: qp.number,
                ..WorkCompletion::default()
            });
            status = Status::Flushed;
        }
    }

    #[inline]
    fn complete(&mut self, completion: WorkCompletion) {
        // With it the slots of the silent requests before it are free (deferred mode only: else they
        // were free at once).
        let slots = 1 + std::mem::take(&mut self.unsignaled);
        self.held += 1;
        self.completions.push_back(Finished { completion, slots });
    }
}

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
