//! Datagrams between processes, which die at any instruction.
//!
//! The peer is this very binary, started again with `ROLE` set.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use netchannel_verbs::datagram::{Datagram, DatagramEndpoint, DatagramOptions};
use netchannel_verbs::queue_pair::{Endpoint, QueuePairInit, QueuePairState, Service};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices};
use netchannel_verbs::{
    Access, CompletionQueue as _, Context as _, Grh, LocalSlice, MemoryRegion as _, QueuePair as _,
    ReceiveRequest, SendRequest, WorkCompletion,
};

const ROLE: &str = "NETCHANNEL_TEST_DATAGRAMS";
const KEY: u32 = 99;
const PATIENCE: Duration = Duration::from_secs(20);
const SLOT: usize = 8192;
const SLOTS: usize = 64;
const ROUNDS: u64 = 20;

/// Bytes of datagram `number`.
fn length(number: u32) -> usize {
    number.wrapping_mul(0x9e37_79b9) as usize % 4097
}

fn byte(number: u32, at: usize) -> u8 {
    (number.wrapping_mul(31) as usize + at * 7) as u8
}

struct End {
    queue_pair: soft::QueuePair,
    queue: soft::CompletionQueue,
    memory: soft::MemoryRegion,
    nic: soft::Context,
    next: u32,
}

impl End {
    /// `seed` decides the number of the queue pair, by which the tests tell senders apart.
    fn new(seed: u64) -> Self {
        let nic = soft::Context::open(SoftOptions { seed, ..SoftOptions::default() }).unwrap();
        let queue = nic.create_completion_queue(256).unwrap();
        let mut queue_pair = nic
            .create_queue_pair(&QueuePairInit {
                service: Service::UnreliableDatagram,
                send_queue: &queue,
                receive_queue: &queue,
                shared_receive_queue: None,
                send_capacity: 64,
                receive_capacity: SLOTS as u32,
                inline_bytes: 0,
            })
            .unwrap();
        queue_pair.activate(&DatagramOptions { queue_key: KEY }).unwrap();
        let memory = nic.alloc(SLOT * (SLOTS + 1), Access::LOCAL_WRITE).unwrap();
        Self { queue_pair, queue, memory, nic, next: 0 }
    }

    fn slices(&self, slot: usize, length: usize) -> Slices {
        assert!(slot <= SLOTS && length <= SLOT);
        let address = self.memory.as_ptr().as_ptr() as u64 + (slot * SLOT) as u64;
        let local_key = self.memory.local_key();
        Slices::one(LocalSlice { address, length: length as u32, local_key })
    }

    fn receive(&mut self, slot: usize) {
        let request = ReceiveRequest { id: slot as u64, local: self.slices(slot, SLOT) };
        // SAFETY: the memory lives as long as the queue pair, in this struct.
        unsafe { self.queue_pair.post_receive(&[request]) }.unwrap();
    }

    /// Sends the next datagram to `peer`.
    fn send(&mut self, handle: &soft::AddressHandle, peer: &DatagramEndpoint) {
        let number = self.next;
        self.next += 1;
        for at in 0..length(number) {
            // SAFETY: in bounds of the slot behind those of receives; the last datagram has left.
            unsafe {
                let place = self.memory.as_ptr().as_ptr().add(SLOTS * SLOT + at);
                place.write_volatile(byte(number, at));
            }
        }
        let request = SendRequest {
            id: u64::MAX,
            operation: SendOperation::SendWithImmediate(number),
            local: self.slices(SLOTS, length(number)),
            signaled: true,
            inline: false,
            solicited: false,
        };
        // SAFETY: as in `receive`; the handle lives in the caller.
        unsafe { self.queue_pair.post_datagrams(&[Datagram::to(peer, handle, request)]) }.unwrap();
    }

    /// Polls; receives are checked and posted again. The numbers that came from each sender.
    fn poll(&mut self) -> Vec<(u32, u32)> {
        let mut batch = [WorkCompletion::default(); SLOTS];
        let found = self.queue.poll(&mut batch).unwrap();
        let mut seen = Vec::new();
        for completion in &batch[..found] {
            assert!(completion.status.is_success(), "{completion:?}");
            let Some(number) = completion.immediate else { continue };
            let slot = completion.id as usize;
            assert_eq!(completion.bytes as usize, Grh::LEN + length(number));
            for at in 0..length(number) {
                // SAFETY: in bounds; the receive has completed.
                let found = unsafe {
                    let place = self.memory.as_ptr().as_ptr().add(slot * SLOT + Grh::LEN + at);
                    place.read_volatile()
                };
                assert_eq!(found, byte(number, at), "byte {at} of datagram {number}");
            }
            seen.push((completion.source_queue_pair, number));
            self.receive(slot);
        }
        seen
    }

    fn endpoint(&self) -> String {
        self.queue_pair.endpoint().0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn parse(hex: &str) -> DatagramEndpoint {
    let digits = (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16));
    DatagramEndpoint::parse(&Endpoint(digits.map(Result::unwrap).collect())).unwrap()
}

/// Another process; it ends with the test, however that ends.
struct Other(Child);

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(role: &str) -> Other {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["peer", "--exact", "--nocapture"])
        .env(ROLE, role)
        .stdout(Stdio::piped())
        .spawn();
    Other(child.unwrap())
}

