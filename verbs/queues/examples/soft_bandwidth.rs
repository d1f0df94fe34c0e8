//! How fast the NIC in memory is between two processes, beside what the machine itself can do.
//!
//! ```text
//! soft_bandwidth [--rounds 9] [--seconds 0.2] [--pin]
//! ```
//!
//! Each round measures everything once, so that a change of the machine's mood touches all of it;
//! printed are medians. Both processes spin, so it wants two cores. The receiver does not touch the
//! bytes, as the receiver of a real NIC's WRITEs would not.

use std::hint::spin_loop;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use netchannel_shared_memory::memory::{Mapping, SharedMemory};
use netchannel_verbs::queue_pair::{ConnectOptions, Endpoint, QueuePairInit, Service};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices};
use netchannel_verbs::{
    Access, CompletionQueue as _, Context as _, LocalSlice, MemoryRegion as _, QueuePair as _,
    ReceiveRequest, RemoteKey, SendRequest, WorkCompletion,
};

const PEER: &str = "NETCHANNEL_BENCHMARK_PEER";
const MEMORY: usize = 8 << 20;
const CHUNKS: [usize; 3] = [64 << 10, 256 << 10, 1 << 20];
const SENDS: [usize; 3] = [64, 4096, 64 << 10];
const RECEIVES: u64 = 64;
const IN_FLIGHT: usize = 16;
/// Immediates: what the peer does with a message.
const ECHO: u32 = 1;
const LAST: u32 = 2;

/// Measures the NIC in memory between two processes, beside what the machine itself can do.
#[derive(Parser)]
struct Options {
    /// Rounds; medians count
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each figure is measured in a round
    #[arg(long = "seconds", value_name = "S", default_value = "0.2", value_parser = seconds)]
    time: Duration,
    /// Bind the two processes to the first two processors
    #[arg(long)]
    pin: bool,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

struct End {
    queue_pair: soft::QueuePair,
    queue: soft::CompletionQueue,
    memory: soft::MemoryRegion,
    peer: (u64, RemoteKey),
    /// For the bare ping-pong.
    line: Mapping,
}

fn main() {
    let options = Options::parse();
    if std::env::var_os(PEER).is_some() {
        serve(&options);
    } else {
        measure(&options);
    }
}

fn pin(options: &Options, core: usize) {
    if options.pin {
        let mut set = rustix::thread::CpuSet::new();
        set.set(core);
        rustix::thread::sched_setaffinity(None, &set).expect("pinning");
    }
}

impl End {
    fn new(line: Mapping) -> Self {
        let context = soft::Context::open(SoftOptions::default()).expect("opening the soft NIC");
        let queue = context.create_completion_queue(1024).expect("a completion queue");
        let queue_pair = context
            .create_queue_pair(&QueuePairInit {
                service: Service::ReliableConnection,
                send_queue: &queue,
                receive_queue: &queue,
                shared_receive_queue: None,
                send_capacity: 256,
                receive_capacity: RECEIVES as u32,
                inline_bytes: 64,
            })
            .expect("a queue pair");
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
        let memory = context.alloc(MEMORY, access).expect("memory");
        let peer = (0, RemoteKey(0));
        let mut end = Self { queue_pair, queue, memory, peer, line };
        (0..RECEIVES).for_each(|id| end.receive(id));
        end
    }

    fn introduction(&self) -> String {
        let endpoint = self.queue_pair.endpoint().0;
        let hex: String = endpoint.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{hex} {} {}\n", self.memory.remote_address(), self.memory.remote_key().0)
    }

    fn connect(&mut self, introduction: &str) {
        let mut words = introduction.split_whitespace();
        let hex = words.next().expect("an endpoint");
        let byte = |i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).expect("hex");
        let endpoint = Endpoint((0..hex.len() / 2).map(byte).collect());
        let mut number =
            || words.next().and_then(|word| word.parse::<u64>().ok()).expect("a number");
        self.peer = (number(), RemoteKey(number() as u32));
        self.queue_pair.connect(&endpoint, &ConnectOptions::default()).expect("connecting");
    }

    fn slices(&self, at: usize, length: usize) -> Slices {
        assert!(at + length <= MEMORY);
        let address = self.memory.as_ptr().as_ptr() as u64 + at as u64;
        let local_key = self.memory.local_key();
        Slices::one(LocalSlice { address, length: length as u32, local_key })
    }

    fn receive(&mut self, id: u64) {
        let local = self.slices((id % RECEIVES) as usize * (64 << 10), 64 << 10);
        // SAFETY: the memory lives as long as the queue pair; the bytes are nobody's.
        unsafe { self.queue_pair.post_receive(&[ReceiveRequest { id, local }]) }.expect("receive");
    }

