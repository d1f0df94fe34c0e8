//! The side that asks for runs, sends bulk bytes, and measures latency.

use std::net::SocketAddr;
use std::time::Duration;

use crate::bandwidth;
use crate::control::{Conversation, Reply, Request, SideReport, VERSION};
use crate::error::{Error, Result};
use crate::latency::{self, HalfRoundTrips};
use crate::report::Report;
use crate::spec::{Amount, RunSpec, Tool};
use crate::transport::{Counters, Transport};

/// How long the server may take to open its stack.
const SET_UP_LIMIT: Duration = Duration::from_secs(20);
/// How long the server may take after a run of known length.
const END_LIMIT: Duration = Duration::from_secs(30);
/// How long a run of unknown length may take.
const LONGEST_RUN: Duration = Duration::from_secs(3600);

/// A conversation with a server.
pub struct Client {
    conversation: Conversation,
}

/// What both sides of a run saw.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// What the receiving application read (bandwidth runs).
    pub moved: bandwidth::Moved,
    /// What the asking application measured (latency runs).
    pub half_round_trips: Option<HalfRoundTrips>,
    /// What this side's stack counted.
    pub here: Counters,
    /// What the server's stack counted.
    pub there: Counters,
}

impl Client {
    /// Connects and compares versions.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let mut conversation = Conversation::connect(address)?;
        conversation.answer_within(SET_UP_LIMIT)?;
        conversation.say(&Request::Hello(VERSION))?;
        match answer(&mut conversation)? {
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
        match self.move_bytes(spec, &mut *transport, address) {
            Ok((moved, half_round_trips)) => {
                let here = transport.counters();
                self.conversation.say(&Request::Over)?;
                let there = self.server_report(spec)?;
                transport.close()?;
                let moved = if half_round_trips.is_some() { moved } else { there.moved };
                Ok(RunReport { moved, half_round_trips, here, there: there.counters })
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
    ) -> Result<(bandwidth::Moved, Option<HalfRoundTrips>)> {
        let connections = (0..spec.load.streams)
            .map(|_| transport.connect(address))
            .collect::<Result<Vec<_>>>()?;
        match spec.load.tool {
            Tool::Bandwidth => Ok((bandwidth::send(connections, &spec.load)?, None)),
            Tool::Latency => {
                let measured = latency::ping(connections, &spec.load)?;
                Ok((bandwidth::Moved::default(), Some(measured)))
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
