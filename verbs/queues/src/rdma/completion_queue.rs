//! Completion queues, each with a completion channel of its own.

use std::ffi::c_int;
use std::fmt;
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::bindings::{Verbs, ibv_comp_channel, ibv_cq, ibv_wc};
use super::device::{Device, warn_if_failed};
use super::events::{self, Interrupted};
use super::{library, work_completion};
use crate::error::Error;
use crate::work::WorkCompletion;

/// Completions that one call of the driver moves: 1.5 KiB of its structures.
const BATCH: usize = 32;

const EIO: i32 = 5;

/// Set when the device reported the end of the queue.
pub(super) type Broken = AtomicBool;

type PollFn = unsafe extern "C" fn(*mut ibv_cq, c_int, *mut ibv_wc) -> c_int;
type ArmFn = unsafe extern "C" fn(*mut ibv_cq, c_int) -> c_int;

/// `ibv_comp_channel`, destroyed on drop.
struct Channel {
    raw: NonNull<ibv_comp_channel>,
    device: Arc<Device>,
}

/// `ibv_cq`, destroyed on drop, before its channel.
pub(super) struct OwnedQueue {
    pub(super) raw: NonNull<ibv_cq>,
    broken: Box<Broken>,
    channel: Channel,
}

// SAFETY: libibverbs may be called from any thread, also for the same object at the same time.
unsafe impl Send for OwnedQueue {}
// SAFETY: as above.
unsafe impl Sync for OwnedQueue {}

/// Where work requests end; see [`crate::CompletionQueue`].
pub struct CompletionQueue {
    owner: Arc<OwnedQueue>,
    poll: PollFn,
    arm: ArmFn,
    pending: Pending,
    scratch: Box<[MaybeUninit<ibv_wc>; BATCH]>,
}

/// Events that may come or wait to be taken. Arming and looking for events are system calls with some
/// drivers, so nothing is done twice.
#[derive(Clone, Copy, Debug, Default)]
struct Pending {
    /// At most so many.
    most: u32,
    /// The queue is armed for any completion, or the event of that waits.
    any: bool,
}

impl OwnedQueue {
    fn new(device: &Arc<Device>, capacity: c_int) -> Result<Self, Error> {
        let channel = Channel::new(device)?;
        let mut broken = Box::new(AtomicBool::new(false));
        let context: *mut Broken = &mut *broken;
        // SAFETY: device and channel are open and outlive the queue; its context, which only
        // `events` reads, lives in the same owner and is freed after it.
        let raw = unsafe {
            channel.verbs().ibv_create_cq(
                device.context(),
                capacity,
                context.cast(),
                channel.raw.as_ptr(),
                0,
            )
        };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last_os("ibv_create_cq"))?;
        Ok(Self { raw, broken, channel })
    }
}

impl Drop for OwnedQueue {
    fn drop(&mut self) {
        // SAFETY: created in `new` and destroyed once; queue pairs hold the owner, and all events
        // that were taken are acknowledged, for which this call would wait.
        let answer = unsafe { self.channel.verbs().ibv_destroy_cq(self.raw.as_ptr()) };
        warn_if_failed(library::check("ibv_destroy_cq", answer));
    }
}

impl Channel {
    fn new(device: &Arc<Device>) -> Result<Self, Error> {
        // SAFETY: the device is open.
        let raw = unsafe { device.verbs().ibv_create_comp_channel(device.context()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last_os("ibv_create_comp_channel"))?;
        let channel = Self { raw, device: Arc::clone(device) };
        events::set_non_blocking(channel.fd(), "completion channel")?;
        Ok(channel)
    }

    fn verbs(&self) -> &'static Verbs {
        self.device.verbs()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the channel is alive, and its descriptor is open as long as it is.
        unsafe { BorrowedFd::borrow_raw((*self.raw.as_ptr()).fd) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // SAFETY: created in `new` and destroyed once, after the only queue on it.
        let answer = unsafe { self.verbs().ibv_destroy_comp_channel(self.raw.as_ptr()) };
        warn_if_failed(library::check("ibv_destroy_comp_channel", answer));
    }
}

impl CompletionQueue {
    pub(super) fn new(device: &Arc<Device>, capacity: u32) -> Result<Self, Error> {
        let limit = device.attributes.max_completions;
        let entries = c_int::try_from(capacity).ok().filter(|_| (1..=limit).contains(&capacity));
        let entries = entries.ok_or_else(|| Error::Invalid {
            operation: "create_completion_queue",
            reason: format!("capacity {capacity} is not from 1 to {limit}"),
        })?;
        // SAFETY: the context is open; drivers fill its table once, before that.
        let ops = unsafe { &raw const (*device.context()).ops };
        // SAFETY: as above.
        let (poll, arm) = unsafe { ((*ops).poll_cq, (*ops).req_notify_cq) };
        let (Some(poll), Some(arm)) = (poll, arm) else {
            return Err(device.unsupported("poll completion queues"));
        };
        let owner = Arc::new(OwnedQueue::new(device, entries)?);
        let scratch = Box::new([const { MaybeUninit::uninit() }; BATCH]);
        Ok(Self { owner, poll, arm, pending: Pending::default(), scratch })
    }

