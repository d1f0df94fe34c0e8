//! What an idle stream costs, and how soon it wakes.

mod common;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use common::{LIMIT, Pair, config, within};
use netchannel::{Config, Idle, Poller};

/// Wake-ups per second and process that an idle stream may cost.
const WAKEUPS: f64 = 10.0;
/// How long they are counted.
const PERIOD: Duration = Duration::from_secs(3);

/// Times that threads of this process went to sleep of their own will.
fn switches() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap();
    let of = |task: std::fs::DirEntry| {
        let status = std::fs::read_to_string(task.path().join("status")).ok()?;
        let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    };
    tasks.flatten().filter_map(of).sum()
}

/// Both tests count for the whole process, so they are one.
#[test]
fn an_idle_stream_costs_few_wake_ups_and_wakes_soon() {
    for poller in [Poller::Inline, Poller::Dedicated] {
        within(LIMIT, "idle", move || {
            let config = || Config { idle: Idle::Sleep, poller, ..config() };
            let pair = Pair::of(config(), config());
            wake_ups(&pair, poller);
            first_byte(&pair, poller);
        });
    }
}

fn wake_ups(pair: &Pair, poller: Poller) {
    let (mut ours, mut theirs) = pair.stream();
    let mut byte = [0; 1];
    ours.write_all(&[1]).unwrap();
    theirs.read_exact(&mut byte).unwrap();
    // One end has a reader that sleeps, the other an application that is busy elsewhere.
    let reader = thread::spawn(move || theirs.read(&mut [0; 1]).unwrap());
    thread::sleep(Duration::from_millis(500));
    let both = || [&pair.client, &pair.server].map(|runtime| runtime.stats().wakeups);
    let (before, slept) = (both(), switches());
    let start = Instant::now();
    thread::sleep(PERIOD);
    let (after, slept) = (both(), switches() - slept);
    let seconds = start.elapsed().as_secs_f64();
    let [client, server] = [0, 1].map(|i| (after[i] - before[i]) as f64 / seconds);
    let switches = slept as f64 / seconds;
    println!(
        "{poller}: wake-ups per second: client {client:.1}, server {server:.1}; \
         voluntary context switches of both and the test: {switches:.1}"
    );
    assert!(client <= WAKEUPS && server <= WAKEUPS, "client {client:.1}, server {server:.1}");
    // Two processes in one here.
    assert!(switches <= 2.0 * WAKEUPS, "{switches:.1} context switches per second");
    ours.finish();
    assert_eq!(reader.join().unwrap(), 0);
}

/// How long the first byte takes after a pause; reported, because machines differ.
fn first_byte(pair: &Pair, poller: Poller) {
    let (mut ours, mut theirs) = pair.stream();
    let echo = thread::spawn(move || {
        let mut byte = [0; 1];
        while theirs.read(&mut byte).unwrap() > 0 {
            theirs.write_all(&byte).unwrap();
        }
    });
    let mut times: Vec<Duration> = (0..100)
        .map(|_| {
            thread::sleep(Duration::from_millis(5));
            let start = Instant::now();
            ours.write_all(&[1]).unwrap();
            ours.read_exact(&mut [0; 1]).unwrap();
            start.elapsed() / 2
        })
        .collect();
    times.sort();
    println!("{poller}: first byte after idle: p50 {:?}, p99 {:?}", times[50], times[99]);
    ours.finish();
    echo.join().unwrap();
}
