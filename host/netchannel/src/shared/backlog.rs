//! Streams that peers opened, until somebody accepts them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use netchannel_shared_memory::wake::Wake;
use netchannel_units::GroupId;

use crate::boundary::application::ApplicationId;
use crate::boundary::port::PortShared;
use crate::boundary::signal::Signal;
use crate::error::Error;
use crate::shared::StreamSeed;
use crate::sync::lock;
use crate::wait::Waitable;

/// Streams that wait to be accepted, per listener; more are refused as busy.
const MAX_BACKLOG: usize = 4_096;

/// Streams that peers opened and nobody accepted yet.
#[derive(Debug)]
pub(crate) struct Backlog {
    /// Whose streams they will be.
    application: ApplicationId,
    /// Wakes who takes them to an application of another process.
    server: Option<Arc<Wake>>,
    /// `None` when nobody will accept any more.
    streams: Mutex<Option<VecDeque<StreamSeed>>>,
    waiters: Mutex<Vec<Arc<PortShared>>>,
    /// The listener's descriptor.
    pollable: Mutex<Option<Arc<Signal>>>,
}

impl Backlog {
    pub(crate) fn new() -> Arc<Self> {
        Self::of(ApplicationId::LOCAL, None)
    }

    /// For an application of another process.
    pub(crate) fn attached(application: ApplicationId, server: Arc<Wake>) -> Arc<Self> {
        Self::of(application, Some(server))
    }

    fn of(application: ApplicationId, server: Option<Arc<Wake>>) -> Arc<Self> {
        let streams = Mutex::new(Some(VecDeque::new()));
        Arc::new(Self {
            application,
            server,
            streams,
            waiters: Mutex::default(),
            pollable: Mutex::default(),
        })
    }

    pub(crate) fn application(&self) -> ApplicationId {
        self.application
    }

    pub(crate) fn is_full(&self) -> bool {
        lock(&self.streams).as_ref().is_some_and(|streams| streams.len() >= MAX_BACKLOG)
    }

    /// Adds a stream, or gives it back if nobody will accept any more.
    pub(crate) fn push(&self, seed: StreamSeed) -> Result<(), StreamSeed> {
        match &mut *lock(&self.streams) {
            Some(streams) => streams.push_back(seed),
            None => return Err(seed),
        }
        self.wake();
        Ok(())
    }

    /// Whether nobody will accept any more.
    pub(crate) fn is_closed(&self) -> bool {
        lock(&self.streams).is_none()
    }

    /// Takes no more streams; returns those that nobody accepted. Who waits learns of it.
    pub(crate) fn close(&self) -> VecDeque<StreamSeed> {
        let left = lock(&self.streams).take().unwrap_or_default();
        self.wake();
        left
    }

    fn wake(&self) {
        if let Some(Err(error)) = lock(&self.pollable).as_ref().map(|signal| signal.notify()) {
            tracing::warn!(%error, "cannot signal a listener's descriptor");
        }
        for port in lock(&self.waiters).drain(..) {
            if let Err(error) = port.wake.notify() {
                tracing::warn!(%error, "cannot wake an application thread");
            }
        }
        if let Some(Err(error)) = self.server.as_ref().map(|wake| wake.notify()) {
            tracing::warn!(%error, "cannot wake the attach server");
        }
    }

    /// The next stream.
    ///
    /// # Errors
    /// [`Error::Closed`] if there will be none.
    pub(crate) fn pop(&self) -> Result<Option<StreamSeed>, Error> {
        lock(&self.streams).as_mut().map(VecDeque::pop_front).ok_or(Error::Closed)
    }
}

impl Backlog {
    /// What the listener's descriptor is made of.
    pub(crate) fn signal(&self) -> Result<Arc<Signal>, Error> {
        let mut pollable = lock(&self.pollable);
        let signal = match &*pollable {
            Some(signal) => Arc::clone(signal),
            None => {
                let made = Signal::new().map_err(Error::shared_memory("making a descriptor"))?;
                Arc::clone(pollable.insert(Arc::new(made)))
            }
        };
        drop(pollable);
        self.signal_if_ready(&signal);
        Ok(signal)
    }

    /// Nobody to accept: the descriptor is unreadable until there is.
    pub(crate) fn would_block(&self) -> Error {
        let signal = lock(&self.pollable).clone();
        if let Some(signal) = signal {
            if let Err(error) = signal.drain() {
                tracing::warn!(%error, "cannot take back the signal of a descriptor");
            }
            // Somebody may have come in between.
            self.signal_if_ready(&signal);
        }
        Error::WouldBlock
    }

    fn signal_if_ready(&self, signal: &Signal) {
        if self.is_ready()
            && let Err(error) = signal.notify()
        {
            tracing::warn!(%error, "cannot signal a listener's descriptor");
        }
    }
}

impl Waitable for Backlog {
    /// Streams come in every group.
    fn group(&self) -> Option<GroupId> {
        None
    }

    fn is_ready(&self) -> bool {
        lock(&self.streams).as_ref().is_none_or(|streams| !streams.is_empty())
    }

    fn set_waiter(&self, port: Option<&Arc<PortShared>>) {
        if let Some(port) = port {
            let mut waiters = lock(&self.waiters);
            if !waiters.iter().any(|p| p.number == port.number) {
                waiters.push(Arc::clone(port));
            }
        }
    }
}
