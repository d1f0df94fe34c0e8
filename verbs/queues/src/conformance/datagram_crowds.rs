//! Datagrams from many and many datagrams. A link may lose some (that is allowed).

use std::time::Instant;

use super::Check;
use super::bench::{
    Chance, DEPTH, PATIENCE, Pair, Side, ensure, expect_success, pattern, request, say, slices_of,
};
use super::datagrams::{GRH, INBOX, KEY_A, KEY_B, LOST, Talk, Way};
use crate::datagram::{DatagramEndpoint, DatagramOptions};
use crate::queue_pair::{QueuePairInit, Service};
use crate::work::{Opcode, ReceiveRequest, SendOperation, WorkCompletion};
use crate::{
    CompletionQueue as _, Context, LocalSlice, MemoryRegion as _, QueuePair as _,
    SharedReceiveQueue as _,
};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("datagram: many senders, one shared queue", shared),
        ("datagram: both directions, two threads", both_directions),
    ]
}

const SENDERS: usize = 3;
const EACH: u32 = 30;
const SLOT: usize = 256;

/// Two queue pairs with one shared queue of receives.
struct Crowd<C: Context> {
    queue_pairs: Vec<C::QueuePair>,
    queue: C::CompletionQueue,
    receives: C::SharedReceiveQueue,
    memory: C::MemoryRegion,
}

impl<C: Context> Crowd<C> {
    fn new(context: &C) -> Result<Self, String> {
        let queue = context.create_completion_queue(4 * DEPTH).map_err(say("completion queue"))?;
        let receives = context.create_shared_receive_queue(DEPTH).map_err(say("shared queue"))?;
        let memory = context
            .alloc(SLOT * DEPTH as usize, crate::Access::LOCAL_WRITE)
            .map_err(say("memory"))?;
        let mut crowd = Self { queue_pairs: Vec::new(), queue, receives, memory };
        for queue_key in [KEY_A, KEY_B] {
            let mut queue_pair = context
                .create_queue_pair(&QueuePairInit {
                    service: Service::UnreliableDatagram,
                    send_queue: &crowd.queue,
                    receive_queue: &crowd.queue,
                    shared_receive_queue: Some(&crowd.receives),
                    send_capacity: DEPTH,
                    receive_capacity: 0,
                    inline_bytes: 0,
                })
                .map_err(say("queue pair"))?;
            let options = DatagramOptions { queue_key };
            queue_pair.activate(&options).map_err(say("activate"))?;
            crowd.queue_pairs.push(queue_pair);
        }
        for slot in 0..u64::from(DEPTH) {
            crowd.receive(slot)?;
        }
        Ok(crowd)
    }

    fn receive(&mut self, slot: u64) -> Result<(), String> {
        let address = self.memory.as_ptr().as_ptr() as u64 + slot * SLOT as u64;
        let local_key = self.memory.local_key();
        let slice = LocalSlice { address, length: SLOT as u32, local_key };
        let request = ReceiveRequest { id: slot, local: slices_of(&[slice]) };
        // SAFETY: the memory lives as long as the queues, in this struct.
        unsafe { self.receives.post_receive(&[request]) }.map_err(say("post_receive"))
    }

    fn bytes(&self, slot: u64, length: usize) -> Vec<u8> {
        (0..length)
            // SAFETY: in bounds; the slot is ours since its receive completed.
            .map(|at| unsafe {
                let slot = self.memory.as_ptr().as_ptr().add(slot as usize * SLOT);
                slot.add(GRH + at).read_volatile()
            })
            .collect()
    }
}

