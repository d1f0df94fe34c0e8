//! The side that asks for runs, sends bulk bytes, and measures latency.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::bandwidth;
use crate::control::{Conversation, Reply, Request, SideReport, VERSION};
use crate::error::{Error, Result};
use crate::latency::{self, HalfRoundTrips};
use crate::report::Report;
use crate::spec::{Amount, Load, RunSpec, Tool};
use crate::transport::{Connection, Counters, Transport, processor_time};

/// How long the server may take to open its stack.
const SET_UP_LIMIT: Duration = Duration::from_secs(20);
/// How long the server may take after a run of known length.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long bulk streams write before latency is measured beside them.
const RAMP: Duration = Duration::from_millis(200);
/// How long a run of unknown length may take.
const LONGEST_RUN: Duration = Duration::from_secs(3600);

/// A conversation with a server.
pub struct Client {
    conversation: Conversation,
}

/// What both sides of a run saw.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// What the receiving application read; in latency runs, of the bulk streams beside if there
    /// are any, else of the messages.
    pub moved: bandwidth::Moved,
    /// What the asking application measured (latency runs).
    pub half_round_trips: Option<HalfRoundTrips>,
    /// Bytes that it wrote to each stream (bandwidth runs).
    pub sent: Vec<u64>,
    /// What this side's stack counted.
    pub here: Counters,
    /// What the server's stack counted.
    pub there: Counters,
    /// Processor time of both processes during the run.
    pub processor: Duration,
}

impl RunReport {
    /// Seconds of processor time, both sides together, for 10^9 bytes that the receiver read.
    pub fn processor_per_gb(&self) -> f64 {
        self.processor.as_secs_f64() * 1e9 / self.moved.bytes.max(1) as f64
    }
}

impl Client {
    /// Connects and compares versions.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let mut conversation = Conversation::connect(address)?;
        conversation.answer_within(SET_UP_LIMIT)?;
        conversation.say(&Request::Hello(VERSION))?;
        let answered = answer(&mut conversation).map_err(|error| match error {
            // A program that expects another first word hangs up at this one.
            Error::PeerGone(reason) => Error::Protocol(format!("it hung up ({reason})")),
            other => other,
        });
        match answered? {
            Reply::Welcome(VERSION) => Ok(Self { conversation }),
            Reply::Welcome(other) => {
                Err(Error::Protocol(format!("version {other}, this side has version {VERSION}")))
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Runs `spec` against the server; `transport` is this side's end of the stack.
    pub fn run(&mut self, spec: &RunSpec, mut transport: Box<dyn Transport>) -> Result<RunReport> {
        spec.load.check()?;
        self.conversation.answer_within(SET_UP_LIMIT)?;
        self.conversation.say(&Request::Run(Box::new(spec.clone())))?;
        let address = match answer(&mut self.conversation)? {
            Reply::Ready(address) => address,
            other => return Err(unexpected(&other)),
        };
        let before = processor_time();
        match self.move_bytes(spec, &mut *transport, address) {
            Ok(Done { half_round_trips, sent }) => {
                let processor = processor_time() - before;
                transport.stop_faults()?;
                let here = transport.counters();
                self.conversation.say(&Request::Over)?;
                let there = self.server_report(spec)?;
                transport.close()?;
                let processor = processor + there.processor;
                let (moved, there) = (there.moved, there.counters);
                Ok(RunReport { moved, half_round_trips, sent, here, there, processor })
            }
            // What the server has to say tells more than a broken stream.
            Err(error @ (Error::Io { .. } | Error::PeerGone(_))) => {
                self.conversation.answer_within(Duration::from_secs(2))?;
                match answer(&mut self.conversation) {
                    Err(told @ Error::Peer(_)) => Err(told),
                    _ => Err(error),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn move_bytes(
        &mut self,
        spec: &RunSpec,
        transport: &mut dyn Transport,
        address: SocketAddr,
    ) -> Result<Done> {
        let connections = (0..spec.load.streams)
            .map(|stream| transport.connect_weighted(address, spec.load.weight_of(stream)))
            .collect::<Result<Vec<_>>>()?;
        if let Some(every) = spec.load.fail_channel_every {
            // In turn: this side, the server, this side.
            transport.start_faults(every, every * 2);
        }
        match (spec.load.tool, spec.load.bulk) {
            (Tool::Bandwidth, _) => {
                let sent = bandwidth::send(connections, &spec.load)?;
                Ok(Done { half_round_trips: None, sent })
            }
            (Tool::Latency, None) => latency::ping(connections, &spec.load).map(Done::from),
            (Tool::Latency, Some(bulk)) => {
                // Before the server's clock starts with the first of them.
                let buffer = bandwidth::pattern(bulk.size);
                let writers = (0..bulk.streams)
                    .map(|_| transport.connect_bulk(address))
                    .collect::<Result<Vec<_>>>()?;
                ping_beside(connections, &spec.load, writers, &buffer).map(Done::from)
            }
        }
    }

    fn server_report(&mut self, spec: &RunSpec) -> Result<SideReport> {
        let run = match spec.load.amount {
            Amount::Duration(duration) => duration,
            Amount::Iterations(_) => LONGEST_RUN,
        };
        self.conversation.answer_within(run + END_LIMIT)?;
        match answer(&mut self.conversation)? {
            Reply::Done(report) => Ok(report),
            other => Err(unexpected(&other)),
        }
    }

    /// Lets the server's user know what all runs came to.
    pub fn tell(&mut self, report: &Report) -> Result<()> {
        self.conversation.say(&Request::Report(Box::new(report.clone())))
    }
}

/// What this side of a run came to.
struct Done {
    half_round_trips: Option<HalfRoundTrips>,
    sent: Vec<u64>,
}

impl From<HalfRoundTrips> for Done {
    fn from(times: HalfRoundTrips) -> Self {
        Self { half_round_trips: Some(times), sent: Vec::new() }
    }
}

/// Measures latency while other connections write as fast as they can.
fn ping_beside(
    connections: Vec<Box<dyn Connection>>,
    load: &Load,
    writers: Vec<Box<dyn Connection>>,
    buffer: &[u8],
) -> Result<HalfRoundTrips> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let bulk = scope.spawn(|| bandwidth::send_until(writers, buffer, &over));
        std::thread::sleep(RAMP);
        let measured = latency::ping(connections, load);
        over.store(true, Ordering::Relaxed);
        let written = bulk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written.and(measured)
    })
}

fn answer(conversation: &mut Conversation) -> Result<Reply> {
    match conversation.hear()? {
        Some(Reply::Failed(message)) => Err(Error::Peer(message)),
        Some(reply) => Ok(reply),
        None => Err(Error::PeerGone(std::io::ErrorKind::UnexpectedEof.into())),
    }
}

fn unexpected(reply: &Reply) -> Error {
    Error::Protocol(format!("{reply:?}"))
}
