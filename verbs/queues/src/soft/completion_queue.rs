//! Completion queues. The queue itself holds nothing: each queue pair keeps its completions in its own
//! private state, and polling moves its bytes, matches its receives and takes them out.

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::arm::Alarm;
use super::connection;
use super::datagram;
use super::device::{Device, locked};
use super::service::Service;
use super::shared_memory_failed;
use crate::context::AsyncEvent;
use crate::error::Error;
use crate::work::WorkCompletion;

/// The part of a completion queue that its queue pairs keep.
#[derive(Debug)]
pub(super) struct Completions {
    pub(super) alarm: Alarm,
    queue_pairs: Mutex<Vec<Member>>,
    /// Changes with `queue_pairs`.
    version: AtomicU64,
    /// Completions that the queue pairs keep for it, and how many a NIC would have room for.
    kept: AtomicUsize,
    capacity: usize,
    broken: AtomicBool,
}

impl Completions {
    /// A queue pair keeps `now` completions for this queue, and kept `before`.
    #[inline]
    pub(super) fn keep(&self, device: &Device, before: usize, now: usize) {
        if now == before {
            return;
        }
        if now < before {
            self.kept.fetch_sub(before - now, Ordering::Relaxed);
        } else if self.kept.fetch_add(now - before, Ordering::Relaxed) + now - before
            > self.capacity
            && !self.broken.swap(true, Ordering::Relaxed)
        {
            device.raise(AsyncEvent::CompletionQueueFatal);
        }
    }

    pub(super) fn add(&self, member: Member) {
        locked(&self.queue_pairs).push(member);
        self.version.fetch_add(1, Ordering::Release);
    }

    pub(super) fn remove(&self, number: u32) {
        locked(&self.queue_pairs).retain(|queue_pair| queue_pair.number() != number);
        self.version.fetch_add(1, Ordering::Release);
    }
}

/// A queue pair that completes here.
#[derive(Clone, Debug)]
pub(super) enum Member {
    Connection(Arc<connection::Shared>, Takes),
    Datagrams(Arc<datagram::Shared>),
}

/// Which completions of a queue pair a completion queue takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Takes {
    pub(super) sends: bool,
    pub(super) receives: bool,
}

/// Where a poll puts completions.
#[derive(Debug)]
pub(super) struct Polled<'a> {
    out: &'a mut [WorkCompletion],
    found: usize,
}

impl<'a> Polled<'a> {
    pub(super) fn new(out: &'a mut [WorkCompletion]) -> Self {
        Self { out, found: 0 }
    }

    /// For work that another queue's poll, or posting, brings on: it has room for none.
    pub(super) fn nowhere() -> Self {
        Self { out: &mut [], found: 0 }
    }

    #[inline]
    pub(super) fn has_room(&self) -> bool {
        self.found < self.out.len()
    }

    /// There must be room.
    #[inline]
    pub(super) fn push(&mut self, completion: WorkCompletion) {
        self.out[self.found] = completion;
        self.found += 1;
    }

    /// The places that are left; `fill` says how many it filled.
    #[inline]
    pub(super) fn fill(&mut self, fill: impl FnOnce(&mut [WorkCompletion]) -> usize) {
        self.found += fill(&mut self.out[self.found..]);
    }

    pub(super) fn found(&self) -> usize {
        self.found
    }
}

impl Member {
    fn number(&self) -> u32 {
        match self {
            Self::Connection(queue_pair, _) => queue_pair.number,
            Self::Datagrams(queue_pair) => queue_pair.number,
        }
    }

    fn is_delayed(&self) -> bool {
        match self {
            Self::Connection(queue_pair, _) => queue_pair.is_delayed(),
            Self::Datagrams(queue_pair) => queue_pair.is_delayed(),
        }
    }

    /// Whether a poll might find anything.
    #[inline]
    fn needs_poll(&self) -> bool {
        match self {
            Self::Connection(queue_pair, takes) => queue_pair.needs_poll(*takes),
            Self::Datagrams(queue_pair) => queue_pair.needs_poll(),
        }
    }

    /// Takes out what completes on `queue`.
    #[inline]
    fn poll(&self, queue: &Completions, out: &mut [WorkCompletion]) -> usize {
        match self {
            Self::Connection(queue_pair, takes) => queue_pair.poll(queue, *takes, out),
            Self::Datagrams(queue_pair) => queue_pair.poll(queue, out),
        }
    }
}

/// A completion queue of a NIC in memory.
#[derive(Debug)]
pub struct CompletionQueue {
    pub(super) shared: Arc<Completions>,
    /// A copy of `shared.queue_pairs` as of `version`, so that polling takes no lock for it.
    queue_pairs: Vec<Member>,
    version: u64,
    /// Where the next poll begins, so that no queue pair starves the others.
    next: usize,
    _service: Arc<Service>,
}

impl CompletionQueue {
    pub(super) fn new(service: &Arc<Service>, capacity: u32) -> Result<Self, Error> {
        let alarm = Alarm::new().map_err(shared_memory_failed("making a completion queue"))?;
        let shared = Arc::new(Completions {
            alarm,
            queue_pairs: Mutex::default(),
            version: AtomicU64::new(0),
            kept: AtomicUsize::new(0),
            capacity: capacity as usize,
            broken: AtomicBool::new(false),
        });
        service.device.add_completion_queue(&shared);
        let _service = service.clone();
        Ok(Self { shared, queue_pairs: Vec::new(), version: 0, next: 0, _service })
    }

    fn arm_for(&mut self, solicited_only: bool) {
        self.shared.alarm.arm(solicited_only);
        self.refresh();
        // Work that waits for its time is done by polling alone, so there is no sleeping on it.
        if self.queue_pairs.iter().any(|queue_pair| queue_pair.is_delayed()) {
            self.shared.alarm.notify();
        }
    }

    #[inline]
    fn refresh(&mut self) {
        if self.shared.version.load(Ordering::Acquire) != self.version {
            self.copy_members();
        }
    }

    #[cold]
    fn copy_members(&mut self) {
        self.version = self.shared.version.load(Ordering::Acquire);
        self.queue_pairs.clone_from(&locked(&self.shared.queue_pairs));
        self.next = 0;
    }
}

#[cold]
fn overrun() -> Error {
    let source = std::io::Error::other("more completed than the completion queue holds");
    let hint = "; make it as large as all that can be outstanding on its queue pairs";
    Error::Os { operation: "polling a completion queue", source, hint }
}

impl crate::CompletionQueue for CompletionQueue {
    fn poll(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Error> {
        if self.shared.broken.load(Ordering::Relaxed) {
            return Err(overrun());
        }
        self.refresh();
        let (after, before) = self.queue_pairs.split_at(self.next);
        let mut found = 0;
        for (at, queue_pair) in before.iter().chain(after).enumerate() {
            if queue_pair.needs_poll() {
                if found == out.len() {
                    self.next = (self.next + at) % self.queue_pairs.len();
                    break;
                }
                found += queue_pair.poll(&self.shared, &mut out[found..]);
            }
        }
        Ok(found)
    }

    fn arm(&mut self) -> Result<(), Error> {
        self.arm_for(false);
        Ok(())
    }

    fn arm_solicited(&mut self) -> Result<(), Error> {
        self.arm_for(true);
        Ok(())
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.shared.alarm.fd()
    }

    fn drain_events(&mut self) -> Result<(), Error> {
        self.shared.alarm.drain().map_err(shared_memory_failed("draining completion events"))
    }
}
