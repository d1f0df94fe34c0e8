//! Memory for receive windows, in slabs that are leased to sessions.

use std::any::Any;
use std::sync::Arc;

use netchannel_verbs::{Access, Context, MemoryRegion};
use netchannel_vns::pool::SLAB_LOG2;

use crate::boundary::application::{Application, Export};
use crate::boundary::region::RegionId;
use crate::error::Error;
use crate::shared::SlabRoom;

/// A slab of receive windows, leased to this session.
pub(crate) struct WindowSlab<C: Context> {
    pub(crate) id: RegionId,
    /// Whose windows lie in it.
    pub(crate) application: Arc<Application>,
    // Declared late, dropped late: its number is free before its memory goes, and the session has room
    // for another when it has gone.
    pub(crate) region: C::MemoryRegion,
    #[expect(dead_code, reason = "held until it is dropped")]
    pub(crate) room: SlabRoom,
}

impl<C: Context> Drop for WindowSlab<C> {
    fn drop(&mut self) {
        self.application.remove_region(self.id);
    }
}

/// Makes slabs of receive windows off the polling cores.
pub(crate) trait SlabMaker: Send {
    /// A slab for the session that has the room, for [`EngineControl::add_slab`](super::control::EngineControl::add_slab).
    fn make(
        &self,
        application: &Arc<Application>,
        room: SlabRoom,
    ) -> Result<Box<dyn Any + Send>, Error>;
}

impl<C: Context> SlabMaker for C {
    fn make(
        &self,
        application: &Arc<Application>,
        room: SlabRoom,
    ) -> Result<Box<dyn Any + Send>, Error> {
        let (len, access) = (1 << SLAB_LOG2, Access::LOCAL_WRITE | Access::REMOTE_WRITE);
        let (region, fd) = match application.is_attached() {
            false => (self.alloc(len, access)?, None),
            true => self.alloc_shared(len, access).map(|(region, fd)| (region, Some(fd)))?,
        };
        let export = || {
            let fd = fd.ok_or(Error::NoMemory { what: "memory to share" })?;
            Ok(Export { fd, len: region.len(), writable: false })
        };
        let id = application.add_region(region.as_ptr(), export)?;
        Ok(Box::new(WindowSlab::<C> { id, application: Arc::clone(application), region, room }))
    }
}
