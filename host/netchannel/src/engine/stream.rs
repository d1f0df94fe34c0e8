//! What the engine keeps per stream.

use std::sync::atomic::{Ordering, fence};

use netchannel_vns::receive::{ReceiveHalf, ReceiveState};
use netchannel_vns::streams::Table;

use crate::boundary::application::ApplicationId;
use crate::boundary::cell::Cell;
use crate::boundary::ready::Watchers;
use crate::engine::buffers::SendBuffer;

/// A stream as the engine sees it, beside its state in [`Streams`](netchannel_vns::Streams).
#[derive(Debug)]
pub(crate) struct EngineStream {
    /// Whose stream it is.
    pub(crate) application: ApplicationId,
    /// The application has let go.
    pub(crate) released: bool,
    pub(crate) cell: Cell,
    pub(crate) buffer: Option<SendBuffer>,
    /// Who hears of the stream without waiting for it. Most streams have nobody.
    pub(crate) watchers: Option<Box<Watchers>>,
    /// Number of the newest window that the application knows.
    pub(crate) generation: u32,
    pub(super) in_idle_queue: bool,
}

impl EngineStream {
    pub(crate) fn new(application: ApplicationId, cell: Cell) -> Self {
        let (released, in_idle_queue) = (false, false);
        Self {
            application,
            released,
            cell,
            buffer: None,
            watchers: None,
            generation: 0,
            in_idle_queue,
        }
    }

    /// Shows the application how far it can read. False if that is not all there is to tell, or somebody sleeps
    /// who must be woken for it.
    pub(super) fn show(&self, half: &ReceiveHalf) -> bool {
        let known = half.current().is_some_and(|window| window.generation == self.generation);
        if !known || half.state() != ReceiveState::Open || self.watchers.is_some() {
            return false;
        }
        let state = self.cell.state();
        // Release: who sees it sees the bytes.
        state.engine.readable.store(half.received().get(), Ordering::Release);
        // As in `publish`: publish, fence, look for sleepers.
        fence(Ordering::SeqCst);
        state.application.read_waiter.load(Ordering::Relaxed) == 0
    }

    /// The application lets go of it, and hears of it no more.
    pub(super) fn let_go(&mut self) {
        self.released = true;
        self.watchers = None;
    }
}

pub(crate) type StreamTable = Table<EngineStream>;
