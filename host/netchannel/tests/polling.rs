//! Who polls changes while bytes flow: polling cores come and go, Channel groups move between them,
//! applications' threads take over. Nothing is lost.

mod common;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use common::transfers::{both_ways, many_streams, small_questions};
use common::{LIMIT, Pair, Random, config, receive, send, within};
use netchannel::{Class, Config, Idle, Poller, Runtime, Stream, StreamOptions};

fn grouped(poller: Poller) -> Config {
    Config { poller, groups: 3, channels: 6, polling_cores: 2, ..config() }
}

/// Runs `disturb` again and again while streams of both classes are checked byte by byte; returns
/// how often.
fn under_traffic(pair: &Pair, mut disturb: impl FnMut(u64) + Send) -> u64 {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let disturber = scope.spawn(|| {
            let mut times = 0;
            while !done.load(Ordering::Relaxed) {
                disturb(times);
                times += 1;
                thread::sleep(Duration::from_micros(300));
            }
            times
        });
        let traffic = scope.spawn(|| {
            both_ways(pair, 1, 4 << 20, 200_000);
            many_streams(pair, 40, 2);
            small_questions(pair, 300);
            latency_questions(pair);
        });
        let outcome = traffic.join();
        done.store(true, Ordering::Relaxed);
        let times = disturber.join().unwrap();
        outcome.unwrap();
        times
    })
}

fn latency_questions(pair: &Pair) {
    let options = StreamOptions { class: Class::Latency, ..StreamOptions::default() };
    let mut ours = pair.client.connect(pair.listener.local_addr(), &options).unwrap();
    let mut theirs = pair.listener.accept().unwrap();
    assert_eq!(theirs.info().class, Class::Latency);
    thread::scope(|scope| {
        scope.spawn(move || {
            assert_eq!(receive(&mut theirs, 5, 900).unwrap(), 100_000);
            send(&mut theirs, 6, 100_000, 900).unwrap();
        });
        send(&mut ours, 5, 100_000, 900).unwrap();
        ours.finish();
        assert_eq!(receive(&mut ours, 6, 900).unwrap(), 100_000);
    });
}

#[test]
fn groups_move_between_cores_while_bytes_flow() {
    within(3 * LIMIT, "migration", || {
        let pair = Pair::of(grouped(Poller::Dedicated), grouped(Poller::Dedicated));
        let cores = pair.client.poller().unwrap().cores;
        if cores < 2 {
            // One processor: there is nowhere to move to.
            println!("skipped: {}", pair.client.poller().unwrap().reason);
            return;
        }
        let mut random = Random(3);
        let moves = under_traffic(&pair, |_| {
            for runtime in [&pair.client, &pair.server] {
                let (group, core) = (random.below(4) as u8, random.below(cores as u64) as usize);
                runtime.move_group(group, core).unwrap();
            }
        });
        let stats = pair.client.stats();
        println!("{moves} rounds, {} moves at the client", stats.moves);
        assert!(stats.moves > 10, "{} moves", stats.moves);
        assert_eq!(stats.groups.len(), 4);
        assert!(stats.groups.iter().all(|group| group.core.is_some_and(|core| core < cores)));
    });
}

/// Bytes that a block of a flood repeats.
const BLOCK: usize = 256 << 10;

/// Writes blocks into the stream's send buffer until told to stop.
fn flood(mut stream: Stream, block: &[u8], stop: &AtomicBool) -> u64 {
    let mut offset = 0;
    while !stop.load(Ordering::Relaxed) {
        let at = offset % BLOCK;
        let mut space = stream.send_half().reserve(BLOCK - at).unwrap();
        let len = space.len();
        space.put(0, &block[at..at + len]);
        space.commit(len).unwrap();
        offset += len;
    }
    stream.close().unwrap();
    offset as u64
}

/// Compares every byte, to the end.
fn compare(mut stream: Stream, block: &[u8]) -> u64 {
    let mut bytes = vec![0; BLOCK];
    let mut offset = 0;
    loop {
        let at = offset % BLOCK;
        match stream.read(&mut bytes[..BLOCK - at]).unwrap() {
            0 => return offset as u64,
            count => {
                assert!(bytes[..count] == block[at..at + count], "near byte {offset}");
                offset += count;
            }
        }
    }
}