    fn post(&mut self, requests: &[SendRequest]) {
        // SAFETY: as in `receive`.
        unsafe { self.queue_pair.post_send(requests) }.expect("post");
    }

    fn poll(&mut self, batch: &mut [WorkCompletion]) -> usize {
        let found = self.queue.poll(batch).expect("poll");
        assert!(batch[..found].iter().all(|completion| completion.status.is_success()));
        found
    }

    fn send(&self, immediate: u32, local: Slices, signaled: bool) -> SendRequest {
        let operation = SendOperation::SendWithImmediate(immediate);
        SendRequest { id: u64::MAX, operation, local, signaled, inline: false, solicited: false }
    }
}

/// The other process: posts receives again, answers what wants an answer.
fn serve(options: &Options) {
    let line =
        SharedMemory::from_fd(std::io::stdin().as_fd().try_clone_to_owned().expect("fd"), 4096)
            .and_then(|memory| memory.map())
            .expect("the shared line");
    let mut end = End::new(line);
    print!("{}", end.introduction());
    std::io::stdout().flush().expect("stdout");
    // The parent writes its introduction into the shared page.
    let text = loop {
        let length = end.line.load_u64(1024, Ordering::Acquire).expect("in bounds") as usize;
        if length > 0 {
            let mut text = vec![0; length.min(2048)];
            end.line.copy_out(1032, &mut text).expect("in bounds");
            break String::from_utf8(text).expect("text");
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    end.connect(&text);
    // The set-up threads are not pinned, only what spins.
    pin(options, 1);
    ready(&end.line).store(1, Ordering::Release);
    let mut batch = [WorkCompletion::default(); 32];
    loop {
        let found = end.poll(&mut batch);
        for completion in batch[..found].iter().filter(|completion| completion.id < RECEIVES) {
            end.receive(completion.id);
            match completion.immediate {
                Some(ECHO) => {
                    let mut answer = end.send(0, end.slices(0, 64), false);
                    answer.inline = true;
                    end.post(&[answer]);
                }
                Some(LAST) => return,
                _ => {}
            }
        }
        if found == 0 && bare_echo(&end.line) {
            spin_loop();
        }
    }
}

/// Echoes the bare line while the parent plays with it; true if it did not.
fn bare_echo(line: &Mapping) -> bool {
    let (ping, pong) = bare_words(line);
    let seen = ping.load(Ordering::Acquire);
    if seen == pong.load(Ordering::Relaxed) {
        return true;
    }
    let mut last = seen;
    while last != 0 {
        pong.store(last, Ordering::Release);
        let next = loop {
            let next = ping.load(Ordering::Acquire);
            if next != last {
                break next;
            }
            spin_loop();
        };
        last = next;
    }
    pong.store(0, Ordering::Release);
    false
}

fn ready(line: &Mapping) -> &AtomicU64 {
    line.at(512).expect("in bounds")
}

fn bare_words(line: &Mapping) -> (&AtomicU64, &AtomicU64) {
    (line.at(0).expect("in bounds"), line.at(256).expect("in bounds"))
}

fn measure(options: &Options) {
    let page = SharedMemory::create("netchannel-benchmark", 4096).expect("a shared page");
    let mut peer = Command::new(std::env::current_exe().expect("this program"))
        .args(std::env::args().skip(1))
        .env(PEER, "1")
        .stdin(Stdio::from(page.fd().try_clone_to_owned().expect("fd")))
        .stdout(Stdio::piped())
        .spawn()
        .expect("the other process");
    let mut end = End::new(page.map().expect("mapping"));
    let mut introduction = String::new();
    let stdout = peer.stdout.take().expect("piped");
    BufReader::new(stdout).read_line(&mut introduction).expect("the peer's introduction");
    let text = end.introduction();
    end.line.copy_in(1032, text.as_bytes()).expect("in bounds");
    end.line.at::<AtomicU64>(1024).expect("in bounds").store(text.len() as u64, Ordering::Release);
    end.connect(&introduction);
    while ready(&end.line).load(Ordering::Acquire) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    pin(options, 0);

    let mut table: Vec<(String, &str, Vec<f64>)> = Vec::new();
    let mut note = |name: String, unit: &'static str, value: f64| match table
        .iter_mut()
        .find(|row| row.0 == name)
    {
        Some(row) => row.2.push(value),
        None => table.push((name, unit, vec![value])),
    };
    for _ in 0..options.rounds {
        for chunk in CHUNKS {
            let name = format!("{} KiB", chunk >> 10);
            note(format!("bare memcpy, {name}"), "GB/s", memcpy(options.time, chunk));
            let value = write(&mut end, options.time, chunk);
            note(format!("WRITE + SEND, {name}"), "GB/s", value);
        }
        for length in SENDS {
            let (rate, bandwidth) = send(&mut end, options.time, length);
            note(format!("SEND, {length} B"), "M/s", rate);
            note(format!("SEND, {length} B, bytes"), "GB/s", bandwidth);
        }
        note("bare line ping-pong, half".into(), "ns", bare_ping_pong(&end.line, options.time));
        note("SEND 64 B ping-pong, half".into(), "ns", ping_pong(&mut end, options.time));
    }
    let last = end.send(LAST, Slices::default(), true);
    end.post(&[last]);
    peer.wait().expect("the other process");
    for (name, unit, mut values) in table {
        values.sort_by(f64::total_cmp);
        let (low, median, high) = (values[0], values[values.len() / 2], values[values.len() - 1]);
        println!("{name:<32} {median:>9.2} {unit:<5} ({low:.2} to {high:.2})");
    }
}

/// One core copies a chunk after the other from and to areas as large as the NIC's.
fn memcpy(time: Duration, chunk: usize) -> f64 {
    let mut from = vec![1u8; MEMORY / 2];
    let mut to = vec![2u8; MEMORY / 2];
    let (start, mut bytes, mut at) = (Instant::now(), 0u64, 0);
    while start.elapsed() < time {
        for _ in 0..16 {
            to[at..at + chunk].copy_from_slice(std::hint::black_box(&from[at..at + chunk]));
            std::hint::black_box(&mut to);
            at = (at + chunk) % (MEMORY / 2);
            bytes += chunk as u64;
        }
        from[0] = from[0].wrapping_add(1);
    }
    bytes as f64 / start.elapsed().as_secs_f64() / 1e9
}

fn write(end: &mut End, time: Duration, chunk: usize) -> f64 {
    let mut batch = [WorkCompletion::default(); 32];
    let (start, mut bytes, mut at, mut in_flight) = (Instant::now(), 0u64, 0, 0);
    while start.elapsed() < time {
        if in_flight < IN_FLIGHT {
            let address = end.peer.0 + (MEMORY / 2 + at) as u64;
            let send = end.send(0, Slices::default(), true);
            let operation = SendOperation::Write { address, key: end.peer.1 };
            let local = end.slices(at, chunk);
            let write = SendRequest { operation, local, signaled: false, ..send };
            end.post(&[write, send]);
            in_flight += 1;
            bytes += chunk as u64;
            at = (at + chunk) % (MEMORY / 2);
        }
        in_flight -= end.poll(&mut batch);
    }
    while in_flight > 0 {
        in_flight -= end.poll(&mut batch);
    }
    bytes as f64 / start.elapsed().as_secs_f64() / 1e9
}

/// Messages (millions) and bytes (GB) per second.
fn send(end: &mut End, time: Duration, length: usize) -> (f64, f64) {
    let mut batch = [WorkCompletion::default(); 32];
    let (start, mut messages, mut in_flight) = (Instant::now(), 0u64, 0);
    while start.elapsed() < time {
        if in_flight + 8 <= 2 * IN_FLIGHT {
            let local = end.slices((messages as usize * length) % (MEMORY / 2), length);
            end.post(&[end.send(0, local, true); 8]);
            in_flight += 8;
            messages += 8;
        }
        in_flight -= end.poll(&mut batch);
    }
    while in_flight > 0 {
        in_flight -= end.poll(&mut batch);
    }
    let seconds = start.elapsed().as_secs_f64();
    (messages as f64 / seconds / 1e6, messages as f64 * length as f64 / seconds / 1e9)
}

fn ping_pong(end: &mut End, time: Duration) -> f64 {
    let mut batch = [WorkCompletion::default(); 4];
    let mut ping = end.send(ECHO, end.slices(0, 64), false);
    ping.inline = true;
    let (start, mut rounds) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        for _ in 0..64 {
            end.post(&[ping]);
            let id = loop {
                if end.poll(&mut batch) > 0 {
                    break batch[0].id;
                }
                spin_loop();
            };
            end.receive(id);
            rounds += 1;
        }
    }
    start.elapsed().as_secs_f64() * 1e9 / rounds as f64 / 2.0
}

fn bare_ping_pong(line: &Mapping, time: Duration) -> f64 {
    let (ping, pong) = bare_words(line);
    let (start, mut rounds) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        for _ in 0..64 {
            rounds += 1;
            ping.store(rounds, Ordering::Release);
            while pong.load(Ordering::Acquire) != rounds {
                spin_loop();
            }
        }
    }
    let elapsed = start.elapsed();
    ping.store(0, Ordering::Release);
    while pong.load(Ordering::Acquire) != 0 {
        spin_loop();
    }
    elapsed.as_secs_f64() * 1e9 / rounds as f64 / 2.0
}
