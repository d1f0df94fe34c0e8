//! The NIC in memory between two processes: traffic both ways, and the sudden death of the peer.
//!
//! The peer is this very binary, started again with `PEER` set.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use netchannel_verbs::queue_pair::{
    ConnectOptions, Endpoint, QueuePairInit, QueuePairState, Service,
};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices, Status};
use netchannel_verbs::{
    Access, CompletionQueue as _, Context as _, LocalSlice, MemoryRegion as _, QueuePair as _,
    ReceiveRequest, RemoteKey, SendRequest, WorkCompletion,
};

const PEER: &str = "NETCHANNEL_TEST_PEER";
/// A survivor knows of its peer's death within this time, however busy the machine.
const SOON: Duration = Duration::from_secs(5);

const SLOT: usize = 32 << 10;
const WINDOW: u64 = 16;
/// Data and acknowledgements.
const RECEIVES: u64 = 4 * WINDOW;
const RECEIVES_AT: usize = WINDOW as usize * SLOT;
const WRITES_AT: usize = RECEIVES_AT + RECEIVES as usize * SLOT;
const MEMORY: usize = WRITES_AT + WINDOW as usize * SLOT;
/// Marks the immediate of a message without data; the other bits count what was received.
const ACK_ONLY: u32 = 1 << 31;
const RECEIVE_IDS: u64 = 1 << 40;
const ACK_ID: u64 = 1 << 41;

/// One end of the conversation.
struct End {
    queue_pair: soft::QueuePair,
    queue: soft::CompletionQueue,
    memory: soft::MemoryRegion,
    peer_address: u64,
    peer_key: u32,
    sent: u64,
    /// Of ours, received by the peer's application.
    acknowledged: u64,
    received: u64,
    told: u64,
    next_receive: u64,
    acks_outstanding: u64,
    /// Receives that came back, flushed ones included.
    returned: u64,
}

/// What ended a conversation.
#[derive(Debug)]
struct Ended {
    sends: Vec<Status>,
}

