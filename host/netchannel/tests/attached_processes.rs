//! Applications in processes of their own do what those in the engine's can: they wait on descriptors
//! and ready lists, connect without waiting, and work in the stack's memory.
//!
//! An application is this test binary once more, with a task: what to do, the socket of the engine,
//! the address of the peer.

mod common;

use std::io::{ErrorKind, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use common::child::{self, Guest, SOON};
use common::in_place::{receive_mixed, send_mixed};
use common::place::Place;
use common::waiting::{echo, is_readable, serve_list, would_block, write_listed};
use common::{ANY_PORT, LIMIT, config, receive, send, start, within};
use netchannel::{AttachServer, Config, Error, Listener, Poller, Runtime, Stream, StreamOptions};

/// Streams that wait on descriptors.
const ECHOES: u64 = 4;
/// Streams of a ready list: more than one ring holds at once.
const LISTED: u64 = 1_500;
/// Bytes of each stream that carries many.
const TOTAL: u64 = 3 << 20;

/// Does nothing in the test itself. In another process it is the application.
#[test]
fn guest() {
    let Some(task) = child::task() else { return };
    let words: Vec<&str> = task.split(' ').collect();
    let [task, socket, address] = words[..] else { panic!("{task}") };
    let runtime = Runtime::attach(socket, config()).unwrap();
    let address: SocketAddr = address.parse().unwrap();
    match task {
        "echo" => echoes(&runtime),
        "list" => list(&runtime),
        "in-place" => work_in_place(&runtime, address),
        "connect" => connect_without_waiting(&runtime, address),
        other => panic!("unknown task {other}"),
    }
    runtime.close().unwrap();
}

/// Accepts by descriptor, and echoes each stream by its descriptor.
fn echoes(runtime: &Runtime) {
    let listener = runtime.listen(ANY_PORT.into()).unwrap();
    let door = listener.pollable().unwrap();
    println!("listening {}", listener.local_addr());
    thread::scope(|scope| {
        for number in 0..ECHOES {
            let mut stream = accept(&listener, || assert!(is_readable(&door, SOON)));
            scope.spawn(move || {
                let pollable = stream.pollable().unwrap();
                assert_eq!(echo(&mut stream, &pollable, number % 2 == 0), TOTAL);
                stream.close().unwrap();
            });
        }
    });
}

fn accept(listener: &Listener, wait: impl Fn()) -> Stream {
    loop {
        match listener.try_accept() {
            Ok(stream) => return stream,
            Err(error) => assert!(would_block(Err::<(), _>(error))),
        }
        wait();
    }
}

/// One thread reads many streams.
fn list(runtime: &Runtime) {
    let listener = runtime.listen(ANY_PORT.into()).unwrap();
    println!("listening {}", listener.local_addr());
    serve_list(runtime, &listener, LISTED);
}

/// Makes its bytes in the send buffer, and uses those of the peer where they lie.
fn work_in_place(runtime: &Runtime, address: SocketAddr) {
    for (seed, piece) in [(1, 300_000), (2, 5_000)] {
        let options = StreamOptions::default();
        let mut stream = runtime.connect_timeout(address, &options, SOON).unwrap();
        send_mixed(&mut stream, seed, TOTAL, piece);
        stream.finish();
        assert_eq!(receive_mixed(&mut stream, !seed, piece), TOTAL);
        stream.close().unwrap();
    }
}

fn connect_without_waiting(runtime: &Runtime, address: SocketAddr) {
    let options = StreamOptions::default();
    let finish = |peer| {
        let mut connecting = runtime.start_connect(peer, &options).unwrap();
        let end = Instant::now() + SOON;
        loop {
            match connecting.try_finish() {
                Err(Error::WouldBlock) => assert!(Instant::now() < end, "no answer"),
                other => return other,
            }
            thread::yield_now();
        }
    };
    let mut stream = finish(address).unwrap();
    stream.write_all(b"here").unwrap();
    stream.close().unwrap();
    // A port where nobody listens.
    let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
    let refused = finish(nobody).err().unwrap();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused, "{refused}");
    // Given up before or after the answer came: the engine keeps no stream of it.
    for round in 0..20 {
        let given_up = runtime.start_connect(address, &options).unwrap();
        thread::sleep(Duration::from_micros(100 * round));
        drop(given_up);
    }
    println!("given up");
    // While this process goes on.
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// An engine that serves, and another host.
struct World {
    engine: Runtime,
    server: AttachServer,
    peer: Runtime,
    _place: Place,
}

/// With every driver of the engine.
fn with_each_driver(what: &'static str, test: fn(&World)) {
    for poller in [Poller::Dedicated, Poller::Inline] {
        within(LIMIT, what, move || {
            let place = Place::new();
            let engine = start(Config { poller, ..config() });
            let server = engine.serve(place.socket()).unwrap();
            test(&World { engine, server, peer: start(config()), _place: place });
        });
    }
}

impl World {
    fn application(&self, task: &str, peer: SocketAddr) -> Guest {
        Guest::start(task, self.server.path(), &peer.to_string())
    }

    /// One that listens; with its address.
    fn server(&self, task: &str) -> (Guest, SocketAddr) {
        let mut guest = self.application(task, ANY_PORT.into());
        let address = guest.says("listening ").parse().unwrap();
        (guest, address)
    }
}

#[test]
fn descriptors_tell_other_processes() {
    with_each_driver("descriptors", |world| {
        let (guest, address) = world.server("echo");
        thread::scope(|scope| {
            for seed in 0..ECHOES {
                let stream = world.peer.connect(address, &StreamOptions::default()).unwrap();
                let (mut tx, mut rx) = stream.split();
                scope.spawn(move || {
                    send(&mut tx, seed, TOTAL, 100_000).unwrap();
                    tx.finish();
                });
                scope.spawn(move || {
                    // The echo has to wait for room.
                    thread::sleep(Duration::from_millis(30));
                    assert_eq!(receive(&mut rx, seed, 300_000).unwrap(), TOTAL);
                });
            }
        });
        guest.succeeds();
    });
}

#[test]
fn a_list_of_another_process_serves_many_streams() {
    with_each_driver("a list", |world| {
        let (guest, address) = world.server("list");
        write_listed(&world.peer, address, LISTED);
        guest.succeeds();
    });
}

#[test]
fn other_processes_work_in_the_memory_of_their_streams() {
    with_each_driver("work in place", |world| {
        let listener = world.peer.listen(ANY_PORT.into()).unwrap();
        let guest = world.application("in-place", listener.local_addr());
        for (seed, piece) in [(1, 300_000), (2, 5_000)] {
            let mut stream = listener.accept().unwrap();
            assert_eq!(receive_mixed(&mut stream, seed, piece), TOTAL);
            send_mixed(&mut stream, !seed, TOTAL, piece);
            stream.close().unwrap();
        }
        guest.succeeds();
    });
}

#[test]
fn other_processes_connect_without_waiting() {
    with_each_driver("connecting", |world| {
        let listener = world.peer.listen(ANY_PORT.into()).unwrap();
        let mut guest = world.application("connect", listener.local_addr());
        assert_eq!(receive_text(&listener), "here");
        guest.says("given up");
        let end = Instant::now() + SOON;
        while world.engine.stats().streams > 0 {
            // Those that were opened and that nobody wants.
            while listener.accept_timeout(Duration::from_millis(1)).unwrap().is_some() {}
            assert!(Instant::now() < end, "streams that were given up are not forgotten");
        }
        guest.succeeds();
    });
}

fn receive_text(listener: &Listener) -> String {
    std::io::read_to_string(listener.accept().unwrap()).unwrap()
}
