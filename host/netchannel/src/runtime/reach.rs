//! What streams ask of their engine. They know nothing beyond this, so that it does not matter to
//! them who drives the engine and in which process.

use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;

use netchannel_units::{GroupId, Timestamp};

use crate::application::ApplicationId;
use crate::attach::attachment::Attachment;
use crate::engine::StreamKey;
use crate::error::Error;
use crate::port::Doorbell;
use crate::ready::{ApplicationList, EngineList};
use crate::runtime::group::Group;
use crate::runtime::{Keeper, Waitable, Waited, now};
use crate::shared::{Command, StreamSeed, lock};
use crate::signal::Signal;
use crate::stream::StreamInfo;

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

    /// As [`ring`](Self::ring), for what the engine's next pass may take along.
    pub(crate) fn ring_soon(&self, doorbell: Doorbell) -> Result<(), Error> {
        match self {
            Self::Here(keeper) => keeper.ring_soon(doorbell),
            Self::There(attachment) => attachment.ring(doorbell, false),
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
    /// returns how many bytes were taken. If `patient` it waits some microseconds for the peer.
    pub(crate) fn write_direct(
        &self,
        stream: StreamKey,
        bytes: &[u8],
        patient: bool,
    ) -> Option<usize> {
        match self {
            Self::Here(keeper) => keeper.write_direct(stream, bytes, patient),
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

impl Keeper {
    /// Where a stream lives.
    fn home(&self, stream: StreamKey) -> &Group {
        self.inner.group(stream.group())
    }

    /// Puts a doorbell into the ring of the stream's engine. False if the ring is full.
    fn ring_bell(self: &Arc<Self>, doorbell: Doorbell) -> Result<bool, Error> {
        self.with_port_at(doorbell.stream.group(), |port| port.ring(doorbell))
    }

    /// Tells the engine to look at a stream's cell: at once, if this thread may drive it.
    fn ring(self: &Arc<Self>, doorbell: Doorbell) -> Result<(), Error> {
        let group = self.home(doorbell.stream);
        if let Some(mut engine) = group.try_drive() {
            engine.doorbell(doorbell);
            engine.poll(now());
            group.let_go(engine);
            return Ok(());
        }
        while !self.ring_bell(doorbell)? {
            // Full: somebody has to take what is in it.
            self.inner.with_engine(group, |_| ());
        }
        if !self.inner.wake_driver(group) {
            // Whoever drives takes it in its next pass; if this one was its last, it is ours.
            self.inner.with_engine(group, |_| ());
        }
        Ok(())
    }

    /// As [`ring`](Self::ring), for what the engine's next pass may take along.
    fn ring_soon(self: &Arc<Self>, doorbell: Doorbell) -> Result<(), Error> {
        match self.ring_bell(doorbell)? {
            true => Ok(()),
            false => self.ring(doorbell),
        }
    }

    /// One pass of every engine that is for applications' threads to drive and that nobody does.
    pub(crate) fn drive_all(&self) {
        self.inner.groups.iter().for_each(|group| self.drive_group(group.id()));
    }

    /// The same of a group's engine.
    fn drive_group(&self, group: GroupId) {
        let group = self.inner.group(group);
        if let Some(mut engine) = group.try_drive() {
            engine.poll(now());
            group.let_go(engine);
        }
    }

    /// Writes straight from the caller's buffer, if the device can and this thread may drive:
    /// returns how many bytes were taken. If `patient` it waits some microseconds for the peer.
    fn write_direct(&self, stream: StreamKey, bytes: &[u8], patient: bool) -> Option<usize> {
        if !self.inner.device.moves_bytes_while_posting() {
            return None;
        }
        let group = self.home(stream);
        let mut engine = group.try_drive()?;
        // SAFETY: the slice is valid for reads during the call.
        let taken =
            unsafe { engine.write_direct(&now, stream, bytes.as_ptr(), bytes.len(), patient) };
        group.let_go(engine);
        taken
    }

    /// How a stream travels.
    fn info(&self, seed: &StreamSeed) -> StreamInfo {
        let inner = &self.inner;
        StreamInfo {
            peer: seed.session.peer,
            device: inner.device.name.clone(),
            provider: inner.device.provider,
            channels: seed.channels(),
            class: seed.claim.class,
            weight: seed.claim.weight,
            policy: inner.config.policy,
            reason: inner.reason.clone(),
        }
    }
}
