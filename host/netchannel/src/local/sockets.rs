//! Sockets of control connections.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::time::Duration;

use netchannel_verbs::device::{DeviceAttributes, LinkLayer};
use netchannel_wire::control::Path;
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

/// What TCP knows of the bytes that were written to a control connection.
pub(super) fn path(socket: &impl AsRawFd) -> Path {
    /// The beginning of `struct tcp_info` (`linux/tcp.h`), which only ever grows at its end.
    #[repr(C)]
    #[derive(Default)]
    struct TcpInfo {
        state: u8,
        congestion_state: u8,
        /// Times that the oldest unacknowledged segment was sent again.
        retransmits: u8,
        probes: u8,
        backoff: u8,
        options_and_scales: [u8; 3],
        retransmit_timeout: u32,
        ack_timeout: u32,
        send_mss: u32,
        receive_mss: u32,
        /// Segments sent and not acknowledged.
        unacked: u32,
        counts_and_times: [u32; 19],
        rates_and_bytes: [u64; 4],
        segments: [u32; 2],
        /// Bytes that could not be sent yet.
        unsent: u32,
    }
    const TCP_INFO: i32 = 11;
    let mut info = TcpInfo::default();
    // SAFETY: any bits are a `TcpInfo`.
    let known = unsafe { get_option(socket, IPPROTO_TCP, TCP_INFO, &mut info) };
    match info {
        _ if known.is_err() => Path::Works,
        TcpInfo { unacked: 0, unsent: 0, .. } => Path::Works,
        // Sent again, or (no route, the port is down) never sent.
        TcpInfo { retransmits: 1.., .. } | TcpInfo { unacked: 0, .. } => Path::Out,
        TcpInfo { .. } => Path::Unknown,
    }
}

/// The longest pause between two attempts of TCP, and the shortest that the system takes for that.
const LONGEST_RETRY_MS: u32 = 1_000;
/// TCP counts its attempts, and with short pauses would give up after some 14 s: instead it gets
/// longer than the keepalive may wait for a path, which is once more after the path is back.
const OUTAGES: u32 = 3;

const IPPROTO_TCP: i32 = 6;
const TCP_THIN_LINEAR_TIMEOUTS: i32 = 16;
const TCP_USER_TIMEOUT: i32 = 18;
/// Since Linux 6.15.
const TCP_RTO_MAX_MS: i32 = 44;

/// Makes TCP try again at a constant pace: a control connection is a thin stream, and its next
/// segment after an outage is what the Channels wait for. Older systems do so seven times, then
/// each pause is twice as long as the last.
pub(super) fn retry_steadily(socket: &impl AsRawFd, outage: Duration) {
    if let Err(error) =
        set_option(socket, IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, &1i32.to_ne_bytes())
    {
        tracing::debug!(%error, "control connection without linear timeouts");
    }
    let give_up = u32::try_from(outage.saturating_mul(OUTAGES).as_millis()).unwrap_or(u32::MAX);
    let give_up = give_up.min(i32::MAX as u32).to_ne_bytes();
    let bounded = set_option(socket, IPPROTO_TCP, TCP_RTO_MAX_MS, &LONGEST_RETRY_MS.to_ne_bytes())
        .and_then(|()| set_option(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &give_up));
    if let Err(error) = bounded {
        tracing::debug!(%error, "control connection whose retries slow down");
    }
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
    const SOL_SOCKET: i32 = 1;
    const SO_BINDTODEVICE: i32 = 25;
    set_option(socket, SOL_SOCKET, SO_BINDTODEVICE, interface.as_bytes())
}

/// Reads an option, or the beginning of it.
///
/// # Safety
/// Any bits are a valid `T`.
unsafe fn get_option<T>(
    socket: &impl AsRawFd,
    level: i32,
    name: i32,
    value: &mut T,
) -> io::Result<()> {
    unsafe extern "C" {
        fn getsockopt(
            socket: i32,
            level: i32,
            name: i32,
            value: *mut std::ffi::c_void,
            len: *mut u32,
        ) -> i32;
    }
    let mut len = size_of::<T>() as u32;
    // SAFETY: `value` is valid for writes of `len` bytes, for which any bits will do (the caller's
    // promise); the call keeps nothing.
    let result =
        unsafe { getsockopt(socket.as_raw_fd(), level, name, (&raw mut *value).cast(), &mut len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set_option(socket: &impl AsRawFd, level: i32, name: i32, value: &[u8]) -> io::Result<()> {
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
        setsockopt(socket.as_raw_fd(), level, name, value.as_ptr().cast(), value.len() as u32)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(socket: &impl AsRawFd, name: i32) -> io::Result<u32> {
        let mut value = 0u32;
        // SAFETY: any bits are a number.
        unsafe { get_option(socket, IPPROTO_TCP, name, &mut value) }.map(|()| value)
    }

    #[test]
    fn retries_keep_their_pace_for_as_long_as_an_outage_may_last() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let bounds = |socket: &TcpListener| {
            (option(socket, TCP_RTO_MAX_MS).ok(), option(socket, TCP_USER_TIMEOUT).unwrap())
        };
        let before = bounds(&listener);
        retry_steadily(&listener, Duration::from_secs(10));
        assert_eq!(option(&listener, TCP_THIN_LINEAR_TIMEOUTS).unwrap(), 1);
        // Neither without the other: short pauses alone would end the connection early.
        let expected = before.0.map_or(before, |_| (Some(LONGEST_RETRY_MS), 30_000));
        assert_eq!(bounds(&listener), expected);
    }
}
