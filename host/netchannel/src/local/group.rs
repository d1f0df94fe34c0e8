//! A Channel group as the threads of a runtime see it: its engine, and who drives that.

use std::os::fd::{BorrowedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use netchannel_units::{Duration, GroupId};

use crate::boundary::application::ApplicationId;
use crate::clock::now;
use crate::engine::{Drive, EVENT_FDS};
use crate::error::Error;
use crate::local::owner::{HelperMode, OwnedEngine, Owner};
use crate::shared::GroupShared;
use crate::stats::GroupStats;
use crate::sync::Counter;

/// No polling core: whoever waits drives.
const INLINE: u32 = u32::MAX;

/// A Channel group of a runtime.
pub(crate) struct Group {
    pub(crate) owner: Owner,
    pub(crate) shared: Arc<GroupShared>,
    /// Descriptors of completion events; they live as long as the engine.
    event_fds: [RawFd; EVENT_FDS],
    /// The polling core that it belongs to, or [`INLINE`].
    core: AtomicU32,
    /// Nanoseconds that polling cores spent on it when something moved.
    pub(super) busy: Counter,
}

impl Group {
    pub(super) fn new(engine: Box<dyn Drive>, shared: Arc<GroupShared>) -> Self {
        let event_fds = engine.event_fds();
        Self {
            owner: Owner::new(engine),
            shared,
            event_fds,
            core: AtomicU32::new(INLINE),
            busy: Counter::default(),
        }
    }

    pub(crate) fn id(&self) -> GroupId {
        self.shared.id
    }

    /// Whether applications' threads drive it.
    pub(crate) fn is_inline(&self) -> bool {
        self.core.load(Ordering::Relaxed) == INLINE
    }

    /// The polling core that it belongs to.
    pub(super) fn core(&self) -> Option<usize> {
        let core = self.core.load(Ordering::Relaxed);
        (core != INLINE).then_some(core as usize)
    }

    pub(super) fn set_core(&self, core: Option<usize>) {
        self.core.store(core.map_or(INLINE, |core| core as u32), Ordering::Relaxed);
    }

    /// The engine, if applications' threads drive it and nobody does now.
    pub(crate) fn try_drive(&self) -> Option<OwnedEngine<'_>> {
        if self.is_inline() { self.owner.try_own() } else { None }
    }

    /// What becomes readable at completion events: receives, sends.
    pub(super) fn events(&self) -> [BorrowedFd<'_>; EVENT_FDS] {
        // SAFETY: the completion queues live as long as the engine, which lives as long as `self`.
        self.event_fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
    }

    /// Gives the engine back on the way to the application, and lets the helper know that
    /// somebody was here.
    pub(crate) fn let_go(&self, engine: OwnedEngine<'_>) {
        self.release(engine);
        self.tell_helper();
    }

    /// Gives the engine back; sleepers will not miss what arrives from now on.
    pub(super) fn release(&self, mut engine: OwnedEngine<'_>) {
        engine.arm_for_sleepers();
    }

    /// Makes the helper look after the engine in 500 us, if it does not do so already.
    pub(crate) fn tell_helper(&self) {
        if self.is_inline()
            && self.owner.helper_mode() != HelperMode::Ticking
            && self.owner.set_helper_mode(HelperMode::Ticking) != HelperMode::Ticking
            && let Err(error) = self.shared.runtime.helper_wake.notify()
        {
            tracing::warn!(%error, "cannot wake the helper thread");
        }
    }

    /// Its polling core is gone: threads may wait for it that sleep until somebody wakes them, so
    /// the helper drives until they do.
    pub(super) fn leave_to_helper(&self) {
        self.owner.set_helper_mode(HelperMode::Ticking);
        self.shared.runtime.ask_helper();
    }

    /// Runs `f` on the engine without telling the helper that somebody drives: for the helper
    /// itself, and for looking.
    pub(crate) fn with_engine_quietly<R>(&self, f: impl FnOnce(&mut dyn Drive) -> R) -> R {
        let mut engine = self.owner.own();
        let result = f(&mut *engine);
        engine.poll(now());
        self.release(engine);
        result
    }

    pub(crate) fn stats(&self) -> GroupStats {
        let counters = &self.shared.counters;
        GroupStats {
            id: self.id().0,
            class: self.shared.class,
            core: self.core(),
            streams: counters.streams.value(),
            sessions: counters.sessions.value(),
            polls: counters.polls.value(),
            busy: Duration::from_nanos(self.busy.value()),
        }
    }

    /// Makes a slab of receive windows for a session; a session's own account is the engine's
    /// business.
    pub(super) fn add_slab(
        &self,
        slot: u32,
        application: ApplicationId,
        slab: Result<Box<dyn std::any::Any + Send>, Error>,
    ) {
        match slab {
            Ok(slab) => self.with_engine_quietly(|engine| engine.control().add_slab(slot, slab)),
            Err(error) => {
                tracing::warn!(%error, "no memory for receive windows");
                self.with_engine_quietly(|e| e.control().deny_slab(slot, application));
            }
        }
    }
}
