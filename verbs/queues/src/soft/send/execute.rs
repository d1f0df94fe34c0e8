//! Execution: moving the bytes of one request, on the poster's core.

use std::ptr;
use std::sync::atomic::{Ordering, fence};

use super::{Execution, Path, SendSide};
use crate::memory::Access;
use crate::soft::connection::{Attachment, Shared};
use crate::soft::gather::Cursor;
use crate::soft::wire_ring::{IN_SLOT, Kind, Ring, SEGMENT, Slot, flag};
use crate::work::{LocalSlice, SendOperation, SendRequest, Slices, Status};

impl SendSide {
    #[inline]
    pub(super) fn execute(
        &mut self,
        qp: &Shared,
        request: &SendRequest,
        local: &Slices,
        check_keys: bool,
        done: &mut u32,
    ) -> Execution {
        let len = local.bytes();
        let Some(attachment) = qp.attachment() else { return Execution::Blocked };
        if !self.introduced {
            if !qp.has_met() {
                return Execution::Blocked;
            }
            self.introduced = true;
            let retries = u32::from(self.path.not_ready_retries) + 1;
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
            SendOperation::Send => self.send(qp, attachment, request, None, local, done),
            SendOperation::SendWithImmediate(value) => {
                self.send(qp, attachment, request, Some(value), local, done)
            }
            // Before the key: who has gone has taken its memory along.
            _ if attachment.ring.refusal(Ordering::Acquire).is_some() => {
                Execution::Failed(Status::RetryExceeded)
            }
            SendOperation::Write { address, key } => {
                let target =
                    match self.regions.locate(qp, key.0, address, len, Access::REMOTE_WRITE) {
                        Ok(target) => target,
                        Err(status) => return Execution::Failed(status),
                    };
                match self.travel(qp, len) {
                    Ok(_) => self.write(attachment, slices, target, len),
                    Err(status) => Execution::Failed(status),
                }
            }
            SendOperation::Read { address, key } => {
                let source = match self.regions.locate(qp, key.0, address, len, Access::REMOTE_READ)
                {
                    Ok(source) => source,
                    Err(status) => return Execution::Failed(status),
                };
                // SAFETY: `locate` found `len` readable bytes, the cursor has `len` bytes that the
                // poster gave away and whose keys were checked.
                unsafe { Cursor::new(slices, 0).copy_in(source, len as u32) };
                if let Some(link) = &self.link {
                    self.ready = (qp.now() + link.lock().round_trip(len)).as_nanos();
                }
                Execution::Done
            }
        }
    }

    #[inline]
    fn send(
        &mut self,
        qp: &Shared,
        attachment: &Attachment,
        request: &SendRequest,
        immediate: Option<u32>,
        local: &Slices,
        done: &mut u32,
    ) -> Execution {
        let total = local.bytes() as u32;
        let mut source = Cursor::new(local.as_slice(), *done);
        loop {
            let len = (total - *done).min(SEGMENT);
            // A slot with an arrival time holds no payload.
            let room = if self.link.is_some() { len.max(IN_SLOT + 1) } else { len };
            if !self.sender.has_room(room) {
                if self.sender.refresh(&attachment.ring).is_err() {
                    return Execution::Failed(Status::RemoteOperation);
                }
                if !self.sender.has_room(room) {
                    return Execution::Blocked;
                }
            }
            let Ok(arrival) = self.travel(qp, u64::from(len)) else {
                return Execution::Failed(Status::RetryExceeded);
            };
            let mut flags = if arrival == 0 { 0 } else { flag::TIMED };
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
                queue_key: 0,
                arrival,
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

    /// Sends `len` bytes over the link model: when they arrive (zero without a model).
    #[inline]
    fn travel(&mut self, qp: &Shared, len: u64) -> Result<u64, Status> {
        if self.link.is_none() { Ok(0) } else { self.travel_modelled(qp, len) }
    }

    #[cold]
    fn travel_modelled(&mut self, qp: &Shared, len: u64) -> Result<u64, Status> {
        let Some(link) = &self.link else { return Ok(0) };
        let mut link = link.lock();
        let Path { ack_timeout, retries, .. } = self.path;
        let arrival = link
            .transmit_reliably(qp.now(), len, ack_timeout, retries)
            .ok_or(Status::RetryExceeded)?;
        self.ready = (arrival + link.delay()).as_nanos();
        Ok(arrival.as_nanos())
    }

    #[inline]
    fn write(
        &mut self,
        attachment: &Attachment,
        slices: &[LocalSlice],
        target: ptr::NonNull<u8>,
        len: u64,
    ) -> Execution {
        if !self.writing && !self.begin_writing(&attachment.ring) {
            return Execution::Failed(Status::RetryExceeded);
        }
        // Plain stores: with a reader on the other core, non-temporal ones were 10 % slower for windows
        // up to 2 MiB (and 10 % faster above 4 MiB, between cores that share no cache); without one,
        // a third slower (EPYC of family 26).
        // SAFETY: `locate` found `len` writable bytes; the slices are the poster's, keys checked.
        unsafe { Cursor::new(slices, 0).copy_out(target, len as u32) };
        Execution::Done
    }

    /// Tells the peer that its memory is being written until the batch ends. False if it refuses.
    fn begin_writing(&mut self, ring: &Ring) -> bool {
        self.writing = true;
        ring.writing().store(1, Ordering::Relaxed);
        // With the fence after the refusal in `Core::fail`: either we see the refusal, or the
        // peer sees that we write and waits until we have finished.
        fence(Ordering::SeqCst);
        ring.refusal(Ordering::Relaxed).is_none()
    }

    /// Ends a batch of executions: lets the peer go on, and wakes it if it sleeps.
    #[inline]
    pub(in crate::soft) fn end_batch(&mut self, qp: &Shared) {
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
}
