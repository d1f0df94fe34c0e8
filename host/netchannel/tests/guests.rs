//! Applications that die: the engine keeps nothing of them, and no other application notices.
//!
//! An application is this test binary once more: [`GUEST`] says what it is to do.

mod common;

use std::io::{self, BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::holdings::Holdings;
use common::place::Place;
use common::{ANY_PORT, LIMIT, Random, config, fill, receive, start, within};
use netchannel::{Config, Idle, Listener, Poller, Runtime, Stream, StreamOptions};
use rustix::process::{Pid, Signal, kill_process};

/// What an application is to do: task, socket of the engine, address of the peer.
const GUEST: &str = "NETCHANNEL_TEST_GUEST";
/// Applications killed with each driver of the engine.
const DEATHS: usize = 50;
/// For everything that takes a moment; test machines may stand still for a while.
const SOON: Duration = Duration::from_secs(20);

/// Does nothing in the test itself. In an application's process it is what runs.
#[test]
fn guest() {
    let Ok(task) = std::env::var(GUEST) else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let [task, socket, address] = words[..] else { panic!("{task}") };
    let runtime = Runtime::attach(socket, config()).unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let stream = runtime.connect(address, &StreamOptions::default()).unwrap();
    match task {
        "flood" => flood(stream),
        "steady" => steady(stream, runtime),
        "patient" => patient(stream),
        other => panic!("unknown task {other}"),
    }
}

/// Writes and reads without an end.
fn flood(stream: Stream) {
    let (mut tx, mut rx) = stream.split();
    thread::spawn(move || io::copy(&mut rx, &mut io::sink()));
    let bytes = vec![7; 200_000];
    let mut random = Random(u64::from(std::process::id()));
    while tx.write_all(&bytes[..random.size(200_000)]).is_ok() {}
}

/// Writes a pattern until its standard input ends, says how much it was, and ends in order.
fn steady(mut stream: Stream, runtime: Runtime) {
    let (stop, stopped) = mpsc::channel();
    thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = stop.send(());
    });
    let mut random = Random(1);
    let mut buffer = vec![0; 100_000];
    let mut total = 0;
    while stopped.try_recv() == Err(mpsc::TryRecvError::Empty) {
        let len = random.size(100_000);
        fill(5, total, &mut buffer[..len]);
        stream.write_all(&buffer[..len]).unwrap();
        total += len as u64;
        // Others need the processor, too.
        thread::sleep(Duration::from_micros(500));
    }
    println!("total {total}");
    stream.close().unwrap();
    runtime.close().unwrap();
}

/// Reads, and says why that ended.
fn patient(mut stream: Stream) {
    println!("ready");
    let error = io::copy(&mut stream, &mut io::sink()).unwrap_err();
    println!("error {:?} {error}", error.kind());
}

struct Guest {
    process: Child,
    stdin: Option<ChildStdin>,
}

impl Guest {
    fn start(task: &str, socket: &Path, peer: SocketAddr) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["guest", "--exact", "--nocapture"])
            .env(GUEST, format!("{task} {} {peer}", socket.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take();
        Self { process, stdin }
    }

    fn kill(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::KILL).unwrap();
        self.process.wait().unwrap();
    }

    /// What it says behind `word`.
    fn say(&mut self, word: &str) -> String {
        let lines = BufReader::new(self.process.stdout.as_mut().unwrap()).lines();
        let found = lines
            .map(Result::unwrap)
            .find_map(|line| line.split_once(word).map(|(_, rest)| rest.trim().to_owned()));
        found.unwrap_or_else(|| panic!("the application did not say `{word}`"))
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// One application comes, floods and is flooded, and is killed at some point.
fn come_and_die(socket: &Path, listener: &Listener, random: &mut Random) {
    let mut guest = Guest::start("flood", socket, listener.local_addr());
    let stream = listener.accept_timeout(SOON).unwrap().expect("the application connects");
    let (mut tx, mut rx) = stream.split();
    let reader = thread::spawn(move || io::copy(&mut rx, &mut io::sink()));
    let writer = thread::spawn(move || {
        let bytes = vec![9; 100_000];
        loop {
            if let Err(error) = tx.write_all(&bytes) {
                return error;
            }
        }
    });
    thread::sleep(Duration::from_micros(random.below(20_000)));
    guest.kill();
    // The peer learns it by the stream alone: its session with the engine lives on.
    let error = reader.join().unwrap().unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{error}");
    let error = writer.join().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe, "{error}");
}

fn deaths(poller: Poller) {
    let place = Place::new();
    let engine = start(Config { poller, idle: Idle::Sleep, ..config() });
    let server = engine.serve(place.socket()).unwrap();
    let peer = start(config());
    let listener = peer.listen(ANY_PORT.into()).unwrap();
    let steady_listener = peer.listen(ANY_PORT.into()).unwrap();
    let mut steady = Guest::start("steady", server.path(), steady_listener.local_addr());
    let mut stream =
        steady_listener.accept_timeout(SOON).unwrap().expect("the steady one connects");
    let checked = thread::spawn(move || receive(&mut stream, 5, 1 << 18));

    let alone = || {
        let end = Instant::now() + SOON;
        while engine.stats().streams > 1 || peer.stats().streams > 1 {
            assert!(Instant::now() < end, "streams of the dead are not forgotten");
            thread::sleep(Duration::from_millis(1));
        }
    };
    let settled = || {
        alone();
        Holdings::settled(SOON, || {
            assert!(listener.accept_timeout(Duration::from_millis(20)).unwrap().is_none());
        })
    };
    let mut random = Random(3);
    // What is made once stays: threads' ports, slabs of the sessions.
    for _ in 0..5 {
        come_and_die(server.path(), &listener, &mut random);
    }
    let before = settled();
    for _ in 0..DEATHS {
        come_and_die(server.path(), &listener, &mut random);
    }
    let after = settled();
    println!("{poller}: before: {before:?}; after: {after:?}");

    drop(steady.stdin.take());
    let total: u64 = steady.say("total ").parse().unwrap();
    assert_eq!(checked.join().unwrap().unwrap(), total, "the other application lost something");
    assert!(total > 0 && steady.process.wait().unwrap().success());
    after.assert_no_more_than(&before);
}

/// One test, because it counts what the process holds.
#[test]
fn applications_that_die_leave_nothing_and_disturb_nobody() {
    within(8 * LIMIT, "deaths", || {
        deaths(Poller::Dedicated);
        deaths(Poller::Inline);
    });
}
