//! What the send queues of connections and of datagrams have in common: requests that wait, and slots
//! that are taken until a completion was polled.

use std::collections::VecDeque;
use std::ptr::NonNull;

use super::completion_queue::Polled;
use super::deferred::{Deferral, checksum, poison, take_visible};
use super::device::Device;
use super::gather::Cursor;
use crate::memory::Access;
use crate::work::{LocalSlice, SendOperation, SendRequest, Slices, WorkCompletion};

/// A request that is executed later.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) request: SendRequest,
    /// The bytes of an inline request, or poison.
    owned: Option<Box<[u8]>>,
    /// Sum of the source when it was posted (deferred mode).
    sum: Option<u64>,
}

impl Waiting {
    /// # Safety
    /// The source is readable, now and until the request completes (inline: now).
    pub(super) unsafe fn new(device: &Device, request: &SendRequest) -> Self {
        let slices = request.local.as_slice();
        let watched = device.options.deferred
            && !request.inline
            && !matches!(request.operation, SendOperation::Read { .. })
            && device.regions.check(slices, Access::empty()).is_ok();
        // SAFETY: the slices lie in registered memory, and by the caller's word they stay valid.
        let sum = watched.then(|| unsafe { checksum(slices) });
        // SAFETY: the caller's word.
        let owned = request.inline.then(|| unsafe { copied(slices, request.local.bytes()) });
        Self { request: *request, owned, sum }
    }

    /// Whether the bytes are our own, so that they have no key.
    pub(super) fn is_owned(&self) -> bool {
        self.owned.is_some()
    }

    /// What to send; poison if the source was changed since it was posted.
    pub(super) fn source(&mut self, device: &Device) -> Slices {
        let slices = self.request.local.as_slice();
        // SAFETY: as in `new`; the request has not completed.
        let changed = self.sum.is_some_and(|sum| sum != unsafe { checksum(slices) });
        if changed && self.owned.is_none() {
            let length = self.request.local.bytes() as usize;
            self.owned = Some(poison(device, self.request.id, length));
        }
        match &self.owned {
            Some(bytes) => Slices::one(LocalSlice {
                address: bytes.as_ptr() as u64,
                length: bytes.len() as u32,
                local_key: 0,
            }),
            None => self.request.local,
        }
    }
}

/// The bytes of the slices, in private memory.
///
/// # Safety
/// The slices are readable and have `length` bytes.
pub(super) unsafe fn copied(slices: &[LocalSlice], length: u64) -> Box<[u8]> {
    let mut bytes = vec![0u8; length as usize].into_boxed_slice();
    if let Some(start) = NonNull::new(bytes.as_mut_ptr()) {
        // SAFETY: the caller's word; the box has room for all of them.
        unsafe { Cursor::new(slices, 0).copy_out(start, bytes.len() as u32) };
    }
    bytes
}

/// A completion and the slots of the send queue that are free once it was polled.
#[derive(Clone, Copy, Debug)]
struct Finished {
    completion: WorkCompletion,
    slots: usize,
}

/// Completions that were not polled yet.
#[derive(Debug, Default)]
pub(super) struct Completed {
    finished: VecDeque<Finished>,
    /// Slots that are not free yet.
    held: usize,
    /// Requests since the last completion that succeeded in silence (deferred mode).
    silent: usize,
}

impl Completed {
    pub(super) fn len(&self) -> usize {
        self.finished.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.finished.is_empty()
    }

    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// Hands a completion to the poll that brought it on, if it may have it.
    #[inline]
    pub(super) fn complete(
        &mut self,
        completion: WorkCompletion,
        deferred: bool,
        polled: &mut Polled<'_>,
    ) {
        if !deferred && self.finished.is_empty() && polled.has_room() {
            polled.push(completion);
        } else {
            self.push(completion);
        }
    }

    #[inline]
    pub(super) fn push(&mut self, completion: WorkCompletion) {
        // With it the slots of the silent requests before it are free (deferred mode only: else they
        // were free at once).
        let slots = 1 + std::mem::take(&mut self.silent);
        self.held += 1;
        self.finished.push_back(Finished { completion, slots });
    }

    /// A request succeeded that wants no completion.
    #[inline]
    pub(super) fn skip(&mut self, deferred: bool) {
        if deferred {
            self.silent += 1;
            self.held += 1;
        }
    }

    /// Takes out completions that may be seen now.
    #[inline]
    pub(super) fn take(
        &mut self,
        out: &mut [WorkCompletion],
        deferral: Option<&mut Deferral>,
    ) -> usize {
        take_visible(&mut self.finished, deferral, out, |finished| {
            self.held -= finished.slots;
            finished.completion
        })
    }
}