    /// For queue pairs, which keep it alive.
    pub(super) fn owner(&self) -> &Arc<OwnedQueue> {
        &self.owner
    }

    fn arm_for(&mut self, solicited_only: bool) -> Result<(), Error> {
        if self.pending.any {
            // An event will come, or one makes the descriptor readable until it is taken.
            return Ok(());
        }
        // SAFETY: the queue is alive.
        let answer = unsafe { (self.arm)(self.owner.raw.as_ptr(), solicited_only.into()) };
        library::check("ibv_req_notify_cq", answer)?;
        self.pending = Pending { most: self.pending.most.saturating_add(1), any: !solicited_only };
        Ok(())
    }

    fn broken() -> Error {
        Error::errno("ibv_poll_cq", EIO)
            .advise("; the completion queue overflowed or the device is gone")
    }
}

impl crate::CompletionQueue for CompletionQueue {
    fn poll(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Error> {
        let mut filled = 0;
        while filled < out.len() {
            let wanted = (out.len() - filled).min(BATCH);
            // SAFETY: the queue is alive, and there is room for `wanted` (at most 32) entries.
            let found = unsafe {
                (self.poll)(
                    self.owner.raw.as_ptr(),
                    wanted as c_int,
                    self.scratch.as_mut_ptr().cast(),
                )
            };
            let Ok(found) = usize::try_from(found) else {
                return if filled > 0 { Ok(filled) } else { Err(Self::broken()) };
            };
            let found = found.min(wanted);
            for (place, raw) in out[filled..].iter_mut().zip(&self.scratch[..found]) {
                // SAFETY: the driver filled the first `found` entries.
                *place = work_completion::translate(unsafe { raw.assume_init_ref() });
            }
            filled += found;
            if found < wanted {
                break;
            }
        }
        if filled == 0 && self.owner.broken.load(Ordering::Acquire) {
            return Err(Self::broken());
        }
        Ok(filled)
    }

    fn arm(&mut self) -> Result<(), Error> {
        self.arm_for(false)
    }

    fn arm_solicited(&mut self) -> Result<(), Error> {
        self.arm_for(true)
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.owner.channel.fd()
    }

    fn drain_events(&mut self) -> Result<(), Error> {
        let channel = &self.owner.channel;
        let mut taken = 0;
        let result = loop {
            if taken == self.pending.most {
                break Ok(());
            }
            let (mut queue, mut context) = (ptr::null_mut(), ptr::null_mut());
            // SAFETY: the channel is alive and non-blocking.
            let answer = unsafe {
                channel.verbs().ibv_get_cq_event(channel.raw.as_ptr(), &mut queue, &mut context)
            };
            if answer == 0 {
                taken += 1;
                continue;
            }
            match events::interrupted("ibv_get_cq_event") {
                Interrupted::NothingThere => break Ok(()),
                Interrupted::TryAgain => {}
                Interrupted::Failed(error) => break Err(error),
            }
        };
        if taken > 0 {
            // One event may answer several requests: what was not found does not count on.
            self.pending = Pending::default();
            // SAFETY: this queue is the only one on the channel, so all events were its own.
            unsafe { channel.verbs().ibv_ack_cq_events(self.owner.raw.as_ptr(), taken) };
        }
        result
    }
}

impl fmt::Debug for CompletionQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("rdma::CompletionQueue").finish_non_exhaustive()
    }
}
