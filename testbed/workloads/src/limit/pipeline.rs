//! Two processes and a ring of shared memory between them: what moving bytes from one application's
//! buffer to another's costs at least, with a given number of copies.
//!
//! | copies | sender | receiver |
//! |---|---|---|
//! | 1 | buffer to ring | looks at the ring in place |
//! | 2 | buffer to ring | ring to buffer |
//! | 3 | buffer to a private send buffer, from there to the ring | ring to buffer |

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{Backoff, Segment};
use crate::bandwidth::{Moved, pattern};
use crate::child::{Launcher, Task};
use crate::error::{Context, Error, Result};
use crate::spec::Amount;

/// Bytes handed over at once that are tried for the best.
pub const CHUNKS: [usize; 3] = [64 << 10, 128 << 10, 256 << 10];
/// How long one process may take beyond the run itself.
const SLACK: Duration = Duration::from_secs(10);

/// A copy pipeline to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipeline {
    /// Bytes of each application's buffer.
    pub size: usize,
    /// Bytes of the ring.
    pub window: usize,
    /// Bytes handed over at once.
    pub chunk: usize,
    /// Copies of each byte, 1 to 3.
    pub copies: u8,
    /// When the run ends.
    pub amount: Amount,
}

/// Counters of the segment.
mod counter {
    /// Bytes that the sender has put into the ring.
    pub(super) const HEAD: usize = 0;
    /// Bytes that the receiver has taken out.
    pub(super) const TAIL: usize = 1;
    /// 1 + the bytes of the whole run, once the sender knows them.
    pub(super) const END: usize = 2;
    /// Processes that are ready to start.
    pub(super) const READY: usize = 3;
}

impl Pipeline {
    /// Runs both processes; what the receiver counted.
    pub fn run(&self, launcher: &Launcher) -> Result<Moved> {
        self.check()?;
        let segment = Segment::create(self.window).context("make a shared segment")?;
        let mut receiver =
            launcher.spawn(&Task::PipelineReceive(self.clone()), segment.descriptor())?;
        let mut sender = launcher.spawn(&Task::PipelineSend(self.clone()), segment.descriptor())?;
        sender.result::<Moved>()?;
        receiver.result()
    }

    /// The chunk size out of [`CHUNKS`] with which this machine is fastest, in short runs.
    pub fn best_chunk(&self, launcher: &Launcher, each: Duration) -> Result<usize> {
        let mut best = (0.0, self.size.min(CHUNKS[0]));
        for chunk in CHUNKS.into_iter().filter(|chunk| *chunk <= self.size) {
            let amount = Amount::Duration(each);
            let gbps = Self { chunk, amount, ..self.clone() }.run(launcher)?.gbps();
            if gbps > best.0 {
                best = (gbps, chunk);
            }
        }
        Ok(best.1)
    }

    fn check(&self) -> Result<()> {
        let fits = self.chunk > 0 && self.chunk <= self.size && self.chunk <= self.window;
        if fits && (1..=3).contains(&self.copies) {
            return Ok(());
        }
        Err(Error::Invalid(format!("no such copy pipeline: {self:?}")))
    }

    fn deadline(&self) -> Instant {
        let run = match self.amount {
            Amount::Duration(duration) => duration,
            Amount::Iterations(_) => Duration::from_secs(600),
        };
        Instant::now() + run + SLACK
    }

    /// Bytes handed over at ring position `done` and buffer position `at`.
    fn piece(&self, done: u64, at: usize) -> (usize, usize) {
        let offset = (done % self.window as u64) as usize;
        (offset, self.chunk.min(self.window - offset).min(self.size - at))
    }

    /// The sending process.
    pub(crate) fn send(&self, segment: &Segment) -> Result<Moved> {
        self.check()?;
        let application = pattern(self.size);
        let mut private = vec![1; if self.copies > 2 { self.window } else { 0 }];
        let head = segment.counter(counter::HEAD);
        let tail = segment.counter(counter::TAIL);
        let mut backoff = Backoff::until(self.deadline());
        start_together(segment, &mut backoff)?;

        let start = Instant::now();
        let (mut sent, mut taken, mut at) = (0u64, 0u64, 0);
        loop {
            let (offset, len) = self.piece(sent, at);
            let mut source = &application[at..at + len];
            if self.copies > 2 {
                // The private buffer goes round like the ring, so that it is as large for the
                // caches as a stack's send buffer.
                private[offset..offset + len].copy_from_slice(source);
                source = &private[offset..offset + len];
            }
            while sent + len as u64 - taken > self.window as u64 {
                backoff.wait().context("wait for the receiving process")?;
                // Acquire: the receiver's reads of these bytes are over before they are written.
                taken = tail.load(Ordering::Acquire);
            }
            // SAFETY: bytes `taken + window` and below are free, and the receiver reads none at or
            // above `head`, which moves only below.
            unsafe { segment.copy_in(offset, source) };
            sent += len as u64;
            // Release: the bytes are there before the counter says so.
            head.store(sent, Ordering::Release);
            at = (at + len) % self.size;
            let over = match self.amount {
                Amount::Duration(duration) => start.elapsed() >= duration,
                Amount::Iterations(count) => sent >= count.saturating_mul(self.size as u64),
            };
            if over {
                break;
            }
        }
        segment.counter(counter::END).store(sent + 1, Ordering::Release);
        Ok(Moved { bytes: sent, elapsed: start.elapsed() })
    }

    /// The receiving process.
    pub(crate) fn receive(&self, segment: &Segment) -> Result<Moved> {
        self.check()?;
        let mut application = vec![1; self.size];
        let head = segment.counter(counter::HEAD);
        let tail = segment.counter(counter::TAIL);
        let end = segment.counter(counter::END);
        let mut backoff = Backoff::until(self.deadline());
        start_together(segment, &mut backoff)?;

        let start = Instant::now();
        let (mut read, mut there, mut at) = (0u64, 0u64, 0);
        loop {
            let (offset, len) = self.piece(read, at);
            let mut len = len as u64;
            while there < read + len {
                let total = end.load(Ordering::Acquire);
                // Acquire: the bytes below the counter are visible.
                there = head.load(Ordering::Acquire);
                if total > 0 && there < read + len {
                    len = there - read;
                    break;
                }
                if there < read + len {
                    backoff.wait().context("wait for the sending process")?;
                }
            }
            if len == 0 {
                break;
            }
            let target = &mut application[at..at + len as usize];
            if self.copies > 1 {
                // SAFETY: the bytes from `read` up to `head` stay as they are until `tail` passes
                // them.
                unsafe { segment.copy_out(offset, target) };
            }
            read += len;
            // Release: the reads are over before the sender may write again.
            tail.store(read, Ordering::Release);
            at = (at + len as usize) % self.size;
        }
        Ok(Moved { bytes: read, elapsed: start.elapsed() })
    }
}

/// Waits until both processes have their memory touched and their program loaded.
pub(super) fn start_together(segment: &Segment, backoff: &mut Backoff) -> Result<()> {
    let ready = segment.counter(counter::READY);
    ready.fetch_add(1, Ordering::AcqRel);
    while ready.load(Ordering::Acquire) < 2 {
        backoff.wait().context("wait for the other process to start")?;
    }
    Ok(())
}
