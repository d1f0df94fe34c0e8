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

use clap::Parser;
use netchannel::{
    Class, Config, Idle, Keepalive, ReceiveHalf, Runtime, SendHalf, Stream, StreamOptions,
};

type Failure = Box<dyn Error + Send + Sync>;

const BLOCK: usize = 64 << 10;
/// Emulated hosts stop for seconds, and this is about queue pairs, not about hosts that die.
const PATIENT: Keepalive = Keepalive {
    interval: Duration::from_secs(1),
    timeout: Duration::from_secs(20),
    outage: Duration::from_secs(60),
};

/// A stream, both ways, between two hosts that both keep breaking the queue pairs below it.
#[derive(Parser)]
struct Options {
    device: String,
    /// Wait here for the other host
    #[arg(long, value_name = "ADDRESS:PORT", required_unless_present = "connect")]
    listen: Option<SocketAddr>,
    /// Where the other host listens
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "listen")]
    connect: Option<SocketAddr>,
    /// How long bytes are written
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// How often a queue pair is broken
    #[arg(long, value_name = "N", default_value_t = 1000)]
    every_ms: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("broken_channels: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let runtime = Runtime::start(Config {
        device: options.device.as_str().into(),
        idle: Idle::Sleep,
        keepalive: PATIENT,
        ..Config::default()
    })?;
    let stream = if let Some(address) = options.listen {
        let listener = runtime.listen(address)?;
        println!("listening on {}", listener.local_addr());
        listener.accept()?
    } else {
        let address = options.connect.ok_or("neither --listen nor --connect")?;
        runtime.connect(address, &StreamOptions::default())?
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
    let until = Instant::now() + Duration::from_secs(options.seconds);
    let every = Duration::from_millis(options.every_ms);
    let over = AtomicBool::new(false);
    let (end, own) = if options.listen.is_some() { (1, 0) } else { (0, 1) };
    thread::scope(|scope| {
        let writer = scope.spawn(move || write(sender, own, until));
        let reader = scope.spawn(|| {
            let result = read(receiver, end);
            over.store(true, Ordering::Relaxed);
            result
        });
        let mut broken = 0;
        let mut next = Instant::now() + every;
        while next < until && !over.load(Ordering::Relaxed) {
            thread::sleep(next.saturating_duration_since(Instant::now()));
            next += every;
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
