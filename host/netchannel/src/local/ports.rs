//! How applications' threads talk to engines.

use std::cell::RefCell;
use std::sync::Arc;

use netchannel_units::GroupId;

use crate::boundary::port::Port;
use crate::boundary::thread_ports::{PortOwner, ThreadPorts};
use crate::error::Error;
use crate::local::{Keeper, RuntimeInner};
use crate::shared::Command;

thread_local! {
    static PORTS: RefCell<ThreadPorts<RuntimeInner>> = const { RefCell::new(ThreadPorts::new()) };
}

impl PortOwner for RuntimeInner {
    /// The engines free their ends before they sleep again.
    fn on_port_closed(&self, _number: u32) {
        self.wake_drivers();
    }
}

impl Keeper {
    /// Runs `f` with this thread's port, made on first use.
    pub(crate) fn with_port<R>(&self, f: impl FnOnce(&mut Port) -> R) -> Result<R, Error> {
        let make = || Port::new(self.inner.next_port());
        PORTS.with_borrow_mut(|ports| ports.port_of(&self.inner, make).map(f))
    }

    /// Runs `f` with this thread's port, which the group's engine knows from now on.
    pub(crate) fn with_port_at<R>(
        self: &Arc<Self>,
        group: GroupId,
        f: impl FnOnce(&mut Port) -> R,
    ) -> Result<R, Error> {
        self.with_port(|port| {
            if let Some(end) = port.meet(group)? {
                self.inner.group(group).shared.inbox.push(Command::Port(Box::new(end)));
            }
            Ok(f(port))
        })?
    }
}
