//! Two processes: transfers, and peers that are killed or stopped in mid-stream.
//!
//! The peer is this test binary once more, with a task: `TASK SEED TOTAL`.

mod common;

use std::io::{self, ErrorKind, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use common::child::{self, Guest};
use common::holdings::Holdings;
use common::{ANY_PORT, LIMIT, Random, config, receive, send, start, within};
use netchannel::{Class, Config, Idle, Listener, Poller, Runtime, StreamOptions};

/// Deaths of peers, after those that warm up.
const DEATHS: usize = 100;
/// Death should be known within 2 s; test machines may stand still for a while.
const NOTICED: Duration = Duration::from_secs(10);

/// Time between two failures of queue pairs: about as long as a fence takes.
const BREAK_EVERY: Duration = Duration::from_millis(1);

/// Does nothing in the test itself. In a peer process it is what runs.
#[test]
fn guest() {
    let Some(task) = child::task() else { return };
    let mut words = task.split(' ');
    let mut word = || words.next().unwrap_or_default().to_owned();
    let (task, seed, total) = (word(), word().parse().unwrap(), word().parse().unwrap());
    match task.as_str() {
        "echo" => echo(seed, total),
        "flood" => flood(&word(), total > 0),
        other => panic!("unknown task {other}"),
    }
}

/// Listens, checks what comes, answers.
fn echo(seed: u64, total: u64) {
    let runtime = start(config());
    let listener = runtime.listen(ANY_PORT.into()).unwrap();
    println!("address {}", listener.local_addr());
    let mut stream = listener.accept().unwrap();
    assert_eq!(receive(&mut stream, seed, 1 << 20).unwrap(), total);
    send(&mut stream, !seed, total, 1 << 20).unwrap();
    stream.close().unwrap();
    runtime.close().unwrap();
}

/// Connects to the addresses that it reads from its standard input, and writes and reads without
/// an end; if it `breaks`, one Channel after the other fails meanwhile.
fn flood(poller: &str, breaks: bool) {
    let runtime = start(Config { poller: poller.parse().unwrap(), ..config() });
    let mut line = String::new();
    io::stdin().read_line(&mut line).unwrap();
    let address: SocketAddr = line.trim().parse().unwrap();
    let stream = runtime.connect(address, &StreamOptions::default()).unwrap();
    let (mut tx, mut rx) = stream.split();
    thread::spawn(move || io::copy(&mut rx, &mut io::sink()));
    if breaks {
        thread::spawn(move || {
            for number in 0.. {
                runtime.break_channel(Class::Throughput, number);
                thread::sleep(BREAK_EVERY);
            }
        });
    }
    let bytes = vec![7; 200_000];
    let mut random = Random(u64::from(std::process::id()));
    while tx.write_all(&bytes[..random.size(200_000)]).is_ok() {}
}

#[test]
fn bytes_cross_between_processes() {
    within(LIMIT, "two processes", || {
        let total = 20 << 20;
        let mut peer = Guest::with_task(&format!("echo 42 {total}"));
        let address = peer.says("address ").parse().unwrap();
        let runtime = start(config());
        let mut stream = runtime.connect(address, &StreamOptions::default()).unwrap();
        send(&mut stream, 42, total, 1 << 20).unwrap();
        stream.finish();
        assert_eq!(receive(&mut stream, !42, 1 << 20).unwrap(), total);
        drop(stream);
        runtime.close().unwrap();
        peer.succeeds();
    });
}

/// What this process holds once that stands still.
fn settled(listener: &Listener) -> Holdings {
    // Who goes to sleep tidies up: what threads held that are gone goes, too. Where nobody does,
    // the helper thread takes over soon.
    Holdings::settled(NOTICED, || {
        assert!(listener.accept_timeout(Duration::from_millis(20)).unwrap().is_none());
    })
}

/// How peers end.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Killed,
    Stopped,
    /// Killed while queue pairs fail on both sides, one just now.
    KilledWhileFencing,
}

