//! Shared receive queues.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};

use super::completion_queue::Completions;
use super::device::Device;
use super::lock::SpinLock;
use super::service::Service;
use crate::context::AsyncEvent;
use crate::error::{Error, PostError, PostFailure};
use crate::work::ReceiveRequest;

/// The part of a shared receive queue that its queue pairs keep. Lock order: a queue pair, then this.
#[derive(Debug)]
pub(super) struct SharedReceives {
    state: SpinLock<State>,
    device: Arc<Device>,
}

#[derive(Debug)]
struct State {
    requests: VecDeque<ReceiveRequest>,
    capacity: usize,
    limit: usize,
    /// Queues of messages that found no receive here.
    waiting: Vec<Arc<Completions>>,
}

impl SharedReceives {
    /// Takes the oldest request.
    #[inline]
    pub(super) fn take(&self) -> Option<ReceiveRequest> {
        let mut state = self.state.lock();
        let request = state.requests.pop_front()?;
        if state.requests.len() < state.limit {
            state.limit = 0;
            self.device.raise(AsyncEvent::ReceiveQueueLimit);
        }
        Some(request)
    }

    /// Wakes `queue` when there is a request again.
    pub(super) fn wake_when_posted(&self, queue: &Arc<Completions>) {
        let mut state = self.state.lock();
        if !state.waiting.iter().any(|waiting| Arc::ptr_eq(waiting, queue)) {
            state.waiting.push(queue.clone());
        }
    }
}

/// A shared receive queue of a NIC in memory.
#[derive(Debug)]
pub struct SharedReceiveQueue {
    pub(super) shared: Arc<SharedReceives>,
    _service: Arc<Service>,
}

impl SharedReceiveQueue {
    pub(super) fn new(service: &Arc<Service>, capacity: u32) -> Self {
        let capacity = capacity as usize;
        let state = State {
            // Grows with what is posted: a ring of the whole capacity would be touched all over.
            requests: VecDeque::new(),
            capacity,
            limit: 0,
            waiting: Vec::new(),
        };
        let device = service.device.clone();
        let shared = Arc::new(SharedReceives { state: SpinLock::new(state), device });
        Self { shared, _service: service.clone() }
    }
}

impl crate::SharedReceiveQueue for SharedReceiveQueue {
    unsafe fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
        let mut state = self.shared.state.lock();
        let room = state.capacity - state.requests.len();
        let posted = requests.len().min(room);
        state.requests.extend(&requests[..posted]);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        if !waiting.is_empty() {
            // The posted requests before the loads of the arm words: see `arm`.
            fence(Ordering::SeqCst);
            waiting.iter().for_each(|queue| queue.alarm.notify_if_armed());
        }
        if posted < requests.len() {
            return Err(PostError { posted, reason: PostFailure::QueueFull });
        }
        Ok(())
    }

    fn arm_limit(&mut self, limit: u32) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        state.limit = limit as usize;
        if state.requests.len() < state.limit {
            state.limit = 0;
            self.shared.device.raise(AsyncEvent::ReceiveQueueLimit);
        }
        Ok(())
    }

    fn close(self) -> Result<(), Error> {
        Ok(())
    }
}
