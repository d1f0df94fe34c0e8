//! How two sides of a run agree: JSON lines over a TCP connection of its own, as perftest does.
//!
//! The client says hello and then asks for one run after another. The server answers each with the
//! address where its stack listens, then with what it measured.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::bandwidth::Moved;
use crate::error::{Context, Error, Result};
use crate::report::Report;
use crate::spec::RunSpec;
use crate::transport::Counters;

/// Version of these messages; both sides must have the same.
pub const VERSION: u32 = 2;
/// Longest line in bytes that is taken from the other side.
const LONGEST_LINE: u64 = 256 << 10;
/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What the client says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// First message, with the version.
    Hello(u32),
    /// Be the other side of this run.
    Run(Box<RunSpec>),
    /// The client has closed its streams and looked at its counters: close the stack.
    Over,
    /// What all runs came to, for the server's user.
    Report(Box<Report>),
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// To hello, with the version.
    Welcome(u32),
    /// The stack listens here.
    Ready(SocketAddr),
    /// The run is over.
    Done(SideReport),
    /// The run, or the conversation, failed.
    Failed(String),
}

/// What one side of a run saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SideReport {
    /// What its application moved.
    pub moved: Moved,
    /// What its stack counted.
    pub counters: Counters,
    /// Processor time of its process during the run.
    #[serde(default)]
    pub processor: Duration,
}

/// One end of the conversation.
pub struct Conversation {
    lines: BufReader<TcpStream>,
}

impl Conversation {
    /// Connects to a server.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
            .map_err(|source| Error::Unreachable { address, source })?;
        Self::over(stream)
    }

    /// Waits for the next client.
    pub fn accept(listener: &TcpListener) -> Result<Self> {
        let (stream, _) = listener.accept().context("accept a client")?;
        Self::over(stream)
    }

    fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        Ok(Self { lines: BufReader::new(stream) })
    }

    /// This side's address.
    pub fn local_address(&self) -> Result<SocketAddr> {
        self.lines.get_ref().local_addr().context("tell the own address")
    }

    /// The other side's address.
    pub fn peer_address(&self) -> Result<SocketAddr> {
        self.lines.get_ref().peer_addr().context("tell the peer's address")
    }

    /// Waits for answers no longer than `limit`.
    pub fn answer_within(&self, limit: Duration) -> Result<()> {
        self.lines.get_ref().set_read_timeout(Some(limit)).context("set a read timeout")
    }

    /// Says `message`.
    pub fn say(&mut self, message: &impl Serialize) -> Result<()> {
        let mut line = serde_json::to_vec(message)
            .map_err(|error| Error::Protocol(format!("a message that is no JSON: {error}")))?;
        line.push(b'\n');
        self.lines.get_mut().write_all(&line).map_err(Error::PeerGone)
    }

    /// What the other side says next; `None` if it ended the conversation.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Result<Option<T>> {
        let mut line = Vec::new();
        let read = (&mut self.lines).take(LONGEST_LINE).read_until(b'\n', &mut line);
        match read {
            Ok(0) => return Ok(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                return Err(Error::PeerGone(io::ErrorKind::TimedOut.into()));
            }
            Err(error) => return Err(Error::PeerGone(error)),
        }
        serde_json::from_slice(&line).map(Some).map_err(|_| {
            let start = String::from_utf8_lossy(&line[..line.len().min(80)]).into_owned();
            Error::Protocol(format!("`{}`", start.trim_end()))
        })
    }
}
