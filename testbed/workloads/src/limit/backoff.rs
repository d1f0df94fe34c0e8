//! Spinning that lets others run in the end.

use std::hint::spin_loop;
use std::io;
use std::thread::{available_parallelism, yield_now};
use std::time::Instant;

/// Turns before the processor is offered to another thread, on a machine with more than one:
/// about a millisecond, far longer than any wait between two running cores. Linux charges a
/// thread that yields for the whole rest of its time slice, so a shorter spin would starve this
/// thread as soon as the machine has anything else to do.
const SPINS: u32 = 1 << 16;

/// Turns on a machine with one processor, where the other side can only run instead of this one.
const SPINS_ALONE: u32 = 16;

/// A wait for something that another core does. Worth making once, not once per wait.
pub(crate) struct Backoff {
    turns: u32,
    spins: u32,
    deadline: Option<Instant>,
}

impl Backoff {
    /// Ends with an error at `deadline`.
    pub(crate) fn until(deadline: Instant) -> Self {
        Self { deadline: Some(deadline), ..Self::endless() }
    }

    /// Waits for something that is sure to come.
    pub(crate) fn endless() -> Self {
        let alone = available_parallelism().is_ok_and(|processors| processors.get() == 1);
        Self { turns: 0, spins: if alone { SPINS_ALONE } else { SPINS }, deadline: None }
    }

    /// One turn; an error after the deadline.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.turns += 1;
        if self.turns < self.spins {
            spin_loop();
            return Ok(());
        }
        self.turns = 0;
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        yield_now();
        Ok(())
    }
}
