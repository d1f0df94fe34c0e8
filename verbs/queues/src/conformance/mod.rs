//! What every provider must do, as a suite of checks that run on any two contexts.
//!
//! Where real NICs legitimately differ (an error may show as one status or another, sooner or later), a
//! check accepts the set of what is allowed. Time limits are generous, because the devices may be
//! emulated.
//!
//! ```
//! use netchannel_verbs::conformance;
//! use netchannel_verbs::soft::{Context, SoftOptions};
//!
//! let a = Context::open(SoftOptions::default())?;
//! let b = Context::open(SoftOptions::default())?;
//! let report = conformance::run(&a, &b, |_| {});
//! assert!(report.passed(), "{report}");
//! # Ok::<(), netchannel_verbs::Error>(())
//! ```

mod attributes;
mod bench;
mod datagram_crowds;
mod datagram_faults;
mod datagrams;
mod events;
mod faults;
mod lifecycle;
mod messages;
mod remote_memory;
mod shared_receives;
mod stress;

use std::fmt;
use std::time::{Duration, Instant};

use crate::Context;

/// What came out of one check.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Name of the check.
    pub name: &'static str,
    /// Why it failed, if it did.
    pub result: Result<(), String>,
    /// How long it took.
    pub elapsed: Duration,
}

/// What came out of all checks.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which they ran.
    pub outcomes: Vec<Outcome>,
}

impl Report {
    /// Whether every check passed (and there were some).
    pub fn passed(&self) -> bool {
        !self.outcomes.is_empty() && self.failures() == 0
    }

    /// How many checks failed.
    pub fn failures(&self) -> usize {
        self.outcomes.iter().filter(|outcome| outcome.result.is_err()).count()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.elapsed.as_secs_f64() * 1e3;
        match &self.result {
            Ok(()) => write!(f, "pass  {:<44} {millis:>9.1} ms", self.name),
            Err(why) => write!(f, "FAIL  {:<44} {millis:>9.1} ms  {why}", self.name),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for outcome in &self.outcomes {
            writeln!(f, "{outcome}")?;
        }
        let (all, failed) = (self.outcomes.len(), self.failures());
        write!(f, "{} of {all} checks passed, {failed} failed", all - failed)
    }
}

/// A check: makes its own objects on the two contexts, says what went wrong.
type Check<C> = fn(&C, &C) -> Result<(), String>;

fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    [
        attributes::checks(),
        lifecycle::checks(),
        messages::checks(),
        remote_memory::checks(),
        events::checks(),
        shared_receives::checks(),
        faults::checks(),
        datagrams::checks(),
        datagram_crowds::checks(),
        datagram_faults::checks(),
        stress::checks(),
    ]
    .concat()
}

/// Names of all checks.
pub fn names<C: Context>() -> Vec<&'static str> {
    checks::<C>().into_iter().map(|(name, _)| name).collect()
}

/// Runs every check on queue pairs between `a` and `b`; `progress` hears of each as it ends.
pub fn run<C: Context>(a: &C, b: &C, progress: impl FnMut(&Outcome)) -> Report {
    run_matching(a, b, "", progress)
}

/// Like [`run`], for the checks whose name contains `part`.
pub fn run_matching<C: Context>(
    a: &C,
    b: &C,
    part: &str,
    mut progress: impl FnMut(&Outcome),
) -> Report {
    let mut report = Report::default();
    for (name, check) in checks::<C>().into_iter().filter(|(name, _)| name.contains(part)) {
        let start = Instant::now();
        let outcome = Outcome { name, result: check(a, b), elapsed: start.elapsed() };
        progress(&outcome);
        report.outcomes.push(outcome);
    }
    report
}
