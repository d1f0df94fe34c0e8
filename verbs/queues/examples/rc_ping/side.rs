//! One end of a connection, with memory for one message each way.

use std::time::{Duration, Instant};

use netchannel_verbs::queue_pair::{QueuePairInit, Service};
use netchannel_verbs::rdma::{self, OpenOptions};
use netchannel_verbs::work::{Opcode, SendOperation, Slices};
use netchannel_verbs::{
    Access, CompletionQueue, Context, LocalSlice, MemoryRegion, QueuePair, ReceiveRequest,
    SendRequest, WorkCompletion,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{Failure, Options};

/// A completion that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// One end of the connection. The first half of the memory is the source, the second the sink.
pub(crate) struct Side {
    pub(crate) pair: rdma::QueuePair,
    queue: rdma::CompletionQueue,
    pub(crate) memory: rdma::MemoryRegion,
    pub(crate) half: usize,
    events: bool,
}

impl Side {
    pub(crate) fn new(device: &str, options: &Options) -> Result<Self, Failure> {
        let context = rdma::Context::open(device, &OpenOptions::default())?;
        let half = options.bytes.max(1);
        let memory = context.alloc(2 * half, Access::all())?;
        let queue = context.create_completion_queue(16)?;
        let pair = context.create_queue_pair(&QueuePairInit {
            service: Service::ReliableConnection,
            send_queue: &queue,
            receive_queue: &queue,
            shared_receive_queue: None,
            send_capacity: 4,
            receive_capacity: 4,
            inline_bytes: 0,
        })?;
        Ok(Self { pair, queue, memory, half, events: options.events })
    }

    fn slice(&self, offset: usize, length: usize) -> Slices {
        Slices::one(LocalSlice {
            address: self.memory.as_ptr().addr().get() as u64 + offset as u64,
            length: length as u32,
            local_key: self.memory.local_key(),
        })
    }

    pub(crate) fn receive(&mut self) -> Result<(), Failure> {
        let request = ReceiveRequest { id: 0, local: self.slice(self.half, self.half) };
        // SAFETY: the memory lives as long as the queue pair, and the sink is read only after the
        // completion.
        unsafe { self.pair.post_receive(&[request])? };
        Ok(())
    }

    pub(crate) fn send(&mut self, operation: SendOperation, bytes: usize) -> Result<(), Failure> {
        let sink = matches!(operation, SendOperation::Read { .. });
        let local = self.slice(if sink { self.half } else { 0 }, bytes);
        let request = SendRequest {
            id: 1,
            operation,
            local,
            signaled: true,
            inline: false,
            solicited: false,
        };
        // SAFETY: the memory lives as long as the queue pair; the source is written again only
        // after an answer, the sink is read only after the completion.
        unsafe { self.pair.post_send(&[request])? };
        Ok(())
    }

    /// Polls until a completion with this opcode; others must be of earlier SENDs.
    pub(crate) fn wait(&mut self, wanted: Opcode) -> Result<WorkCompletion, Failure> {
        let start = Instant::now();
        let mut out = [WorkCompletion::default()];
        let mut armed = false;
        loop {
            while self.queue.poll(&mut out)? == 1 {
                match out[0] {
                    done if !done.status.is_success() => return Err(format!("{done:?}").into()),
                    done if done.opcode == wanted => return Ok(done),
                    done if done.opcode == Opcode::Send => {}
                    other => return Err(format!("unexpected {other:?}").into()),
                }
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("no {wanted:?} completion within {PATIENCE:?}").into());
            }
            match (self.events, armed) {
                (false, _) => std::thread::yield_now(),
                (true, false) => self.queue.arm()?,
                (true, true) => self.sleep()?,
            }
            armed = self.events && !armed;
        }
    }

    /// Sleeps until the armed queue has an event.
    fn sleep(&mut self) -> Result<(), Failure> {
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.queue.event_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&timeout))?;
        Ok(self.queue.drain_events()?)
    }

    fn pattern(round: u32, at: usize) -> u8 {
        (round as usize * 31 + at) as u8
    }

    pub(crate) fn fill(&self, round: u32) {
        for at in 0..self.half {
            // SAFETY: within the first half; no request uses the source now.
            unsafe { self.memory.as_ptr().add(at).write(Self::pattern(round, at)) };
        }
    }

    pub(crate) fn check(&self, round: u32, bytes: usize) -> Result<(), Failure> {
        for at in 0..bytes.min(self.half) {
            // SAFETY: within the second half; the request that filled it has completed.
            let found = unsafe { self.memory.as_ptr().add(self.half + at).read() };
            if found != Self::pattern(round, at) {
                return Err(format!("byte {at} of round {round} is {found:#x}").into());
            }
        }
        Ok(())
    }
}
