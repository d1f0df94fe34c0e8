//! Connects two queue pairs, over one or two RDMA devices of this host or between two hosts, and
//! bounces SENDs, WRITEs and READs between them: a smoke test of devices, addresses and routes.
//!
//! ```text
//! rc_ping rxe_1 rxe_2 [--count 1000] [--bytes 64] [--events]
//!
//! rc_ping rxe_1 --listen 10.0.0.1:18515       # one host
//! rc_ping rxe_2 --connect 10.0.0.1:18515      # the other, with the same --count and --bytes
//! ```

mod between_hosts;
mod side;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Instant;

use netchannel_verbs::queue_pair::ConnectOptions;
use netchannel_verbs::work::{Opcode, SendOperation};
use netchannel_verbs::{MemoryRegion, QueuePair, rdma};

use side::Side;

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "\
usage: rc_ping DEVICE [PEER_DEVICE] [--count N] [--bytes N] [--events]
       rc_ping DEVICE --listen ADDRESS:PORT|--connect ADDRESS:PORT [--count N] [--bytes N] [--events]";

struct Options {
    devices: Vec<String>,
    /// The other end is another host.
    host: Option<Host>,
    count: u32,
    bytes: usize,
    events: bool,
}

/// How this host meets the other.
#[derive(Clone, Copy)]
enum Host {
    Listen(SocketAddr),
    Connect(SocketAddr),
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rc_ping: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let mut options =
        Options { devices: Vec::new(), host: None, count: 1000, bytes: 64, events: false };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--count" => options.count = arguments.next()?.parse().ok()?,
            "--bytes" => options.bytes = arguments.next()?.parse().ok()?,
            "--events" => options.events = true,
            "--listen" => options.host = Some(Host::Listen(arguments.next()?.parse().ok()?)),
            "--connect" => options.host = Some(Host::Connect(arguments.next()?.parse().ok()?)),
            flag if flag.starts_with('-') => return None,
            device => options.devices.push(device.into()),
        }
    }
    let most = if options.host.is_some() { 1 } else { 2 };
    (1..=most).contains(&options.devices.len()).then_some(options)
}

fn run(options: &Options) -> Result<(), Failure> {
    for device in rdma::devices()? {
        println!("{}: {}; {}", device.name, device.description, device.port.reason);
    }
    let names = &options.devices;
    if let Some(host) = options.host {
        return between_hosts::run(host, options);
    }
    let mut left = Side::new(&names[0], options)?;
    let mut right = Side::new(names.last().unwrap_or(&names[0]), options)?;
    let connect = ConnectOptions::default();
    left.pair.connect(&right.pair.endpoint(), &connect)?;
    right.pair.connect(&left.pair.endpoint(), &connect)?;

    report("SEND", options, || bounce(&mut left, &mut right, options))?;
    report("WRITE", options, || one_sided(&mut left, &right, options, false))?;
    report("READ", options, || one_sided(&mut left, &right, options, true))?;

    left.pair.close()?;
    right.pair.close()?;
    left.memory.close()?;
    right.memory.close()?;
    Ok(())
}

fn report(
    name: &str,
    options: &Options,
    work: impl FnOnce() -> Result<(), Failure>,
) -> Result<(), Failure> {
    let start = Instant::now();
    work().map_err(|error| format!("{name}: {error}"))?;
    let each = start.elapsed() / options.count.max(1);
    println!("{name}: {} round trips of {} bytes, {each:?} each", options.count, options.bytes);
    Ok(())
}

/// There and back by SEND, with the round in the immediate and in the bytes.
fn bounce(left: &mut Side, right: &mut Side, options: &Options) -> Result<(), Failure> {
    for round in 0..options.count {
        left.receive()?;
        right.receive()?;
        left.fill(round);
        left.send(SendOperation::SendWithImmediate(round), options.bytes)?;
        let arrived = right.wait(Opcode::Receive)?;
        right.check(round, arrived.bytes as usize)?;
        if arrived.immediate != Some(round) {
            return Err(format!("immediate {:?} in round {round}", arrived.immediate).into());
        }
        right.fill(round + 1);
        right.send(SendOperation::Send, options.bytes)?;
        let back = left.wait(Opcode::Receive)?;
        left.check(round + 1, back.bytes as usize)?;
    }
    Ok(())
}

fn one_sided(left: &mut Side, right: &Side, options: &Options, read: bool) -> Result<(), Failure> {
    let (address, key) = (right.memory.remote_address(), right.memory.remote_key());
    for round in 0..options.count {
        if read {
            right.fill(round);
            left.send(SendOperation::Read { address, key }, options.bytes)?;
            left.wait(Opcode::Read)?;
            left.check(round, options.bytes)?;
        } else {
            left.fill(round);
            let address = address + right.half as u64;
            left.send(SendOperation::Write { address, key }, options.bytes)?;
            left.wait(Opcode::Write)?;
            right.check(round, options.bytes)?;
        }
    }
    Ok(())
}
