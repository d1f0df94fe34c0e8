//! What applications open first: a device with its engine, or a way to another process's.

mod connecting;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use netchannel_units::Class;
use netchannel_verbs::DeviceAttributes;

use crate::attach::attachment::Attachment;
use crate::attach::server::AttachServer;
use crate::clock::now;
use crate::config::{Config, Poller, StreamOptions};
use crate::device::{self, Opened};
use crate::error::Error;
use crate::listener::Listener;
use crate::local::Keeper;
use crate::reach::Reach;
use crate::shared::Backlog;
use crate::stats::Stats;
use crate::stream::Stream;

pub use crate::local::PollerReport;
pub use connecting::Connecting;

/// An open device with its engine: from here come streams and listeners.
///
/// Clones are handles to the same runtime; it ends when the last handle, stream and listener is
/// gone.
#[derive(Clone)]
pub struct Runtime {
    pub(crate) reach: Reach,
}

impl Runtime {
    /// Opens a device and starts what the configuration asks for, or attaches to an engine if it
    /// says so.
    ///
    /// # Errors
    /// [`Error::Attach`] if it is to attach and cannot; [`Error::Config`] for a setting out of range, [`Error::Device`] if there is no such device
    /// or it cannot be opened.
    pub fn start(config: Config) -> Result<Self, Error> {
        config.check()?;
        if let Some(path) = &config.attach {
            return Ok(Self { reach: Reach::There(Attachment::open(path, config.clone())?) });
        }
        let opened = device::open(&config)?;
        tracing::info!(device = opened.attributes().name, reason = opened.reason(), "device");
        let reason = opened.reason().to_owned();
        let keeper = match opened {
            Opened::Soft(context, _) => Keeper::start(context, reason, config),
            Opened::Rdma(context, _) => Keeper::start(context, reason, config),
        }?;
        Ok(Self { reach: Reach::Here(keeper) })
    }

    /// Uses the engine of another process, which [serves](Self::serve) applications at `path`.
    /// Streams and listeners are the same as with an engine of one's own; of the settings, those
    /// of [`Idle`](crate::Idle) count for this process's threads, all others are the engine's.
    ///
    /// # Errors
    /// [`Error::Attach`] if there is no engine at the path, or it does not want this process.
    pub fn attach(path: impl AsRef<Path>, config: Config) -> Result<Self, Error> {
        Self::start(Config { attach: Some(path.as_ref().to_owned()), ..config })
    }

    /// Lets applications of other processes [attach](Self::attach) to this engine, at a socket
    /// that only its own user (and root) may use, until the server is dropped. They share
    /// sessions and Channels with this process, and memory with nobody. With
    /// [`Poller::Dedicated`] a polling core drives the engine for them, else the helper thread
    /// does.
    ///
    /// # Errors
    /// [`Error::System`] if the socket cannot be made; [`Error::Config`] if the engine is itself
    /// another process's.
    pub fn serve(&self, path: impl AsRef<Path>) -> Result<AttachServer, Error> {
        AttachServer::start(Arc::clone(self.keeper("serve applications")?), path.as_ref())
    }

    pub(crate) fn keeper(&self, what: &str) -> Result<&Arc<Keeper>, Error> {
        match &self.reach {
            Reach::Here(keeper) => Ok(keeper),
            Reach::There(_) => Err(Error::Config {
                reason: format!("only the process of an engine can {what}, this one is attached"),
            }),
        }
    }

    /// Name of the device in use.
    pub fn device_name(&self) -> &str {
        match &self.reach {
            Reach::Here(keeper) => &keeper.inner.device.name,
            Reach::There(attachment) => attachment.device(),
        }
    }

    /// The device in use; `None` if it is another process's.
    pub fn device(&self) -> Option<&DeviceAttributes> {
        match &self.reach {
            Reach::Here(keeper) => Some(&keeper.inner.device),
            Reach::There(_) => None,
        }
    }

    /// Why this device is in use, in one line.
    pub fn device_reason(&self) -> &str {
        match &self.reach {
            Reach::Here(keeper) => &keeper.inner.reason,
            Reach::There(attachment) => attachment.reason(),
        }
    }

    /// Bytes of the largest receive window and send buffer of a stream.
    pub fn window(&self) -> usize {
        self.reach.largest_window()
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        match &self.reach {
            Reach::Here(keeper) => &keeper.inner.config,
            Reach::There(attachment) => attachment.config(),
        }
    }

