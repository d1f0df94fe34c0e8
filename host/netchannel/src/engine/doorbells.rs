//! Doorbells of applications in other processes, as one descriptor to sleep on.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use rustix::event::epoll;

use crate::boundary::port::{EnginePort, PortWake};
use crate::error::Error;

/// The wake-ups of all ports of other processes.
#[derive(Debug)]
pub(super) struct Doorbells {
    epoll: OwnedFd,
}

impl Doorbells {
    pub(super) fn new() -> Result<Self, Error> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)
            .map_err(|errno| Error::system("making an epoll set")(errno.into()))?;
        Ok(Self { epoll })
    }

    /// Readable while a port has rung since it was last [`heard`](Self::hear).
    pub(super) fn fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }

    pub(super) fn add(&self, port: &EnginePort) {
        if let PortWake::There(wake) = &port.shared.wake {
            let data = epoll::EventData::new_u64(u64::from(port.shared.number));
            let added = epoll::add(&self.epoll, wake.fd(), data, epoll::EventFlags::IN);
            if let Err(error) = added {
                tracing::warn!(%error, "the engine will not sleep on a port");
            }
        }
    }

    pub(super) fn remove(&self, port: &EnginePort) {
        if let PortWake::There(wake) = &port.shared.wake {
            // Fails if it was removed before.
            let _ = epoll::delete(self.epoll.as_fd(), wake.fd());
        }
    }

    /// Takes the wake-ups back. Whose process is gone wakes nobody any more.
    pub(super) fn hear(&self, ports: &[EnginePort]) {
        for port in ports {
            if matches!(port.shared.wake, PortWake::There(_)) && port.shared.wake.drain().is_err() {
                self.remove(port);
            }
        }
    }
}