/// All throughput groups on one core, and all of them busy: the balance gives the other core one.
#[test]
fn a_busy_core_gives_a_group_away_by_itself() {
    within(3 * LIMIT, "balance", || {
        let config = |poller| Config { poller, groups: 2, polling_cores: 2, ..config() };
        let pair = Pair::of(config(Poller::Inline), config(Poller::Dedicated));
        let client = &pair.client;
        if client.poller().unwrap().cores < 2 {
            println!("skipped: {}", client.poller().unwrap().reason);
            return;
        }
        let streams: Vec<_> = (0..4).map(|_| pair.stream()).collect();
        let mut block = vec![0; BLOCK];
        common::fill(1, 0, &mut block);
        let (block, stop) = (&block, &AtomicBool::new(false));
        for group in [1, 2] {
            client.move_group(group, 0).unwrap();
        }
        let before = client.stats();
        thread::scope(|scope| {
            let floods: Vec<_> = streams
                .into_iter()
                .map(|(ours, theirs)| {
                    let read = scope.spawn(move || compare(theirs, block));
                    (scope.spawn(move || flood(ours, block, stop)), read)
                })
                .collect();
            // `within` bounds this.
            while client.stats().moves == before.moves {
                thread::sleep(Duration::from_millis(5));
            }
            stop.store(true, Ordering::Relaxed);
            for (written, read) in floods {
                assert_eq!(written.join().unwrap(), read.join().unwrap());
            }
        });
        let after = client.stats();
        println!("{} moves; {:?}; {:?}", after.moves - before.moves, after.cores, after.groups);
        assert!(after.groups.iter().skip(1).all(|group| group.busy > Duration::ZERO));
        assert!(after.cores.iter().any(|core| core.busy > Duration::ZERO));
    });
}

#[test]
fn pollers_change_while_bytes_flow() {
    for idle in [Idle::Sleep, Idle::Spin] {
        within(3 * LIMIT, &format!("switching, {idle}"), move || {
            let config = || Config { idle, ..grouped(Poller::Inline) };
            let pair = Pair::of(config(), config());
            let changes = under_traffic(&pair, |round| {
                for (runtime, shift) in [(&pair.client, 0), (&pair.server, 1)] {
                    let report = match (round + shift) % 3 {
                        0 => runtime.set_poller(Poller::Dedicated, 1),
                        1 => runtime.set_poller(Poller::Dedicated, 2),
                        _ => runtime.set_poller(Poller::Inline, 0),
                    };
                    let report = report.unwrap();
                    assert_eq!(report, runtime.poller().unwrap());
                    assert_eq!(report.cores > 0, report.poller == Poller::Dedicated);
                }
            });
            println!("{idle}: {changes} changes of both sides");
            assert!(changes > 5, "{changes} changes");
        });
    }
}

#[test]
fn a_sleeper_is_served_by_whoever_polls_next() {
    within(LIMIT, "sleepers", || {
        let pair = Pair::of(grouped(Poller::Dedicated), grouped(Poller::Dedicated));
        let (mut ours, mut theirs) = pair.stream();
        for round in 0..20u64 {
            // The reader sleeps in the one way and is woken in the other.
            let reader = thread::spawn(move || {
                let mut bytes = [0; 100];
                std::io::Read::read_exact(&mut theirs, &mut bytes).unwrap();
                common::check(round, 0, &bytes);
                theirs
            });
            thread::sleep(Duration::from_millis(2));
            let poller = [Poller::Inline, Poller::Dedicated][round as usize % 2];
            pair.server.set_poller(poller, 1).unwrap();
            pair.client.set_poller(poller, 1).unwrap();
            let mut bytes = [0; 100];
            common::fill(round, 0, &mut bytes);
            std::io::Write::write_all(&mut ours, &bytes).unwrap();
            theirs = reader.join().unwrap();
        }
    });
}

#[test]
fn what_cannot_be_had_is_said() {
    within(LIMIT, "reports", || {
        let runtime = common::start(Config { polling_cores: 16, ..grouped(Poller::Dedicated) });
        let report = runtime.poller().unwrap();
        assert!(report.cores >= 1 && report.cores <= 4, "{report:?}");
        assert!(report.reason.contains("because there are 4 Channel groups"), "{report:?}");
        let error = runtime.move_group(9, 0).unwrap_err();
        assert!(error.to_string().contains("no Channel group 9; there are 4"), "{error}");
        let error = runtime.move_group(0, 16).unwrap_err();
        assert!(error.to_string().contains("no polling core 16"), "{error}");
        let report = runtime.set_poller(Poller::Inline, 3).unwrap();
        assert_eq!((report.poller, report.cores), (Poller::Inline, 0));
        assert!(report.processors.is_empty());

        // A processor that there is not, behind one that there is.
        let pin = vec![0, 1_023];
        let runtime = common::start(Config { pin, ..grouped(Poller::Dedicated) });
        let report = runtime.poller().unwrap();
        if report.cores > 1 {
            assert_eq!(report.processors[1], None);
            assert!(report.reason.contains("core 1 is not bound to processor 1023"), "{report:?}");
        }
        let bound: Vec<_> = runtime.stats().cores.iter().map(|core| core.processor).collect();
        assert_eq!(bound, report.processors);
        let bad = Config { groups: 9, channels: 4, ..config() };
        let error = Runtime::start(bad).err().unwrap();
        assert!(error.to_string().contains("groups is 9"), "{error}");
    });
}
