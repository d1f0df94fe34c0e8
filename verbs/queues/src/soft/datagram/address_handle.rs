//! Address handles. They hold names only: a ring is asked for when a datagram goes that way.

use std::sync::Arc;

use crate::datagram::AddressVector;
use crate::error::Error;
use crate::soft::device::Device;
use crate::soft::service::Service;

/// The way to a port of a NIC in memory.
#[derive(Debug)]
pub struct AddressHandle {
    pub(super) vector: AddressVector,
    service: Arc<Service>,
}

impl AddressHandle {
    pub(in crate::soft) fn new(
        service: &Arc<Service>,
        address: &AddressVector,
    ) -> Result<Self, Error> {
        address.check()?;
        let invalid = |reason: &str| {
            Err(Error::Invalid { operation: "create_address_handle", reason: reason.into() })
        };
        if address.gid == [0; 16] {
            return invalid("the soft device knows GIDs only, and the address has none");
        }
        if address.source_gid_index.is_some_and(|index| index != 0) {
            return invalid("the port of the soft device has one address, of index 0");
        }
        Ok(Self { vector: *address, service: service.clone() })
    }

    pub(super) fn is_of(&self, device: &Arc<Device>) -> bool {
        Arc::ptr_eq(&self.service.device, device)
    }
}

impl crate::AddressHandle for AddressHandle {
    fn close(self) -> Result<(), Error> {
        Ok(())
    }
}
