//! The owners of an opened device and its protection domain.

use std::mem::{offset_of, size_of};
use std::ptr::NonNull;

use super::attributes::Limits;
use super::bindings::{Verbs, ibv_context, ibv_pd, verbs_context};
use super::device_list::ListedDevice;
use super::{library, mlx5};
use crate::device::DeviceAttributes;
use crate::error::Error;

/// `ibv_context`, closed on drop.
pub(super) struct OpenDevice {
    pub(super) verbs: &'static Verbs,
    pub(super) raw: NonNull<ibv_context>,
}

/// `ibv_pd`, freed on drop, before its device is closed.
pub(super) struct ProtectionDomain {
    pub(super) raw: NonNull<ibv_pd>,
    pub(super) device: OpenDevice,
}

/// What all objects of a context keep alive.
pub(super) struct Device {
    pub(super) domain: ProtectionDomain,
    pub(super) attributes: DeviceAttributes,
    pub(super) limits: Limits,
    /// There if the device answered to it.
    pub(super) mlx5: Option<&'static mlx5::Functions>,
}

// SAFETY: libibverbs may be called from any thread, also on the same context and protection
// domain at the same time; the fields themselves are never written after construction.
unsafe impl Send for OpenDevice {}
// SAFETY: as above.
unsafe impl Sync for OpenDevice {}
// SAFETY: as above.
unsafe impl Send for ProtectionDomain {}
// SAFETY: as above.
unsafe impl Sync for ProtectionDomain {}

impl OpenDevice {
    pub(super) fn new(listed: ListedDevice<'_>) -> Result<Self, Error> {
        let verbs = library::verbs()?;
        // SAFETY: the device comes from a list that is still alive.
        let raw = unsafe { verbs.ibv_open_device(listed.as_ptr()) };
        match NonNull::new(raw) {
            Some(raw) => Ok(Self { verbs, raw }),
            None => Err(Error::last_os("ibv_open_device")
                .advise("; may this process open /dev/infiniband/uverbs*?")),
        }
    }
}

impl OpenDevice {
    /// `verbs_get_ctx_op` of verbs.h: the structure around the context, if its driver knows the
    /// field at `offset`. The field may still be empty.
    pub(super) fn extended(&self, offset: usize) -> Option<*const verbs_context> {
        // `__VERBS_ABI_IS_EXTENDED`: all bits set.
        const EXTENDED: usize = usize::MAX;
        // SAFETY: the context is open.
        let marker = unsafe { (*self.raw.as_ptr()).abi_compat };
        if marker.addr() != EXTENDED {
            return None;
        }
        // SAFETY: the marker says that the context is the last field of a `verbs_context`, which
        // grows at its front.
        let extended = unsafe { self.raw.as_ptr().byte_sub(offset_of!(verbs_context, context)) };
        let extended: *const verbs_context = extended.cast_const().cast();
        // SAFETY: the size lies directly before the context, whatever the version.
        let size = unsafe { (*extended).sz };
        (size >= size_of::<verbs_context>() - offset).then_some(extended)
    }
}

impl Drop for OpenDevice {
    fn drop(&mut self) {
        // SAFETY: opened in `new` and closed once; every object made on it holds its owner.
        let answer = unsafe { self.verbs.ibv_close_device(self.raw.as_ptr()) };
        warn_if_failed(library::check("ibv_close_device", answer));
    }
}

impl ProtectionDomain {
    pub(super) fn new(device: OpenDevice) -> Result<Self, Error> {
        // SAFETY: the device is open.
        let raw = unsafe { device.verbs.ibv_alloc_pd(device.raw.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last_os("ibv_alloc_pd"))?;
        Ok(Self { raw, device })
    }
}

impl Drop for ProtectionDomain {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` and freed once; every object made in it holds its owner.
        let answer = unsafe { self.device.verbs.ibv_dealloc_pd(self.raw.as_ptr()) };
        warn_if_failed(library::check("ibv_dealloc_pd", answer));
    }
}

impl Device {
    pub(super) fn verbs(&self) -> &'static Verbs {
        self.domain.device.verbs
    }

    pub(super) fn context(&self) -> *mut ibv_context {
        self.domain.device.raw.as_ptr()
    }

    /// `Unsupported`: this device cannot `what`.
    pub(super) fn unsupported(&self, what: &'static str) -> Error {
        Error::Unsupported { device: self.attributes.name.clone(), what }
    }
}

/// For destructors, which cannot answer.
pub(super) fn warn_if_failed(result: Result<(), Error>) {
    if let Err(error) = result {
        tracing::warn!(%error, "a device object was not released");
    }
}
