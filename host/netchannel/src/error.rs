//! Errors of the library.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use netchannel_driver::DriverError;
use netchannel_shared_memory::Error as SharedMemoryError;

/// What a call may answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// A setting is out of range.
    #[error("invalid setting: {reason}")]
    Config {
        /// Which, and what it must be.
        reason: String,
    },
    /// The device could not be opened or refused an operation.
    #[error(transparent)]
    Device(Arc<netchannel_verbs::Error>),
    /// A group of Channels broke.
    #[error(transparent)]
    Driver(Arc<DriverError>),
    /// Shared memory could not be made.
    #[error("{what}: {source}")]
    SharedMemory {
        /// What was being done.
        what: &'static str,
        /// What came back.
        source: Arc<SharedMemoryError>,
    },
    /// The system refused an operation.
    #[error("{what}: {source}")]
    System {
        /// What was being done.
        what: String,
        /// What came back.
        source: Arc<io::Error>,
    },
    /// Nothing is left of some resource.
    #[error("out of {what}")]
    NoMemory {
        /// What.
        what: &'static str,
    },
    /// Nobody answered at the address.
    #[error("cannot connect to {peer}: {reason}")]
    Connect {
        /// The address.
        peer: SocketAddr,
        /// What happened.
        reason: String,
        /// The kind of failure.
        kind: io::ErrorKind,
    },
    /// The session with the peer is over.
    #[error("the session with {peer} is over: {reason}")]
    Session {
        /// The peer.
        peer: SocketAddr,
        /// Why.
        reason: String,
        /// The kind of failure.
        kind: io::ErrorKind,
    },
    /// The stream failed.
    #[error(transparent)]
    Stream(netchannel_vns::StreamError),
    /// A call that must not wait had nothing to do; try again when the stream is ready.
    #[error("not ready: try again when the stream is")]
    WouldBlock,
    /// There is no engine to attach to, or it does not want this process.
    #[error("cannot attach to the engine at {}: {reason}", path.display())]
    Attach {
        /// Its socket.
        path: PathBuf,
        /// What happened.
        reason: String,
        /// The kind of failure.
        kind: io::ErrorKind,
    },
    /// The engine of another process is gone, and with it every stream.
    #[error("the engine at {} is gone: {reason}", path.display())]
    EngineGone {
        /// Its socket.
        path: PathBuf,
        /// What happened.
        reason: String,
        /// The kind of failure.
        kind: io::ErrorKind,
    },
    /// The runtime was closed.
    #[error("the runtime was closed")]
    Closed,
}

impl Error {
    pub(crate) fn shared_memory(what: &'static str) -> impl FnOnce(SharedMemoryError) -> Self {
        move |source| Self::SharedMemory { what, source: Arc::new(source) }
    }

    pub(crate) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source: Arc::new(source) }
    }

    /// The nearest kind of the standard library.
    pub fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Config { .. } => io::ErrorKind::InvalidInput,
            Self::System { source, .. } => source.kind(),
            Self::NoMemory { .. } => io::ErrorKind::OutOfMemory,
            Self::Connect { kind, .. }
            | Self::Session { kind, .. }
            | Self::Attach { kind, .. }
            | Self::EngineGone { kind, .. } => *kind,
            Self::Stream(error) => match error {
                netchannel_vns::StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
                netchannel_vns::StreamError::Stopped(_) | netchannel_vns::StreamError::Finished => {
                    io::ErrorKind::BrokenPipe
                }
                _ => io::ErrorKind::NotConnected,
            },
            Self::WouldBlock => io::ErrorKind::WouldBlock,
            Self::Closed => io::ErrorKind::NotConnected,
            Self::Device(_) | Self::Driver(_) | Self::SharedMemory { .. } => io::ErrorKind::Other,
        }
    }
}

impl From<netchannel_verbs::Error> for Error {
    fn from(error: netchannel_verbs::Error) -> Self {
        Self::Device(Arc::new(error))
    }
}

impl From<DriverError> for Error {
    fn from(error: DriverError) -> Self {
        Self::Driver(Arc::new(error))
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(error.kind(), error)
    }
}
