//! What streams ask of their engine. They know nothing beyond this, so that it does not matter to
//! them who drives the engine and in which process.

use std::ptr::NonNull;
use std::sync::Arc;

use crate::engine::StreamKey;
use crate::error::Error;
use crate::port::Doorbell;
use crate::runtime::group::Group;
use crate::runtime::{Keeper, now};
use crate::shared::{Command, SessionPart, StreamSeed};
use crate::stream::StreamInfo;

impl Keeper {
    /// Gives the command to the stream's engine and sees to it that it is taken.
    pub(crate) fn submit(&self, command: Command) {
        self.inner.submit(command);
    }

    /// Where a stream lives.
    fn home(&self, stream: StreamKey) -> &Group {
        self.inner.group(stream.group())
    }

    /// Puts a doorbell into the ring of the stream's engine. False if the ring is full.
    fn ring_bell(self: &Arc<Self>, doorbell: Doorbell) -> Result<bool, Error> {
        self.with_port_at(doorbell.stream.group(), |port| port.ring(doorbell))
    }

    /// Tells the engine to look at a stream's cell: at once, if this thread may drive it.
    pub(crate) fn ring(self: &Arc<Self>, doorbell: Doorbell) -> Result<(), Error> {
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
        match group.is_inline() {
            // Whoever drives takes it in its next pass; if this one was its last, it is ours.
            true => self.inner.with_engine(group, |_| ()),
            false => self.inner.wake_driver(group),
        }
        Ok(())
    }

    /// As [`ring`](Self::ring), for what the engine's next pass may take along.
    pub(crate) fn ring_soon(self: &Arc<Self>, doorbell: Doorbell) -> Result<(), Error> {
        match self.ring_bell(doorbell)? {
            true => Ok(()),
            false => self.ring(doorbell),
        }
    }

    /// One pass of a stream's engine, if it is for applications' threads to drive and nobody does.
    pub(crate) fn drive(&self, stream: StreamKey) {
        let group = self.home(stream);
        if let Some(mut engine) = group.try_drive() {
            engine.poll(now());
            group.let_go(engine);
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

    /// The address of a place that stands in a cell.
    pub(crate) fn resolve(&self, place: u64) -> Option<NonNull<u8>> {
        self.inner.shared.local.regions.resolve(place)
    }

    /// Bytes of the largest receive window and send buffer.
    pub(crate) fn largest_window(&self) -> usize {
        self.inner.config.window
    }

    /// Counts payload bytes that the application's thread copied.
    pub(crate) fn note_copied(&self, bytes: usize) {
        self.inner.shared.counters.application_copied.add_shared(bytes as u64);
    }

    /// Why the session of a stream is over.
    pub(crate) fn session_error(&self, seed: &StreamSeed) -> Error {
        seed.session.error()
    }

    /// How a stream travels.
    pub(crate) fn info(&self, seed: &StreamSeed) -> StreamInfo {
        let inner = &self.inner;
        StreamInfo {
            peer: seed.session.peer,
            device: inner.device.name.clone(),
            provider: inner.device.provider,
            channels: channels_of(seed),
            class: seed.class,
            policy: inner.config.policy,
            reason: inner.reason.clone(),
        }
    }
}

/// Channels of the stream's group of its session.
fn channels_of(seed: &StreamSeed) -> u16 {
    let own =
        |part: &&SessionPart| part.group == seed.key.group() && part.slot == seed.key.session();
    seed.session.parts().iter().find(own).map_or(0, |part| part.channels)
}
