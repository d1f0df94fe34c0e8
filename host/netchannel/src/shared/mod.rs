//! What the engines, the threads that drive them and the applications of a runtime share.
//!
//! - [`session`]: sessions and streams; [`backlog`]: streams that wait to be accepted.
//! - [`inbox`]: what applications tell an engine beside doorbells; [`last_read`].
//! - [`budget`]: the bulk budget of the port. [`counters`].

pub(crate) mod backlog;
pub(crate) mod budget;
pub(crate) mod counters;
pub(crate) mod inbox;
pub(crate) mod last_read;
pub(crate) mod session;

use std::any::Any;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use netchannel_shared_memory::wake::Wake;
use netchannel_units::{Class, GroupId};

use crate::boundary::application::Application;
use crate::error::Error;
use crate::sync::lock;

pub(crate) use backlog::Backlog;
pub(crate) use budget::PortBudget;
pub(crate) use counters::{Counters, EngineCounters, Gaps};
pub(crate) use inbox::{Command, Inbox};
pub(crate) use last_read::LastRead;
pub(crate) use session::{SessionPart, SessionShared, SlabDemand, SlabRoom, StreamSeed};

/// What one engine shares with the helper thread and the applications.
pub(crate) struct GroupShared {
    pub(crate) id: GroupId,
    /// Class of its Channels.
    pub(crate) class: Class,
    pub(crate) runtime: Arc<Shared>,
    pub(crate) counters: EngineCounters,
    pub(crate) inbox: Inbox,
    pub(crate) last_read: LastRead,
    /// Slabs of receive windows that sessions want.
    pub(crate) slab_demand: Mutex<Vec<SlabDemand>>,
    /// Sessions (their slots) that want queue pairs in place of dead ones.
    pub(crate) renewals: Mutex<Vec<u32>>,
}

impl GroupShared {
    pub(crate) fn new(id: GroupId, class: Class, runtime: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            id,
            class,
            runtime,
            counters: EngineCounters::default(),
            inbox: Inbox::default(),
            last_read: LastRead::default(),
            slab_demand: Mutex::default(),
            renewals: Mutex::default(),
        })
    }
}

/// Shared state of a runtime.
pub(crate) struct Shared {
    /// The own process, as an application.
    pub(crate) local: Arc<Application>,
    pub(crate) counters: Counters,
    /// Listeners by service.
    pub(crate) listeners: Mutex<HashMap<u16, Arc<Backlog>>>,
    /// Wake those who serve applications of other processes.
    pub(crate) servers: Mutex<Vec<Arc<Wake>>>,
    /// The number of the next of those.
    pub(crate) next_application: AtomicU32,
    /// Memory that nobody needs any more, for the helper thread to drop: to give back registered
    /// memory takes system calls.
    discarded: Mutex<Vec<Box<dyn Any + Send>>>,
    pub(crate) gaps: Gaps,
    /// Set when the helper thread has something to do for an engine.
    helper_wanted: AtomicBool,
    next_session: AtomicU32,
    pub(crate) helper_wake: Wake,
    /// The bulk budget of the port; none where there is nothing to bound.
    pub(crate) budget: OnceLock<PortBudget>,
}

impl Shared {
    pub(crate) fn new() -> Result<Self, Error> {
        let helper_wake =
            Wake::new().map_err(Error::shared_memory("making the helper thread's wake-up"))?;
        Ok(Self {
            helper_wake,
            budget: OnceLock::new(),
            local: Application::local(),
            counters: Counters::default(),
            listeners: Mutex::default(),
            servers: Mutex::default(),
            next_application: AtomicU32::new(1),
            discarded: Mutex::default(),
            gaps: Gaps::default(),
            helper_wanted: AtomicBool::new(false),
            next_session: AtomicU32::new(0),
        })
    }

    /// A number for a session.
    pub(crate) fn next_session(&self) -> u32 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks the helper thread to look at what the engine left for it.
    pub(crate) fn ask_helper(&self) {
        if !self.helper_wanted.swap(true, Ordering::AcqRel)
            && let Err(error) = self.helper_wake.notify()
        {
            tracing::warn!(%error, "cannot wake the helper thread");
        }
    }

    /// Leaves memory to the helper thread.
    pub(crate) fn discard(&self, memory: Box<dyn Any + Send>) {
        lock(&self.discarded).push(memory);
        self.ask_helper();
    }

    /// Drops what was left to the helper thread.
    pub(crate) fn drop_discarded(&self) {
        let discarded = std::mem::take(&mut *lock(&self.discarded));
        drop(discarded);
    }

    /// The helper looks now; returns whether anybody asked.
    pub(crate) fn helper_looks(&self) -> bool {
        self.helper_wanted.swap(false, Ordering::AcqRel)
    }
}
