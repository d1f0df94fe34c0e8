//! Calls that never wait, descriptors, and ready lists.

mod common;

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::child::{self, Guest};
use common::waiting::{echo, is_readable, would_block};
use common::{ANY_PORT, LIMIT, Pair, Random, check, config, fill, start, within};
use netchannel::{
    Config, Error, Idle, Interest, Keepalive, Poller, ReadyList, Stream, StreamOptions,
};

fn settings() -> impl Iterator<Item = Config> {
    let pollers = [Poller::Inline, Poller::Dedicated].into_iter();
    pollers.flat_map(|poller| {
        [Idle::Spin, Idle::Sleep].map(|idle| Config { poller, idle, ..config() })
    })
}

/// One thread, both ends, no call that waits: whatever waited would wait for ever.
#[test]
fn one_thread_drives_both_ends() {
    for config in settings() {
        within(LIMIT, &format!("{} {}", config.poller, config.idle), move || {
            let Pair { server, client, listener } = Pair::of(config.clone(), config);
            assert!(would_block(listener.try_accept()));
            let options = StreamOptions::default();
            let mut connecting = client.start_connect(listener.local_addr(), &options).unwrap();
            let (mut ours, mut theirs) = (None, None);
            while ours.is_none() || theirs.is_none() {
                match connecting.try_finish() {
                    Ok(stream) => ours = Some(stream),
                    Err(Error::WouldBlock | Error::Closed) => {}
                    Err(error) => panic!("{error}"),
                }
                match listener.try_accept() {
                    Ok(stream) => theirs = Some(stream),
                    Err(error) => assert!(would_block(Err::<(), _>(error))),
                }
            }
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            assert!(would_block(theirs.receive_half().try_read(&mut [0; 1])));
            assert!(would_block(theirs.receive_half().try_borrow()));
            try_both(&mut ours, &mut theirs, 3 << 20);
            drop(server);
        });
    }
}

