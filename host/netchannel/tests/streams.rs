//! Streams between two runtimes of one process, on the NIC in memory.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use common::transfers::{both_ways, small_questions, there_and_back};
use common::{ANY_PORT, LIMIT, Pair, Random, check, config, connect, receive, send, start, within};
use netchannel::{Class, Config, Error, Poller, StreamOptions};

#[test]
fn bytes_arrive_whatever_the_sizes() {
    within(LIMIT, "rounds of random sizes", || {
        let pair = Pair::new();
        let mut random = Random(1);
        for round in 0..40 {
            let total = random.size(2 << 20) as u64;
            let piece = random.size(1 << 20) as u64;
            both_ways(&pair, round, total, piece);
            there_and_back(&pair, round << 8, random.size(1 << 16) as u64, piece);
        }
        assert_eq!(pair.client.stats().sessions, 1, "streams share one session");
    });
}

#[test]
fn a_reader_that_stops_does_not_stop_others() {
    within(LIMIT, "stopped reader", || {
        let pair = Pair::new();
        let (mut stuck, stopped) = pair.stream();
        let writer = thread::spawn(move || {
            let outcome = send(&mut stuck, 5, 64 << 20, 1 << 20);
            (stuck, outcome)
        });
        thread::sleep(Duration::from_millis(50));
        both_ways(&pair, 6, 8 << 20, 1 << 20);
        small_questions(&pair, 100);
        assert!(!writer.is_finished(), "nobody has read");
        // It goes on where it stopped.
        let mut stopped = stopped;
        let mut bytes = vec![0; 3 << 20];
        stopped.read_exact(&mut bytes).unwrap();
        check(5, 0, &bytes);
        drop(stopped);
        let (_stuck, outcome) = writer.join().unwrap();
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::BrokenPipe);
    });
}

#[test]
fn reset_and_stop_are_seen_on_the_other_side() {
    within(LIMIT, "reset", || {
        let pair = Pair::new();
        for reset_ours in [true, false] {
            let (ours, theirs) = pair.stream();
            let (one, mut other) = if reset_ours { (ours, theirs) } else { (theirs, ours) };
            one.reset(77);
            let error = other.read(&mut [0; 10]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
            assert!(error.to_string().contains("77") || error.to_string().contains("0x4d"));
            let error = send(&mut other, 0, 64 << 20, 1 << 20).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            assert!(other.close().is_err());

            let (ours, theirs) = pair.stream();
            let (one, other) = if reset_ours { (ours, theirs) } else { (theirs, ours) };
            let (mut tx, rx) = one.split();
            let (mut other_tx, mut other_rx) = other.split();
            drop(rx);
            let error = send(&mut other_tx, 0, 64 << 20, 1 << 20).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::BrokenPipe, "{error}");
            thread::scope(|scope| {
                scope.spawn(move || send(&mut tx, 9, 100_000, 10_000).unwrap());
                let total = receive(&mut other_rx, 9, 5_000).unwrap();
                assert_eq!(total, 100_000, "the other way lives");
            });
        }
    });
}

#[test]
fn dropping_sends_what_was_written() {
    within(LIMIT, "drop", || {
        for total in [1, 1_000, 100_000, 1 << 20, 5 << 20] {
            let pair = Pair::new();
            let (mut ours, mut theirs) = pair.stream();
            let reader = thread::spawn(move || receive(&mut theirs, 3, 1 << 20).unwrap());
            send(&mut ours, 3, total, 1 << 20).unwrap();
            drop(ours);
            let Pair { server, client, listener } = pair;
            client.close().unwrap();
            assert_eq!(reader.join().unwrap(), total);
            drop((server, listener));
        }
    });
}

#[test]
fn refused_connections_say_why() {
    within(LIMIT, "refused", || {
        let pair = Pair::new();
        let address = pair.listener.local_addr();
        let options = StreamOptions::default();
        // Nobody at the TCP port.
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = pair.client.connect(nobody, &options).err().unwrap();
        assert!(matches!(&error, Error::Connect { peer, .. } if *peer == nobody), "{error}");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        // A runtime, a session, but no listener any more.
        let (ours, theirs) = pair.stream();
        let Pair { server, client, listener } = pair;
        drop(listener);
        let error = client.connect(address, &options).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
        assert!(error.to_string().contains("nobody listens"), "{error}");
        drop((ours, theirs));
        // The port is free again.
        let listener = server.listen(address).unwrap();
        let pair = Pair { server, client, listener };
        there_and_back(&pair, 1, 1_000, 100);
    });
}

