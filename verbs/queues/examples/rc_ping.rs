//! Connects two queue pairs over one or two RDMA devices of this host and bounces SENDs, WRITEs
//! and READs between them: a smoke test of devices, addresses and routes.
//!
//! ```text
//! rc_ping rxe_1 rxe_2 [--count 1000] [--bytes 64] [--events]
//! ```

use std::process::ExitCode;
use std::time::{Duration, Instant};

use netchannel_verbs::queue_pair::{ConnectOptions, QueuePairInit, Service};
use netchannel_verbs::rdma::{self, OpenOptions};
use netchannel_verbs::work::{Opcode, SendOperation, Slices};
use netchannel_verbs::{
    Access, CompletionQueue, Context, LocalSlice, MemoryRegion, QueuePair, ReceiveRequest,
    SendRequest, WorkCompletion,
};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: rc_ping DEVICE [PEER_DEVICE] [--count N] [--bytes N] [--events]";
/// A completion that takes longer will not come.
const PATIENCE: Duration = Duration::from_secs(10);

struct Options {
    devices: Vec<String>,
    count: u32,
    bytes: usize,
    events: bool,
}

/// One end of the connection. The first half of the memory is the source, the second the sink.
struct Side {
    pair: rdma::QueuePair,
    queue: rdma::CompletionQueue,
    memory: rdma::MemoryRegion,
    half: usize,
    events: bool,
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
    let mut options = Options { devices: Vec::new(), count: 1000, bytes: 64, events: false };
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--count" => options.count = arguments.next()?.parse().ok()?,
            "--bytes" => options.bytes = arguments.next()?.parse().ok()?,
            "--events" => options.events = true,
            flag if flag.starts_with('-') => return None,
            device => options.devices.push(device.into()),
        }
    }
    (1..=2).contains(&options.devices.len()).then_some(options)
}

fn run(options: &Options) -> Result<(), Failure> {
    for device in rdma::devices()? {
        println!("{}: {}; {}", device.name, device.description, device.port.reason);
    }
    let names = &options.devices;
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

impl Side {
    fn new(device: &str, options: &Options) -> Result<Self, Failure> {
        let context = rdma::Context::open(device, &OpenOptions::default())?;
        let half = options.bytes.max(1);
        let memory = context.alloc(2 * half, Access::all())?;
        let queue = context.create_completion_queue(16)?;
        let pair = context.create_queue_pair(&QueuePairInit {
            service: Service::ReliableConnection,
            send_queue: &queue,
            receive_queue: &queue,
            shared_receive_queue: None,
            send_capacity: 4,
            receive_capacity: 4,
            inline_bytes: 0,
        })?;
        Ok(Self { pair, queue, memory, half, events: options.events })
    }

    fn slice(&self, offset: usize, length: usize) -> Slices {
        Slices::one(LocalSlice {
            address: self.memory.as_ptr().addr().get() as u64 + offset as u64,
            length: length as u32,
            local_key: self.memory.local_key(),
        })
    }

    fn receive(&mut self) -> Result<(), Failure> {
        let request = ReceiveRequest { id: 0, local: self.slice(self.half, self.half) };
        // SAFETY: the memory lives as long as the queue pair, and the sink is read only after the
        // completion.
        unsafe { self.pair.post_receive(&[request])? };
        Ok(())
    }

    fn send(&mut self, operation: SendOperation, bytes: usize) -> Result<(), Failure> {
        let sink = matches!(operation, SendOperation::Read { .. });
        let local = self.slice(if sink { self.half } else { 0 }, bytes);
        let request = SendRequest {
            id: 1,
            operation,
            local,
            signaled: true,
            inline: false,
            solicited: false,
        };
        // SAFETY: the memory lives as long as the queue pair; the source is written again only
        // after an answer, the sink is read only after the completion.
        unsafe { self.pair.post_send(&[request])? };
        Ok(())
    }

    /// Polls until a completion with this opcode; others must be of earlier SENDs.
    fn wait(&mut self, wanted: Opcode) -> Result<WorkCompletion, Failure> {
        let start = Instant::now();
        let mut out = [WorkCompletion::default()];
        let mut armed = false;
        loop {
            while self.queue.poll(&mut out)? == 1 {
                match out[0] {
                    done if !done.status.is_success() => return Err(format!("{done:?}").into()),
                    done if done.opcode == wanted => return Ok(done),
                    done if done.opcode == Opcode::Send => {}
                    other => return Err(format!("unexpected {other:?}").into()),
                }
            }
            if start.elapsed() > PATIENCE {
                return Err(format!("no {wanted:?} completion within {PATIENCE:?}").into());
            }
            match (self.events, armed) {
                (false, _) => std::thread::yield_now(),
                (true, false) => self.queue.arm()?,
                (true, true) => self.sleep()?,
            }
            armed = self.events && !armed;
        }
    }

    /// Sleeps until the armed queue has an event.
    fn sleep(&mut self) -> Result<(), Failure> {
        let timeout = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let mut fds = [PollFd::from_borrowed_fd(self.queue.event_fd(), PollFlags::IN)];
        poll(&mut fds, Some(&timeout))?;
        Ok(self.queue.drain_events()?)
    }

    fn pattern(round: u32, at: usize) -> u8 {
        (round as usize * 31 + at) as u8
    }

    fn fill(&self, round: u32) {
        for at in 0..self.half {
            // SAFETY: within the first half; no request uses the source now.
            unsafe { self.memory.as_ptr().add(at).write(Self::pattern(round, at)) };
        }
    }

    fn check(&self, round: u32, bytes: usize) -> Result<(), Failure> {
        for at in 0..bytes.min(self.half) {
            // SAFETY: within the second half; the request that filled it has completed.
            let found = unsafe { self.memory.as_ptr().add(self.half + at).read() };
            if found != Self::pattern(round, at) {
                return Err(format!("byte {at} of round {round} is {found:#x}").into());
            }
        }
        Ok(())
    }
}
