//! How an application's threads talk to engines of another process.

use std::cell::RefCell;
use std::sync::Arc;

use netchannel_attach::{Answer, Operation};
use netchannel_shared_memory::wake::{SocketWake, Wake};
use netchannel_units::GroupId;

use crate::attach::link::Link;
use crate::boundary::port::{Port, PortShared, PortWake};
use crate::boundary::thread_ports::{PortOwner, ThreadPorts};
use crate::error::Error;

thread_local! {
    static PORTS: RefCell<ThreadPorts<Link>> = const { RefCell::new(ThreadPorts::new()) };
}

impl PortOwner for Link {
    fn on_port_closed(&self, number: u32) {
        self.tell(Operation::ClosePort { port: number });
    }
}

/// Runs `f` with this thread's port, made on first use; the group, if any, knows it.
pub(super) fn with_port<R>(
    link: &Arc<Link>,
    group: Option<GroupId>,
    f: impl FnOnce(&mut Port) -> R,
) -> Result<R, Error> {
    PORTS.with_borrow_mut(|ports| {
        let port = ports.port_of(link, || make_port(link))?;
        if let Some(group) = group {
            meet(link, port, group)?;
        }
        Ok(f(port))
    })
}

fn make_port(link: &Link) -> Result<Port, Error> {
    let (answer, mut fds) = link.ask(Operation::Port)?;
    let (Answer::Port(number), Some(fd)) = (&answer, fds.pop()) else {
        return Err(link.unexpected(&answer));
    };
    let failed = Error::shared_memory("taking over a port");
    let engine = SocketWake::from_fd(fd).map_err(failed)?;
    let own = Wake::new().map_err(Error::shared_memory("making a port"))?;
    let shared = PortShared::new(*number, PortWake::Attached { engine, own });
    link.add_port(&shared);
    Ok(Port::of(shared))
}

/// Sees to it that a group's engine knows the port.
fn meet(link: &Link, port: &mut Port, group: GroupId) -> Result<(), Error> {
    if port.has_met(group) {
        return Ok(());
    }
    let number = port.shared.number;
    let (answer, mut fds) = link.ask(Operation::Ring { port: number, group: group.0 })?;
    let Some(fd) = fds.pop() else { return Err(link.unexpected(&answer)) };
    port.adopt(group, fd)
}
