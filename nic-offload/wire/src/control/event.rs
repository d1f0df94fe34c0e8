//! What a control connection reports.

use netchannel_units::Duration;

use super::channel::ChannelMessage;
use super::keepalive::Path;
use super::message::{Accept, Farewell, Hello};
use super::parameters::{Features, Parameters};
use super::state::State;

/// Something that the caller must know or do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlEvent {
    /// Server: a client wants a session of a common version with the same provider. Make queue
    /// pairs, connect them to the offered endpoints, and answer with
    /// [`accept`](super::Connection::accept) or [`refuse`](super::Connection::refuse).
    PeerHello(Box<Hello>),
    /// Client: the server took the session. Connect the queue pairs to its endpoints, then call
    /// [`ready`](super::Connection::ready).
    Accepted(Box<Accept>),
    /// Client: the server did not.
    Refused(Farewell),
    /// Server: the client has connected its queue pairs; the session is up.
    Ready,
    /// The peer ended the session. Close the socket.
    Goodbye(Farewell),
    /// A queue pair died at the peer, or is replaced.
    Channel(ChannelMessage),
    /// Nothing came for the death timeout, or for the outage timeout with the path out. Close the
    /// socket.
    PeerDead {
        /// How long the peer has been silent.
        silent: Duration,
        /// What is known of the path.
        path: Path,
    },
    /// The handshake took too long. Close the socket.
    HandshakeTimeout {
        /// What was waited for.
        state: State,
    },
    /// The TCP connection ended without a Goodbye.
    Disconnected {
        /// Where the conversation was.
        state: State,
        /// Bytes of a record that was cut off.
        partial: usize,
    },
}

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The version.
    pub version: u16,
    /// What both can do.
    pub features: Features,
    /// How often the client asks for a sign of life.
    pub keepalive: Duration,
    /// What the peer said of itself.
    pub peer: Parameters,
}
