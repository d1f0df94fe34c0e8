//! What may go wrong in the command itself.

use std::io;
use std::path::PathBuf;

/// What may go wrong in the command itself.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// A setting makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A settings file cannot be used.
    #[error("cannot use the settings in {}: {reason}", path.display())]
    Settings { path: PathBuf, reason: String },
    /// A name without an address.
    #[error("cannot find the address of `{host}`: {reason}; check the name")]
    UnknownHost { host: String, reason: String },
    /// A name to listen on without an address.
    #[error("cannot find the address of `{host}` to listen on: {reason}; check the name")]
    UnknownOwnHost { host: String, reason: String },
    /// An address that cannot be listened on.
    #[error("cannot listen on {address}: {reason}{advice}")]
    Listen { address: String, reason: String, advice: &'static str },
    /// A path where no application can find the engine.
    #[error("{reason}{advice}")]
    Serve { reason: String, advice: &'static str },
    /// No device of that name.
    #[error("unknown device `{name}`; known devices: {}", known.join(", "))]
    UnknownDevice { name: String, known: Vec<String> },
    /// The client of a measurement ended it.
    #[error("the client left before it had a result; what it printed says why")]
    ClientLeft,
    /// A transfer did not come to its end.
    #[error("the stream broke after {bytes} bytes: {reason}{kept}")]
    Broken { bytes: u64, reason: String, kept: String },
    /// A transfer came to its end with other bytes.
    #[error(
        "the checksums differ: the sender's is {sent}, the receiver's {received}; the bytes were \
         changed on the way or in memory, send them again{kept}"
    )]
    Mismatch { sent: String, received: String, kept: String },
    /// The receiver gave up.
    #[error("the receiver gave up: {0}")]
    Refused(String),
    /// The other side speaks something else.
    #[error("the other side does not speak the protocol of `netchannel send`: {0}")]
    Foreign(String),
    /// A local file.
    #[error("cannot {what} {}: {source}{hint}", path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error, hint: String },
}

impl Problem {
    /// A failed operation on a local file, with what to do about it.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; free some space, or write somewhere else"
            }
            io::ErrorKind::PermissionDenied if what == "create" => {
                "; choose a folder that you may write to"
            }
            io::ErrorKind::PermissionDenied => "; check its permissions",
            io::ErrorKind::NotFound if what == "create" => "; make its folder first",
            io::ErrorKind::IsADirectory => "; name a file",
            io::ErrorKind::WouldBlock => "; another process receives into it, choose another name",
            _ => "",
        };
        Self::File { what, path: path.into(), source, hint: hint.into() }
    }

    /// The same for a name of this host.
    pub(crate) fn for_own_address(self) -> Self {
        match self {
            Self::UnknownHost { host, reason } => Self::UnknownOwnHost { host, reason },
            other => other,
        }
    }
}
