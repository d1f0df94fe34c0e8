//! The test binary once more, as another process with a task.

use std::fmt::Display;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// What a process is to do.
const TASK: &str = "NETCHANNEL_TEST_TASK";
/// For everything that takes a moment; test machines may stand still for a while.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// The task of this process; none in that of the tests themselves.
pub(crate) fn task() -> Option<String> {
    std::env::var(TASK).ok()
}

/// A process with a task. It runs the test `guest` of this binary, which looks what the task is.
pub(crate) struct Guest {
    pub(crate) process: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
}

impl Guest {
    pub(crate) fn start(task: &str, socket: &Path, peer: &str) -> Self {
        Self::with_task(&format!("{task} {} {peer}", socket.display()))
    }

    pub(crate) fn with_task(task: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["guest", "--exact", "--nocapture"])
            .env(TASK, task)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdin, stdout) = (process.stdin.take(), process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { process, stdin, lines }
    }

    /// Writes a line to its standard input.
    pub(crate) fn tell(&mut self, what: impl Display) {
        writeln!(self.stdin.as_mut().unwrap(), "{what}").unwrap();
    }

    /// It does nothing more, and says nothing.
    pub(crate) fn stop(&self) {
        kill_process(Pid::from_child(&self.process), Signal::STOP).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        kill_process(Pid::from_child(&self.process), Signal::KILL).unwrap();
        self.process.wait().unwrap();
    }

    /// It has done its task.
    pub(crate) fn succeeds(mut self) {
        drop(self.stdin.take());
        assert!(self.process.wait().unwrap().success());
    }

    /// What it says next behind `word`.
    pub(crate) fn says(&mut self, word: &str) -> String {
        self.says_within(SOON, word)
    }

    pub(crate) fn says_within(&mut self, limit: Duration, word: &str) -> String {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("the process did not say `{word}`"));
            // The test harness may have begun the line.
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().to_owned();
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
