//! Spinning that lets others run in the end.

use std::hint::spin_loop;
use std::io;
use std::thread::yield_now;
use std::time::Instant;

/// Turns before the processor is offered to another thread: longer than any wait between two
/// running cores, short beside a time slice, so that a machine with too few cores still moves on.
const SPINS: u32 = 1024;

/// A wait for something that another core does, with an end.
pub(crate) struct Backoff {
    turns: u32,
    deadline: Instant,
}

impl Backoff {
    pub(crate) fn new(deadline: Instant) -> Self {
        Self { turns: 0, deadline }
    }

    /// One turn; an error after the deadline.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.turns += 1;
        if self.turns < SPINS {
            spin_loop();
            return Ok(());
        }
        self.turns = 0;
        if Instant::now() >= self.deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        yield_now();
        Ok(())
    }
}
