//! Exit codes, and how errors are said.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

use netchannel::Error as StackError;
use netchannel_verbs::Error as VerbsError;
use netchannel_workloads::Error as WorkloadError;

/// Something failed that has no code of its own.
pub(crate) const FAILED: u8 = 1;
/// Wrong usage: arguments or settings.
pub(crate) const USAGE: u8 = 2;
/// There is no such device.
pub(crate) const NO_DEVICE: u8 = 3;
/// The peer, or the engine to attach to, cannot be reached.
pub(crate) const UNREACHABLE: u8 = 4;
/// A stream broke, or its bytes arrived changed.
pub(crate) const BROKEN: u8 = 5;
/// The address to listen on cannot be had.
pub(crate) const ADDRESS: u8 = 6;

/// The codes for `--help`.
pub(crate) const TABLE: &str = "\
Exit codes:
    0  done
    1  failed
    2  wrong usage: arguments or settings
    3  no such device
    4  the peer, or the engine to attach to, cannot be reached
    5  a stream broke, or its bytes arrived changed
    6  the address to listen on cannot be had
  130  interrupted (Ctrl-C); 143 terminated";

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
    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Settings { .. } => USAGE,
            Self::UnknownHost { .. } => UNREACHABLE,
            Self::Broken { .. } | Self::Mismatch { .. } | Self::Foreign(_) => BROKEN,
            Self::Refused(_) | Self::File { .. } => FAILED,
        }
    }

    /// A failed operation on a local file, with what to do about it.
    pub(crate) fn file(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        let hint = match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                "; free some space, or write somewhere else"
            }
            io::ErrorKind::PermissionDenied => "; check its permissions",
            _ => "",
        };
        Self::File { what, path: path.into(), source, hint: hint.into() }
    }
}

/// Says `error` on standard error; its exit code.
pub(crate) fn report(error: &anyhow::Error) -> ExitCode {
    let code = code(error);
    eprintln!("netchannel: {}{}", sentence(error), hint(code, error));
    ExitCode::from(code)
}

/// The error and its causes, leaving out what was said already.
pub(crate) fn sentence(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1) {
        let cause = cause.to_string();
        if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

fn hint(code: u8, error: &anyhow::Error) -> &'static str {
    let stack = |cause: &&(dyn std::error::Error + 'static)| match cause.downcast_ref() {
        // Those say themselves what to do.
        Some(StackError::Attach { .. }) | None => false,
        Some(_) => true,
    };
    let stack = error.chain().any(|cause| stack(&cause));
    match code {
        UNREACHABLE if stack => "; check the address, and that the other side was started first",
        ADDRESS if stack => "; is another program using the port? Choose another",
        NO_DEVICE => "; `netchannel devices` lists them",
        _ => "",
    }
}

/// The exit code for `error`.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(cause_code).unwrap_or(FAILED)
}

fn cause_code(cause: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(problem) = cause.downcast_ref::<Problem>() {
        return Some(problem.code());
    }
    if let Some(error) = cause.downcast_ref::<StackError>() {
        return stack_code(error);
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        return error.get_ref().and_then(|inner| inner.downcast_ref()).and_then(stack_code);
    }
    match cause.downcast_ref::<WorkloadError>()? {
        WorkloadError::Unreachable { .. } => Some(UNREACHABLE),
        WorkloadError::Listen { .. } => Some(ADDRESS),
        WorkloadError::PeerGone(_) | WorkloadError::Corrupted { .. } => Some(BROKEN),
        WorkloadError::Invalid(_) => Some(USAGE),
        _ => None,
    }
}

fn stack_code(error: &StackError) -> Option<u8> {
    match error {
        StackError::Config { .. } => Some(USAGE),
        StackError::Connect { .. } | StackError::Attach { .. } => Some(UNREACHABLE),
        StackError::Session { .. } | StackError::EngineGone { .. } | StackError::Stream(_) => {
            Some(BROKEN)
        }
        StackError::Device(error) => match **error {
            VerbsError::NoDevice { .. } | VerbsError::UnknownDevice { .. } => Some(NO_DEVICE),
            _ => None,
        },
        StackError::System { source, .. } => match source.kind() {
            io::ErrorKind::AddrInUse | io::ErrorKind::AddrNotAvailable => Some(ADDRESS),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_stack_error_is_found_through_io_errors() {
        let peer = "127.0.0.1:9".parse().unwrap();
        let kind = io::ErrorKind::TimedOut;
        let stack = StackError::Session { peer, reason: "no sign of life".into(), kind };
        let error = Err::<(), _>(io::Error::from(stack)).context("reading").unwrap_err();
        assert_eq!(code(&error), BROKEN);
        assert_eq!(
            sentence(&error),
            "reading: the session with 127.0.0.1:9 is over: no sign of life"
        );
    }

    #[test]
    fn nothing_is_said_twice() {
        let source = io::Error::from(io::ErrorKind::ConnectionRefused);
        let error = WorkloadError::Io { what: "knock".into(), source };
        assert_eq!(sentence(&anyhow::Error::from(error)), "cannot knock: connection refused");
    }
}
