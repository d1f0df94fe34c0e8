//! What an engine keeps for each application: its cells, its send buffers, and how many streams it
//! has. Nothing of one is ever given to another.

use std::any::Any;
use std::sync::Arc;

use netchannel_units::{Duration, Timestamp};
use netchannel_verbs::Context;

use crate::boundary::application::{Application, ApplicationId};
use crate::boundary::cell::{Cell, CellBlocks};
use crate::engine::buffers::SendBuffers;
use crate::engine::stream::EngineStream;
use crate::error::Error;

/// How often to look whether an application that is gone may leave: its last completions are due
/// within a round trip or two.
const FAREWELL: Duration = Duration::from_millis(1);

/// What one application has of an engine.
pub(super) struct Tenant<C: Context> {
    pub(super) application: Arc<Application>,
    cells: CellBlocks,
    buffers: SendBuffers<C>,
    /// Streams that hold a cell.
    streams: usize,
    /// Its process is gone: it leaves with its last stream.
    gone: bool,
}

/// All applications of an engine; the first is the engine's own process.
pub(super) struct Tenants<C: Context> {
    context: C,
    list: Vec<Tenant<C>>,
}

impl<C: Context> Tenants<C> {
    pub(super) fn new(context: C, local: Arc<Application>) -> Self {
        let mut tenants = Self { context, list: Vec::new() };
        tenants.add(local);
        tenants
    }

    pub(super) fn add(&mut self, application: Arc<Application>) {
        self.list.push(Tenant {
            cells: CellBlocks::new(Arc::clone(&application)),
            buffers: SendBuffers::new(self.context.clone(), Arc::clone(&application)),
            application,
            streams: 0,
            gone: false,
        });
    }

    fn find(&mut self, id: ApplicationId) -> Option<&mut Tenant<C>> {
        self.list.iter_mut().find(|tenant| tenant.application.id == id)
    }

    /// The shared part of an application that is here.
    pub(super) fn application(&mut self, id: ApplicationId) -> Option<&Arc<Application>> {
        self.find(id).map(|tenant| &tenant.application)
    }

    pub(super) fn buffers_of(&self, id: ApplicationId) -> Option<&SendBuffers<C>> {
        let tenant = self.list.iter().find(|tenant| tenant.application.id == id);
        tenant.map(|tenant| &tenant.buffers)
    }

    pub(super) fn buffers(&mut self, id: ApplicationId) -> Option<&mut SendBuffers<C>> {
        self.find(id).map(|tenant| &mut tenant.buffers)
    }

    /// A zeroed cell for a new stream of an application.
    pub(super) fn take_cell(&mut self, id: ApplicationId) -> Result<Cell, Error> {
        let tenant = self.find(id).filter(|tenant| !tenant.gone).ok_or(Error::Closed)?;
        if tenant.streams >= tenant.application.limits.streams {
            return Err(Error::NoMemory { what: "streams of this application" });
        }
        let cell = tenant.cells.take()?;
        tenant.streams += 1;
        Ok(cell)
    }

    /// Takes back a cell that no stream got.
    pub(super) fn give_cell(&mut self, id: ApplicationId, cell: Cell) {
        if let Some(tenant) = self.find(id) {
            tenant.cells.give(cell);
            tenant.streams -= 1;
        }
    }

    /// Takes back what a stream that is over had.
    pub(super) fn settle(&mut self, stream: EngineStream) {
        let Some(tenant) = self.find(stream.application) else { return };
        if let Some(buffer) = stream.buffer {
            tenant.buffers.release(buffer);
        }
        self.give_cell(stream.application, stream.cell);
    }

    /// The process of an application is gone.
    pub(super) fn end(&mut self, id: ApplicationId) {
        if let Some(tenant) = self.find(id) {
            tenant.gone = true;
        }
    }

    /// Whether an application's process is there.
    pub(super) fn is_here(&mut self, id: ApplicationId) -> bool {
        self.find(id).is_some_and(|tenant| !tenant.gone)
    }

    /// Whether the processes of some are gone that have not left.
    pub(super) fn has_gone(&self) -> bool {
        self.list.iter().any(|tenant| tenant.gone)
    }

    /// A slab of send buffers that nobody has needed for long, as
    /// [`SendBuffers::take_spare`] says.
    pub(super) fn take_spare(
        &mut self,
        now: Timestamp,
        posted: impl Fn() -> bool,
    ) -> Option<Box<dyn Any + Send>> {
        self.list.iter_mut().find_map(|tenant| tenant.buffers.take_spare(now, &posted))
    }

    /// When to look for memory to give up.
    pub(super) fn next_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        let leaver = |tenant: &Tenant<C>| tenant.gone && tenant.streams == 0;
        let gone = self.list.iter().any(leaver).then_some(now + FAREWELL);
        let spare = self.list.iter().filter_map(|tenant| tenant.buffers.next_timeout());
        spare.chain(gone).min()
    }

    /// Applications whose processes are gone and that have not left.
    pub(super) fn gone(&self) -> Vec<ApplicationId> {
        let gone = self.list.iter().filter(|tenant| tenant.gone);
        gone.map(|tenant| tenant.application.id).collect()
    }

    /// What the applications leave behind that are gone and whose last stream is, too, unless
    /// something else holds them: to be dropped where time does not matter.
    pub(super) fn take_leavers(&mut self, stays: impl Fn(ApplicationId) -> bool) -> Vec<Tenant<C>> {
        let leaves = |tenant: &mut Tenant<C>| {
            tenant.gone && tenant.streams == 0 && !stays(tenant.application.id)
        };
        self.list.extract_if(1.., leaves).collect()
    }
}
