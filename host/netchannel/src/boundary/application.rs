//! Applications: processes whose streams an engine carries. Number 0 is the engine's own process;
//! the others are attached to it over a socket and trusted with nothing but their own memory.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use netchannel_shared_memory::wake::Wake;
pub(crate) use netchannel_vns::ApplicationId;

use crate::boundary::region::{RegionId, Regions};
use crate::error::Error;
use crate::sync::lock;

/// Most regions of the own process at once. Slabs are 2 MiB, so this is 32 GiB of windows.
const LOCAL_REGIONS: usize = 16_384;
/// Most regions of an attached application at once: 2 GiB.
pub(crate) const ATTACHED_REGIONS: usize = 1_024;

/// What an application may have, in each engine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// Streams that it has not let go.
    pub(crate) streams: usize,
    /// Slabs of send buffers.
    pub(crate) send_slabs: usize,
}

impl Limits {
    const LOCAL: Self = Self { streams: usize::MAX, send_slabs: usize::MAX };
    /// 64 MiB of bytes that peers have not confirmed: the bandwidth-delay product of 400 Gb/s and a
    /// millisecond, with room.
    const ATTACHED: Self = Self { streams: 65_536, send_slabs: 32 };
}

/// Memory as another process may have it.
#[derive(Debug)]
pub(crate) struct Export {
    pub(crate) fd: OwnedFd,
    pub(crate) len: usize,
    pub(crate) writable: bool,
}

/// What is said about regions to an application of another process.
#[derive(Debug)]
struct Exports {
    table: Mutex<BTreeMap<u32, Arc<Export>>>,
    /// Regions that are gone, and of which it does not know that yet.
    forgotten: Mutex<Vec<u32>>,
    /// Wakes who talks to the application.
    wake: Arc<Wake>,
}

/// An application, as the engines and who talks to it share it.
#[derive(Debug)]
pub(crate) struct Application {
    pub(crate) id: ApplicationId,
    /// Where its memory is mapped in the engine's process.
    pub(crate) regions: Regions,
    pub(crate) limits: Limits,
    exports: Option<Exports>,
}

impl Application {
    /// The engine's own process.
    pub(crate) fn local() -> Arc<Self> {
        Arc::new(Self {
            id: ApplicationId::LOCAL,
            regions: Regions::new(LOCAL_REGIONS),
            limits: Limits::LOCAL,
            exports: None,
        })
    }

    /// An application of another process; `wake` makes somebody tell it of regions that are gone.
    pub(crate) fn attached(id: ApplicationId, wake: Arc<Wake>) -> Arc<Self> {
        let exports = Exports { table: Mutex::default(), forgotten: Mutex::default(), wake };
        Arc::new(Self {
            id,
            regions: Regions::new(ATTACHED_REGIONS),
            limits: Limits::ATTACHED,
            exports: Some(exports),
        })
    }

    /// Whether its memory must be mapped by another process, too.
    pub(crate) fn is_attached(&self) -> bool {
        self.exports.is_some()
    }

    /// Gives a number to its memory at `base`; `export` is what its process may have of it.
    pub(crate) fn add_region(
        &self,
        base: NonNull<u8>,
        export: impl FnOnce() -> Result<Export, Error>,
    ) -> Result<RegionId, Error> {
        let export = self.exports.is_some().then(export).transpose()?;
        let region =
            self.regions.add(base).ok_or(Error::NoMemory { what: "numbers of memory regions" })?;
        if let (Some(exports), Some(export)) = (&self.exports, export) {
            lock(&exports.table).insert(region.0, Arc::new(export));
        }
        Ok(region)
    }

    /// Its memory of this number is gone; no stream of it has bytes there any more.
    pub(crate) fn remove_region(&self, region: RegionId) {
        self.regions.remove(region);
        let Some(exports) = &self.exports else { return };
        if lock(&exports.table).remove(&region.0).is_some() {
            lock(&exports.forgotten).push(region.0);
            if let Err(error) = exports.wake.notify() {
                tracing::warn!(%error, "cannot wake the attach server");
            }
        }
    }

    /// What its process may have of a region.
    pub(crate) fn export(&self, region: u32) -> Option<Arc<Export>> {
        lock(&self.exports.as_ref()?.table).get(&region).cloned()
    }

    /// Regions that are gone since the last call.
    pub(crate) fn take_forgotten(&self) -> Vec<u32> {
        let forgotten = self.exports.as_ref().map(|exports| &exports.forgotten);
        forgotten.map(|forgotten| std::mem::take(&mut *lock(forgotten))).unwrap_or_default()
    }
}
