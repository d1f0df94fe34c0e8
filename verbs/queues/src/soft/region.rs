//! Registered memory and its keys.
//!
//! Memory that peers may reach lives in memfds of its own, so that a peer maps exactly what it may
//! touch; all other memory stays private. Peers also map the *key table* (read-only): the word at a
//! region's index is its *stamp* while it is registered and zero afterwards, so that a peer that has
//! the memory mapped still learns that the key is void. A write that was under way then lands in
//! memory that nobody else uses any more. A stamp is the key with a count of registrations above it:
//! keys come again after 65,535 registrations, stamps after 2^32 of them.

use std::collections::HashMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use netchannel_shared_memory::memory::{Mapping, SharedMemory};

use super::anonymous::Anonymous;
use super::service::Service;
use super::shared_memory_failed;
use crate::error::Error;
use crate::memory::{Access, RemoteKey};
use crate::work::{LocalSlice, Status};

/// Regions at a time: an index is half of a key.
const REGIONS: usize = 1 << 16;
/// Bytes of a key table.
pub(super) const KEY_TABLE_BYTES: usize = REGIONS * 8;

/// All registered regions of a device.
pub(super) struct RegionTable {
    entries: Box<[Entry]>,
    keys: Mapping,
    keys_memory: SharedMemory,
    names: Mutex<Names>,
}

/// What the hot path asks about a local key. Written by (de)registration only; `key` is zero while
/// the others change.
#[derive(Debug, Default)]
struct Entry {
    key: AtomicU32,
    access: AtomicU32,
    base: AtomicU64,
    len: AtomicU64,
}

#[derive(Debug)]
struct Names {
    /// Indices used so far, and those free again.
    used: usize,
    free: Vec<u16>,
    /// The upper half of the last key.
    generation: u16,
    /// The upper half of the last stamp.
    registrations: u32,
    exported: HashMap<u32, Arc<SharedMemory>>,
}

/// What a peer is given to reach a region.
#[derive(Debug)]
pub(super) struct Exported {
    pub(super) fd: OwnedFd,
    pub(super) base: u64,
    pub(super) len: u64,
    pub(super) access: Access,
}

pub(super) fn index_of(key: u32) -> usize {
    (key & 0xffff) as usize
}

// By hand: there are 65,536 entries.
impl fmt::Debug for RegionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RegionTable").finish_non_exhaustive()
    }
}

impl RegionTable {
    pub(super) fn new(seed: u64) -> Result<Self, Error> {
        let (keys_memory, keys) =
            SharedMemory::create_with_sole_writer("netchannel-keys", KEY_TABLE_BYTES)
                .map_err(shared_memory_failed("making a key table"))?;
        let names = Names {
            used: 0,
            free: Vec::new(),
            generation: seed as u16,
            registrations: 0,
            exported: HashMap::new(),
        };
        let entries = (0..REGIONS).map(|_| Entry::default()).collect();
        Ok(Self { entries, keys, keys_memory, names: Mutex::new(names) })
    }

    pub(super) fn keys_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.keys_memory.fd()
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(
        &self,
        base: u64,
        len: u64,
        access: Access,
        memory: Option<Arc<SharedMemory>>,
    ) -> Result<u32, Error> {
        let mut names = self.names();
        let index = match names.free.pop() {
            Some(index) => index,
            None if names.used < REGIONS => {
                names.used += 1;
                (names.used - 1) as u16
            }
            None => {
                let reason = format!("{REGIONS} regions are registered already");
                return Err(Error::Invalid { operation: "registering memory", reason });
            }
        };
        // Never zero: it means "no key".
        names.generation = names.generation.checked_add(1).unwrap_or(1);
        names.registrations = names.registrations.wrapping_add(1);
        let key = u32::from(names.generation) << 16 | u32::from(index);
        let entry = &self.entries[usize::from(index)];
        entry.base.store(base, Ordering::Relaxed);
        entry.len.store(len, Ordering::Relaxed);
        entry.access.store(access.bits(), Ordering::Relaxed);
        // Release: who sees the key sees the rest.
        entry.key.store(key, Ordering::Release);
        if let Some(memory) = memory {
            names.exported.insert(key, memory);
            let stamp = u64::from(names.registrations) << 32 | u64::from(key);
            self.publish(index_of(key), stamp);
        }
        Ok(key)
    }

    fn remove(&self, key: u32) {
        let mut names = self.names();
        let index = index_of(key);
        self.publish(index, 0);
        self.entries[index].key.store(0, Ordering::Relaxed);
        // The next use of the entry changes the rest after this is visible: see `find`.
        fence(Ordering::Release);
        names.exported.remove(&key);
        names.free.push(index as u16);
    }

    fn publish(&self, index: usize, stamp: u64) {
        if let Some(word) = self.keys.at::<AtomicU64>(index * 8) {
            word.store(stamp, Ordering::Release);
        }
    }

    fn find(&self, key: u32) -> Option<(u64, u64, Access)> {
        let entry = &self.entries[index_of(key)];
        if key == 0 || entry.key.load(Ordering::Acquire) != key {
            return None;
        }
        let base = entry.base.load(Ordering::Relaxed);
        let len = entry.len.load(Ordering::Relaxed);
        let access = Access::from_bits_truncate(entry.access.load(Ordering::Relaxed));
        // A deregistration meanwhile has zeroed the key before a successor changed the rest.
        fence(Ordering::Acquire);
        (entry.key.load(Ordering::Relaxed) == key).then_some((base, len, access))
    }

