//! Sockets of control connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

use netchannel_verbs::device::{DeviceAttributes, LinkLayer};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use crate::error::Error;

/// Makes a listening socket, bound to the device's interface where that matters.
pub(super) fn listen(address: SocketAddr, device: &DeviceAttributes) -> Result<TcpListener, Error> {
    let what = || format!("listening on {address}");
    let socket = socket(address, device).map_err(|e| Error::system(what())(e.into()))?;
    let bound = sockopt::set_socket_reuseaddr(&socket, true)
        .and_then(|()| rustix::net::bind(&socket, &address))
        .and_then(|()| rustix::net::listen(&socket, 128));
    bound.map_err(|e| Error::system(what())(e.into()))?;
    Ok(TcpListener::from(socket))
}

/// A socket that shares the fate of the device's link: bound to its interface, if it has one and
/// the system allows it. Loopback addresses are reached through loopback alone.
pub(super) fn socket(
    address: SocketAddr,
    device: &DeviceAttributes,
) -> rustix::io::Result<rustix::fd::OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    if device.port.link_layer != LinkLayer::Memory
        && !address.ip().is_loopback()
        && let Some(interface) = &device.port.interface
        && let Err(error) = bind_to_device(&socket, interface)
    {
        tracing::debug!(%interface, %error, "control connection not bound to the interface");
    }
    Ok(socket)
}

/// `SO_BINDTODEVICE`; the standard library and rustix do not have it.
fn bind_to_device(socket: &rustix::fd::OwnedFd, interface: &str) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    const SOL_SOCKET: i32 = 1;
    const SO_BINDTODEVICE: i32 = 25;
    unsafe extern "C" {
        fn setsockopt(
            socket: i32,
            level: i32,
            name: i32,
            value: *const std::ffi::c_void,
            len: u32,
        ) -> i32;
    }
    // SAFETY: the value is valid for its length during the call, which keeps nothing.
    let result = unsafe {
        setsockopt(
            socket.as_raw_fd(),
            SOL_SOCKET,
            SO_BINDTODEVICE,
            interface.as_ptr().cast(),
            interface.len() as u32,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
