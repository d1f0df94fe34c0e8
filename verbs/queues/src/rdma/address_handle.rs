//! Address handles.

use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;

use super::bindings::{ibv_ah, ibv_ah_attr};
use super::device::{Device, warn_if_failed};
use super::library;
use crate::datagram::AddressVector;
use crate::error::Error;

/// The way to a port; see [`crate::AddressHandle`].
pub struct AddressHandle {
    raw: NonNull<ibv_ah>,
    device: Arc<Device>,
    destroyed: bool,
}

// SAFETY: libibverbs may be called from any thread, also for the same object at the same time.
unsafe impl Send for AddressHandle {}
// SAFETY: as above.
unsafe impl Sync for AddressHandle {}

impl AddressHandle {
    pub(super) fn new(device: &Arc<Device>, address: &AddressVector) -> Result<Self, Error> {
        address.check()?;
        let mut attr = attributes(device, address)?;
        // SAFETY: the domain is alive, and `attr` is a valid address vector for this call.
        let raw = unsafe { device.verbs().ibv_create_ah(device.domain.raw.as_ptr(), &mut attr) };
        let raw = NonNull::new(raw).ok_or_else(|| {
            Error::last_os("ibv_create_ah")
                .advise("; does a route lead to the address from this device's interface?")
        })?;
        Ok(Self { raw, device: Arc::clone(device), destroyed: false })
    }

    pub(super) fn as_ptr(&self) -> *mut ibv_ah {
        self.raw.as_ptr()
    }

    /// Whether it was made on this device and in its protection domain.
    pub(super) fn is_of(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.device, device)
    }

    fn destroy(&mut self) -> Result<(), Error> {
        if std::mem::replace(&mut self.destroyed, true) {
            return Ok(());
        }
        // SAFETY: created in `new` and destroyed once; who posted with it keeps it until the
        // completion.
        let answer = unsafe { self.device.verbs().ibv_destroy_ah(self.raw.as_ptr()) };
        library::check("ibv_destroy_ah", answer)
    }
}

fn attributes(device: &Device, address: &AddressVector) -> Result<ibv_ah_attr, Error> {
    let limits = &device.limits;
    let mut attr = ibv_ah_attr {
        dlid: address.lid,
        sl: address.service_level,
        port_num: device.attributes.port.number,
        ..ibv_ah_attr::default()
    };
    let has_gid = address.gid != [0; 16];
    if has_gid && (limits.global_route || address.lid == 0) {
        let source = address.source_gid_index.or(limits.gid_index);
        attr.grh.sgid_index = source.ok_or_else(|| Error::Invalid {
            operation: "create_address_handle",
            reason: "the port has no address that datagrams could come from".into(),
        })?;
        attr.is_global = 1;
        attr.grh.dgid.raw = address.gid;
        attr.grh.flow_label = address.flow_label;
        attr.grh.hop_limit = address.hop_limit;
        attr.grh.traffic_class = address.traffic_class;
    } else if limits.global_route {
        let reason = "datagrams need a GID on this port, and the address has none".into();
        return Err(Error::Invalid { operation: "create_address_handle", reason });
    }
    Ok(attr)
}

impl crate::AddressHandle for AddressHandle {
    fn close(mut self) -> Result<(), Error> {
        self.destroy()
    }
}

impl Drop for AddressHandle {
    fn drop(&mut self) {
        warn_if_failed(self.destroy());
    }
}

impl fmt::Debug for AddressHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("rdma::AddressHandle").finish_non_exhaustive()
    }
}
