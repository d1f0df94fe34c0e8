//! A server as another process of this host, so that one command measures both sides.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};

/// The first line that a local server prints.
#[derive(Serialize, Deserialize)]
struct Announcement {
    listening: SocketAddr,
}

/// Says on standard output where this process listens, for the process that started it.
pub fn announce(listening: SocketAddr) -> Result<()> {
    let line = serde_json::to_string(&Announcement { listening })
        .map_err(|error| Error::Invalid(format!("an address that is no JSON: {error}")))?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{line}").and_then(|()| output.flush()).context("announce the address")
}

/// A server process of this host. Dropped, it is ended.
pub struct LocalServer {
    child: Child,
    address: SocketAddr,
}

impl LocalServer {
    /// Starts `program`, which must [`announce`] itself; its errors go where this process's go.
    pub fn start(program: &Path, arguments: &[OsString]) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context(format!("start {}", program.display()))?;
        let mut line = String::new();
        let read = match child.stdout.take() {
            Some(output) => BufReader::new(output).read_line(&mut line),
            None => Ok(0),
        };
        let announced = read.map_err(|error| error.to_string()).and_then(|_| {
            serde_json::from_str::<Announcement>(&line).map_err(|error| error.to_string())
        });
        match announced {
            Ok(Announcement { listening }) => Ok(Self { child, address: listening }),
            Err(message) => {
                // Fails where the server has ended already.
                let _ = child.kill();
                let status = child.wait().context("wait for the local server")?.to_string();
                Err(Error::Child { role: "local server".into(), status, message })
            }
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it has ended by itself.
    pub fn wait(mut self) -> Result<()> {
        let status = self.child.wait().context("wait for the local server")?;
        if status.success() {
            return Ok(());
        }
        Err(Error::Child {
            role: "local server".into(),
            status: status.to_string(),
            message: "see above".into(),
        })
    }
}

impl Drop for LocalServer {
    fn drop(&mut self) {
        // Both fail where the server has ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
