//! A thread's ports: one of each runtime, own or attached to, made on first use.

use std::sync::{Arc, Weak};

use crate::boundary::port::Port;
use crate::error::Error;

/// Who makes ports for threads.
pub(crate) trait PortOwner {
    /// The thread that had port `number` is gone.
    fn on_port_closed(&self, number: u32);
}

/// The ports of a thread, by who made them.
pub(crate) struct ThreadPorts<O: PortOwner>(Vec<ThreadPort<O>>);

struct ThreadPort<O: PortOwner> {
    /// Keeps the owner's address from being another's.
    owner: Weak<O>,
    port: Port,
}

impl<O: PortOwner> ThreadPorts<O> {
    pub(crate) const fn new() -> Self {
        Self(Vec::new())
    }

    /// The port of `owner`, or a new one.
    pub(crate) fn port_of(
        &mut self,
        owner: &Arc<O>,
        make: impl FnOnce() -> Result<Port, Error>,
    ) -> Result<&mut Port, Error> {
        let is_known = |known: &ThreadPort<O>| known.owner.as_ptr() == Arc::as_ptr(owner);
        let index = match self.0.iter().position(is_known) {
            Some(index) => index,
            None => {
                self.0.retain(|known| known.owner.strong_count() > 0);
                self.0.push(ThreadPort { owner: Arc::downgrade(owner), port: make()? });
                self.0.len() - 1
            }
        };
        Ok(&mut self.0[index].port)
    }
}

impl<O: PortOwner> Drop for ThreadPort<O> {
    fn drop(&mut self) {
        // First, so that the owner finds it closed.
        self.port.shared.close();
        if let Some(owner) = self.owner.upgrade() {
            owner.on_port_closed(self.port.shared.number);
        }
    }
}
