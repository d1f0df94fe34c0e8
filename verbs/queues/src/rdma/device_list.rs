//! The list of devices that libibverbs knows.

use std::ffi::{CStr, c_int};
use std::io;
use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;

use super::bindings::{Verbs, ibv_device};
use super::library;
use crate::error::Error;

/// `errno` of a kernel without RDMA.
const ENOSYS: i32 = 38;

/// The devices as they were when it was made.
pub(super) struct DeviceList {
    verbs: &'static Verbs,
    first: NonNull<*mut ibv_device>,
    len: usize,
}

/// A device of a list.
#[derive(Clone, Copy)]
pub(super) struct ListedDevice<'a> {
    raw: NonNull<ibv_device>,
    list: PhantomData<&'a DeviceList>,
}

impl DeviceList {
    /// Asks libibverbs. Never empty: no device is an error with the reason.
    pub(super) fn new() -> Result<Self, Error> {
        let verbs = library::verbs()?;
        let mut len: c_int = 0;
        // SAFETY: `len` is a valid place for the count.
        let first = unsafe { verbs.ibv_get_device_list(&mut len) };
        let Some(first) = NonNull::new(first) else {
            return Err(Error::NoDevice { reason: why_no_list(&io::Error::last_os_error()) });
        };
        let list = Self { verbs, first, len: usize::try_from(len).unwrap_or(0) };
        if list.len == 0 {
            let reason = "libibverbs lists none; is the NIC's driver loaded (`rdma link show`), \
                          and may this process read /sys/class/infiniband?";
            return Err(Error::NoDevice { reason: reason.into() });
        }
        Ok(list)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = ListedDevice<'_>> {
        // SAFETY: libibverbs returned an array of `len` pointers, which lives until it is freed in
        // `drop`; nobody writes to it.
        let raw = unsafe { slice::from_raw_parts(self.first.as_ptr(), self.len) };
        raw.iter()
            .filter_map(|&raw| NonNull::new(raw))
            .map(|raw| ListedDevice { raw, list: PhantomData })
    }

    /// The device of this name.
    pub(super) fn find(&self, name: &str) -> Result<ListedDevice<'_>, Error> {
        self.iter().find(|device| device.name() == name).ok_or_else(|| Error::UnknownDevice {
            name: name.into(),
            known: self.iter().map(ListedDevice::name).collect::<Vec<_>>().join(", "),
        })
    }
}

impl Drop for DeviceList {
    fn drop(&mut self) {
        // SAFETY: it is the list that libibverbs returned, freed once; `ListedDevice`s borrow it,
        // and devices that were opened stay valid without it.
        unsafe { self.verbs.ibv_free_device_list(self.first.as_ptr()) }
    }
}

impl ListedDevice<'_> {
    pub(super) fn name(self) -> String {
        // SAFETY: the list, and so the device, lives as long as `self`; libibverbs keeps its name
        // terminated.
        let name = unsafe { CStr::from_ptr((*self.raw.as_ptr()).name.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    pub(super) fn as_ptr(self) -> *mut ibv_device {
        self.raw.as_ptr()
    }
}

fn why_no_list(error: &io::Error) -> String {
    if error.raw_os_error() == Some(ENOSYS) {
        "this kernel has no RDMA (ibv_get_device_list: ENOSYS); load ib_uverbs and the driver of \
         the NIC, or rdma_rxe for SoftRoCE"
            .into()
    } else {
        format!("ibv_get_device_list failed: {error}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rdma_in_the_kernel_says_so() {
        assert!(why_no_list(&io::Error::from_raw_os_error(ENOSYS)).contains("has no RDMA"));
        assert!(why_no_list(&io::Error::from_raw_os_error(1)).contains("ibv_get_device_list"));
    }
}
