//! Much at once.

use std::time::Instant;

use super::Check;
use super::bench::{Chance, PATIENCE, Pair, Side, ensure, expect_success, request, say};
use crate::queue_pair::{ConnectOptions, QueuePairInit, Service};
use crate::work::{LocalSlice, ReceiveRequest, SendOperation, WorkCompletion};
use crate::{CompletionQueue as _, Context, MemoryRegion as _, QueuePair as _};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("stress: both directions, random sizes, two threads", both_directions),
        ("stress: 32 queue pairs on one completion queue", many_queue_pairs),
    ]
}

const MESSAGES: u64 = 400;
const WINDOW: u64 = 16;
const SLOT: usize = 64 << 10;
/// Most bytes of a message that is written.
const WRITTEN: usize = 8 << 10;
const RECEIVES: u64 = 1 << 32;

/// Length and kind of message `i`, known to both sides.
fn message(i: u64) -> (usize, bool) {
    let mut chance = Chance::new(i + 1);
    let write = chance.below(3) == 0;
    let length = match chance.below(4) {
        0 => chance.below(64),
        1 => chance.below(4096),
        _ if write => chance.below(WRITTEN),
        _ => chance.below(32 << 10),
    };
    (length, write)
}

/// Sends all messages (some as WRITE and SEND) and checks all that come.
fn converse<C: Context>(side: &mut Side<C>, peer_base: u64, peer_key: u32) -> Result<(), String> {
    let (mut sent, mut completed, mut received) = (0u64, 0u64, 0u64);
    let place = |i: u64| (i % WINDOW) as usize * SLOT;
    // Sources, receives, and then a place of its own for each message that is written.
    let receives = WINDOW as usize * SLOT;
    let written = |i: u64| 2 * WINDOW as usize * SLOT + i as usize * WRITTEN;
    let deadline = Instant::now() + 6 * PATIENCE;
    while completed < MESSAGES || received < MESSAGES {
        if sent < MESSAGES && sent < completed + WINDOW {
            let (length, write) = message(sent);
            side.fill(place(sent), length, sent);
            let slices = [side.slice(place(sent), length)];
            let announce = SendOperation::SendWithImmediate(sent as u32);
            let posted = if write {
                let address = peer_base + written(sent) as u64;
                let key = crate::RemoteKey(peer_key);
                let mut put = request(sent, SendOperation::Write { address, key }, &slices);
                put.signaled = false;
                side.try_send(&[put, request(sent, announce, &[])])
            } else {
                side.try_send(&[request(sent, announce, &slices)])
            };
            posted.map_err(say("post_send"))?;
            sent += 1;
        }
        side.poll()?;
        for completion in side.take_all() {
            expect_success(&completion)?;
            if completion.id < RECEIVES {
                ensure!(completion.id == completed, "order: {completion:?} after {completed}");
                completed += 1;
                continue;
            }
            let i = completion.id - RECEIVES;
            ensure!(i == received, "receive {i} after {received}");
            ensure!(completion.immediate == Some(i as u32), "{completion:?}");
            let (length, write) = message(i);
            if write {
                side.check(written(i), length, i)?;
            } else {
                ensure!(completion.bytes as usize == length, "{completion:?}, not {length}");
                side.check(receives + place(i), length, i)?;
            }
            received += 1;
            let next = i + WINDOW;
            side.receive(RECEIVES + next, &[side.slice(receives + place(next), SLOT)])?;
        }
        ensure!(
            Instant::now() < deadline,
            "{sent} sent, {completed} completed, {received} received of {MESSAGES}"
        );
        std::thread::yield_now();
    }
    Ok(())
}

fn both_directions<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let Pair { mut a, mut b } = Pair::new(a, b)?;
    for side in [&mut a, &mut b] {
        for i in 0..WINDOW {
            let at = (WINDOW + i) as usize * SLOT;
            side.receive(RECEIVES + i, &[side.slice(at, SLOT)])?;
        }
    }
    let of = |side: &Side<C>| (side.memory.remote_address(), side.memory.remote_key().0);
    let (of_a, of_b) = (of(&a), of(&b));
    std::thread::scope(|scope| {
        let other = scope.spawn(|| converse(&mut b, of_a.0, of_a.1));
        let ours = converse(&mut a, of_b.0, of_b.1);
        let others = other.join().map_err(|_| "a thread panicked".to_owned())?;
        ours.and(others)
    })
}