    /// Whether every slice lies in a registered region that allows `access`.
    pub(super) fn check(&self, slices: &[LocalSlice], access: Access) -> Result<(), Status> {
        let allowed = |slice: &LocalSlice| {
            if slice.length == 0 {
                return true;
            }
            self.find(slice.local_key).is_some_and(|(base, len, rights)| {
                rights.contains(access)
                    && slice
                        .address
                        .checked_sub(base)
                        .and_then(|offset| offset.checked_add(u64::from(slice.length)))
                        .is_some_and(|end| end <= len)
            })
        };
        if slices.iter().all(allowed) { Ok(()) } else { Err(Status::LocalProtection) }
    }

    /// What a peer needs to map the region.
    pub(super) fn export(&self, key: u32) -> Option<Exported> {
        let names = self.names();
        let memory = names.exported.get(&key)?;
        let (base, len, access) = self.find(key)?;
        let fd = if access.contains(Access::REMOTE_WRITE) {
            memory.fd().try_clone_to_owned().ok()?
        } else {
            memory.read_only_fd().ok()?
        };
        Some(Exported { fd, base, len, access })
    }
}

/// Memory registered with a NIC in memory.
#[derive(Debug)]
pub struct MemoryRegion {
    service: Arc<Service>,
    base: NonNull<u8>,
    len: usize,
    key: u32,
    /// Keeps what `alloc` made; after `key` so that deregistration comes first.
    _memory: Backing,
}

#[derive(Debug)]
enum Backing {
    Callers,
    Private { _memory: Anonymous },
    Shared { _memory: Mapping },
}

// SAFETY: `base` is only handed out; who dereferences it argues for it.
unsafe impl Send for MemoryRegion {}
// SAFETY: as above.
unsafe impl Sync for MemoryRegion {}

impl MemoryRegion {
    pub(super) fn alloc(service: &Arc<Service>, len: usize, access: Access) -> Result<Self, Error> {
        let regions = &service.device.regions;
        if !access.intersects(Access::REMOTE_WRITE | Access::REMOTE_READ) {
            let memory = Anonymous::new(len)?;
            let (base, len) = (memory.as_ptr(), memory.len());
            let key = regions.insert(base.as_ptr() as u64, len as u64, access, None)?;
            let backing = Backing::Private { _memory: memory };
            return Ok(Self { service: service.clone(), base, len, key, _memory: backing });
        }
        let failed = shared_memory_failed("allocating a region");
        let memory = SharedMemory::create("netchannel-region", len).map_err(failed)?;
        let mapping = memory.map().map_err(failed)?;
        settle(&mapping);
        let (base, len) = (mapping.as_ptr(), mapping.len());
        let memory = Arc::new(memory);
        let key = regions.insert(base.as_ptr() as u64, len as u64, access, Some(memory))?;
        let backing = Backing::Shared { _memory: mapping };
        Ok(Self { service: service.clone(), base, len, key, _memory: backing })
    }

    pub(super) fn alloc_shared(
        service: &Arc<Service>,
        len: usize,
        access: Access,
    ) -> Result<(Self, OwnedFd), Error> {
        let region = Self::alloc(service, len, access)?;
        let names = service.device.regions.names();
        let Some(memory) = names.exported.get(&region.key) else {
            let reason = "memory without REMOTE_WRITE or REMOTE_READ is private".into();
            drop(names);
            return Err(Error::Invalid { operation: "alloc_shared", reason });
        };
        let fd = memory.read_only_fd().map_err(shared_memory_failed("sharing a region"))?;
        drop(names);
        Ok((region, fd))
    }

    pub(super) fn register(
        service: &Arc<Service>,
        base: NonNull<u8>,
        len: usize,
        access: Access,
    ) -> Result<Self, Error> {
        let regions = &service.device.regions;
        let key = regions.insert(base.as_ptr() as u64, len as u64, access, None)?;
        Ok(Self { service: service.clone(), base, len, key, _memory: Backing::Callers })
    }
}

/// Huge pages from this size on.
const HUGE: usize = 2 << 20;

/// Pages in place before the first byte moves, as registration does with a real NIC. Both are wishes.
pub(super) fn settle(mapping: &Mapping) {
    if mapping.len() >= HUGE {
        let _ = mapping.prefer_huge_pages();
    }
    let _ = mapping.populate();
}

impl crate::MemoryRegion for MemoryRegion {
    fn as_ptr(&self) -> NonNull<u8> {
        self.base
    }

    fn len(&self) -> usize {
        self.len
    }

    fn local_key(&self) -> u32 {
        self.key
    }

    fn remote_key(&self) -> RemoteKey {
        RemoteKey(self.key)
    }

    fn remote_address(&self) -> u64 {
        self.base.as_ptr() as u64
    }

    fn close(self) -> Result<(), Error> {
        Ok(())
    }
}

impl Drop for MemoryRegion {
    fn drop(&mut self) {
        self.service.device.regions.remove(self.key);
    }
}
