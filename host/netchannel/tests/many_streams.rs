//! Ten thousand streams between two processes: what they cost once each has carried a byte.
//!
//! Both processes are this test binary once more, so that nothing else lives in them; their task is the
//! name of a poller, which says how the engine is driven.

mod common;

use std::fs;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use common::child::{self, Guest};
use common::{ANY_PORT, LIMIT, config, start, within};
use netchannel::{Config, Listener, Poller, Runtime, Stream, StreamOptions};

const STREAMS: usize = 10_000;
/// Bytes that a process may grow by. The aim is 1 KiB per stream (see docs/results.md); what the
/// allocator and the kernel round up differs by some per cent from run to run.
const BOUND: i64 = STREAMS as i64 * 1_100;
/// Wake-ups per second that all idle streams together may cost a process, as one does.
const WAKEUPS: f64 = 10.0;

fn config_of(poller: Poller) -> Config {
    Config { poller, ..config() }
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// Proportional set size: memory shared by `n` processes counts for one `n`th.
    proportional: i64,
    /// Resident set size: as if nobody shared anything.
    resident: i64,
    /// Queue pairs.
    queue_pairs: usize,
    /// Times that its threads woke up.
    wakeups: u64,
}

impl Held {
    fn by(runtime: &Runtime) -> Self {
        let stats = runtime.stats();
        let rollup = fs::read_to_string("/proc/self/smaps_rollup").unwrap();
        let kib = |name: &str| -> i64 {
            let line = rollup.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().parse().unwrap()
        };
        Self {
            proportional: kib("Pss:") << 10,
            resident: kib("Rss:") << 10,
            queue_pairs: stats.channels.len(),
            wakeups: stats.wakeups,
        }
    }

    fn show(self) -> String {
        let Self { proportional, resident, queue_pairs, wakeups } = self;
        format!("held {proportional} {resident} {queue_pairs} {wakeups}")
    }

    fn read(line: &str) -> Self {
        let mut words = line.split(' ');
        let mut next = || words.next().unwrap().parse::<i64>().unwrap();
        Self {
            proportional: next(),
            resident: next(),
            queue_pairs: next() as usize,
            wakeups: next() as u64,
        }
    }
}

/// Does nothing in the test itself. In a peer process it does what it reads from standard input.
#[test]
fn guest() {
    let Some(poller) = child::task() else { return };
    let runtime = start(config_of(poller.parse().unwrap()));
    let listener = runtime.listen(ANY_PORT.into()).unwrap();
    println!("listening {}", listener.local_addr());
    let mut streams = Vec::new();
    for line in io::stdin().lines() {
        let line = line.unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["open", address, count] => {
                let address = address.parse().unwrap();
                streams.extend((0..count.parse().unwrap()).map(|_| open(&runtime, address)));
                println!("opened");
            }
            ["accept", count] => {
                streams.extend((0..count.parse().unwrap()).map(|_| accept(&listener)));
                println!("accepted");
            }
            ["drop"] => {
                streams = Vec::new();
                println!("dropped");
            }
            ["held"] => println!("{}", Held::by(&runtime).show()),
            _ => panic!("unknown command {line}"),
        }
    }
}

fn open(runtime: &Runtime, address: SocketAddr) -> Stream {
    let mut stream = runtime.connect(address, &StreamOptions::default()).unwrap();
    stream.write_all(&[7]).unwrap();
    stream
}

fn accept(listener: &Listener) -> Stream {
    let mut stream = listener.accept().unwrap();
    let mut byte = [0];
    stream.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [7]);
    stream
}

struct Peer {
    process: Guest,
    address: SocketAddr,
}

impl Peer {
    fn start(poller: Poller) -> Self {
        let mut process = Guest::with_task(&poller.to_string());
        let address = process.says("listening ").parse().unwrap();
        Self { process, address }
    }

    fn says(&mut self, what: &str) -> String {
        self.process.says_within(LIMIT, what)
    }

    fn held(&mut self) -> Held {
        self.process.tell("held");
        Held::read(&self.says("held "))
    }
}

/// A process that opens and one that accepts.
struct Hosts {
    poller: Poller,
    opening: Peer,
    accepting: Peer,
}

impl Hosts {
    fn of(poller: Poller) -> Self {
        Self { poller, opening: Peer::start(poller), accepting: Peer::start(poller) }
    }

    /// Opens streams, each of which carries a byte.
    fn open(&mut self, count: usize) {
        let began = Instant::now();
        self.accepting.process.tell(format!("accept {count}"));
        self.opening.process.tell(format!("open {} {count}", self.accepting.address));
        self.opening.says("opened");
        println!("{}: {count} opens took {:?} each", self.poller, began.elapsed() / count as u32);
        self.accepting.says("accepted");
    }

    fn close_all(&mut self) {
        for peer in [&mut self.accepting, &mut self.opening] {
            peer.process.tell("drop");
            peer.says("dropped");
        }
    }

    fn held(&mut self) -> [Held; 2] {
        [self.opening.held(), self.accepting.held()]
    }

    fn check(&self, when: &str, bound: i64, before: [Held; 2], after: [Held; 2]) {
        for (side, (before, after)) in ["opening", "accepting"].iter().zip(before.iter().zip(after))
        {
            let who = format!("{}, {side} side, {when}", self.poller);
            let proportional = after.proportional - before.proportional;
            let resident = after.resident - before.resident;
            println!(
                "{who}: grew by {} bytes per stream (shared memory counted whole: {}); queue \
                 pairs: {}",
                proportional / STREAMS as i64,
                resident / STREAMS as i64,
                after.queue_pairs
            );
            assert!(proportional < bound, "{who}: {proportional} bytes");
            assert!(resident < bound, "{who}: {resident} bytes, shared ones counted whole");
            assert_eq!(before.queue_pairs, after.queue_pairs, "{who}: queue pairs");
        }
    }
}

/// Windows and buffers come back after 100 ms of idleness, and their memory within another second.
fn rest() {
    thread::sleep(Duration::from_millis(1_500));
}

fn ten_thousand(poller: Poller) {
    let mut hosts = Hosts::of(poller);
    hosts.open(1);
    rest();
    let before = hosts.held();
    hosts.open(STREAMS);
    rest();
    let after = hosts.held();
    hosts.check("at first", BOUND, before, after);

    let seconds = 2;
    thread::sleep(Duration::from_secs(seconds));
    let later = hosts.held();
    let [opening, accepting] =
        [0, 1].map(|i| (later[i].wakeups - after[i].wakeups) as f64 / seconds as f64);
    println!("{poller}: wake-ups per second: {opening:.1} opening, {accepting:.1} accepting");
    assert!(opening <= WAKEUPS && accepting <= WAKEUPS, "{opening:.1} and {accepting:.1}");

    // What went with the streams serves the next ones: as much again would be twice the bound.
    hosts.close_all();
    rest();
    hosts.open(STREAMS);
    rest();
    let after = hosts.held();
    hosts.check("after as many others", BOUND * 3 / 2, before, after);
}

#[test]
fn idle_streams_are_small_and_quiet() {
    for poller in [Poller::Inline, Poller::Dedicated] {
        within(2 * LIMIT, "ten thousand streams", move || ten_thousand(poller));
    }
}
