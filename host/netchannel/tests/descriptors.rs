//! Descriptors that tell of streams and listeners.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::Duration;

use common::child::{self, Guest};
use common::waiting::{echo, is_readable, settings, would_block};
use common::{ANY_PORT, LIMIT, Pair, config, start, within};
use netchannel::{Config, Error, Interest, Keepalive, ReadyList, StreamOptions};

/// An echo through `epoll`, level- and edge-triggered, with every poller and idleness on the side that waits.
#[test]
fn descriptors_tell_of_both_directions() {
    for config in settings() {
        for edge in [false, true] {
            let what = format!("{} {} {edge}", config.poller, config.idle);
            let config = config.clone();
            within(LIMIT, &what, move || {
                let pair = Pair::of(config, common::config());
                let (ours, mut theirs) = pair.stream();
                let pollable = theirs.pollable().unwrap();
                let total = 2 << 20;
                thread::scope(|scope| {
                    let (mut tx, mut rx) = ours.split();
                    scope.spawn(move || {
                        thread::sleep(Duration::from_millis(5));
                        common::send(&mut tx, 7, total, 100_000).unwrap();
                        tx.finish();
                    });
                    scope.spawn(move || {
                        // The echo has to wait for room.
                        thread::sleep(Duration::from_millis(30));
                        assert_eq!(common::receive(&mut rx, 7, 300_000).unwrap(), total);
                    });
                    assert_eq!(echo(&mut theirs, &pollable, edge), total);
                });
            });
        }
    }
}

#[test]
fn a_descriptor_is_readable_as_long_as_its_stream_is() {
    within(LIMIT, "level", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        let pollable = theirs.receive_half().pollable().unwrap();
        let soon = Duration::from_millis(50);
        assert!(!is_readable(&pollable, soon), "nothing was written");
        ours.write_all(&[1; 10]).unwrap();
        assert!(is_readable(&pollable, LIMIT));
        assert_eq!(theirs.read(&mut [0; 3]).unwrap(), 3);
        assert!(is_readable(&pollable, soon), "more is there");
        assert_eq!(theirs.read(&mut [0; 30]).unwrap(), 7);
        assert!(would_block(theirs.receive_half().try_read(&mut [0; 1])));
        assert!(!is_readable(&pollable, soon), "nothing is left");
        // A thread that waits in a call does not get in its way.
        ours.write_all(&[1; 10]).unwrap();
        theirs.read_exact(&mut [0; 10]).unwrap();
        assert!(would_block(theirs.receive_half().try_read(&mut [0; 1])));
        assert!(!is_readable(&pollable, soon));
        ours.finish();
        assert!(is_readable(&pollable, LIMIT), "the end");
        assert_eq!(theirs.receive_half().try_read(&mut [0; 1]).unwrap(), 0);
        // Asked for when there is something already.
        let again = theirs.receive_half().pollable().unwrap();
        assert!(is_readable(&again, soon));
    });
}

#[test]
fn descriptors_tell_of_reset_stop_and_the_death_of_the_session() {
    within(LIMIT, "bad ends", || {
        let pair = Pair::new();
        let (ours, mut theirs) = pair.stream();
        let pollable = theirs.receive_half().pollable().unwrap();
        ours.reset(9);
        assert!(is_readable(&pollable, LIMIT));
        let error = theirs.receive_half().try_read(&mut [0; 1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);

        let (ours, mut theirs) = pair.stream();
        while theirs.send_half().try_write(&[1; 100_000]).is_ok() {}
        let pollable = theirs.send_half().pollable().unwrap();
        assert!(would_block(theirs.send_half().try_write(&[1; 100_000])));
        drop(ours);
        assert!(is_readable(&pollable, LIMIT));
        let error = theirs.send_half().try_write(&[1]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::BrokenPipe);

        let (_ours, mut theirs) = pair.stream();
        let pollable = theirs.receive_half().pollable().unwrap();
        let Pair { client, server: _server, listener: _listener } = pair;
        client.close().unwrap();
        assert!(is_readable(&pollable, LIMIT));
        assert!(matches!(theirs.receive_half().try_read(&mut [0; 1]), Err(Error::Session { .. })));
    });
}

/// Does nothing in the test itself. In another process it is the peer, which connects and waits.
#[test]
fn guest() {
    let Some(address) = child::task() else { return };
    let runtime = start(config());
    let stream = runtime.connect(address.parse().unwrap(), &StreamOptions::default()).unwrap();
    println!("up");
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    drop(stream);
}

/// Stopped, the peer's process keeps its connections, and only its silence tells; killed, its
/// sockets are closed.
#[test]
fn a_peer_that_is_stopped_or_killed_makes_descriptors_and_lists_ready() {
    for stopped in [true, false] {
        within(LIMIT, "peer death", move || {
            let keepalive = Keepalive {
                interval: Duration::from_millis(100),
                timeout: Duration::from_millis(500),
                ..Keepalive::default()
            };
            let server = start(Config { keepalive, ..config() });
            let listener = server.listen(ANY_PORT.into()).unwrap();
            let mut peer = Guest::with_task(&listener.local_addr().to_string());
            let mut theirs = listener.accept().unwrap();
            peer.says("up");
            let pollable = theirs.receive_half().pollable().unwrap();
            let mut list = ReadyList::new(&server).unwrap();
            list.register(&theirs, 3, Interest::READ).unwrap();
            assert!(list.wait(Some(Duration::from_millis(20))).unwrap().is_empty());
            assert!(!is_readable(&pollable, Duration::ZERO));
            if stopped {
                peer.stop();
            } else {
                peer.kill();
            }
            let events = list.wait(Some(LIMIT)).unwrap();
            assert!(matches!(events, [event] if event.token == 3 && event.is_readable));
            assert!(is_readable(&pollable, LIMIT));
            let error = theirs.receive_half().try_read(&mut [0; 1]).unwrap_err();
            assert!(matches!(error, Error::Session { .. }), "{error}");
            let timed_out = error.kind() == ErrorKind::TimedOut;
            assert_eq!(timed_out, stopped, "{error}");
        });
    }
}

#[test]
fn listeners_have_descriptors() {
    for config in settings() {
        within(LIMIT, "listener", move || {
            let pair = Pair::of(config, common::config());
            let pollable = pair.listener.pollable().unwrap();
            let soon = Duration::from_millis(20);
            assert!(!is_readable(&pollable, soon));
            for _ in 0..3 {
                let _ours = common::connect(&pair.client, &pair.listener);
                assert!(is_readable(&pollable, LIMIT));
                assert!(pair.listener.try_accept().is_ok());
                assert!(would_block(pair.listener.try_accept()));
                assert!(!is_readable(&pollable, soon));
            }
        });
    }
}
