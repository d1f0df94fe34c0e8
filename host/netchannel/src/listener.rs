//! Listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use netchannel_units::Timestamp;

use crate::clock::now;
use crate::error::Error;
use crate::reach::Reach;
use crate::shared::Backlog;
use crate::stream::{Pollable, Stream};
use crate::wait::Waited;

/// Takes streams that peers open to an address.
pub struct Listener {
    reach: Reach,
    address: SocketAddr,
    backlog: Arc<Backlog>,
}

impl Listener {
    pub(crate) fn new(reach: Reach, address: SocketAddr, backlog: Arc<Backlog>) -> Self {
        Self { reach, address, backlog }
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
            self.reach.drive_all();
            seed = self.backlog.pop()?;
        }
        match seed {
            Some(seed) => Ok(Stream::new(self.reach.clone(), seed)),
            None => Err(self.backlog.would_block()),
        }
    }

    /// A descriptor that is readable while there is a stream to accept; see [`Pollable`].
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if the process has too many descriptors.
    pub fn pollable(&self) -> Result<Pollable, Error> {
        self.backlog.signal().map(Pollable::new)
    }

    pub(crate) fn backlog(&self) -> &Arc<Backlog> {
        &self.backlog
    }

    fn accept_until(&self, deadline: Option<Timestamp>) -> Result<Option<Stream>, Error> {
        loop {
            if let Some(seed) = self.backlog.pop().map_err(|_| self.reach.closed())? {
                return Ok(Some(Stream::new(self.reach.clone(), seed)));
            }
            if self.reach.wait(&*self.backlog, deadline)? == Waited::TimedOut {
                return Ok(None);
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.reach.unlisten(self.address);
        // Streams that nobody will accept are let go.
        for seed in self.backlog.close() {
            drop(Stream::new(self.reach.clone(), seed));
        }
    }
}
