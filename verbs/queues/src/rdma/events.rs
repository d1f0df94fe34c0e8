//! Asynchronous events of a device.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::bindings::{self as sys, ibv_async_event};
use super::completion_queue::Broken;
use super::device::{Device, OpenDevice};
use crate::context::AsyncEvent;
use crate::error::Error;

/// The descriptor that carries the events of a device.
pub(super) fn async_fd(device: &OpenDevice) -> BorrowedFd<'_> {
    // SAFETY: the context is open, and its descriptor is open as long as it is.
    unsafe { BorrowedFd::borrow_raw((*device.raw.as_ptr()).async_fd) }
}

pub(super) fn set_non_blocking(fd: BorrowedFd<'_>, operation: &'static str) -> Result<(), Error> {
    fcntl_getfl(fd)
        .and_then(|flags| fcntl_setfl(fd, flags | OFlags::NONBLOCK))
        .map_err(|errno| Error::errno(operation, errno.raw_os_error()))
}

/// Whether a read on a non-blocking descriptor found nothing, or must be tried again.
pub(super) enum Interrupted {
    NothingThere,
    TryAgain,
    Failed(Error),
}

/// Classifies the current `errno` of a failed read.
pub(super) fn interrupted(operation: &'static str) -> Interrupted {
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock => Interrupted::NothingThere,
        io::ErrorKind::Interrupted => Interrupted::TryAgain,
        _ => Interrupted::Failed(Error::Os { operation, source: error, hint: "" }),
    }
}

/// Takes the next event that concerns this context.
pub(super) fn poll(device: &Device) -> Result<Option<AsyncEvent>, Error> {
    loop {
        let mut raw = ibv_async_event::default();
        // SAFETY: the device is open, and `raw` is a valid place for the event.
        let answer = unsafe { device.verbs().ibv_get_async_event(device.context(), &mut raw) };
        if answer != 0 {
            match interrupted("ibv_get_async_event") {
                Interrupted::NothingThere => return Ok(None),
                Interrupted::TryAgain => continue,
                Interrupted::Failed(error) => return Err(error),
            }
        }
        let event = translate(&raw, device.attributes.port.number);
        // SAFETY: the event was just taken; destroying its object waits for this call, so that
        // `translate` could look at it.
        unsafe { device.verbs().ibv_ack_async_event(&mut raw) };
        if event.is_some() {
            return Ok(event);
        }
    }
}

/// `None` for events of other ports. The object of the event is still alive: it was not
/// acknowledged yet.
fn translate(raw: &ibv_async_event, port: u8) -> Option<AsyncEvent> {
    let queue_pair = || {
        // SAFETY: events of queue pairs carry a valid queue pair until they are acknowledged.
        unsafe { (*raw.element.qp).qp_num }
    };
    Some(match raw.event_type {
        sys::IBV_EVENT_PORT_ACTIVE | sys::IBV_EVENT_PORT_ERR => {
            // SAFETY: events of ports carry the port's number.
            let number = unsafe { raw.element.port_num };
            if number != i32::from(port) {
                return None;
            }
            match raw.event_type {
                sys::IBV_EVENT_PORT_ACTIVE => AsyncEvent::PortActive,
                _ => AsyncEvent::PortDown,
            }
        }
        sys::IBV_EVENT_DEVICE_FATAL => AsyncEvent::DeviceFatal,
        sys::IBV_EVENT_QP_FATAL => AsyncEvent::QueuePairFatal(queue_pair()),
        sys::IBV_EVENT_QP_REQ_ERR | sys::IBV_EVENT_QP_ACCESS_ERR => {
            AsyncEvent::AccessViolation(queue_pair())
        }
        sys::IBV_EVENT_SRQ_LIMIT_REACHED => AsyncEvent::ReceiveQueueLimit,
        sys::IBV_EVENT_QP_LAST_WQE_REACHED => AsyncEvent::LastReceiveReached(queue_pair()),
        sys::IBV_EVENT_CQ_ERR => {
            // SAFETY: events of completion queues carry a valid queue until they are
            // acknowledged; its context is null or the `Broken` of the owner, which outlives it.
            let broken = unsafe { (*raw.element.cq).cq_context.cast::<Broken>().as_ref() };
            if let Some(broken) = broken {
                broken.store(true, Ordering::Release);
            }
            AsyncEvent::CompletionQueueFatal
        }
        other => AsyncEvent::Unknown(other),
    })
}
