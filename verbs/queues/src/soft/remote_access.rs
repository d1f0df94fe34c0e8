//! From a peer's key and address to a place in this process.

use std::ptr::NonNull;
use std::sync::Arc;

use super::connection::Shared;
use super::peer::{Peer, RemoteRegion};
use super::region::index_of;
use crate::memory::Access;
use crate::work::Status;

/// Entries of the cache of one queue pair: slabs of a session that are in use at the same time.
const ENTRIES: usize = 64;

/// The regions that a queue pair reached last, so that the map of the peer (and its lock) is asked
/// once per region.
#[derive(Debug)]
pub(super) struct RegionCache {
    entries: Box<[Option<Arc<RemoteRegion>>]>,
}

impl Default for RegionCache {
    fn default() -> Self {
        Self { entries: vec![None; ENTRIES].into_boxed_slice() }
    }
}

impl RegionCache {
    /// Where the peer's bytes are mapped here.
    ///
    /// The pointer is good until the next call, which may unmap the region.
    #[inline]
    pub(super) fn locate(
        &mut self,
        qp: &Shared,
        key: u32,
        address: u64,
        len: u64,
        right: Access,
    ) -> Result<NonNull<u8>, Status> {
        if len == 0 {
            // Nothing is touched, so nothing is checked (InfiniBand specification, C9-88).
            return Ok(NonNull::dangling());
        }
        let peer = qp.peer().ok_or(Status::LocalOperation)?;
        let known = |region: &Arc<RemoteRegion>| peer.stamp(key) == Some(region.stamp);
        let index = index_of(key) % ENTRIES;
        if peer.is_dead() || !self.entries[index].as_ref().is_some_and(known) {
            self.find(qp, peer, key)?;
        }
        let region = self.entries[index].as_ref().ok_or(Status::RemoteAccess)?;
        region.locate(address, len, right).ok_or(Status::RemoteAccess)
    }

    /// Gets the region of a key that is not in the cache, or void there.
    #[cold]
    fn find(&mut self, qp: &Shared, peer: &Peer, key: u32) -> Result<(), Status> {
        if peer.is_dead() {
            return Err(Status::RetryExceeded);
        }
        let index = index_of(key) % ENTRIES;
        if peer.stamp(key).is_none() {
            peer.forget(key);
            self.entries[index] = None;
            return Err(Status::RemoteAccess);
        }
        let region = peer.region(qp.peer_number(), qp.peer_token(), key)?;
        // Rare, so a good time to let go of what is void.
        for entry in self.entries.iter_mut() {
            entry.take_if(|region| peer.stamp(region.key()) != Some(region.stamp));
        }
        self.entries[index] = Some(region);
        Ok(())
    }

    /// Lets go of all mappings.
    pub(super) fn clear(&mut self) {
        self.entries.fill(None);
    }
}
