//! Making `ibv_qp`s.

use std::ptr::{self, NonNull};

use super::bindings::{self as sys, ibv_qp, ibv_qp_cap, ibv_qp_init_attr};
use super::context::Context;
use super::device::{Device, ProtectionDomain, warn_if_failed};
use super::endpoint::ETHERNET;
use super::library;
use crate::error::Error;
use crate::queue_pair::QueuePairInit;

/// Inline sizes to try, from the largest that a driver is known to accept.
const INLINE_PROBES: [u32; 9] = [1024, 928, 768, 512, 384, 256, 192, 128, 64];

pub(super) fn check_sizes(device: &Device, init: &QueuePairInit<'_, Context>) -> Result<(), Error> {
    let attributes = &device.attributes;
    if attributes.port.gid.is_none() && device.limits.link_layer == ETHERNET {
        return Err(device.unsupported(
            "connect: its port has no RoCE v2 address; give the interface an IP address",
        ));
    }
    let receives = if init.shared_receive_queue.is_some() { 0 } else { init.receive_capacity };
    for (what, wanted, limit) in [
        ("send_capacity", init.send_capacity, attributes.max_work_requests),
        ("receive_capacity", receives, attributes.max_work_requests),
        ("inline_bytes", init.inline_bytes, attributes.max_inline),
    ] {
        if wanted > limit {
            let reason = format!("{what} {wanted} is above the device's {limit}");
            return Err(Error::Invalid { operation: "create_queue_pair", reason });
        }
    }
    Ok(())
}

pub(super) fn create(
    domain: &ProtectionDomain,
    attr: &mut ibv_qp_init_attr,
) -> Result<NonNull<ibv_qp>, Error> {
    // SAFETY: the domain and the queues in `attr` are alive.
    let raw = unsafe { domain.device.verbs.ibv_create_qp(domain.raw.as_ptr(), attr) };
    NonNull::new(raw).ok_or_else(|| Error::last_os("ibv_create_qp"))
}

/// The largest inline size that a throwaway queue pair gets; 0 if even that cannot be made.
pub(super) fn probe_inline(domain: &ProtectionDomain) -> u32 {
    let verbs = domain.device.verbs;
    let context = domain.device.raw.as_ptr();
    // SAFETY: the device is open; the queue needs no channel and no context.
    let queue = unsafe { verbs.ibv_create_cq(context, 1, ptr::null_mut(), ptr::null_mut(), 0) };
    if queue.is_null() {
        return 0;
    }
    let inline = INLINE_PROBES.into_iter().find_map(|wanted| {
        let mut attr = ibv_qp_init_attr {
            send_cq: queue,
            recv_cq: queue,
            cap: ibv_qp_cap {
                max_send_wr: 1,
                max_recv_wr: 1,
                max_send_sge: 1,
                max_recv_sge: 1,
                max_inline_data: wanted,
            },
            qp_type: sys::IBV_QPT_RC,
            ..ibv_qp_init_attr::default()
        };
        let pair = create(domain, &mut attr).ok()?;
        // SAFETY: just made, and used by nobody.
        let answer = unsafe { verbs.ibv_destroy_qp(pair.as_ptr()) };
        warn_if_failed(library::check("ibv_destroy_qp", answer));
        Some(attr.cap.max_inline_data)
    });
    // SAFETY: its queue pairs are gone.
    let answer = unsafe { verbs.ibv_destroy_cq(queue) };
    warn_if_failed(library::check("ibv_destroy_cq", answer));
    inline.unwrap_or(0)
}
