//! One thread that serves many streams.

mod common;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::waiting::{serve_list, settings, would_block, write_listed};
use common::{LIMIT, Pair, within};
use netchannel::{Config, Error, Interest, ReadyList};

fn serve_many(config: Config, count: u64) {
    let pair = Pair::of(config, common::config());
    thread::scope(|scope| {
        scope.spawn(|| write_listed(&pair.client, pair.listener.local_addr(), count));
        serve_list(&pair.server, &pair.listener, count);
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
