//! What both halves of a stream share.

use std::sync::OnceLock;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Acquire;

use netchannel_units::Timestamp;

use crate::boundary::StreamKey;
use crate::boundary::cell::{ApplicationSide, CellState, EngineSide, flags};
use crate::boundary::port::{Doorbell, What};
use crate::error::Error;
use crate::reach::Reach;
use crate::shared::StreamSeed;
use crate::stream::readiness::Readiness;
use crate::wait::{CellWait, Waited};

/// What both halves share; the last one to go releases the stream.
pub(crate) struct Shared {
    pub(super) reach: Reach,
    pub(super) seed: StreamSeed,
    /// Made when somebody waits elsewhere.
    pub(super) readiness: OnceLock<Box<Readiness>>,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.reach.release(&self.seed);
    }
}

impl Shared {
    /// Its engine.
    pub(crate) fn reach(&self) -> &Reach {
        &self.reach
    }

    pub(crate) fn key(&self) -> StreamKey {
        self.seed.key
    }

    pub(crate) fn cell(&self) -> &CellState {
        self.seed.cell.state()
    }

    pub(super) fn engine(&self) -> &EngineSide {
        &self.seed.cell.state().engine
    }

    pub(super) fn application(&self) -> &ApplicationSide {
        &self.seed.cell.state().application
    }

    pub(super) fn flags(&self) -> u32 {
        let bits = self.engine().flags.load(Acquire);
        // An engine of another process that ends may clear the cell after that.
        if self.reach.is_gone() { bits | flags::DEAD } else { bits }
    }

    /// Tells the engine to look at the cell: at once, if this thread may drive it.
    pub(super) fn ring(&self, what: What) -> Result<(), Error> {
        self.reach.ring(Doorbell { stream: self.seed.key, what })
    }

    /// One pass of the stream's engine, if this thread may drive it.
    pub(super) fn drive(&self) {
        self.reach.drive(self.seed.key);
    }

    /// Waits for what the engine writes into the cell; `word` says who waits.
    pub(super) fn wait(&self, word: &AtomicU32, ready: impl Fn() -> bool) -> Result<Waited, Error> {
        self.wait_until(word, ready, None)
    }

    /// The same, at most until `deadline`.
    pub(super) fn wait_until(
        &self,
        word: &AtomicU32,
        ready: impl Fn() -> bool,
        deadline: Option<Timestamp>,
    ) -> Result<Waited, Error> {
        let group = self.seed.key.group();
        self.reach.wait(&CellWait { word, ready, group }, deadline)
    }

    /// Why the session is over.
    pub(super) fn session_error(&self) -> Error {
        self.reach.session_error(&self.seed)
    }
}
