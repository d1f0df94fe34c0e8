//! The sending half of a queue pair: executes requests on the poster's core and completes them in
//! order.
//!
//! A request is *executed* when its bytes have been moved (a SEND into the wire ring, a WRITE into
//! the peer's memory, a READ out of it) and then *outstanding* until every SEND up to it has been
//! matched by the peer. What cannot be executed yet (no ring yet, ring full) is *pending*.

use std::collections::VecDeque;
use std::ptr;
use std::sync::atomic::{Ordering, fence};

use super::gather::Cursor;
use super::queue_pair::{Attachment, Shared};
use super::remote_access::RegionCache;
use super::wire_ring::{IN_SLOT, Kind, Refusal, SEGMENT, Sender, Slot, flag};
use crate::error::PostFailure;
use crate::memory::Access;
use crate::work::{LocalSlice, Opcode, SendOperation, SendRequest, Slices, Status, WorkCompletion};

#[derive(Debug)]
pub(super) struct SendSide {
    capacity: usize,
    outstanding: VecDeque<Outstanding>,
    pending: VecDeque<Pending>,
    pub(super) completions: VecDeque<WorkCompletion>,
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
    pub(super) not_ready_retries: u8,
}

/// An executed request.
#[derive(Clone, Copy, Debug)]
struct Outstanding {
    id: u64,
    /// Slots that the peer must have consumed.
    end: u64,
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
            not_ready_retries: 7,
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
        self.outstanding.len() + self.pending.len() + self.completions.len() >= self.capacity
    }

    /// Whether a request that was executed while posting has completed already.
    pub(super) fn completes_now(&self) -> bool {
        self.outstanding.front().is_some_and(|first| first.end <= self.sender.consumed())
    }

    /// Executes `request`, or queues it behind others. There is room: see `is_full`.
    #[inline]
    pub(super) fn post(&mut self, qp: &Shared, request: &SendRequest) -> Result<(), PostFailure> {
        check(request, qp.inline_limit)?;
        if self.halted || !self.pending.is_empty() {
            self.queue(request, 0);
            return Ok(());
        }
        let mut done = 0;
        let execution = self.execute(qp, request, &request.local, !request.inline, &mut done);
        if execution == Execution::Blocked {
            self.queue(request, done);
        } else {
            self.finish(qp, request, execution);
        }
        Ok(())
    }

    #[cold]
    fn queue(&mut self, request: &SendRequest, done: u32) {
        let owned = request.inline.then(|| {
            let mut bytes = vec![0u8; request.local.bytes() as usize].into_boxed_slice();
            if let Some(start) = ptr::NonNull::new(bytes.as_mut_ptr()) {
                let mut source = Cursor::new(request.local.as_slice(), 0);
                // SAFETY: the poster's word for inline sources; the box has room for all of them.
                unsafe { source.copy_out(start, bytes.len() as u32) };
            }
            bytes
        });
        self.pending.push_back(Pending { request: *request, owned, done });
    }

    /// Executes what waited, as far as it goes.
    pub(super) fn push_pending(&mut self, qp: &Shared) {
        while !self.halted
            && let Some(mut pending) = self.pending.pop_front()
        {
            let local = match &pending.owned {
                Some(bytes) => Slices::one(LocalSlice {
                    address: bytes.as_ptr() as u64,
                    length: bytes.len() as u32,
                    local_key: 0,
                }),
                None => pending.request.local,
            };
            let Pending { request, owned, done } = &mut pending;
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

    #[inline]
    fn execute(
        &mut self,
        qp: &Shared,
        request: &SendRequest,
        local: &Slices,
        check_keys: bool,
        done: &mut u32,
    ) -> Execution {
        let Some(attachment) = qp.attachment() else { return Execution::Blocked };
        if !self.introduced {
            self.introduced = true;
            let retries = u32::from(self.not_ready_retries) + 1;
            attachment.ring.retries().store(retries, Ordering::Release);
        }
        let slices = local.as_slice();
        if check_keys && *done == 0 {
            let access = match request.operation {
                SendOperation::Read { .. } => Access::LOCAL_WRITE,
                _ => Access::empty(),
            };
            if let Err(status) = qp.device.regions.check(slices, access) {
                return Execution::Failed(status);
            }
        }
        match request.operation {
            SendOperation::Send => self.send(attachment, request, slices, None, done),
            SendOperation::SendWithImmediate(value) => {
                self.send(attachment, request, slices, Some(value), done)
            }
            _ if attachment.ring.refusal(Ordering::Acquire).is_some() => {
                Execution::Failed(Status::RetryExceeded)
            }
            SendOperation::Write { address, key } => {
                let len = local.bytes();
                let target =
                    match self.regions.locate(qp, key.0, address, len, Access::REMOTE_WRITE) {
                        Ok(target) => target,
                        Err(status) => return Execution::Failed(status),
                    };
                self.write(attachment, slices, target, len)
            }
            SendOperation::Read { address, key } => {
                let len = local.bytes();
                let source = match self.regions.locate(qp, key.0, address, len, Access::REMOTE_READ)
                {
                    Ok(source) => source,
                    Err(status) => return Execution::Failed(status),
                };
                // SAFETY: `locate` found `len` readable bytes, the cursor has `len` bytes that the
                // poster gave away and whose keys were checked.
                unsafe { Cursor::new(slices, 0).copy_in(source, len as u32) };
                Execution::Done
            }
        }
    }

    #[inline]
    fn send(
        &mut self,
        attachment: &Attachment,
        request: &SendRequest,
        slices: &[LocalSlice],
        immediate: Option<u32>,
        done: &mut u32,
    ) -> Execution {
        let total = request.local.bytes() as u32;
        let mut source = Cursor::new(slices, *done);
        loop {
            let len = (total - *done).min(SEGMENT);
            if !self.sender.has_room(len) {
                if self.sender.refresh(&attachment.ring).is_err() {
                    return Execution::Failed(Status::RemoteOperation);
                }
                if !self.sender.has_room(len) {
                    return Execution::Blocked;
                }
            }
            let mut flags = 0;
            if *done == 0 {
                flags |= flag::FIRST;
            }
            if *done + len == total {
                flags |= flag::LAST;
                flags |= if request.signaled { flag::NOTIFY } else { 0 };
                flags |= if request.solicited { flag::SOLICITED } else { 0 };
                flags |= if immediate.is_some() { flag::IMMEDIATE } else { 0 };
            }
            let slot = Slot {
                kind: Kind::Send,
                flags,
                len,
                immediate: immediate.unwrap_or(0),
                total,
                arrival: 0,
            };
            self.sender.push(&attachment.ring, &slot, &mut source);
            *done += len;
            let solicited = self.published.unwrap_or(false) | request.solicited;
            self.published = Some(solicited);
            if *done == total {
                return Execution::Done;
            }
        }
    }

    #[inline]
    fn write(
        &mut self,
        attachment: &Attachment,
        slices: &[LocalSlice],
        target: ptr::NonNull<u8>,
        len: u64,
    ) -> Execution {
        let ring = &attachment.ring;
        if !self.writing {
            self.writing = true;
            ring.writing().store(1, Ordering::Relaxed);
            // With the fence after the refusal in `Core::fail`: either we see the refusal, or the
            // peer sees that we write and waits until we have finished.
            fence(Ordering::SeqCst);
        }
        if ring.refusal(Ordering::Relaxed).is_some() {
            return Execution::Failed(Status::RetryExceeded);
        }
        // SAFETY: `locate` found `len` writable bytes; the slices are the poster's, keys checked.
        unsafe { Cursor::new(slices, 0).copy_out(target, len as u32) };
        Execution::Done
    }

    /// Ends a batch of executions: lets the peer go on, and wakes it if it sleeps.
    #[inline]
    pub(super) fn end_batch(&mut self, qp: &Shared) {
        let Some(attachment) = qp.attachment() else { return };
        if self.writing {
            self.writing = false;
            // Release: our copies come before.
            attachment.ring.writing().store(0, Ordering::Release);
        }
        if let Some(solicited) = self.published.take() {
            // The slots before the load of the arm word: see `arm`.
            fence(Ordering::SeqCst);
            attachment.receive_queue.notify_if_armed(solicited);
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
        while let Some(&first) = self.outstanding.front()
            && first.end <= self.sender.consumed()
        {
            if !first.status.is_success() {
                return Err(first.status);
            }
            self.outstanding.pop_front();
            if first.signaled {
                self.completions.push_back(WorkCompletion {
                    id: first.id,
                    status: Status::Success,
                    opcode: first.opcode,
                    bytes: first.bytes,
                    queue_pair: qp.number,
                    ..WorkCompletion::default()
                });
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
        let executed = self.outstanding.drain(..).map(|request| request.id);
        let waiting = self.pending.drain(..).map(|pending| pending.request.id);
        let mut status = first;
        for id in executed.chain(waiting) {
            self.completions.push_back(WorkCompletion {
                id,
                status,
                queue_pair: qp.number,
                ..WorkCompletion::default()
            });
            status = Status::Flushed;
        }
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