fn length_of(message: u64) -> usize {
    let mixed = (message + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33;
    match mixed % 3 {
        0 => 8 + (mixed as usize / 3 % 7) * 8,
        1 => 8 + (mixed as usize / 3 % 512) * 8,
        _ => 8 + (mixed as usize / 3 % (SLOT / 8 - 1)) * 8,
    }
}

fn word(message: u64, i: usize) -> u64 {
    (message << 20 | i as u64).wrapping_mul(0xff51_afd7_ed55_8ccd)
}

impl End {
    fn new(context: &soft::Context) -> Self {
        let queue = context.create_completion_queue(1024).unwrap();
        let queue_pair = context
            .create_queue_pair(&QueuePairInit {
                service: Service::ReliableConnection,
                send_queue: &queue,
                receive_queue: &queue,
                shared_receive_queue: None,
                send_capacity: 256,
                receive_capacity: RECEIVES as u32,
                inline_bytes: 0,
            })
            .unwrap();
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
        let memory = context.alloc(MEMORY, access).unwrap();
        let mut end = Self {
            queue_pair,
            queue,
            memory,
            peer_address: 0,
            peer_key: 0,
            sent: 0,
            acknowledged: 0,
            received: 0,
            told: 0,
            next_receive: 0,
            acks_outstanding: 0,
            returned: 0,
        };
        for _ in 0..RECEIVES {
            end.post_receive();
        }
        end
    }

    fn introduction(&self) -> String {
        let endpoint = self.queue_pair.endpoint().0;
        let hex: String = endpoint.iter().map(|byte| format!("{byte:02x}")).collect();
        let (address, key) = (self.memory.remote_address(), self.memory.remote_key().0);
        format!("INTRODUCTION {hex} {address} {key}\n")
    }

    fn connect(&mut self, introduction: &str) {
        let mut words = introduction.split_whitespace().skip(1);
        let hex = words.next().unwrap();
        let bytes =
            (0..hex.len() / 2).map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap());
        let endpoint = Endpoint(bytes.collect());
        self.peer_address = words.next().unwrap().parse().unwrap();
        self.peer_key = words.next().unwrap().parse().unwrap();
        self.queue_pair.connect(&endpoint, &ConnectOptions::default()).unwrap();
    }

    fn slice(&self, at: usize, length: usize) -> LocalSlice {
        assert!(at + length <= MEMORY);
        let address = self.memory.as_ptr().as_ptr() as u64 + at as u64;
        LocalSlice { address, length: length as u32, local_key: self.memory.local_key() }
    }

    fn post_receive(&mut self) {
        let at = RECEIVES_AT + (self.next_receive % RECEIVES) as usize * SLOT;
        let local = Slices::one(self.slice(at, SLOT));
        let request = ReceiveRequest { id: RECEIVE_IDS + self.next_receive, local };
        self.next_receive += 1;
        // SAFETY: the memory lives as long as the queue pair, in this struct.
        let _ = unsafe { self.queue_pair.post_receive(&[request]) };
    }

    /// Sends one message, as a SEND or as a WRITE and a SEND; false if the queue pair refuses.
    fn send_message(&mut self) -> bool {
        let (message, length) = (self.sent, length_of(self.sent));
        let at = (message % WINDOW) as usize * SLOT;
        for i in 0..length / 8 {
            // SAFETY: in bounds; its last message was acknowledged, so nobody reads it.
            let place = unsafe { self.memory.as_ptr().as_ptr().add(at + 8 * i).cast::<u64>() };
            // SAFETY: as above; aligned, since `at` is.
            unsafe { place.write_volatile(word(message, i)) };
        }
        let local = Slices::one(self.slice(at, length));
        let immediate = SendOperation::SendWithImmediate(self.received as u32 & !ACK_ONLY);
        let inline = message % 5 == 0;
        let mut send = SendRequest {
            id: message,
            operation: immediate,
            local,
            signaled: true,
            inline,
            solicited: false,
        };
        let posted = if message % 2 == 0 {
            // SAFETY: as in `post_receive`.
            unsafe { self.queue_pair.post_send(&[send]) }
        } else {
            let address = self.peer_address + (WRITES_AT + at) as u64;
            let operation = SendOperation::Write { address, key: RemoteKey(self.peer_key) };
            let write = SendRequest { operation, signaled: false, ..send };
            send.local = Slices::default();
            // SAFETY: as in `post_receive`.
            unsafe { self.queue_pair.post_send(&[write, send]) }
        };
        self.sent += u64::from(posted.is_ok());
        self.told = self.received;
        posted.is_ok()
    }

    fn send_ack(&mut self) {
        let operation = SendOperation::SendWithImmediate(self.received as u32 | ACK_ONLY);
        let (local, id) = (Slices::default(), ACK_ID);
        let send =
            SendRequest { id, operation, local, signaled: true, inline: true, solicited: false };
        // SAFETY: there are no slices.
        if unsafe { self.queue_pair.post_send(&[send]) }.is_ok() {
            self.acks_outstanding += 1;
            self.told = self.received;
        }
    }

    fn check_message(&self, completion: &WorkCompletion) {
        let (message, length) = (self.received, length_of(self.received));
        let at = if message % 2 == 0 {
            assert_eq!(completion.bytes as usize, length);
            RECEIVES_AT + ((completion.id - RECEIVE_IDS) % RECEIVES) as usize * SLOT
        } else {
            WRITES_AT + (message % WINDOW) as usize * SLOT
        };
        for i in 0..length / 8 {
            // SAFETY: in bounds and aligned.
            let place = unsafe { self.memory.as_ptr().as_ptr().add(at + 8 * i).cast::<u64>() };
            // SAFETY: as above; the bytes stay until they are acknowledged.
            let found = unsafe { place.read_volatile() };
            assert_eq!(found, word(message, i), "word {i} of message {message}");
        }
    }

    /// One pass of the conversation; an error once something failed.
    fn step(&mut self) -> Result<(), Ended> {
        let mut batch = [WorkCompletion::default(); 32];
        let found = self.queue.poll(&mut batch).unwrap();
        let mut sends = Vec::new();
        let mut failed = false;
        for completion in &batch[..found] {
            let is_receive = completion.id & RECEIVE_IDS != 0;
            if completion.id == ACK_ID {
                self.acks_outstanding -= 1;
            }
            self.returned += u64::from(is_receive);
            if completion.status != Status::Success {
                failed = true;
                if !is_receive {
                    sends.push(completion.status);
                }
            } else if is_receive {
                let immediate = completion.immediate.unwrap();
                let acknowledged = u64::from(immediate & !ACK_ONLY);
                assert!(acknowledged >= self.acknowledged && acknowledged <= self.sent);
                self.acknowledged = acknowledged;
                if immediate & ACK_ONLY == 0 {
                    self.check_message(completion);
                    self.received += 1;
                }
                self.post_receive();
            }
        }
        if failed {
            return Err(Ended { sends });
        }
        if self.sent < self.acknowledged + WINDOW {
            self.send_message();
        } else if self.told < self.received && self.acks_outstanding < WINDOW {
            self.send_ack();
        }
        Ok(())
    }
}

