//! Errors on their way from the engine to the application.

use std::io::ErrorKind;
use std::net::SocketAddr;

use minicbor::{Decode, Encode};

use crate::codec::clean;

/// Bytes of the longest text.
const MAX_TEXT: usize = 1_024;

/// Why something did not happen.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Failure {
    /// What kind of thing failed.
    #[n(0)]
    pub kind: FailureKind,
    /// The nearest kind of the standard library, as [`FAILURES`] numbers it.
    #[n(1)]
    pub error: u8,
    /// In words.
    #[n(2)]
    pub text: String,
    /// The peer, where there is one.
    #[n(3)]
    pub peer: Option<SocketAddr>,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum FailureKind {
    /// Reaching a peer.
    #[n(0)]
    Connect,
    /// The session with a peer.
    #[n(1)]
    Session,
    /// Something that the system or the device refused the engine.
    #[n(2)]
    System,
    /// Something of which the application has too much.
    #[n(3)]
    Limit,
    /// The application named something that is not its own.
    #[n(4)]
    Unknown,
    /// The engine is closing.
    #[n(5)]
    Closed,
}

/// Kinds of errors that travel; any other is `Other`.
pub const FAILURES: [ErrorKind; 16] = [
    ErrorKind::Other,
    ErrorKind::ConnectionRefused,
    ErrorKind::ConnectionReset,
    ErrorKind::ConnectionAborted,
    ErrorKind::TimedOut,
    ErrorKind::NotConnected,
    ErrorKind::AddrInUse,
    ErrorKind::AddrNotAvailable,
    ErrorKind::PermissionDenied,
    ErrorKind::InvalidInput,
    ErrorKind::InvalidData,
    ErrorKind::OutOfMemory,
    ErrorKind::HostUnreachable,
    ErrorKind::NetworkUnreachable,
    ErrorKind::BrokenPipe,
    ErrorKind::NotFound,
];

impl Failure {
    /// Cuts `text` to what may be sent.
    pub fn new(kind: FailureKind, error: ErrorKind, text: &str) -> Self {
        let error = FAILURES.iter().position(|known| *known == error).unwrap_or(0) as u8;
        Self { kind, error, text: clean(text, MAX_TEXT), peer: None }
    }

    /// With the peer that it is about.
    pub fn with_peer(self, peer: SocketAddr) -> Self {
        Self { peer: Some(peer), ..self }
    }

    /// The nearest kind of the standard library.
    pub fn error_kind(&self) -> ErrorKind {
        FAILURES.get(usize::from(self.error)).copied().unwrap_or(ErrorKind::Other)
    }

    pub(crate) fn cleaned(self) -> Self {
        Self { text: clean(&self.text, MAX_TEXT), ..self }
    }
}