#[test]
fn streams_that_nobody_accepted_end_with_their_listener() {
    within(LIMIT, "backlog", || {
        let Pair { server, client, listener } = Pair::new();
        let mut waiting: Vec<_> = (0..50).map(|_| connect(&client, &listener)).collect();
        for stream in &mut waiting {
            stream.write_all(b"anybody there?").unwrap();
        }
        drop(listener);
        for mut stream in waiting {
            // FIN without a byte, or a reset.
            assert!(matches!(stream.read(&mut [0; 1]), Ok(0) | Err(_)));
        }
        drop(server);
    });
}

#[test]
fn listeners_wait_as_long_as_told() {
    within(LIMIT, "accept", || {
        let pair = Pair::new();
        let none = pair.listener.accept_timeout(Duration::from_millis(20)).unwrap();
        assert!(none.is_none());
        let _ours = connect(&pair.client, &pair.listener);
        assert!(pair.listener.accept_timeout(LIMIT).unwrap().is_some());
    });
}

#[test]
fn closing_the_runtime_frees_everybody_who_waits() {
    for poller in [Poller::Inline, Poller::Dedicated] {
        within(LIMIT, "close", move || {
            let config = || Config { poller, ..config() };
            let Pair { server, client, listener } = Pair::of(config(), config());
            let address = listener.local_addr();
            let mut ours = connect(&client, &listener);
            let mut theirs = listener.accept().unwrap();
            thread::scope(|scope| {
                let reader = scope.spawn(|| theirs.read(&mut [0; 1]));
                let peer = scope.spawn(|| ours.read(&mut [0; 1]));
                let accepting = scope.spawn(|| listener.accept().err());
                thread::sleep(Duration::from_millis(20));
                server.clone().close().unwrap();
                assert!(reader.join().unwrap().is_err());
                assert!(peer.join().unwrap().is_err());
                assert!(matches!(accepting.join().unwrap(), Some(Error::Closed)));
            });
            assert!(theirs.write_all(&[0; 10]).is_err());
            let error = server.connect(address, &StreamOptions::default()).err().unwrap();
            assert!(matches!(error, Error::Closed), "{error}");
            let error = client.connect(address, &StreamOptions::default()).err().unwrap();
            println!("{poller}: {error}");
        });
    }
}

#[test]
fn both_sides_connect_to_each_other() {
    within(LIMIT, "both connect", || {
        let (one, other) = (start(config()), start(config()));
        let listeners = [&one, &other].map(|r| r.listen(ANY_PORT.into()).unwrap());
        thread::scope(|scope| {
            for (runtime, mine, theirs) in
                [(&one, &listeners[0], &listeners[1]), (&other, &listeners[1], &listeners[0])]
            {
                scope.spawn(move || {
                    for round in 0..10 {
                        let mut stream = connect(runtime, theirs);
                        send(&mut stream, round, 50_000, 5_000).unwrap();
                        stream.close().unwrap();
                    }
                });
                scope.spawn(move || {
                    for round in 0..10 {
                        let mut stream = mine.accept().unwrap();
                        assert_eq!(receive(&mut stream, round, 5_000).unwrap(), 50_000);
                    }
                });
            }
        });
    });
}

#[test]
fn a_thread_that_goes_away_leaves_nothing_unsaid() {
    for poller in [Poller::Inline, Poller::Dedicated] {
        within(LIMIT, "short-lived threads", move || {
            let config = || Config { poller, ..config() };
            let pair = Pair::of(config(), config());
            let (mut ours, mut theirs) = pair.stream();
            for round in 0..100 {
                let (ours, theirs) = (&mut ours, &mut theirs);
                thread::scope(|scope| {
                    scope.spawn(|| send(ours, round, 3_000, 1_000).unwrap());
                });
                thread::scope(|scope| {
                    scope.spawn(|| {
                        let mut bytes = [0; 3_000];
                        theirs.read_exact(&mut bytes).unwrap();
                        check(round, 0, &bytes);
                    });
                });
            }
        });
    }
}

#[test]
fn a_stream_tells_how_it_travels() {
    within(LIMIT, "info", || {
        let pair = Pair::new();
        let options = StreamOptions { class: Class::Latency, ..StreamOptions::default() };
        let stream = pair.client.connect(pair.listener.local_addr(), &options).unwrap();
        let info = stream.info();
        assert_eq!((info.device.as_str(), info.channels, info.class), ("soft", 1, Class::Latency));
        let bulk = pair.stream().0.info();
        assert_eq!((bulk.channels, bulk.class), (4, Class::Throughput));
        assert_eq!(info.reason, "asked for by name");
        assert_eq!(info.peer, pair.listener.local_addr());
    });
}
