//! A server as another process of this host, so that one command measures both sides.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

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
    output: BufReader<ChildStdout>,
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
        let Some(output) = child.stdout.take() else {
            return Err(Error::Invalid("a child without standard output".into()));
        };
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let announced = output.read_line(&mut line).map_err(|error| error.to_string());
        let announced = announced.and_then(|_| {
            serde_json::from_str::<Announcement>(&line).map_err(|error| error.to_string())
        });
        match announced {
            Ok(Announcement { listening }) => Ok(Self { child, output, address: listening }),
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

    /// Waits until it has ended by itself; what it printed after its address.
    pub fn wait(mut self) -> Result<String> {
        let mut output = String::new();
        self.output.read_to_string(&mut output).context("read what the local server printed")?;
        let status = self.child.wait().context("wait for the local server")?;
        if status.success() {
            return Ok(output);
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
