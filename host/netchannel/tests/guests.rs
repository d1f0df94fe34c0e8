//! Applications that die: the engine keeps nothing of them, and no other application notices.
//!
//! An application is this test binary once more, with a task: what to do, the socket of the engine,
//! the address of the peer.

mod common;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use common::child::{self, Guest, SOON};
use common::holdings::Holdings;
use common::place::Place;
use common::waiting::is_readable;
use common::{ANY_PORT, LIMIT, Random, config, fill, receive, start, within};
use netchannel::{Config, Idle, Interest, Poller, ReadyList, Runtime, Stream, StreamOptions};

/// Applications killed with each driver of the engine.
const DEATHS: usize = 50;

/// Does nothing in the test itself. In another process it is what runs.
#[test]
fn guest() {
    let Some(task) = child::task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let (task, socket, address) = match words[..] {
        ["peer"] => return peer(),
        ["engine", socket] => return engine(Path::new(socket)),
        [task, socket, address] => (task, socket, address),
        _ => panic!("{task}"),
    };
    let runtime = Runtime::attach(socket, config()).unwrap();
    let address: SocketAddr = address.parse().unwrap();
    let stream = runtime.connect(address, &StreamOptions::default()).unwrap();
    match task {
        "flood" => flood(stream),
        "steady" => steady(stream, runtime),
        other => panic!("unknown task {other}"),
    }
}

/// The other host: floods whoever floods it, and checks what the steady application sends.
fn peer() {
    let runtime = start(config());
    let floods = runtime.listen(ANY_PORT.into()).unwrap();
    let steady = runtime.listen(ANY_PORT.into()).unwrap();
    println!("listening {} {}", floods.local_addr(), steady.local_addr());
    thread::spawn(move || {
        let mut stream = steady.accept().unwrap();
        println!("checked {}", receive(&mut stream, 5, 1 << 18).unwrap());
    });
    loop {
        let (mut tx, mut rx) = floods.accept().unwrap().split();
        println!("up");
        let reader = thread::spawn(move || io::copy(&mut rx, &mut io::sink()).unwrap_err());
        let writer = thread::spawn(move || {
            let bytes = vec![9; 100_000];
            loop {
                if let Err(error) = tx.write_all(&bytes) {
                    return error;
                }
            }
        });
        let (read, write) = (reader.join().unwrap(), writer.join().unwrap());
        println!("down {:?} {:?}", read.kind(), write.kind());
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

/// An engine for others.
fn engine(socket: &Path) {
    let runtime = start(Config { poller: Poller::Dedicated, ..config() });
    let _server = runtime.serve(socket).unwrap();
    println!("serving");
    loop {
        thread::park();
    }
}

/// One application comes, floods and is flooded, and is killed at some point.
fn come_and_die(socket: &Path, peer: &mut Guest, address: &str, random: &mut Random) {
    let mut guest = Guest::start("flood", socket, address);
    peer.says("up");
    thread::sleep(Duration::from_micros(random.below(20_000)));
    guest.kill();
    // The peer learns it by the stream alone: its session with the engine lives on.
    assert_eq!(peer.says("down "), "ConnectionReset BrokenPipe");
}

fn deaths(poller: Poller) {
    let place = Place::new();
    let engine = start(Config { poller, idle: Idle::Sleep, ..config() });
    let server = engine.serve(place.socket()).unwrap();
    let mut peer = Guest::with_task("peer");
    let addresses = peer.says("listening ");
    let (floods, steadies) = addresses.split_once(' ').unwrap();
    let mut steady = Guest::start("steady", server.path(), steadies);
    let settled = || {
        let end = Instant::now() + SOON;
        while engine.stats().streams > 1 {
            assert!(Instant::now() < end, "streams of the dead are not forgotten");
            thread::sleep(Duration::from_millis(1));
        }
        Holdings::settled(SOON, || thread::sleep(Duration::from_millis(20)))
    };
    let mut random = Random(3);
    // What is made once stays: threads' ports, slabs of the sessions.
    for _ in 0..5 {
        come_and_die(server.path(), &mut peer, floods, &mut random);
    }
    let before = settled();
    for _ in 0..DEATHS {
        come_and_die(server.path(), &mut peer, floods, &mut random);
    }
    let after = settled();
    println!("{poller}: before: {before:?}; after: {after:?}");

    drop(steady.stdin.take());
    let total = steady.says("total ");
    assert_eq!(peer.says("checked "), total, "the other application lost something");
    assert!(total != "0" && steady.process.wait().unwrap().success());
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

/// Killed or stopped in order, the engine leaves errors behind and nobody who waits.
#[test]
fn an_engine_that_dies_is_an_error_for_everybody() {
    within(LIMIT, "the death of an engine", || {
        let place = Place::new();
        let mut engine = Guest::with_task(&format!("engine {}", place.socket().display()));
        engine.says("serving");
        let application = Runtime::attach(place.socket(), config()).unwrap();
        let listener = application.listen(ANY_PORT.into()).unwrap();
        let peer = start(config());
        let theirs = peer.listen(ANY_PORT.into()).unwrap();
        let connect = || application.connect(theirs.local_addr(), &StreamOptions::default());
        let (mut tx, mut rx) = connect().unwrap().split();
        let other_end = theirs.accept().unwrap();
        let mut third = connect().unwrap();
        let pollable = third.receive_half().pollable().unwrap();
        let mut list = ReadyList::new(&application).unwrap();
        list.register(&third, 5, Interest::READ).unwrap();
        assert!(list.wait(Some(Duration::ZERO)).unwrap().is_empty());
        assert!(!is_readable(&pollable, Duration::ZERO));
        let listing = thread::spawn(move || list.wait(Some(LIMIT)).unwrap().to_vec());
        let accepting = thread::spawn(move || listener.accept().err().unwrap());
        let reading = thread::spawn(move || io::copy(&mut rx, &mut io::sink()).unwrap_err());
        let writing = thread::spawn(move || {
            let bytes = vec![1; 1 << 20];
            loop {
                if let Err(error) = tx.write_all(&bytes) {
                    return error;
                }
            }
        });
        thread::sleep(Duration::from_millis(20));
        engine.kill();
        let said = [
            accepting.join().unwrap().to_string(),
            reading.join().unwrap().to_string(),
            writing.join().unwrap().to_string(),
            connect().err().unwrap().to_string(),
            third.receive_half().try_read(&mut [0]).unwrap_err().to_string(),
        ];
        for said in said {
            assert!(said.contains("the engine at") && said.contains("is gone"), "{said}");
        }
        assert!(is_readable(&pollable, LIMIT));
        let ready = listing.join().unwrap();
        assert!(matches!(ready[..], [event] if event.token == 5 && event.is_readable));
        assert!(application.close().unwrap_err().to_string().contains("is gone"));
        drop(other_end);

        // The socket that it left behind is no obstacle to the next.
        let left = Runtime::attach(place.socket(), config()).err().unwrap();
        assert_eq!(left.kind(), io::ErrorKind::ConnectionRefused, "{left}");
        let next = start(config());
        let server = next.serve(place.socket()).unwrap();
        drop(Runtime::attach(server.path(), config()).unwrap());
    });
}
