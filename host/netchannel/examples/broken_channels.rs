//! A stream, both ways, between two hosts, while both keep moving queue pairs of its Channels to
//! error: every byte arrives once and in order. `netchannel perf bw HOST --fail-channel-every` shows
//! what that costs, in one direction; this shows one stream whose both directions lose their queue
//! pairs at the same time, on hosts so slow that they seem dead at times.
//!
//! ```text
//! broken_channels rxe_1 --listen 10.0.0.1:4792 [--seconds 60] [--every-ms 1000]
//! broken_channels rxe_2 --connect 10.0.0.1:4792           # on the other, with the same options
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use netchannel::{
    Class, Config, Idle, Keepalive, ReceiveHalf, Runtime, SendHalf, Stream, StreamOptions,
};

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str = "usage: broken_channels DEVICE --listen ADDRESS:PORT|--connect ADDRESS:PORT \
                     [--seconds N] [--every-ms N]";
const BLOCK: usize = 64 << 10;
/// Emulated hosts stop for seconds, and this is about queue pairs, not about hosts that die.
const PATIENT: Keepalive = Keepalive {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(20),
    outage: Duration::from_secs(60),
};

struct Options {
    device: String,
    address: SocketAddr,
    listens: bool,
    time: Duration,
    every: Duration,
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("broken_channels: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let (mut device, mut place) = (None, None);
    let (mut time, mut every) = (Duration::from_secs(60), Duration::from_secs(1));
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--listen" => place = Some((true, arguments.next()?.parse().ok()?)),
            "--connect" => place = Some((false, arguments.next()?.parse().ok()?)),
            "--seconds" => time = Duration::from_secs(arguments.next()?.parse().ok()?),
            "--every-ms" => every = Duration::from_millis(arguments.next()?.parse().ok()?),
            flag if flag.starts_with('-') => return None,
            name => device = Some(name.to_owned()),
        }
    }
    let (listens, address) = place?;
    Some(Options { device: device?, address, listens, time, every })
}

fn run(options: &Options) -> Result<(), Failure> {
    let runtime = Runtime::start(Config {
        device: options.device.as_str().into(),
        idle: Idle::Sleep,
        keepalive: PATIENT,
        ..Config::default()
    })?;
    let stream = if options.listens {
        let listener = runtime.listen(options.address)?;
        println!("listening on {}", listener.local_addr());
        listener.accept()?
    } else {
        runtime.connect(options.address, &StreamOptions::default())?
    };
    let broken = both_ways(stream, &runtime, options)?;
    let stats = runtime.stats();
    let longest = stats.failover_gaps.iter().max().copied().unwrap_or_default();
    println!(
        "{broken} queue pairs broken here, {} fences, {} bytes sent again, longest failover \
         {longest:?}",
        stats.failovers, stats.replayed_bytes,
    );
    if broken == 0 || stats.failovers == 0 {
        return Err("nothing was broken, so nothing was shown".into());
    }
    runtime.close()?;
    Ok(())
}

fn both_ways(stream: Stream, runtime: &Runtime, options: &Options) -> Result<u64, Failure> {
    let (sender, receiver) = stream.split();
    let (until, over) = (Instant::now() + options.time, AtomicBool::new(false));
    let (end, own) = if options.listens { (1, 0) } else { (0, 1) };
    thread::scope(|scope| {
        let writer = scope.spawn(move || write(sender, own, until));
        let reader = scope.spawn(|| {
            let result = read(receiver, end);
            over.store(true, Ordering::Relaxed);
            result
        });
        let mut broken = 0;
        let mut next = Instant::now() + options.every;
        while next < until && !over.load(Ordering::Relaxed) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next += options.every;
            broken += u64::from(runtime.break_channel(Class::Throughput, broken as usize));
        }
        let written = writer.join().map_err(|_| "the writer panicked")??;
        let (read, gap) = reader.join().map_err(|_| "the reader panicked")??;
        println!("{written} bytes written, {read} read in order; nothing came for {gap:?} at most");
        Ok(broken)
    })
}

/// A byte that tells its place, and which way it goes.
fn byte(way: u64, offset: u64) -> u8 {
    ((offset ^ way << 40).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8
}

fn write(mut stream: SendHalf, way: u64, until: Instant) -> Result<u64, Failure> {
    let mut at = 0;
    while Instant::now() < until {
        let block: Vec<u8> = (at..at + BLOCK as u64).map(|offset| byte(way, offset)).collect();
        stream.write_all(&block)?;
        at += BLOCK as u64;
    }
    stream.finish_and_wait()?;
    Ok(at)
}

/// To the end; how many bytes, and the longest time between two of them.
fn read(mut stream: ReceiveHalf, way: u64) -> Result<(u64, Duration), Failure> {
    let (mut block, mut at) = (vec![0; BLOCK], 0);
    let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
    loop {
        let count = stream.read(&mut block)?;
        if count == 0 {
            return Ok((at, longest));
        }
        longest = longest.max(last.elapsed());
        last = Instant::now();
        for (offset, &found) in (at..).zip(&block[..count]) {
            if found != byte(way, offset) {
                return Err(format!("byte {offset} is not the one that was sent").into());
            }
        }
        at += count as u64;
    }
}
