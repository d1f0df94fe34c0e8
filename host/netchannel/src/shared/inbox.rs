//! What applications tell an engine beside doorbells.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::boundary::StreamKey;
use crate::boundary::application::ApplicationId;
use crate::boundary::port::EnginePort;
use crate::boundary::ready::{EngineList, Watch};
use crate::sync::lock;

/// What happens to streams beside reading and writing: rare, so a lock will do.
#[derive(Debug)]
pub(crate) enum Command {
    /// A thread's new port. Boxed: others come by the thousand.
    Port(Box<EnginePort>),
    /// The application wrote its last byte.
    Finish(StreamKey),
    /// The application gives up sending.
    Reset(StreamKey, u32),
    /// The application reads no more.
    Stop(StreamKey, u32),
    /// The application wants to hear of a stream.
    Watch(Watch),
    /// A ready list. Boxed as ports are.
    List(Box<EngineList>),
    /// The ready list of this number is gone.
    Unlist(u32),
    /// The application has let go; the cell comes back when the stream is gone.
    Release(StreamKey),
}

impl Command {
    /// The stream that it is for.
    pub(crate) fn stream(&self) -> Option<StreamKey> {
        match *self {
            Self::Port(_) | Self::List(_) | Self::Unlist(_) => None,
            Self::Watch(ref watch) => Some(watch.stream),
            Self::Finish(key) | Self::Reset(key, _) | Self::Stop(key, _) | Self::Release(key) => {
                Some(key)
            }
        }
    }
}

/// Commands on their way to the engine.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    commands: Mutex<Vec<(ApplicationId, Command)>>,
    any: AtomicBool,
}

impl Inbox {
    /// From the own process.
    pub(crate) fn push(&self, command: Command) {
        self.push_from(ApplicationId::LOCAL, command);
    }

    pub(crate) fn push_from(&self, application: ApplicationId, command: Command) {
        lock(&self.commands).push((application, command));
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn has_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Vec<(ApplicationId, Command)> {
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut lock(&self.commands))
    }
}
