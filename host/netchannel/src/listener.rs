//! Listeners.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netchannel_shared_memory::wake::Wake;
use netchannel_units::GroupId;

use crate::application::ApplicationId;
use crate::error::Error;
use crate::port::PortShared;
use crate::runtime::{Reach, Waitable, Waited, now};
use crate::shared::{StreamSeed, lock};
use crate::signal::Signal;
use crate::stream::{Pollable, Stream};

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
    fn pollable(&self) -> Result<Pollable, Error> {
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
        Ok(Pollable::new(signal))
    }

    /// Nobody to accept: the descriptor is unreadable until there is.
    fn would_block(&self) -> Error {
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

/// Takes streams that peers open to an address.
pub struct Listener {
    keeper: Reach,
    address: SocketAddr,
    backlog: Arc<Backlog>,
}

impl Listener {
    pub(crate) fn new(keeper: Reach, address: SocketAddr, backlog: Arc<Backlog>) -> Self {
        Self { keeper, address, backlog }
    }

    /// The address, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for the next stream.
    ///
    /// # Errors
    /// [`Error::Closed`] when the runtime was closed, [`Error::SharedMemory`] if this thread cannot
    /// be given a port.
    pub fn accept(&self) -> Result<Stream, Error> {
        loop {
            if let Some(stream) = self.accept_until(None)? {
                return Ok(stream);
            }
        }
    }

    /// Waits for the next stream, at most for `timeout`; `None` if none came.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_timeout(&self, timeout: Duration) -> Result<Option<Stream>, Error> {
        self.accept_until(Some(now() + timeout))
    }

    /// The next stream, if there is one.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if there is none yet; as [`accept`](Self::accept).
    pub fn try_accept(&self) -> Result<Stream, Error> {
        let mut seed = self.backlog.pop()?;
        if seed.is_none() {
            self.keeper.drive_all();
            seed = self.backlog.pop()?;
        }
        match seed {
            Some(seed) => Ok(Stream::new(self.keeper.clone(), seed)),
            None => Err(self.backlog.would_block()),
        }
    }

    /// A descriptor that is readable while there is a stream to accept; see [`Pollable`].
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the process has too many descriptors.
    pub fn pollable(&self) -> Result<Pollable, Error> {
        self.backlog.pollable()
    }

    pub(crate) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    fn accept_until(
        &self,
        deadline: Option<netchannel_units::Timestamp>,
    ) -> Result<Option<Stream>, Error> {
        loop {
            if let Some(seed) = self.backlog.pop().map_err(|_| self.keeper.closed())? {
                return Ok(Some(Stream::new(self.keeper.clone(), seed)));
            }
            if self.keeper.wait(&*self.backlog, deadline)? == Waited::TimedOut {
                return Ok(None);
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.keeper.unlisten(self.address);
        // Streams that nobody will accept are let go.
        for seed in self.backlog.close() {
            drop(Stream::new(self.keeper.clone(), seed));
        }
    }
}
