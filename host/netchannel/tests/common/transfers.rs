//! Transfers between two runtimes that check every byte.

use std::io::{Read, Write};
use std::thread;

use netchannel::{Listener, Runtime};

use super::{Pair, Random, check, connect, fill, receive, send};

/// `total` bytes each way at the same time, with half closes.
pub(crate) fn both_ways(pair: &Pair, seed: u64, total: u64, piece: u64) {
    let (ours, theirs) = pair.stream();
    thread::scope(|scope| {
        for (stream, out, back) in [(ours, seed, !seed), (theirs, !seed, seed)] {
            let (mut tx, mut rx) = stream.split();
            scope.spawn(move || {
                send(&mut tx, out, total, piece).unwrap();
                tx.finish_and_wait().unwrap();
            });
            scope.spawn(move || assert_eq!(receive(&mut rx, back, piece).unwrap(), total));
        }
    });
}

/// One way, then the answer.
pub(crate) fn there_and_back(pair: &Pair, seed: u64, total: u64, piece: u64) {
    let (mut ours, mut theirs) = pair.stream();
    thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(receive(&mut theirs, seed, piece).unwrap(), total);
            send(&mut theirs, !seed, total, piece).unwrap();
            theirs.close().unwrap();
        });
        send(&mut ours, seed, total, piece).unwrap();
        ours.finish();
        assert_eq!(receive(&mut ours, !seed, piece).unwrap(), total);
    });
}

pub(crate) fn small_questions(pair: &Pair, rounds: u64) {
    let (mut ours, mut theirs) = pair.stream();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut bytes = [0; 64];
            for _ in 0..rounds {
                theirs.read_exact(&mut bytes).unwrap();
                theirs.write_all(&bytes).unwrap();
            }
        });
        let mut bytes = [0; 64];
        for round in 0..rounds {
            fill(round, 0, &mut bytes);
            ours.write_all(&bytes).unwrap();
            ours.read_exact(&mut bytes).unwrap();
            check(round, 0, &bytes);
        }
    });
}

/// `count` streams of mixed sizes at the same time, from and to `threads` threads each.
pub(crate) fn many_streams(pair: &Pair, count: u64, threads: u64) {
    thread::scope(|scope| {
        for thread in 0..threads {
            scope.spawn(move || {
                // Each says first who it is.
                let mut streams = Vec::new();
                for seed in (thread..count).step_by(threads as usize) {
                    let mut stream = connect(&pair.client, &pair.listener);
                    stream.write_all(&seed.to_le_bytes()).unwrap();
                    streams.push((seed, stream));
                }
                for (seed, stream) in &mut streams {
                    send(stream, *seed, size_of_stream(*seed), 50_000).unwrap();
                }
                for (seed, mut stream) in streams {
                    stream.finish();
                    let total = receive(&mut stream, !seed, 50_000).unwrap();
                    assert_eq!(total, size_of_stream(!seed));
                }
            });
            scope.spawn(move || {
                let mine = (thread..count).step_by(threads as usize).count();
                thread::scope(|scope| {
                    for _ in 0..mine {
                        let mut stream = pair.listener.accept().unwrap();
                        scope.spawn(move || answer(&mut stream));
                    }
                });
            });
        }
    });
}

fn size_of_stream(seed: u64) -> u64 {
    Random(seed).size(200_000) as u64
}

fn answer(stream: &mut netchannel::Stream) {
    let mut seed = [0; 8];
    stream.read_exact(&mut seed).unwrap();
    let seed = u64::from_le_bytes(seed);
    assert_eq!(receive(stream, seed, 30_000).unwrap(), size_of_stream(seed));
    send(stream, !seed, size_of_stream(!seed), 30_000).unwrap();
    stream.finish();
}

/// Moves a pattern from one end to the other and another back.
pub(crate) fn exchange(from: &Runtime, to: &Listener, total: u64) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = to.accept().unwrap();
            assert_eq!(receive(&mut stream, 7, 1 << 20).unwrap(), total);
            send(&mut stream, 8, total, 1 << 20).unwrap();
            stream.close().unwrap();
        });
        let mut stream = connect(from, to);
        send(&mut stream, 7, total, 1 << 20).unwrap();
        stream.finish();
        assert_eq!(receive(&mut stream, 8, 1 << 20).unwrap(), total);
        stream.close().unwrap();
    });
}
