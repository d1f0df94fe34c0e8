//! Queue pairs of two runtimes on the soft NIC are moved to error again and again under load: bytes
//! arrive once and in order, the session has as many Channels as before, and nothing is left of the
//! dead ones. One test in a process of its own: it counts descriptors.

mod common;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use common::{LIMIT, within};
use netchannel::{Class, Config, Poller, Runtime, Stream, StreamOptions};

const BLOCK: usize = 256 << 10;

fn runtime(poller: Poller) -> Runtime {
    Runtime::start(Config { device: "soft".into(), poller, ..Config::default() }).unwrap()
}

fn byte(stream: u64, offset: u64) -> u8 {
    ((offset ^ stream << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

/// Writes until told to stop, then ends the stream. Returns how many bytes.
fn write(mut stream: impl Write, number: u64, until: Instant) -> u64 {
    let mut at = 0;
    while Instant::now() < until {
        let block: Vec<u8> = (at..at + BLOCK as u64).map(|o| byte(number, o)).collect();
        stream.write_all(&block).unwrap();
        at += BLOCK as u64;
    }
    at
}

/// Reads to the end. Returns how many bytes.
fn read(mut stream: impl Read, number: u64) -> u64 {
    let mut block = vec![0; BLOCK];
    let mut at = 0;
    loop {
        let count = stream.read(&mut block).unwrap();
        if count == 0 {
            return at;
        }
        for (offset, found) in (at..).zip(&block[..count]) {
            assert_eq!(*found, byte(number, offset), "byte {offset} of stream {number}");
        }
        at += count as u64;
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Both sides write and read on two streams while Channels of either side are broken.
fn break_under_load(poller: Poller, duration: Duration, pause: Duration) -> u64 {
    let (server, client) = (runtime(poller), runtime(poller));
    let listener = server.listen("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.local_addr();
    let until = Instant::now() + duration;
    let pairs: Vec<(Stream, Stream)> = (0..2)
        .map(|_| {
            let mut ours = client.connect(address, &StreamOptions::default()).unwrap();
            ours.write_all(b"!").unwrap();
            let mut theirs = listener.accept().unwrap();
            theirs.read_exact(&mut [0]).unwrap();
            (ours, theirs)
        })
        .collect();
    let channels = server.stats().channels.len();
    let before = descriptors();
    let mut broken = 0u64;
    std::thread::scope(|scope| {
        let mut threads = Vec::new();
        for (pair, (ours, theirs)) in (0..).zip(pairs) {
            let ((our_write, our_read), (their_write, their_read)) = (ours.split(), theirs.split());
            let ways = [(our_write, their_read), (their_write, our_read)];
            for (number, (to, from)) in (2 * pair..).zip(ways) {
                threads.push((
                    scope.spawn(move || write(to, number, until)),
                    scope.spawn(move || read(from, number)),
                ));
            }
        }
        while Instant::now() < until {
            for runtime in [&server, &client] {
                broken += u64::from(runtime.break_channel(Class::Throughput, broken as usize));
                std::thread::sleep(pause);
            }
        }
        for (writer, reader) in threads {
            let written = writer.join().unwrap();
            assert_eq!(written, reader.join().unwrap());
            assert!(written > 0);
        }
    });
    let deadline = Instant::now() + LIMIT;
    let stats = loop {
        let stats = [server.stats(), client.stats()];
        // A queue pair that is not there has no number.
        let whole = |s: &netchannel::Stats| s.channels.iter().all(|c| c.queue_pair != 0);
        if stats.iter().all(whole) && descriptors() <= before + 1 {
            break stats;
        }
        let open = descriptors();
        assert!(Instant::now() < deadline, "{before} descriptors before, {open} now; {stats:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    for stats in &stats {
        assert_eq!(stats.channels.len(), channels);
        let received: u64 = stats.channels.iter().map(|c| c.bytes_received).sum();
        assert_eq!(received, stats.placed_bytes, "what Channels carried is what was placed");
        assert!(stats.failovers > 0 && !stats.failover_gaps.is_empty(), "{stats:?}");
        println!(
            "{poller}: {} fences, {} bytes again, gaps up to {:?}",
            stats.failovers,
            stats.replayed_bytes,
            stats.failover_gaps.iter().max()
        );
    }
    broken
}

#[test]
fn channels_break_under_load() {
    within(3 * LIMIT, "broken Channels", || {
        let some = Duration::from_millis(1_500);
        for poller in [Poller::Inline, Poller::Dedicated] {
            let broken = break_under_load(poller, some, Duration::from_millis(30));
            assert!(broken > 5, "{broken} broken");
        }
    });
}