    /// Changes who polls while streams go on: applications' threads, or `cores` polling cores. What
    /// cannot be had is less, with the reason in the answer.
    ///
    /// # Errors
    /// [`Error::System`] if threads cannot be started, [`Error::Closed`] after the end,
    /// [`Error::Config`] if the engine is another process's.
    pub fn set_poller(&self, poller: Poller, cores: usize) -> Result<PollerReport, Error> {
        self.keeper("say who polls")?.inner.set_poller(poller, cores)
    }

    /// Who polls now, and why.
    ///
    /// # Errors
    /// [`Error::Config`] if the engine is another process's.
    pub fn poller(&self) -> Result<PollerReport, Error> {
        Ok(self.keeper("know who polls")?.inner.poller())
    }

    /// Moves a Channel group ([`Stats::groups`]) to another polling core while streams go on. Groups
    /// also move by themselves, by load.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such group or core, or the engine is another process's.
    pub fn move_group(&self, group: u8, core: usize) -> Result<(), Error> {
        self.keeper("move groups")?.inner.move_group(group, core)
    }

    /// Takes streams that peers open to `address`; port 0 chooses a free one.
    ///
    /// # Errors
    /// [`Error::System`] if the address cannot be bound.
    pub fn listen(&self, address: SocketAddr) -> Result<Listener, Error> {
        let (local, backlog) = match &self.reach {
            Reach::Here(keeper) => {
                let backlog = Backlog::new();
                (keeper.inner.listen(address, Arc::clone(&backlog))?, backlog)
            }
            Reach::There(attachment) => attachment.listen(address)?,
        };
        Ok(Listener::new(self.reach.clone(), local, backlog))
    }

    /// Opens a stream to a listener. Hosts that have a session already share it.
    ///
    /// # Errors
    /// [`Error::Connect`] if nobody answers there, does not speak our protocol or does not listen;
    /// other errors if Channels cannot be made.
    pub fn connect(&self, peer: SocketAddr, options: &StreamOptions) -> Result<Stream, Error> {
        self.start_connect(peer, options)?.finish(None)
    }

    /// As [`connect`](Self::connect), but waits no longer than `timeout`.
    ///
    /// # Errors
    /// As [`connect`](Self::connect); [`Error::Connect`] with the kind `TimedOut`.
    pub fn connect_timeout(
        &self,
        peer: SocketAddr,
        options: &StreamOptions,
        timeout: Duration,
    ) -> Result<Stream, Error> {
        self.start_connect(peer, options)?.finish(Some(timeout))
    }

    /// Begins to open a stream, and waits for nothing.
    ///
    /// # Errors
    /// [`Error::Closed`].
    pub fn start_connect(
        &self,
        peer: SocketAddr,
        options: &StreamOptions,
    ) -> Result<Connecting, Error> {
        Connecting::start(&self.reach, peer, *options)
    }

    /// Fault injection: moves the queue pair of a Channel of this class that is up to error, the one
    /// with this number counted around all of them, as a broken path or a failing device would.
    /// Streams go on. False if there is none, or if the engine is another process's.
    pub fn break_channel(&self, class: Class, number: usize) -> bool {
        let Reach::Here(keeper) = &self.reach else { return false };
        let inner = &keeper.inner;
        let groups: Vec<_> = inner.groups.iter().filter(|g| g.shared.class == class).collect();
        let count = groups.len();
        (0..count).any(|step| {
            let group = groups[(number + step) % count];
            inner.with_engine(group, |e| e.control().break_channel(now(), number / count))
        })
    }

    /// Counters.
    pub fn stats(&self) -> Stats {
        match &self.reach {
            Reach::Here(keeper) => keeper.inner.stats(),
            Reach::There(attachment) => attachment.stats(),
        }
    }

    /// Waits until everything written to streams that were let go is confirmed, then ends all
    /// sessions.
    ///
    /// # Errors
    /// [`Error::System`] with `TimedOut` if peers did not take everything within 5 s; the sessions
    /// are over all the same.
    pub fn close(self) -> Result<(), Error> {
        match &self.reach {
            Reach::Here(keeper) => keeper.shut_down(),
            Reach::There(attachment) => attachment.close(),
        }
    }
}
