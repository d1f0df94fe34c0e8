//! Shared receive queues.

use std::time::{Duration, Instant};

use super::Check;
use super::bench::{
    DEPTH, PATIENCE, Side, ensure, expect_success, pattern, request, say, slices_of,
};
use crate::completion::CompletionQueue as _;
use crate::context::AsyncEvent;
use crate::queue_pair::{ConnectOptions, QueuePairInit, Service, SharedReceiveQueue as _};
use crate::work::{ReceiveRequest, SendOperation, WorkCompletion};
use crate::{Context, MemoryRegion as _, QueuePair as _};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("shared receives: several queue pairs take from one", shared),
        ("shared receives: the limit event", limit),
        ("shared receives: not through the queue pair", not_through_queue_pair),
    ]
}

/// A receiver with one shared queue and some queue pairs, each connected to a side of its own.
struct Many<C: Context> {
    sides: Vec<Side<C>>,
    queue_pairs: Vec<C::QueuePair>,
    queue: C::CompletionQueue,
    receives: C::SharedReceiveQueue,
    memory: C::MemoryRegion,
}

const SLOT: usize = 256;

impl<C: Context> Many<C> {
    fn new(a: &C, b: &C, count: usize) -> Result<Self, String> {
        let queue = b.create_completion_queue(4 * DEPTH).map_err(say("completion queue"))?;
        let receives = b.create_shared_receive_queue(DEPTH).map_err(say("shared queue"))?;
        let memory =
            b.alloc(SLOT * DEPTH as usize, crate::Access::LOCAL_WRITE).map_err(say("memory"))?;
        let mut many = Self { sides: Vec::new(), queue_pairs: Vec::new(), queue, receives, memory };
        for _ in 0..count {
            let mut queue_pair = b
                .create_queue_pair(&QueuePairInit {
                    service: Service::ReliableConnection,
                    send_queue: &many.queue,
                    receive_queue: &many.queue,
                    shared_receive_queue: Some(&many.receives),
                    send_capacity: DEPTH,
                    receive_capacity: 0,
                    inline_bytes: 0,
                })
                .map_err(say("queue pair"))?;
            let mut side = Side::new(a)?;
            let options = ConnectOptions::default();
            queue_pair.connect(&side.queue_pair.endpoint(), &options).map_err(say("connect"))?;
            side.queue_pair.connect(&queue_pair.endpoint(), &options).map_err(say("connect"))?;
            many.queue_pairs.push(queue_pair);
            many.sides.push(side);
        }
        Ok(many)
    }

    fn receive(&mut self, slot: u64) -> Result<(), String> {
        let address = self.memory.as_ptr().as_ptr() as u64 + slot * SLOT as u64;
        let slice =
            crate::LocalSlice { address, length: SLOT as u32, local_key: self.memory.local_key() };
        let request = ReceiveRequest { id: slot, local: slices_of(&[slice]) };
        // SAFETY: the memory lives as long as the queues, in this struct.
        unsafe { self.receives.post_receive(&[request]) }.map_err(say("post_receive"))
    }

    fn poll(&mut self) -> Result<Vec<WorkCompletion>, String> {
        for side in &mut self.sides {
            side.poll()?;
        }
        let mut batch = [WorkCompletion::default(); 8];
        let found = self.queue.poll(&mut batch).map_err(say("poll"))?;
        Ok(batch[..found].to_vec())
    }
}

fn shared<C: Context>(a: &C, b: &C) -> Result<(), String> {
    const COUNT: usize = 4;
    const MESSAGES: usize = 100;
    let mut many = Many::new(a, b, COUNT)?;
    for slot in 0..u64::from(DEPTH) {
        many.receive(slot)?;
    }
    let mut posted = [0; COUNT];
    let mut arrived = [0u32; COUNT];
    let deadline = Instant::now() + 2 * PATIENCE;
    while arrived.iter().sum::<u32>() < (COUNT * MESSAGES) as u32 {
        for (i, side) in many.sides.iter_mut().enumerate() {
            for completion in side.take_all() {
                expect_success(&completion)?;
            }
            if posted[i] < MESSAGES && posted[i] < arrived[i] as usize + 8 {
                let at = SLOT * (posted[i] % 16);
                side.fill(at, 100 + i, (1000 * i + posted[i]) as u64);
                let operation = SendOperation::SendWithImmediate(posted[i] as u32);
                side.send(request(posted[i] as u64, operation, &[side.slice(at, 100 + i)]))?;
                posted[i] += 1;
            }
        }
        for completion in many.poll()? {
            expect_success(&completion)?;
            let number = completion.queue_pair;
            let i = many.queue_pairs.iter().position(|queue_pair| queue_pair.number() == number);
            let i = i.ok_or(format!("queue pair {number} is not one of ours"))?;
            ensure!(completion.immediate == Some(arrived[i]), "order: {completion:?}");
            let seed = u64::from(1000 * i as u32 + arrived[i]);
            let bytes: Vec<u8> = (0..100 + i)
                // SAFETY: in bounds; the slot is ours since its receive completed.
                .map(|at| unsafe {
                    let slot = many.memory.as_ptr().as_ptr().add(completion.id as usize * SLOT);
                    slot.add(at).read_volatile()
                })
                .collect();
            ensure!(bytes.iter().copied().eq(pattern(seed).take(100 + i)), "wrong bytes from {i}");
            arrived[i] += 1;
            many.receive(completion.id)?;
        }
        ensure!(Instant::now() < deadline, "arrived: {arrived:?} of {MESSAGES} each");
        std::thread::yield_now();
    }
    Ok(())
}

fn limit<C: Context>(a: &C, b: &C) -> Result<(), String> {
    while b.poll_event().map_err(say("poll_event"))?.is_some() {}
    let mut many = Many::new(a, b, 1)?;
    for slot in 0..8 {
        many.receive(slot)?;
    }
    many.receives.arm_limit(4).map_err(say("arm_limit"))?;
    let reached = |event: Option<AsyncEvent>| event == Some(AsyncEvent::ReceiveQueueLimit);
    for sent in 1..=6u64 {
        let side = &mut many.sides[0];
        side.send(request(sent, SendOperation::Send, &[side.slice(0, 8)]))?;
        let deadline = Instant::now() + PATIENCE;
        while many.poll()?.is_empty() {
            ensure!(Instant::now() < deadline, "message {sent} did not arrive");
        }
        if sent < 5 {
            let event = b.poll_event().map_err(say("poll_event"))?;
            ensure!(!reached(event), "the event came with {} receives left", 8 - sent);
        }
    }
    let deadline = Instant::now() + PATIENCE;
    while !reached(b.poll_event().map_err(say("poll_event"))?) {
        ensure!(Instant::now() < deadline, "no event with two receives left and a limit of four");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn not_through_queue_pair<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut many = Many::new(a, b, 1)?;
    let request = ReceiveRequest { id: 1, local: slices_of(&[]) };
    // SAFETY: there are no slices.
    let result = unsafe { many.queue_pairs[0].post_receive(&[request]) };
    ensure!(result.is_err(), "a queue pair with a shared receive queue took a receive");
    Ok(())
}
