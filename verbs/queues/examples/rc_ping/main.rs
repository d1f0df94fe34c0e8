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

use clap::Parser;
use netchannel_verbs::queue_pair::ConnectOptions;
use netchannel_verbs::work::{Opcode, SendOperation};
use netchannel_verbs::{MemoryRegion, QueuePair, rdma};

use side::Side;

type Failure = Box<dyn std::error::Error>;

/// Bounces messages between two queue pairs, over one or two devices of this host or between two hosts.
#[derive(Parser)]
struct Options {
    device: String,
    /// The other end, if it is here [default: the same device, opened twice]
    #[arg(conflicts_with_all = ["listen", "connect"])]
    peer_device: Option<String>,
    /// The other end is another host, and comes here
    #[arg(long, value_name = "ADDRESS:PORT", conflicts_with = "connect")]
    listen: Option<SocketAddr>,
    /// The other end is another host, which listens there
    #[arg(long, value_name = "ADDRESS:PORT")]
    connect: Option<SocketAddr>,
    /// Round trips of each kind
    #[arg(long, value_name = "N", default_value_t = 1000)]
    count: u32,
    /// Bytes of a message
    #[arg(long, value_name = "N", default_value_t = 64)]
    bytes: usize,
    /// Sleep until completions come, instead of polling
    #[arg(long)]
    events: bool,
}

/// How this host meets the other.
#[derive(Clone, Copy)]
enum Host {
    Listen(SocketAddr),
    Connect(SocketAddr),
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rc_ping: {error}");
            ExitCode::FAILURE
        }
    }
}

impl Options {
    fn host(&self) -> Option<Host> {
        self.listen.map(Host::Listen).or(self.connect.map(Host::Connect))
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    for device in rdma::devices()? {
        println!("{}: {}; {}", device.name, device.description, device.port.reason);
    }
    if let Some(host) = options.host() {
        return between_hosts::run(host, options);
    }
    let mut left = Side::new(&options.device, options)?;
    let peer = options.peer_device.as_ref().unwrap_or(&options.device);
    let mut right = Side::new(peer, options)?;
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
