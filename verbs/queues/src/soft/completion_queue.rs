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

    pub(super) fn add(&self, queue_pair: &(impl Into<Member> + Clone)) {
        locked(&self.queue_pairs).push(queue_pair.clone().into());
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
    Connection(Arc<connection::Shared>),
    Datagrams(Arc<datagram::Shared>),
}

impl From<Arc<connection::Shared>> for Member {
    fn from(queue_pair: Arc<connection::Shared>) -> Self {
        Self::Connection(queue_pair)
    }
}

impl From<Arc<datagram::Shared>> for Member {
    fn from(queue_pair: Arc<datagram::Shared>) -> Self {
        Self::Datagrams(queue_pair)
    }
}

impl Member {
    fn number(&self) -> u32 {
        match self {
            Self::Connection(queue_pair) => queue_pair.number,
            Self::Datagrams(queue_pair) => queue_pair.number,
        }
    }

    fn is_delayed(&self) -> bool {
        match self {
            Self::Connection(queue_pair) => queue_pair.is_delayed(),
            Self::Datagrams(queue_pair) => queue_pair.is_delayed(),
        }
    }

    /// Takes out what completes on `queue`.
    #[inline]
    fn poll(&self, queue: &Completions, out: &mut [WorkCompletion]) -> usize {
        match self {
            Self::Connection(queue_pair) if queue_pair.needs_poll(queue) => {
                queue_pair.poll(queue, out)
            }
            Self::Datagrams(queue_pair) if queue_pair.needs_poll() => queue_pair.poll(queue, out),
            _ => 0,
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
        let version = self.shared.version.load(Ordering::Acquire);
        if version != self.version {
            self.queue_pairs.clone_from(&locked(&self.shared.queue_pairs));
            self.version = version;
        }
    }
}

impl crate::CompletionQueue for CompletionQueue {
    fn poll(&mut self, out: &mut [WorkCompletion]) -> Result<usize, Error> {
        if self.shared.broken.load(Ordering::Relaxed) {
            let source = std::io::Error::other("more completed than the completion queue holds");
            let hint = "; make it as large as all that can be outstanding on its queue pairs";
            return Err(Error::Os { operation: "polling a completion queue", source, hint });
        }
        self.refresh();
        let count = self.queue_pairs.len();
        let mut found = 0;
        for _ in 0..count {
            if self.next >= count {
                self.next = 0;
            }
            if found == out.len() {
                break;
            }
            let queue_pair = &self.queue_pairs[self.next];
            self.next += 1;
            found += queue_pair.poll(&self.shared, &mut out[found..]);
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
