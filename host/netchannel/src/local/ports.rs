//! A thread's port of each runtime, made on first use.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use netchannel_units::GroupId;

use crate::boundary::port::Port;
use crate::error::Error;
use crate::local::{Keeper, RuntimeInner};
use crate::shared::Command;

/// Numbers runtimes, so that a thread finds its port of each.
static NEXT_RUNTIME: AtomicU64 = AtomicU64::new(1);

/// A number for a new runtime.
pub(super) fn next_runtime() -> u64 {
    NEXT_RUNTIME.fetch_add(1, Ordering::Relaxed)
}

/// A thread's port of one runtime.
struct ThreadPort {
    runtime: u64,
    inner: Weak<RuntimeInner>,
    /// There until it is dropped.
    port: Option<Port>,
}

impl Drop for ThreadPort {
    fn drop(&mut self) {
        drop(self.port.take());
        // The engine frees its end before it sleeps again.
        if let Some(inner) = self.inner.upgrade() {
            inner.wake_drivers();
        }
    }
}

thread_local! {
    static PORTS: RefCell<Vec<ThreadPort>> = const { RefCell::new(Vec::new()) };
}

impl Keeper {
    /// Runs `f` with this thread's port, made on first use.
    pub(crate) fn with_port<R>(
        self: &Arc<Self>,
        f: impl FnOnce(&mut Port) -> R,
    ) -> Result<R, Error> {
        PORTS.with_borrow_mut(|ports| {
            let known = ports.iter_mut().find(|known| known.runtime == self.id);
            if let Some(port) = known.and_then(|known| known.port.as_mut()) {
                return Ok(f(port));
            }
            ports.retain(|known| known.inner.strong_count() > 0);
            let mut port = Port::new(self.inner.next_port.fetch_add(1, Ordering::Relaxed))?;
            let result = f(&mut port);
            let inner = Arc::downgrade(&self.inner);
            ports.push(ThreadPort { runtime: self.id, inner, port: Some(port) });
            Ok(result)
        })
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