/// A peer floods us, and we it, until it meets its fate. Returns how long it took until both of
/// our directions knew.
fn survive(runtime: &Runtime, listener: &Listener, random: &mut Random, fate: Fate) -> Duration {
    let breaks = matches!(fate, Fate::KilledWhileFencing);
    let poller = if random.below(2) == 0 { "inline" } else { "dedicated" };
    let mut peer = Guest::with_task(&format!("flood 0 {} {poller}", u64::from(breaks)));
    peer.tell(listener.local_addr());
    let stream = listener.accept_timeout(NOTICED).unwrap();
    let (mut tx, mut rx) = stream.expect("the peer connects").split();
    let reader = thread::spawn(move || {
        let error = io::copy(&mut rx, &mut io::sink()).unwrap_err();
        (error, Instant::now())
    });
    let writer = thread::spawn(move || {
        let bytes = vec![9; 100_000];
        loop {
            if let Err(error) = tx.write_all(&bytes) {
                return (error, Instant::now());
            }
        }
    });
    thread::sleep(Duration::from_micros(random.below(20_000)));
    assert!(!reader.is_finished() && !writer.is_finished(), "all is well so far");
    let killed = Instant::now();
    match fate {
        Fate::Killed => peer.kill(),
        Fate::Stopped => peer.stop(),
        Fate::KilledWhileFencing => {
            while !runtime.break_channel(Class::Throughput, random.below(8) as usize) {}
            peer.kill();
        }
    }
    let mut slowest = Duration::ZERO;
    for thread in [reader, writer] {
        let (error, at) = thread.join().unwrap();
        let kinds = [
            ErrorKind::ConnectionReset,
            ErrorKind::ConnectionAborted,
            ErrorKind::TimedOut,
            ErrorKind::BrokenPipe,
        ];
        assert!(kinds.contains(&error.kind()), "{:?}: {error}", error.kind());
        assert!(error.to_string().contains("session"), "{error}");
        slowest = slowest.max(at - killed);
    }
    assert!(slowest < NOTICED, "{fate:?} noticed after {slowest:?}");
    let end = Instant::now() + NOTICED;
    while runtime.stats().streams > 0 {
        assert!(Instant::now() < end, "the stream is not forgotten");
        thread::sleep(Duration::from_millis(1));
    }
    slowest
}

fn deaths(poller: Poller, idle: Idle, rounds: usize, fate: Fate) {
    let start_of_test = Instant::now();
    let mut random = Random(rounds as u64);
    let runtime = start(Config { poller, idle, ..config() });
    let listener = runtime.listen(ANY_PORT.into()).unwrap();
    let mut times = Vec::new();
    let mut before = Holdings::now();
    let warm_up = (rounds / 2).min(5);
    for round in 0..warm_up + rounds {
        if round == warm_up {
            before = settled(&listener);
            times.clear();
        }
        times.push(survive(&runtime, &listener, &mut random, fate));
    }
    let after = settled(&listener);
    times.sort();
    let (median, most) = (times[times.len() / 2], times[times.len() - 1]);
    println!(
        "{rounds} x {fate:?}, {poller} {idle}: known after {median:?} (median), {most:?} (most)"
    );
    println!("before: {before:?}; after: {after:?}; took {:?}", start_of_test.elapsed());
    after.assert_no_more_than(&before);
}

/// One test, because it counts what the process holds.
#[test]
fn peers_that_die_are_noticed_and_leave_nothing() {
    within(4 * LIMIT, "deaths", || {
        deaths(Poller::Inline, Idle::Sleep, DEATHS, Fate::Killed);
        deaths(Poller::Dedicated, Idle::Sleep, 10, Fate::Killed);
        deaths(Poller::Inline, Idle::Spin, 4, Fate::Killed);
        deaths(Poller::Inline, Idle::Sleep, 2, Fate::Stopped);
        deaths(Poller::Inline, Idle::Sleep, 20, Fate::KilledWhileFencing);
        deaths(Poller::Dedicated, Idle::Sleep, 5, Fate::KilledWhileFencing);
    });
}
