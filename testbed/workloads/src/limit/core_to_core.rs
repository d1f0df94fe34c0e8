//! A counter back and forth between two processes: the shortest half round trip that two cores of
//! this machine can have.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::pipeline::start_together;
use super::{Backoff, Segment};
use crate::child::{Launcher, Task};
use crate::error::{Context, Result};
use crate::latency::{HalfRoundTrips, Schedule, half, histogram};
use crate::spec::Amount;

/// Counter that the asking process moves.
const ASK: usize = 8;
/// Counter that the answering process moves.
const ANSWER: usize = 10;
/// Value of [`ASK`] after the last question.
const OVER: u64 = u64::MAX;
/// How long a run may take at most.
const LONGEST_RUN: Duration = Duration::from_secs(600);

/// A core-to-core ping-pong to be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoreToCore {
    /// When the run ends.
    pub amount: Amount,
}

impl CoreToCore {
    /// Runs both processes.
    pub fn run(&self, launcher: &Launcher) -> Result<HalfRoundTrips> {
        let segment = Segment::create(0).context("make a shared segment")?;
        let mut answering =
            launcher.spawn(&Task::CoreAnswer(self.clone()), segment.descriptor())?;
        let mut asking = launcher.spawn(&Task::CoreAsk(self.clone()), segment.descriptor())?;
        let measured = asking.result()?;
        answering.result::<u64>()?;
        Ok(measured)
    }

    /// The process that measures.
    pub(crate) fn ask(&self, segment: &Segment) -> Result<HalfRoundTrips> {
        let (ask, answer) = (segment.counter(ASK), segment.counter(ANSWER));
        let mut histogram = histogram();
        let mut schedule = Schedule::new(self.amount);
        let mut backoff = Backoff::until(Instant::now() + LONGEST_RUN);
        start_together(segment, &mut backoff)?;
        let mut before = Instant::now();
        for sequence in 1.. {
            ask.store(sequence, Ordering::Release);
            while answer.load(Ordering::Acquire) != sequence {
                backoff.wait().context("wait for the answering process")?;
            }
            let now = Instant::now();
            match schedule.on_round_trip(now) {
                Some(true) => histogram.saturating_record(half(now - before)),
                Some(false) => {}
                None => break,
            }
            before = now;
        }
        ask.store(OVER, Ordering::Release);
        Ok(HalfRoundTrips::from(&histogram))
    }

    /// The process that answers; how often it did.
    pub(crate) fn answer(&self, segment: &Segment) -> Result<u64> {
        let (ask, answer) = (segment.counter(ASK), segment.counter(ANSWER));
        let mut backoff = Backoff::until(Instant::now() + LONGEST_RUN);
        start_together(segment, &mut backoff)?;
        let mut last = 0;
        loop {
            match ask.load(Ordering::Acquire) {
                OVER => return Ok(last),
                same if same == last => backoff.wait().context("wait for the asking process")?,
                sequence => {
                    last = sequence;
                    answer.store(sequence, Ordering::Release);
                }
            }
        }
    }
}
