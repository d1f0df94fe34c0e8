//! What is counted, and who writes it.

use std::collections::VecDeque;
use std::sync::Mutex;

use netchannel_units::Duration;

use crate::sync::{Counter, lock};

/// Counters of a runtime that several threads write.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Payload bytes that applications' threads copied.
    pub(crate) application_copied: Counter,
    /// Times that a thread of the runtime returned from sleep.
    pub(crate) wakeups: Counter,
}

/// Counters of one engine, written by who drives it.
#[derive(Debug, Default)]
pub(crate) struct EngineCounters {
    /// Poll passes.
    pub(crate) polls: Counter,
    /// Applications' threads that were woken.
    pub(crate) woken: Counter,
    /// Streams and sessions on it now.
    pub(crate) streams: Counter,
    pub(crate) sessions: Counter,
    /// Payload bytes that the engine's processor copied.
    pub(crate) engine_copied: Counter,
    /// Payload bytes that posting moved (providers that move bytes while posting).
    pub(crate) moved_by_posting: Counter,
    pub(crate) placed_bytes: Counter,
    pub(crate) placed_out_of_order: Counter,
    pub(crate) refused: Counter,
    /// Queue pairs that died and were fenced.
    pub(crate) failovers: Counter,
    /// Stream bytes that died with them and were sent again.
    pub(crate) replayed_bytes: Counter,
}

/// Gaps that are remembered.
const MAX_GAPS: usize = 1_024;

/// The newest gaps in the arrival of bytes that dead Channels left.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<VecDeque<Duration>>);

impl Gaps {
    pub(crate) fn add(&self, gap: Duration) {
        let mut gaps = lock(&self.0);
        if gaps.len() == MAX_GAPS {
            gaps.pop_front();
        }
        gaps.push_back(gap);
    }

    pub(crate) fn list(&self) -> Vec<Duration> {
        lock(&self.0).iter().copied().collect()
    }
}
