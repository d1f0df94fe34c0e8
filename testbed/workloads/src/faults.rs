//! Channels broken on purpose while a workload runs.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use netchannel::{Class, Runtime};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How long the last broken Channel may take to be replaced.
const REPLACEMENT: Duration = Duration::from_secs(10);

/// A thread that breaks one Channel after the other.
pub struct Faults {
    stop: Sender<()>,
    thread: JoinHandle<u64>,
    runtime: Runtime,
}

/// What became of it, on one side.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Channels that this side broke.
    pub broken: u64,
    /// Queue pairs that this side fenced, whoever broke them.
    pub failovers: u64,
    /// Stream bytes that this side sent again.
    pub replayed_bytes: u64,
    /// Times, in nanoseconds, from the last bytes that came through a dead queue pair to the first
    /// after its fence.
    pub gaps_ns: Vec<u64>,
}

impl Failures {
    /// Adds another run or side.
    pub fn add(&mut self, other: &Self) {
        self.broken += other.broken;
        self.failovers += other.failovers;
        self.replayed_bytes += other.replayed_bytes;
        self.gaps_ns.extend(&other.gaps_ns);
    }
}

impl Faults {
    /// Breaks a Channel of this class after `first`, then one every `period`: each time the next.
    pub fn start(runtime: &Runtime, class: Class, first: Duration, period: Duration) -> Self {
        let (stop, stopped) = channel();
        let victim = runtime.clone();
        let thread = std::thread::spawn(move || {
            let mut broken = 0;
            let mut wait = first;
            while stopped.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                broken += u64::from(victim.break_channel(class, broken as usize));
                wait = period;
            }
            broken
        });
        Self { stop, thread, runtime: runtime.clone() }
    }

    /// Breaks no more, and waits until every Channel has a queue pair again. Returns how many were
    /// broken.
    ///
    /// # Errors
    /// [`Error::Invalid`] with what is missing if they have not in ten seconds.
    pub fn stop(self) -> Result<u64> {
        drop(self.stop);
        let broken = self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        let deadline = Instant::now() + REPLACEMENT;
        loop {
            // A Channel between two queue pairs has no number.
            let channels = self.runtime.stats().channels;
            let down: Vec<u16> =
                channels.iter().filter(|c| c.queue_pair == 0).map(|c| c.id).collect();
            if down.is_empty() {
                return Ok(broken);
            }
            if Instant::now() >= deadline {
                let all = channels.len();
                return Err(Error::Invalid(format!(
                    "of {all} Channels these were not replaced within {REPLACEMENT:?}: {down:?}"
                )));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
