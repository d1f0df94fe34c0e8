//! Running the command.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The command, on the NIC in memory.
pub(crate) fn netchannel(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_netchannel"));
    command.args(arguments).env_remove("COLUMNS").stdin(Stdio::null());
    command
}

/// Exit code, standard output and standard error.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
    outcome(&netchannel(arguments).output().unwrap())
}

pub(crate) fn outcome(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code().unwrap_or(-1), text(&output.stdout), text(&output.stderr))
}

/// A command that listens, killed when the test ends.
pub(crate) struct Listening {
    pub(crate) child: Child,
    pub(crate) address: String,
}

impl Listening {
    /// Starts `recv` on a free port and waits for its address.
    pub(crate) fn recv(arguments: &[&str]) -> Self {
        Self::start(&[&["recv", "--device", "soft"], arguments].concat())
    }

    /// The same with an engine in another process.
    pub(crate) fn recv_attached(engine: &str, arguments: &[&str]) -> Self {
        Self::start(&[&["recv", "--attach", engine], arguments].concat())
    }

    fn start(arguments: &[&str]) -> Self {
        let mut command = netchannel(arguments);
        command.args(["--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        // Byte by byte, so that nothing but the line is taken from the pipe.
        let stderr = child.stderr.as_mut().unwrap();
        BufReader::with_capacity(1, stderr).read_line(&mut line).unwrap();
        let address = line.split("listening on ").nth(1).unwrap_or_else(|| panic!("{line}"));
        let address = address.split(',').next().unwrap().to_owned();
        Self { child, address }
    }

    /// The outcome, which must come within 20 s.
    pub(crate) fn end(mut self) -> (i32, String, String) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the command does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut child = self.child;
        let mut text = [String::new(), String::new()];
        std::io::Read::read_to_string(&mut child.stdout.take().unwrap(), &mut text[0]).unwrap();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut text[1]).unwrap();
        let [output, errors] = text;
        (child.wait().unwrap().code().unwrap_or(-1), output, errors)
    }
}
