//! Registered memory.

use std::ptr::NonNull;

use crate::error::Error;

bitflags::bitflags! {
    /// What the NIC may do with a region, beyond reading it for local requests.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Access: u32 {
        /// Receives and READ results may land in it.
        const LOCAL_WRITE = 1;
        /// Peers may WRITE to it (needs `LOCAL_WRITE`).
        const REMOTE_WRITE = 2;
        /// Peers may READ it.
        const REMOTE_READ = 4;
    }
}

/// The name under which a peer reaches a region (the rkey).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RemoteKey(pub u32);

/// A registered range of memory.
///
/// Dropping it deregisters it (and frees it, if it came from
/// [`Context::alloc`](crate::Context::alloc)); [`close`](Self::close) does the same and reports.
pub trait MemoryRegion: Send + Sync {
    /// First byte. Never make a reference over memory that a peer or the NIC may write: see the
    /// table in the [crate documentation](crate).
    fn as_ptr(&self) -> NonNull<u8>;

    /// Length in bytes.
    fn len(&self) -> usize;

    /// Whether the region has no bytes (it always has some).
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Key for [`LocalSlice`](crate::LocalSlice)s.
    fn local_key(&self) -> u32;

    /// Key to give to a peer.
    fn remote_key(&self) -> RemoteKey;

    /// The address by which a peer names the first byte.
    fn remote_address(&self) -> u64;

    /// Deregisters; from then on the keys are wrong.
    ///
    /// # Errors
    /// [`Error::Os`] if the driver refuses; the region is gone for this process all the same.
    fn close(self) -> Result<(), Error>;
}