/// What a child that receives says first.
fn introduced(child: &mut Other) -> DatagramEndpoint {
    let mut lines = BufReader::new(child.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let endpoint = lines.find_map(|line| line.split_once("ENDPOINT ").map(|(_, hex)| parse(hex)));
    endpoint.expect("the child ended without a word")
}

/// Not a test of its own: the other process, which is killed.
#[test]
fn peer() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let mut end = End::new(3);
    if role == "receive" {
        (0..SLOTS).for_each(|slot| end.receive(slot));
        println!("ENDPOINT {}", end.endpoint());
        loop {
            end.poll();
        }
    }
    let peer = parse(&role);
    let handle = end.nic.create_address_handle(&peer.address()).unwrap();
    loop {
        end.send(&handle, &peer);
        end.poll();
    }
}

fn kill(mut child: Other) {
    child.0.kill().unwrap();
    child.0.wait().unwrap();
}

#[test]
fn senders_that_are_killed_wedge_nobody() {
    let (mut receiver, mut steady) = (End::new(1), End::new(2));
    (0..SLOTS).for_each(|slot| receiver.receive(slot));
    let peer = parse(&receiver.endpoint());
    let handle = steady.nic.create_address_handle(&peer.address()).unwrap();
    let number = steady.queue_pair.number();
    for round in 0..ROUNDS {
        let child = spawn(&receiver.endpoint());
        let (mut from_child, mut from_steady) = (0, 0);
        let mut killed_at = None;
        let mut child = Some(child);
        let start = Instant::now();
        // Some 500 more of the steady one after the death of the other.
        while killed_at.is_none_or(|at| from_steady < at + 500) {
            steady.send(&handle, &peer);
            steady.poll();
            for (source, _) in receiver.poll() {
                *(if source == number { &mut from_steady } else { &mut from_child }) += 1;
            }
            // At another point each time: the child sends as fast as it can.
            if from_child > 7 * round
                && let Some(child) = child.take()
            {
                kill(child);
                killed_at = Some(from_steady);
            }
            let state = format!("round {round}: {from_child} of the child, {from_steady}");
            let statistics = receiver.queue_pair.datagram_statistics();
            assert!(start.elapsed() < PATIENCE, "{state}, {statistics:?}");
        }
        assert_eq!(receiver.queue_pair.state().unwrap(), QueuePairState::ReadyToSend);
    }
    let statistics = receiver.queue_pair.datagram_statistics().unwrap();
    assert_eq!((statistics.malformed, statistics.wrong_key), (0, 0), "{statistics:?}");
}

#[test]
fn a_receiver_that_is_killed_costs_its_own_datagrams_alone() {
    let (mut sender, mut steady) = (End::new(1), End::new(2));
    (0..SLOTS).for_each(|slot| steady.receive(slot));
    let steady_peer = parse(&steady.endpoint());
    let to_steady = sender.nic.create_address_handle(&steady_peer.address()).unwrap();
    for round in 0..5u64 {
        let mut child = spawn("receive");
        let lines = BufReader::new(child.0.stdout.take().unwrap()).lines();
        let line = lines
            .map(Result::unwrap)
            .find_map(|line| line.split_once("ENDPOINT ").map(|(_, endpoint)| endpoint.to_owned()));
        let peer = parse(&line.unwrap());
        let to_child = sender.nic.create_address_handle(&peer.address()).unwrap();
        let mut child = Some(child);
        let (mut sent, mut arrived) = (0, 0);
        let start = Instant::now();
        let unreachable =
            |sender: &End| sender.queue_pair.datagram_statistics().unwrap().unreachable;
        let before = unreachable(&sender);
        // Until it is known to be gone, and then some.
        while unreachable(&sender) < before + 3 || arrived < 500 {
            sender.send(&to_child, &peer);
            sender.poll();
            sender.send(&to_steady, &steady_peer);
            sender.poll();
            sent += 1;
            arrived += steady.poll().len();
            if sent > 100 + 50 * round
                && let Some(child) = child.take()
            {
                kill(child);
            }
            assert!(start.elapsed() < PATIENCE, "{sent} sent, {arrived} arrived at the steady one");
        }
        assert!(arrived <= sent as usize + 1, "{arrived} of {sent}");
    }
}

fn signal(child: &Other, name: &str) {
    let status = Command::new("kill").args([name, &child.0.id().to_string()]).status().unwrap();
    assert!(status.success(), "kill {name}");
}

#[test]
fn a_receiver_that_stands_still_holds_up_nobody() {
    let mut child = spawn("receive");
    let peer = introduced(&mut child);
    signal(&child, "-STOP");
    let mut sender = End::new(1);
    let handle = sender.nic.create_address_handle(&peer.address()).unwrap();
    let full = |sender: &End| sender.queue_pair.datagram_statistics().unwrap().ring_full;
    // Its device does not answer; what waits for the answer is bounded. Posting and completing go on.
    const SENT: u64 = 4000;
    for _ in 0..SENT {
        sender.send(&handle, &peer);
        sender.poll();
    }
    let lost = full(&sender);
    // A ring's worth waits for the answer, and what the receiver took before it stood still is gone.
    assert!((SENT / 4..SENT).contains(&lost), "{lost} of {SENT} were lost");
    signal(&child, "-CONT");
    // It goes on: soon nothing is lost any more.
    let start = Instant::now();
    let (mut lost, mut good) = (lost, 0);
    while good < 200 {
        sender.send(&handle, &peer);
        sender.poll();
        good = if full(&sender) == lost { good + 1 } else { 0 };
        lost = full(&sender);
        std::thread::sleep(Duration::from_micros(100));
        assert!(start.elapsed() < PATIENCE, "{good} in a row, {lost} lost");
    }
    kill(child);
}
