//! What streams ask of their engine. They know nothing beyond this, so that it does not matter to
//! them who drives the engine and in which process.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;

use netchannel_units::{GroupId, Timestamp};

use crate::attach::attachment::Attachment;
use crate::boundary::StreamKey;
use crate::boundary::application::ApplicationId;
use crate::boundary::port::{Doorbell, What};
use crate::boundary::ready::{ApplicationList, EngineList};
use crate::boundary::signal::Signal;
use crate::engine::Loan;
use crate::error::Error;
use crate::info::StreamInfo;
use crate::local::Keeper;
use crate::shared::{Command, StreamSeed};
use crate::sync::lock;
use crate::wait::{Waitable, Waited};

/// Bytes.
const PAGE: usize = 4 << 10;
/// Some microseconds of copying, a fraction of the delay that bulk bytes may cause at a port.
const SHORT_COPY: u64 = 64 << 10;

/// An engine, in this process or in another.
#[derive(Clone)]
pub(crate) enum Reach {
    /// In this one.
    Here(Arc<Keeper>),
    /// In another.
    There(Arc<Attachment>),
}

impl Reach {
    /// Gives the command to the stream's engine and sees to it that it is taken.
    pub(crate) fn submit(&self, command: Command) {
        match self {
            Self::Here(keeper) => keeper.inner.submit(command),
            Self::There(attachment) => attachment.submit(command),
        }
    }

    /// The application has let go of a stream.
    pub(crate) fn release(&self, seed: &StreamSeed) {
        match self {
            Self::Here(keeper) => keeper.inner.submit(Command::Release(seed.key)),
            Self::There(attachment) => attachment.release(seed),
        }
    }

    /// Tells the engine to look at a stream's cell: at once, if this thread may drive it.
    pub(crate) fn ring(&self, doorbell: Doorbell) -> Result<(), Error> {
        match self {
            Self::Here(keeper) => keeper.ring(doorbell),
            Self::There(attachment) => attachment.ring(doorbell, true),
        }
    }

    /// A little was read: the engine's next pass may take that along.
    pub(crate) fn note_read(&self, stream: StreamKey) -> Result<(), Error> {
        match self {
            Self::Here(keeper) => keeper.note_read(stream),
            Self::There(attachment) => {
                attachment.ring(Doorbell { stream, what: What::Consumed }, false)
            }
        }
    }

    /// As [`ring`](Self::ring), for bytes that had better wait for more: they leave with them, or when somebody
    /// waits, or the helper comes by.
    pub(crate) fn ring_later(&self, doorbell: Doorbell) -> Result<(), Error> {
        match self {
            Self::Here(keeper) => keeper.ring_later(doorbell),
            Self::There(attachment) => attachment.ring(doorbell, true),
        }
    }

    /// Bytes that a throughput stream's writes gather while earlier ones are unconfirmed; zero: none.
    pub(crate) fn gathered(&self, stream: StreamKey) -> u64 {
        match self {
            Self::Here(keeper) if keeper.inner.group(stream.group()).is_inline() => {
                keeper.inner.gathered
            }
            Self::Here(_) | Self::There(_) => 0,
        }
    }

    /// One pass of a stream's engine, if it is for applications' threads to drive and nobody does.
    pub(crate) fn drive(&self, stream: StreamKey) {
        self.drive_group(stream.group());
    }

    /// One pass of every engine, on the same condition.
    pub(crate) fn drive_all(&self) {
        if let Self::Here(keeper) = self {
            keeper.drive_all();
        }
    }

    /// Writes straight from the caller's buffer, if the device can and this thread may drive:
    /// returns how many bytes were taken.
    pub(crate) fn write_direct(&self, loan: Loan<'_>) -> Option<usize> {
        match self {
            Self::Here(keeper) => keeper.write_direct(loan),
            Self::There(_) => None,
        }
    }

    /// The address of a place that stands in a cell.
    pub(crate) fn resolve(&self, place: u64) -> Option<NonNull<u8>> {
        match self {
            Self::Here(keeper) => keeper.inner.shared.local.regions.resolve(place),
            Self::There(attachment) => attachment.resolve(place),
        }
    }

    /// Bytes of the largest receive window and send buffer.
    pub(crate) fn largest_window(&self) -> usize {
        match self {
            Self::Here(keeper) => keeper.inner.config.window,
            Self::There(attachment) => attachment.largest_window(),
        }
    }

    /// Bytes that an application's thread should copy in one go at most: the polling core may have
    /// to wait for its processor meanwhile.
    pub(crate) fn longest_copy(&self) -> u64 {
        match self {
            Self::Here(keeper) if keeper.inner.delays_by_copying() => SHORT_COPY,
            Self::Here(_) | Self::There(_) => u64::MAX,
        }
    }