fn try_both(ours: &mut Stream, theirs: &mut Stream, total: u64) {
    let mut random = Random(1);
    let (mut sent, mut received) = (0, 0);
    let mut refused = 0;
    let mut bytes = vec![0; 200_000];
    while received < total {
        // Until there is no room at all.
        while sent < total {
            let len = random.size(200_000).min((total - sent) as usize);
            fill(1, sent, &mut bytes[..len]);
            let taken = if random.below(2) == 0 {
                ours.send_half().try_write(&bytes[..len])
            } else {
                ours.send_half().try_reserve(len).and_then(|mut space| {
                    let len = space.len();
                    space.put(0, &bytes[..len]);
                    space.commit(len).map(|()| len)
                })
            };
            match taken {
                Ok(taken) => sent += taken as u64,
                Err(Error::WouldBlock) => {
                    refused += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        if sent == total {
            ours.finish();
        }
        loop {
            let len = random.size(200_000);
            match theirs.receive_half().try_read(&mut bytes[..len]) {
                Ok(0) => break,
                Ok(count) => {
                    check(1, received, &bytes[..count]);
                    received += count as u64;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 0, "the buffer was never full");
}

#[test]
fn nonblocking_streams_answer_would_block_from_every_call() {
    within(LIMIT, "set_nonblocking", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        theirs.set_nonblocking(true);
        assert_eq!(theirs.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(would_block(theirs.receive_half().borrow()));
        let error = loop {
            if let Err(error) = theirs.write(&[1; 100_000]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(would_block(theirs.send_half().reserve(100_000)));
        theirs.set_nonblocking(false);
        ours.write_all(&[1]).unwrap();
        assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 1);
    });
}

#[test]
fn connecting_takes_no_longer_than_told() {
    within(LIMIT, "connect_timeout", || {
        let client = start(config());
        // Takes connections and says nothing.
        let silent = std::net::TcpListener::bind(std::net::SocketAddr::from(ANY_PORT)).unwrap();
        let address = silent.local_addr().unwrap();
        let options = StreamOptions::default();
        let timeout = Duration::from_millis(50);
        let error = client.connect_timeout(address, &options, timeout).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        let pair = Pair::new();
        let address = pair.listener.local_addr();
        assert!(pair.client.connect_timeout(address, &options, LIMIT).is_ok());
        drop(pair.listener);
        let mut refused = pair.client.start_connect(address, &options).unwrap();
        let error = loop {
            match refused.try_finish() {
                Err(Error::WouldBlock) => {}
                other => break other.err().unwrap(),
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    });
}

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

#[test]
fn a_finished_direction_tells_when_everything_is_there() {
    within(LIMIT, "finished", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        let mut list = ReadyList::new(&pair.client).unwrap();
        while ours.send_half().try_write(&[1; 100_000]).is_ok() {}
        ours.finish();
        list.register(&ours, 1, Interest::WRITE).unwrap();
        assert!(!ours.send_half().is_finished().unwrap());
        let reader = thread::spawn(move || std::io::copy(&mut theirs, &mut std::io::sink()));
        let deadline = Instant::now() + LIMIT;
        while !ours.send_half().is_finished().unwrap() {
            assert!(Instant::now() < deadline);
            list.wait(Some(Duration::from_secs(1))).unwrap();
        }
        reader.join().unwrap().unwrap();
    });
}

/// Streams of one list, each with its own amount of bytes; one thread reads them all.
fn serve_many(config: Config, count: u64) {
    let pair = Pair::of(config, common::config());
    let amount = |token: u64| Random(token).below(3_000) + 1;
    thread::scope(|scope| {
        let (client, address) = (&pair.client, pair.listener.local_addr());
        scope.spawn(move || {
            let mut streams: Vec<_> = (0..count)
                .map(|seed| {
                    let mut stream = client.connect(address, &StreamOptions::default()).unwrap();
                    stream.write_all(&seed.to_le_bytes()).unwrap();
                    stream
                })
                .collect();
            let mut bytes = [0; 3_000];
            for (seed, stream) in streams.iter_mut().enumerate() {
                let len = amount(seed as u64) as usize;
                fill(seed as u64, 0, &mut bytes[..len]);
                stream.write_all(&bytes[..len]).unwrap();
            }
            streams.into_iter().for_each(|stream| stream.close().unwrap());
        });
        let mut list = ReadyList::new(&pair.server).unwrap();
        list.register_listener(&pair.listener, u64::MAX);
        let mut streams: HashMap<u64, (Stream, Vec<u8>)> = HashMap::new();
        let (mut accepted, mut over) = (0, 0);
        while over < count {
            for event in list.wait(Some(LIMIT)).unwrap().to_vec() {
                if event.token == u64::MAX {
                    while let Ok(stream) = pair.listener.try_accept() {
                        list.register(&stream, accepted, Interest::READ).unwrap();
                        streams.insert(accepted, (stream, Vec::new()));
                        accepted += 1;
                    }
                    continue;
                }
                assert!(event.is_readable && !event.is_writable);
                let Some((stream, read)) = streams.get_mut(&event.token) else { continue };
                let mut bytes = [0; 700];
                match stream.receive_half().try_read(&mut bytes) {
                    Ok(0) => {
                        let seed = u64::from_le_bytes(read[..8].try_into().unwrap());
                        assert_eq!(read.len() as u64 - 8, amount(seed));
                        check(seed, 0, &read[8..]);
                        over += 1;
                        // It leaves the list by itself.
                        streams.remove(&event.token);
                    }
                    Ok(count) => read.extend_from_slice(&bytes[..count]),
                    Err(Error::WouldBlock) => {}
                    Err(error) => panic!("{error}"),
                }
            }
        }
    });
}

#[test]
fn a_list_serves_a_thousand_streams() {
    for config in settings() {
        let what = format!("list {} {}", config.poller, config.idle);
        within(LIMIT, &what, move || serve_many(config, 1_000));
    }
}

#[test]
fn a_list_that_overflows_loses_nothing() {
    within(LIMIT, "overflow", || {
        let pair = Pair::new();
        let streams: Vec<_> = (0..3_000).map(|_| pair.stream()).collect();
        let mut list = ReadyList::new(&pair.server).unwrap();
        for (token, (_, theirs)) in streams.iter().enumerate() {
            list.register(theirs, token as u64, Interest::READ).unwrap();
        }
        assert!(list.wait(Some(Duration::from_millis(1))).unwrap().is_empty());
        // More than the ring holds, while nobody looks.
        let (mut ours, mut theirs): (Vec<_>, Vec<_>) = streams.into_iter().unzip();
        for stream in &mut ours {
            stream.write_all(&[1]).unwrap();
        }
        let mut seen = vec![false; theirs.len()];
        while seen.contains(&false) {
            let events = list.wait(Some(LIMIT)).unwrap().to_vec();
            assert!(!events.is_empty(), "{} are missing", seen.iter().filter(|s| !**s).count());
            for event in events {
                let index = event.token as usize;
                assert_eq!(theirs[index].receive_half().try_read(&mut [0; 8]).unwrap(), 1);
                assert!(!std::mem::replace(&mut seen[index], true), "{index} twice");
            }
        }
    });
}

#[test]
fn registrations_change_and_end() {
    within(LIMIT, "registrations", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        let mut list = ReadyList::new(&pair.server).unwrap();
        let short = Some(Duration::from_millis(20));
        let registration = list.register(&theirs, 5, Interest::READ).unwrap();
        assert!(list.wait(short).unwrap().is_empty());
        list.reregister(registration, Interest::READ | Interest::WRITE).unwrap();
        assert!(matches!(list.wait(short).unwrap(), [e] if e.is_writable && !e.is_readable));
        ours.write_all(&[1]).unwrap();
        let both = |e: &netchannel::Event| e.is_writable && e.is_readable && e.token == 5;
        let deadline = Instant::now() + LIMIT;
        while !list.wait(Some(LIMIT)).unwrap().iter().any(both) {
            assert!(Instant::now() < deadline);
        }
        list.reregister(registration, Interest::READ).unwrap();
        assert!(matches!(list.wait(short).unwrap(), [e] if !e.is_writable && e.is_readable));
        list.deregister(registration);
        assert!(list.wait(short).unwrap().is_empty());
        list.deregister(registration);
        // Another list takes over; one that is gone is not missed.
        let mut other = ReadyList::new(&pair.server).unwrap();
        other.register(&theirs, 6, Interest::READ).unwrap();
        drop(list);
        assert_eq!(other.wait(Some(LIMIT)).unwrap()[0].token, 6);
        theirs.read_exact(&mut [0; 1]).unwrap();
        drop(theirs);
        assert!(other.wait(short).unwrap().is_empty());
        // A stream of another runtime.
        assert!(matches!(other.register(&ours, 7, Interest::READ), Err(Error::Config { .. })));
    });
}

#[test]
fn halves_are_in_lists_of_their_own_threads() {
    within(LIMIT, "halves", || {
        let pair = Pair::new();
        let (mut ours, theirs) = pair.stream();
        let (mut tx, mut rx) = theirs.split();
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut list = ReadyList::new(&pair.server).unwrap();
                list.register_reader(&rx, 1).unwrap();
                let mut read = 0;
                while read < 1_000_000 {
                    assert_eq!(list.wait(Some(LIMIT)).unwrap()[0].token, 1);
                    match rx.try_read(&mut [0; 10_000]) {
                        Ok(count) => read += count,
                        Err(error) => assert!(would_block(Err::<(), _>(error))),
                    }
                }
            });
            scope.spawn(|| {
                let mut list = ReadyList::new(&pair.server).unwrap();
                list.register_writer(&tx, 2).unwrap();
                let mut written = 0;
                while written < 1_000_000 {
                    let events = list.wait(Some(LIMIT)).unwrap();
                    assert!(events[0].token == 2 && events[0].is_writable);
                    match tx.try_write(&[1; 50_000]) {
                        Ok(count) => written += count,
                        Err(error) => assert!(would_block(Err::<(), _>(error))),
                    }
                }
                tx.finish();
            });
            scope.spawn(|| {
                ours.write_all(&vec![1; 1_000_000]).unwrap();
                let mut all = Vec::new();
                ours.read_to_end(&mut all).unwrap();
                assert!(all.len() >= 1_000_000);
            });
        });
    });
}