/// Not a test by itself: the other process.
#[test]
fn peer() {
    if std::env::var_os(PEER).is_none() {
        return;
    }
    let context = soft::Context::open(SoftOptions::default()).unwrap();
    let mut end = End::new(&context);
    let mut out = std::io::stdout();
    out.write_all(b"\n").unwrap();
    out.write_all(end.introduction().as_bytes()).unwrap();
    out.flush().unwrap();
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    end.connect(&line);
    let orphaned = Instant::now() + Duration::from_secs(60);
    while end.step().is_ok() && Instant::now() < orphaned {
        std::hint::spin_loop();
    }
    std::process::exit(0);
}

/// Another process that talks to `end`.
struct Peer {
    child: Child,
    _stdin: ChildStdin,
}

impl Peer {
    fn start(end: &mut End) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "peer", "--nocapture", "--test-threads=1"])
            .env(PEER, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let introduction =
            lines.find_map(|line| line.ok().filter(|line| line.starts_with("INTRODUCTION")));
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(end.introduction().as_bytes()).unwrap();
        end.connect(&introduction.expect("the peer introduces itself"));
        Self { child, _stdin: stdin }
    }

    /// SIGKILL, to the process that we started.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn two_processes_talk_both_ways() {
    let _turn = turn();
    let context = soft::Context::open(SoftOptions::default()).unwrap();
    let mut end = End::new(&context);
    let _peer = Peer::start(&mut end);
    let deadline = Instant::now() + Duration::from_secs(30);
    while end.received < 5000 || end.acknowledged < 5000 {
        end.step().expect("the peer is well");
        assert!(Instant::now() < deadline, "{} received of 5000", end.received);
        std::thread::yield_now();
    }
}

/// Descriptors are counted for the whole process, so the tests take turns.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Open descriptors and mappings that have to do with us, of this process.
fn resources() -> (usize, usize) {
    let descriptors = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    (descriptors, maps.lines().filter(|line| line.contains("netchannel")).count())
}

/// One life and death; how long the survivor took to notice.
fn survive(context: &soft::Context, traffic: Duration) -> Duration {
    let mut end = End::new(context);
    let mut peer = Peer::start(&mut end);
    let until = Instant::now() + traffic;
    while Instant::now() < until {
        end.step().expect("the peer is well");
    }
    // Some die while we poll, others while we do not.
    peer.kill();
    let killed = Instant::now();
    let ended = loop {
        if let Err(ended) = end.step() {
            break ended;
        }
        assert!(killed.elapsed() < SOON, "not noticed within {SOON:?}");
        std::thread::yield_now();
    };
    let noticed = killed.elapsed();
    let mut sends = ended.sends;
    // Everything comes back: the first failed send says why, the others and all receives are flushed.
    while end.returned < end.next_receive && killed.elapsed() < SOON {
        if let Err(more) = end.step() {
            sends.extend(more.sends);
        }
    }
    assert_eq!(end.queue_pair.state().unwrap(), QueuePairState::Error);
    if let Some((first, rest)) = sends.split_first() {
        assert_eq!(*first, Status::RetryExceeded);
        assert!(rest.iter().all(|status| *status == Status::Flushed), "{rest:?}");
    }
    // The last posts were refused, since the queue pair had failed: they do not come back.
    assert!(end.returned + 32 >= end.next_receive, "{} of {}", end.returned, end.next_receive);
    noticed
}

#[test]
fn a_peer_killed_at_any_moment_is_noticed_and_leaves_nothing_behind() {
    let _turn = turn();
    let context = soft::Context::open(SoftOptions::default()).unwrap();
    survive(&context, Duration::from_millis(5));
    settle();
    let before = resources();
    let mut slowest = Duration::ZERO;
    for round in 0..50u64 {
        let micros = (round * 7919 + 13) % 6000;
        slowest = slowest.max(survive(&context, Duration::from_micros(micros)));
    }
    settle();
    let after = resources();
    println!("noticed within {slowest:?}; descriptors and mappings {before:?} -> {after:?}");
    assert_eq!(before, after, "descriptors and mappings before and after");
}

/// The service threads close the connections of dead peers in their own time.
fn settle() {
    std::thread::sleep(Duration::from_millis(100));
}
