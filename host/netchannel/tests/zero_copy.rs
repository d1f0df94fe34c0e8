//! Reservations and chunks: every byte arrives once, whatever the applications do with them, and on the NIC in
//! memory nobody copies it.

mod common;

use std::io::{Read, Write};
use std::thread;

use common::in_place::{receive_mixed, send_mixed};
use common::{LIMIT, Pair, Random, check, config, fill, within};
use netchannel::{Config, Error, Idle, Poller};

fn both_ends(pair: &Pair, seed: u64, total: u64, piece: u64) {
    let (mut ours, mut theirs) = pair.stream();
    thread::scope(|scope| {
        scope.spawn(move || {
            send_mixed(&mut ours, seed, total, piece);
            ours.close().unwrap();
        });
        assert_eq!(receive_mixed(&mut theirs, seed, piece), total);
    });
}

#[test]
fn every_byte_arrives_once() {
    for (poller, idle) in [
        (Poller::Inline, Idle::Sleep),
        (Poller::Dedicated, Idle::Sleep),
        (Poller::Inline, Idle::Spin),
    ] {
        within(LIMIT, "mixed calls", move || {
            let config = || Config { poller, idle, window: 256 << 10, ..config() };
            let pair = Pair::of(config(), config());
            let mut random = Random(3);
            for seed in 0..10 {
                both_ends(&pair, seed, random.size(4 << 20) as u64, random.size(1 << 20) as u64);
            }
        });
    }
}

#[test]
fn nothing_is_reused_before_a_slow_nic_has_read_it() {
    within(LIMIT, "deferred", || {
        let deferred = || {
            let mut config = config();
            config.soft.deferred = true;
            config
        };
        let pair = Pair::of(deferred(), deferred());
        both_ends(&pair, 1, 4 << 20, 200_000);
    });
}

/// The counters of the stack, of both ends.
fn copied(pair: &Pair) -> (u64, u64) {
    let stats = [&pair.client, &pair.server].map(|runtime| runtime.stats());
    (stats.iter().map(|s| s.copied_bytes).sum(), stats[0].moved_by_posting)
}

#[test]
fn bytes_are_moved_once_and_never_copied() {
    for poller in [Poller::Inline, Poller::Dedicated] {
        within(LIMIT, "copies", move || {
            let config = || Config { poller, ..config() };
            let pair = Pair::of(config(), config());
            let total = 16u64 << 20;
            let (mut ours, mut theirs) = pair.stream();
            thread::scope(|scope| {
                scope.spawn(move || {
                    let mut offset = 0;
                    while offset < total {
                        let mut space = ours.send_half().reserve(256 << 10).unwrap();
                        let (first, second) = space.as_mut_slices();
                        fill(9, offset, first);
                        fill(9, offset + first.len() as u64, second);
                        let len = space.len().min((total - offset) as usize);
                        space.commit(len).unwrap();
                        offset += len as u64;
                    }
                    ours.close().unwrap();
                });
                let mut offset = 0;
                while let Some(chunk) = theirs.receive_half().borrow().unwrap() {
                    // SAFETY: the peer is this process, and keeps the protocol.
                    let bytes = unsafe { chunk.as_slice() };
                    check(9, offset, bytes);
                    offset += bytes.len() as u64;
                    let len = bytes.len();
                    chunk.release(len).unwrap();
                }
                assert_eq!(offset, total);
            });
            assert_eq!(copied(&pair), (0, total), "{poller}");
        });
    }
}

#[test]
fn a_chunk_goes_to_a_file_as_it_lies() {
    within(LIMIT, "file", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        let total = 300_000;
        let writer = thread::spawn(move || {
            common::send(&mut ours, 4, total, 50_000).unwrap();
            ours.close().unwrap();
        });
        let (mut reader, pipe) = std::io::pipe().unwrap();
        let other = thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            bytes
        });
        while let Some(mut chunk) = theirs.receive_half().borrow().unwrap() {
            while !chunk.is_empty() {
                assert!(chunk.write_to(&pipe).unwrap() > 0);
            }
        }
        drop(pipe);
        let bytes = other.join().unwrap();
        assert_eq!(bytes.len() as u64, total);
        check(4, 0, &bytes);
        writer.join().unwrap();
        let copied = pair.server.stats().copied_bytes;
        assert!(copied < total, "{copied}: only what came eagerly");
    });
}

#[test]
fn a_file_that_takes_nothing_costs_no_byte() {
    within(LIMIT, "closed file", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        ours.write_all(b"here").unwrap();
        let (reader, pipe) = std::io::pipe().unwrap();
        drop(reader);
        let mut chunk = theirs.receive_half().borrow().unwrap().unwrap();
        let error = chunk.write_to(&pipe).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
        drop(chunk);
        let mut bytes = [0; 4];
        theirs.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"here");
    });
}

#[test]
fn the_ends_of_a_stream_are_seen_by_these_calls_too() {
    within(LIMIT, "ends", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        ours.finish();
        assert!(theirs.receive_half().borrow().unwrap().is_none());
        assert!(matches!(ours.send_half().reserve(1), Err(Error::Stream(_))));
        drop(ours);
        // The peer reads no more.
        let error = loop {
            match theirs.send_half().reserve(1000) {
                Ok(space) => space.commit(1000).unwrap(),
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);

        let (ours, mut theirs) = pair.stream();
        ours.reset(5);
        let error = theirs.receive_half().borrow().err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    });
}

#[test]
fn a_chunk_outlives_the_session() {
    within(LIMIT, "session over", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        let mut space = ours.send_half().reserve(100_000).unwrap();
        let mut made = vec![0; space.len()];
        fill(6, 0, &mut made);
        space.put(0, &made);
        space.commit(made.len()).unwrap();
        let mut unused = theirs.send_half().reserve(10_000).unwrap();
        unused.put(0, &[1; 1_000]);
        drop(unused);
        let mut space = ours.send_half().reserve(10_000).unwrap();
        let Pair { server, client, listener } = pair;
        let chunk = theirs.receive_half().borrow().unwrap().unwrap();
        drop(listener);
        let (closer, left) = (thread::spawn(move || server.close()), client);
        closer.join().unwrap().ok();
        let mut bytes = vec![0; chunk.len()];
        assert_eq!(chunk.read_at(0, &mut bytes), bytes.len());
        check(6, 0, &bytes);
        drop(chunk);
        // A reservation in hand can still be filled; committing it goes nowhere.
        space.put(0, &[2; 500]);
        space.commit(500).unwrap();
        let error = loop {
            match ours.send_half().reserve(10) {
                Ok(space) => space.commit(1).unwrap(),
                Err(error) => break error,
            }
        };
        assert!(matches!(error, Error::Session { .. }), "{error}");
        drop(left);
    });
}
