//! Exit codes, and how errors are said.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use netchannel::Error as StackError;
use netchannel_verbs::Error as VerbsError;
use netchannel_workloads::Error as WorkloadError;
use netchannel_workloads::error::listen_advice;

use crate::address::Address;
use crate::output;
use crate::problem::Problem;

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

/// Why nothing can be received at `address`.
pub(crate) fn cannot_listen(address: &Address, error: StackError) -> anyhow::Error {
    match &error {
        StackError::System { source, .. } => {
            let (address, reason) = (address.to_string(), source.to_string());
            Problem::Listen { address, reason, advice: listen_advice(source.kind()) }.into()
        }
        _ => anyhow::Error::new(error).context(format!("cannot listen on {address}")),
    }
}

/// Why applications cannot be served at a path.
pub(crate) fn cannot_serve(error: StackError) -> anyhow::Error {
    let reason = error.to_string();
    let advice = match error.kind() {
        _ if reason.contains("choose another") => "",
        io::ErrorKind::AddrInUse => "; choose another path",
        io::ErrorKind::NotFound => "; make its folder first",
        io::ErrorKind::PermissionDenied => "; choose a folder that you may write to",
        _ => "",
    };
    match error {
        StackError::System { .. } => Problem::Serve { reason, advice }.into(),
        _ => error.into(),
    }
}

/// Says `error` on standard error; its exit code. `settings` is the file that may be to blame.
pub(crate) fn report(error: &anyhow::Error, settings: Option<&Path>) -> ExitCode {
    let code = code(error);
    let mut text = sentence(error) + hint(code);
    // What only a device knows to be wrong: its port, its GIDs.
    let of_stack = |cause: &(dyn std::error::Error + 'static)| {
        matches!(cause.downcast_ref(), Some(StackError::Config { .. }))
    };
    if let Some(path) = settings.filter(|_| error.chain().any(of_stack)) {
        text += &format!("; the settings are read from {}", path.display());
    }
    output::say(&text);
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

fn hint(code: u8) -> &'static str {
    match code {
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
        return Some(problem_code(problem));
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

fn problem_code(problem: &Problem) -> u8 {
    match problem {
        Problem::Usage(_) | Problem::Settings { .. } => USAGE,
        Problem::UnknownHost { .. } => UNREACHABLE,
        Problem::UnknownOwnHost { .. } | Problem::Listen { .. } | Problem::Serve { .. } => ADDRESS,
        Problem::UnknownDevice { .. } => NO_DEVICE,
        Problem::Broken { .. }
        | Problem::Mismatch { .. }
        | Problem::Foreign(_)
        | Problem::ClientLeft => BROKEN,
        Problem::Refused(_) | Problem::File { .. } => FAILED,
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
