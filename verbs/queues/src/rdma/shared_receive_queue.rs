//! Shared receive queues.

use std::ffi::c_int;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::bindings::{self as sys, ibv_recv_wr, ibv_srq, ibv_srq_attr, ibv_srq_init_attr};
use super::datapath::Poster;
use super::device::{Device, warn_if_failed};
use super::library;
use super::work::RequestLimits;
use crate::error::{Error, PostError};
use crate::work::ReceiveRequest;

const EBUSY: i32 = 16;

/// `ibv_srq`, destroyed on drop.
pub(super) struct OwnedSharedQueue {
    raw: Option<NonNull<ibv_srq>>,
    device: Arc<Device>,
}

// SAFETY: libibverbs may be called from any thread, also for the same object at the same time.
unsafe impl Send for OwnedSharedQueue {}
// SAFETY: as above.
unsafe impl Sync for OwnedSharedQueue {}

/// A receive queue for several queue pairs; see [`crate::SharedReceiveQueue`].
pub struct SharedReceiveQueue {
    owner: Arc<OwnedSharedQueue>,
    receives: Poster<ibv_srq, ibv_recv_wr>,
}

// SAFETY: the pointers in `receives` name memory that it owns.
unsafe impl Send for SharedReceiveQueue {}

impl OwnedSharedQueue {
    pub(super) fn as_ptr(&self) -> *mut ibv_srq {
        self.raw.map_or(std::ptr::null_mut(), NonNull::as_ptr)
    }

    fn destroy(&mut self) -> Result<(), Error> {
        let Some(raw) = self.raw.take() else { return Ok(()) };
        // SAFETY: created in `SharedReceiveQueue::new` and, having been taken out, destroyed once;
        // queue pairs hold the owner.
        let answer = unsafe { self.device.verbs().ibv_destroy_srq(raw.as_ptr()) };
        library::check("ibv_destroy_srq", answer)
    }
}

impl Drop for OwnedSharedQueue {
    fn drop(&mut self) {
        warn_if_failed(self.destroy());
    }
}

impl SharedReceiveQueue {
    pub(super) fn new(device: &Arc<Device>, capacity: u32) -> Result<Self, Error> {
        let limit = device.attributes.max_shared_receives;
        if !device.attributes.capabilities.shared_receive_queue {
            return Err(device.unsupported("make shared receive queues"));
        }
        if !(1..=limit).contains(&capacity) {
            return Err(Error::Invalid {
                operation: "create_shared_receive_queue",
                reason: format!("capacity {capacity} is not from 1 to {limit}"),
            });
        }
        // SAFETY: the context is open; drivers fill its table once, before that.
        let Some(post) = (unsafe { (*device.context()).ops.post_srq_recv }) else {
            return Err(device.unsupported("post to shared receive queues"));
        };
        let slices = device.limits.shared_slices;
        let mut attr = ibv_srq_init_attr {
            attr: ibv_srq_attr { max_wr: capacity, max_sge: slices, srq_limit: 0 },
            ..ibv_srq_init_attr::default()
        };
        // SAFETY: the domain is alive.
        let raw = unsafe { device.verbs().ibv_create_srq(device.domain.raw.as_ptr(), &mut attr) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last_os("ibv_create_srq"))?;
        let limits = RequestLimits {
            max_inline: 0,
            max_message: device.attributes.max_message,
            max_slices: slices,
        };
        Ok(Self {
            owner: Arc::new(OwnedSharedQueue { raw: Some(raw), device: Arc::clone(device) }),
            receives: Poster::new(post, limits),
        })
    }

    /// For queue pairs, which keep it alive.
    pub(super) fn owner(&self) -> &Arc<OwnedSharedQueue> {
        &self.owner
    }
}

impl crate::SharedReceiveQueue for SharedReceiveQueue {
    unsafe fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
        // SAFETY: the queue is alive; the caller keeps the memory until completion.
        unsafe { self.receives.post(self.owner.as_ptr(), requests) }
    }

    fn arm_limit(&mut self, limit: u32) -> Result<(), Error> {
        let mut attr = ibv_srq_attr { srq_limit: limit, ..ibv_srq_attr::default() };
        // SAFETY: the queue is alive; the mask names the field that is set.
        let answer = unsafe {
            self.owner.device.verbs().ibv_modify_srq(
                self.owner.as_ptr(),
                &mut attr,
                sys::IBV_SRQ_LIMIT as c_int,
            )
        };
        library::check("ibv_modify_srq", answer)
    }

    fn close(self) -> Result<(), Error> {
        match Arc::into_inner(self.owner) {
            Some(mut owner) => owner.destroy(),
            None => Err(Error::errno("ibv_destroy_srq", EBUSY)
                .advise("; close the queue pairs that take from it first")),
        }
    }
}

impl fmt::Debug for SharedReceiveQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("rdma::SharedReceiveQueue").finish_non_exhaustive()
    }
}