const COUNT: usize = 32;
const EACH: u32 = 20;

struct Crowd<C: Context> {
    queue_pairs: Vec<C::QueuePair>,
    queue: C::CompletionQueue,
    memory: C::MemoryRegion,
}

impl<C: Context> Crowd<C> {
    fn new(context: &C) -> Result<Self, String> {
        let queue = context.create_completion_queue(16 * COUNT as u32).map_err(say("queue"))?;
        let memory =
            context.alloc(64 * COUNT, crate::Access::LOCAL_WRITE).map_err(say("memory"))?;
        let init = QueuePairInit {
            service: Service::ReliableConnection,
            send_queue: &queue,
            receive_queue: &queue,
            shared_receive_queue: None,
            send_capacity: 8,
            receive_capacity: 8,
            inline_bytes: 0,
        };
        let queue_pairs = (0..COUNT)
            .map(|_| context.create_queue_pair(&init).map_err(say("queue pair")))
            .collect::<Result<_, _>>()?;
        Ok(Self { queue_pairs, queue, memory })
    }

    fn slice(&self, i: usize) -> LocalSlice {
        let address = self.memory.as_ptr().as_ptr() as u64 + 64 * i as u64;
        LocalSlice { address, length: 64, local_key: self.memory.local_key() }
    }

    fn receive(&mut self, i: usize) -> Result<(), String> {
        let local = super::bench::slices_of(&[self.slice(i)]);
        let request = ReceiveRequest { id: i as u64, local };
        // SAFETY: the memory lives as long as the queue pairs, in this struct.
        unsafe { self.queue_pairs[i].post_receive(&[request]) }.map_err(say("post_receive"))
    }

    fn send(&mut self, i: usize, round: u32) -> Result<(), String> {
        let operation = SendOperation::SendWithImmediate(round);
        let send = request(1000 + i as u64, operation, &[self.slice(i)]);
        // SAFETY: as in `receive`.
        unsafe { self.queue_pairs[i].post_send(&[send]) }.map_err(say("post_send"))
    }

    fn poll(&mut self) -> Result<Vec<WorkCompletion>, String> {
        let mut batch = [WorkCompletion::default(); 16];
        let found = self.queue.poll(&mut batch).map_err(say("poll"))?;
        batch[..found].iter().try_for_each(expect_success)?;
        Ok(batch[..found].to_vec())
    }
}

fn many_queue_pairs<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let (mut a, mut b) = (Crowd::new(a)?, Crowd::new(b)?);
    for (left, right) in a.queue_pairs.iter_mut().zip(&mut b.queue_pairs) {
        let options = ConnectOptions::default();
        left.connect(&right.endpoint(), &options).map_err(say("connect"))?;
        right.connect(&left.endpoint(), &options).map_err(say("connect"))?;
    }
    for i in 0..COUNT {
        b.receive(i)?;
        a.send(i, 0)?;
    }
    let (mut sent, mut received) = ([0; COUNT], [0; COUNT]);
    let deadline = Instant::now() + 2 * PATIENCE;
    while received.iter().sum::<u32>() < EACH * COUNT as u32 {
        for completion in b.poll()? {
            let i = completion.id as usize;
            ensure!(completion.immediate == Some(received[i]), "{completion:?}");
            ensure!(completion.queue_pair == b.queue_pairs[i].number(), "{completion:?}");
            received[i] += 1;
            b.receive(i)?;
        }
        for completion in a.poll()? {
            let i = completion.id as usize - 1000;
            ensure!(completion.queue_pair == a.queue_pairs[i].number(), "{completion:?}");
            sent[i] += 1;
            if sent[i] < EACH {
                a.send(i, sent[i])?;
            }
        }
        ensure!(Instant::now() < deadline, "received {received:?} of {EACH} each");
        std::thread::yield_now();
    }
    Ok(())
}
