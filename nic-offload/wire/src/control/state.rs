//! States of a control connection.
//!
//! ```text
//! connecting side                           accepting side
//!
//!  AwaitAccept   ---------- Hello ---------->  AwaitHello
//!       |                                          |
//!       |                                      Answering     (the caller decides)
//!       |        <--- Accept, or Refuse ---        | accept()
//!   Connecting   (the caller connects          AwaitReady
//!       |         its queue pairs)                 |
//!       | ready() ---------- Ready --------->      |
//!  Established   <---- Ping, Pong, Fence,     Established
//!       |         Fenced, Renew, Renewed -->     |
//!       |                                          |
//!       +-- Goodbye, Refuse, an error, a timeout --+
//!       |                                          |
//!    Closed                                     Closed
//! ```

use super::message::MessageKind;

/// Which side of the connection this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// It opened the TCP connection, says Hello, asks for signs of life, and numbers its streams
    /// evenly.
    Client,
    /// It accepted the TCP connection, and numbers its streams oddly.
    Server,
}

/// Where the conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Server: nothing has come yet.
    AwaitHello,
    /// Server: the caller has the Hello and must accept or refuse it.
    Answering,
    /// Server: accepted; the client connects its queue pairs.
    AwaitReady,
    /// Client: Hello is on its way.
    AwaitAccept,
    /// Client: accepted; the caller connects its queue pairs.
    Connecting,
    /// The session is up.
    Established,
    /// Over. What still comes is not read.
    Closed,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::AwaitHello,
        Self::Answering,
        Self::AwaitReady,
        Self::AwaitAccept,
        Self::Connecting,
        Self::Established,
        Self::Closed,
    ];

    /// Whether the handshake timeout runs.
    pub fn is_handshake(self) -> bool {
        !matches!(self, Self::Established | Self::Closed)
    }

    /// The state after a message, or `None` if it comes at the wrong time.
    pub fn after(self, message: MessageKind) -> Option<Self> {
        match (self, message) {
            (Self::Closed, _) => Some(Self::Closed),
            (Self::AwaitHello, MessageKind::Hello) => Some(Self::Answering),
            (Self::AwaitAccept, MessageKind::Accept) => Some(Self::Connecting),
            (Self::AwaitAccept, MessageKind::Refuse) => Some(Self::Closed),
            (Self::AwaitReady, MessageKind::Ready) => Some(Self::Established),
            (
                Self::Established,
                MessageKind::Ping
                | MessageKind::Pong
                | MessageKind::Fence
                | MessageKind::Fenced
                | MessageKind::Renew
                | MessageKind::Renewed,
            ) => Some(Self::Established),
            // A stranger has nothing to take leave of; anybody else may at any time.
            (Self::AwaitHello, MessageKind::Goodbye) => None,
            (_, MessageKind::Goodbye) => Some(Self::Closed),
            _ => None,
        }
    }
}