    /// Bytes for one call of the C library's `memcpy`. It copies long pieces by one string instruction, which a
    /// processor in software executes byte by byte, ten times as slowly as the loop that it takes for a page.
    /// SoftRoCE is found on such processors first of all; elsewhere the calls are nothing beside its packets.
    pub(crate) fn copied_at_once(&self) -> usize {
        match self {
            Self::Here(keeper) if keeper.inner.device.is_played_by_kernel() => PAGE,
            Self::Here(_) | Self::There(_) => usize::MAX,
        }
    }

    /// Counts payload bytes that the application's thread copied.
    pub(crate) fn note_copied(&self, bytes: usize) {
        match self {
            Self::Here(keeper) => {
                keeper.inner.shared.counters.application_copied.add_shared(bytes as u64);
            }
            Self::There(attachment) => attachment.note_copied(bytes),
        }
    }

    /// Waits until `what` is ready, at most until `deadline`.
    pub(crate) fn wait(
        &self,
        what: &dyn Waitable,
        deadline: Option<Timestamp>,
    ) -> Result<Waited, Error> {
        match self {
            Self::Here(keeper) => keeper.wait(what, deadline),
            Self::There(attachment) => attachment.wait(what, deadline),
        }
    }

    /// Why the session of a stream is over.
    pub(crate) fn session_error(&self, seed: &StreamSeed) -> Error {
        match self {
            Self::Here(_) => seed.session.error(),
            Self::There(attachment) => attachment.session_error(seed),
        }
    }

    /// Whether the engine was another process's and has ended.
    #[inline]
    pub(crate) fn is_gone(&self) -> bool {
        match self {
            Self::Here(_) => false,
            Self::There(attachment) => attachment.is_over(),
        }
    }

    /// Why no more streams come.
    pub(crate) fn closed(&self) -> Error {
        match self {
            Self::Here(_) => Error::Closed,
            Self::There(attachment) => attachment.error(),
        }
    }

    /// Whether both are the same runtime's.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Here(one), Self::Here(other)) => Arc::ptr_eq(one, other),
            (Self::There(one), Self::There(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }

    /// A descriptor to tell of a stream by.
    pub(crate) fn make_signal(&self, stream: StreamKey) -> Result<Arc<Signal>, Error> {
        match self {
            Self::Here(_) => Signal::new()
                .map(Arc::new)
                .map_err(Error::shared_memory("making a descriptor to wait on")),
            Self::There(attachment) => attachment.make_signal(stream),
        }
    }

    /// A number for a ready list.
    pub(crate) fn take_list(&self) -> Result<u32, Error> {
        match self {
            Self::Here(keeper) => keeper.inner.take_list_number(),
            Self::There(attachment) => attachment.take_list(),
        }
    }

    /// The ready list's end of a ring from a group.
    pub(crate) fn list_ring(&self, list: u32, group: GroupId) -> Result<ApplicationList, Error> {
        match self {
            Self::Here(keeper) => {
                let (end, memory) = EngineList::new(list, ApplicationId::LOCAL)?;
                keeper.inner.add_list(group, end);
                ApplicationList::new(&memory)
            }
            Self::There(attachment) => attachment.list_ring(list, group),
        }
    }

    /// A ready list is gone that had rings from these groups.
    pub(crate) fn drop_list(&self, list: u32, groups: impl Iterator<Item = GroupId>) {
        match self {
            Self::Here(keeper) => {
                for group in groups {
                    keeper.inner.remove_list(ApplicationId::LOCAL, list, group);
                }
                keeper.inner.give_list_number(list);
            }
            Self::There(attachment) => attachment.drop_list(list),
        }
    }

    /// Sees to it that a group's engine knows this thread, to wake it.
    pub(crate) fn meet(&self, group: GroupId) -> Result<(), Error> {
        match self {
            Self::Here(keeper) => keeper.with_port_at(group, |_| ()),
            Self::There(attachment) => attachment.meet_group(group),
        }
    }

    /// One pass of a group's engine, if it is for applications' threads to drive and nobody does.
    pub(crate) fn drive_group(&self, group: GroupId) {
        if let Self::Here(keeper) = self {
            keeper.drive_group(group);
        }
    }

    /// Takes no more streams at an address.
    pub(crate) fn unlisten(&self, address: SocketAddr) {
        match self {
            Self::Here(keeper) => {
                lock(&keeper.inner.shared.listeners).remove(&address.port());
                keeper.inner.stop_listening(address);
            }
            Self::There(attachment) => attachment.unlisten(address),
        }
    }

    /// How a stream travels.
    pub(crate) fn info(&self, seed: &StreamSeed) -> StreamInfo {
        match self {
            Self::Here(keeper) => keeper.info(seed),
            Self::There(attachment) => attachment.info(seed),
        }
    }
}
