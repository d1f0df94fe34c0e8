//! Memory that the engine passes to an application.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use netchannel_shared_memory::memory::{Mapping, SharedMemory};

use crate::boundary::application::ATTACHED_REGIONS;
use crate::boundary::cell::{Cell, flags};
use crate::boundary::region::{RegionId, Regions, unpack};
use crate::error::Error;
use crate::sync::lock;

/// What is mapped, and as what.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) regions: Regions,
    mappings: Mutex<BTreeMap<u32, Arc<Mapping>>>,
    /// Cells that were handed out, by place: who is told when the engine is gone.
    cells: Mutex<BTreeMap<u64, Cell>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        let regions = Regions::new(ATTACHED_REGIONS);
        Self { regions, mappings: Mutex::default(), cells: Mutex::default() }
    }

    /// Maps a region. One that is mapped already stays where it is: two threads may have asked for it at
    /// the same time, and the first uses it by now.
    pub(super) fn add(
        &self,
        number: u32,
        len: u64,
        writable: bool,
        fd: OwnedFd,
    ) -> Result<(), Error> {
        let what = "mapping the engine's memory";
        let mut mappings = lock(&self.mappings);
        if mappings.contains_key(&number) {
            return Ok(());
        }
        let memory = SharedMemory::from_fd(fd, len as usize).map_err(Error::shared_memory(what))?;
        let mapping = if writable { memory.map() } else { memory.map_read_only() };
        let mapping = mapping.map_err(Error::shared_memory(what))?;
        let base = mapping.as_ptr();
        mappings.insert(number, Arc::new(mapping));
        self.regions.insert(RegionId(number), base);
        Ok(())
    }

    /// Unmaps a region, in which no stream has bytes any more.
    pub(super) fn forget(&self, number: u32) {
        self.regions.remove(RegionId(number));
        drop(lock(&self.mappings).remove(&number));
    }

    /// The cell of a new stream.
    pub(super) fn cell(&self, place: u64) -> Option<Cell> {
        let (region, offset) = unpack(place)?;
        let mapping = lock(&self.mappings).get(&region.0).cloned()?;
        let cell = Cell::at(&mapping, offset as usize, place)?;
        lock(&self.cells).insert(place, cell.clone());
        Some(cell)
    }

    /// The stream of this cell was let go.
    pub(super) fn drop_cell(&self, place: u64) {
        lock(&self.cells).remove(&place);
    }

    /// The engine is gone, and with it every stream.
    pub(super) fn end_streams(&self) {
        for cell in lock(&self.cells).values() {
            let word = &cell.state().engine.flags;
            word.fetch_or(flags::DEAD, std::sync::atomic::Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boundary::region::place;

    #[test]
    fn memory_that_comes_twice_stays_where_it_is() {
        let shared = SharedMemory::create("netchannel-test", 4_096).unwrap();
        let memory = Memory::new();
        let add = || {
            let fd = shared.fd().try_clone_to_owned().unwrap();
            memory.add(7, 4_096, true, fd).unwrap();
            memory.regions.resolve(place(RegionId(7), 0)).unwrap()
        };
        let first = add();
        assert_eq!(add(), first);
        memory.forget(7);
        assert!(memory.regions.resolve(place(RegionId(7), 0)).is_none());
    }
}