fn shared<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut crowd = Crowd::new(b)?;
    let mut senders = Vec::new();
    for i in 0..SENDERS {
        let endpoint = crowd.queue_pairs[i % 2].endpoint();
        let peer = DatagramEndpoint::parse(&endpoint).map_err(say("the endpoint"))?;
        senders.push((Side::datagrams(a, KEY_A)?, Way::along(a, peer, &peer.address())?));
    }
    let (mut sent, mut arrived) = ([0u32; SENDERS], [0u32; SENDERS]);
    let deadline = Instant::now() + PATIENCE;
    // Of each sender a few may be lost; every one that comes is right.
    while arrived.iter().any(|&count| count + 3 < EACH) {
        for (i, (side, way)) in senders.iter_mut().enumerate() {
            if sent[i] < EACH && sent[i] < arrived[i] + 8 {
                let at = SLOT * (sent[i] % 16) as usize;
                side.fill(at, 100 + i, u64::from(1000 * i as u32 + sent[i]));
                let operation = SendOperation::SendWithImmediate(sent[i]);
                let id = u64::from(sent[i]);
                let send = request(id, operation, &[side.slice(at, 100 + i)]);
                side.try_datagrams(&[way.datagram(send)]).map_err(say("post_datagrams"))?;
                sent[i] += 1;
            }
            side.poll()?;
            side.take_all().iter().try_for_each(expect_success)?;
        }
        let mut batch = [WorkCompletion::default(); 8];
        let found = crowd.queue.poll(&mut batch).map_err(say("poll"))?;
        for completion in &batch[..found] {
            expect_success(completion)?;
            let is_from = |(side, _): &(Side<C>, Way<C>)| {
                side.queue_pair.number() == completion.source_queue_pair
            };
            let i = senders.iter().position(is_from).ok_or(format!("from whom? {completion:?}"))?;
            let receiver = crowd.queue_pairs[i % 2].number();
            ensure!(completion.queue_pair == receiver, "{completion:?}");
            ensure!(completion.bytes as usize == GRH + 100 + i, "{completion:?}");
            let number = completion.immediate.ok_or(format!("{completion:?}"))?;
            let seed = u64::from(1000 * i as u32 + number);
            let right = pattern(seed).take(100 + i).collect::<Vec<_>>();
            ensure!(crowd.bytes(completion.id, 100 + i) == right, "datagram {number} of {i}");
            arrived[i] += 1;
            crowd.receive(completion.id)?;
        }
        ensure!(Instant::now() < deadline, "sent {sent:?}, arrived {arrived:?}");
        std::thread::yield_now();
    }
    Ok(())
}

const MESSAGES: u32 = 300;
/// Of all, those that a link may lose.
const MAY_BE_LOST: u32 = 10;
const WINDOW: u32 = 16;

/// Sends all messages, as many at a time as the peer has receives, and checks what comes.
fn converse<C: Context>(side: &mut Side<C>, way: &Way<C>, mtu: usize) -> Result<(), String> {
    let length = |i: u32| Chance::new(u64::from(i) + 1).below(mtu);
    let place = |i: u32| (i % WINDOW) as usize * 4096;
    let (mut sent, mut completed, mut seen) = (0, 0, vec![false; MESSAGES as usize]);
    let mut arrived = 0;
    let mut last = Instant::now();
    while completed < MESSAGES || arrived < MESSAGES {
        // The peer posts a receive again for each that it gets: about as many as we get.
        if sent < MESSAGES && sent < completed + WINDOW && sent < arrived + WINDOW + MAY_BE_LOST {
            side.fill(place(sent), length(sent), u64::from(sent));
            let operation = SendOperation::SendWithImmediate(sent);
            let slices = [side.slice(place(sent), length(sent))];
            let datagram = way.datagram(request(u64::from(sent), operation, &slices));
            side.try_datagrams(&[datagram]).map_err(say("post_datagrams"))?;
            sent += 1;
        }
        side.poll()?;
        for completion in side.take_all() {
            expect_success(&completion)?;
            last = Instant::now();
            if completion.opcode == Opcode::Send {
                ensure!(completion.id == u64::from(completed), "order: {completion:?}");
                completed += 1;
                continue;
            }
            let i = completion.immediate.unwrap_or(MESSAGES);
            ensure!(i < MESSAGES && !seen[i as usize], "{completion:?}, twice or never sent");
            seen[i as usize] = true;
            ensure!(completion.bytes as usize == GRH + length(i), "{completion:?}");
            let at = completion.id as usize;
            side.check(at + GRH, length(i), i.into())?;
            arrived += 1;
            side.receive(at as u64, &[side.slice(at, 8192)])?;
        }
        if completed == MESSAGES && arrived + MAY_BE_LOST >= MESSAGES && last.elapsed() > LOST {
            return Ok(());
        }
        let why = format!("{sent} sent, {completed} completed, {arrived} arrived of {MESSAGES}");
        ensure!(last.elapsed() < PATIENCE, "{why}");
        std::thread::yield_now();
    }
    Ok(())
}

fn both_directions<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mtu = a.attributes().port.mtu.min(b.attributes().port.mtu) as usize;
    let Talk { pair: Pair { mut a, mut b }, to_b, to_a } = Talk::new(a, b)?;
    for side in [&mut a, &mut b] {
        for i in 0..DEPTH as usize {
            let at = INBOX + 8192 * i;
            side.receive(at as u64, &[side.slice(at, 8192)])?;
        }
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(|| converse(&mut b, &to_a, mtu));
        let ours = converse(&mut a, &to_b, mtu);
        let others = other.join().map_err(|_| "a thread panicked".to_owned())?;
        ours.and(others)
    })
}
