//! An engine in this process: the threads that drive it, and its sessions.
//!
//! - [`keeper`]: what streams ask; how it begins and ends. [`inner`]: what its threads share.
//! - [`group`]: a Channel group, that is, an engine; [`owner`]: who drives it.
//! - [`wait`]: what a thread does that must wait; [`patience`]: how long it polls before it sleeps.
//! - [`ports`]: how applications' threads talk to engines.
//! - [`helper`]: the thread that is asleep unless something beside the data path is to be done;
//!   [`commands`]: what it is asked.
//! - [`links`]: control connections; [`link`]: one of them, one per session; [`parts`]: what the
//!   engines have of a session; [`sockets`].
//! - [`cores`]: polling cores, if there are some.
//! - [`serving`]: what the attach server asks. [`statistics`]: counters, put together.

mod commands;
mod cores;
mod group;
mod helper;
mod inner;
mod keeper;
mod link;
mod links;
mod owner;
mod parts;
mod patience;
mod ports;
mod serving;
mod sockets;
mod statistics;
mod wait;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Arc, Mutex};

use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::{Context, DeviceAttributes};

use crate::config::Config;
use crate::engine::slabs::SlabMaker;
use crate::local::cores::Cores;
use crate::local::group::Group;
use crate::shared::{SessionShared, Shared};

pub(crate) use commands::{ConnectReply, HelperCommand};
pub use cores::PollerReport;
pub(crate) use inner::{LINGER, lost_streams};
pub(crate) use keeper::Keeper;

/// Everything that the threads of a runtime share.
pub(crate) struct RuntimeInner {
    /// By number, which is the order of precedence.
    pub(crate) groups: Vec<Group>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) config: Config,
    pub(crate) device: DeviceAttributes,
    /// How long who drives polls before it sleeps; `None`: it never does.
    patience: Option<patience::Bounds>,
    /// Bytes that a stream's small writes gather before they drive the engine; zero: each does.
    pub(crate) gathered: u64,
    pub(crate) reason: String,
    slab_maker: Mutex<Box<dyn SlabMaker>>,
    device_events: Box<dyn DeviceEvents>,
    commands: Mutex<Vec<HelperCommand>>,
    /// Sessions that this side dialled, by address; the helper thread adds and removes.
    dialed: Mutex<HashMap<SocketAddr, Arc<SessionShared>>>,
    cores: Cores,
    next_port: AtomicU32,
    list_numbers: Mutex<ListNumbers>,
    stop: AtomicBool,
}

/// Asynchronous events of the device, for the helper thread.
trait DeviceEvents: Send + Sync {
    fn next(&self) -> Result<Option<AsyncEvent>, netchannel_verbs::Error>;
    fn fd(&self) -> BorrowedFd<'_>;
}

impl<C: Context> DeviceEvents for C {
    fn next(&self) -> Result<Option<AsyncEvent>, netchannel_verbs::Error> {
        self.poll_event()
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.event_fd()
    }
}

/// Numbers of ready lists.
#[derive(Debug, Default)]
struct ListNumbers {
    free: Vec<u32>,
    /// Never used.
    next: u32,
}
