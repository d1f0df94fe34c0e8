//! Errors of the workloads.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// What may go wrong in a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An operation of this process failed.
    #[error("cannot {what}: {source}")]
    Io {
        /// The operation, as in "cannot ...".
        what: String,
        /// What came back.
        source: io::Error,
    },
    /// Nobody answers at the peer's address.
    #[error(
        "cannot connect to {address}: {source}; check the address, and that the server was \
         started there first"
    )]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What came back.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}: {source}{}", listen_advice(source.kind())
    )]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What came back.
        source: io::Error,
    },
    /// NetChannel refused or failed an operation.
    #[error("{what}: {source}")]
    Stack {
        /// What was being done.
        what: &'static str,
        /// What came back.
        source: netchannel::Error,
    },
    /// The peer said that its side failed.
    #[error("the other side failed: {0}")]
    Peer(String),
    /// The peer does not speak this protocol.
    #[error(
        "the other side answered something unexpected: {0}; is it `netchannel perf`, of the same version?"
    )]
    Protocol(String),
    /// The peer went away during a run.
    #[error("the other side went away: {0}")]
    PeerGone(io::Error),
    /// Nothing happened for too long.
    #[error("{what} took longer than {limit:?}")]
    TimedOut {
        /// What was waited for.
        what: String,
        /// How long.
        limit: Duration,
    },
    /// A process started for a run failed.
    #[error("the {role} process failed ({status}): {message}")]
    Child {
        /// What it was to do.
        role: String,
        /// Its exit status.
        status: String,
        /// What it said.
        message: String,
    },
    /// The bytes that arrived are not those that were sent.
    #[error("wrong byte at offset {offset} of stream {stream}")]
    Corrupted {
        /// Which stream of the run.
        stream: usize,
        /// Where in the stream.
        offset: u64,
    },
    /// The run asked for makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// What to do about an address that cannot be listened on.
#[must_use]
pub fn listen_advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::AddrInUse => "; is another program using the port? Choose another",
        io::ErrorKind::AddrNotAvailable => "; no interface of this host has the address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 are root's, choose another",
        _ => "",
    }
}

/// The result of a part of a run.
pub type Result<T> = std::result::Result<T, Error>;

/// Gives an I/O error the operation that it belongs to.
pub trait Context<T> {
    /// `what` completes the sentence "cannot ...".
    fn context(self, what: impl Into<String>) -> Result<T>;
}

impl<T, E: Into<io::Error>> Context<T> for std::result::Result<T, E> {
    fn context(self, what: impl Into<String>) -> Result<T> {
        self.map_err(|source| Error::Io { what: what.into(), source: source.into() })
    }
}
