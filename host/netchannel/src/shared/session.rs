//! Sessions and streams as everybody sees them who is not their engine.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use netchannel_units::{Claim, Class, GroupId, Timestamp};
use netchannel_wire::control::ChannelMessage;

use crate::boundary::StreamKey;
use crate::boundary::application::Application;
use crate::boundary::cell::Cell;
use crate::error::Error;
use crate::sync::lock;

/// A session as its streams see it.
#[derive(Debug)]
pub(crate) struct SessionShared {
    /// Number of the session in its runtime.
    pub(crate) number: u32,
    pub(crate) peer: SocketAddr,
    error: Mutex<Option<Error>>,
    /// What engines want to tell the peer over the control connection.
    said: Mutex<Vec<ChannelMessage>>,
    /// Its parts, one for each group that both sides have, in order of precedence.
    parts: OnceLock<Vec<SessionPart>>,
    /// Slabs of receive windows that there are, or are being made, in all parts.
    slabs: AtomicUsize,
    /// When the peer was last heard over the control connection, in nanoseconds.
    heard: AtomicU64,
}

/// The right of a session to a slab of receive windows; it ends with the slab.
#[derive(Debug)]
pub(crate) struct SlabRoom(Arc<SessionShared>);

impl Drop for SlabRoom {
    fn drop(&mut self) {
        self.0.slabs.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A part of a session wants a slab of receive windows.
pub(crate) struct SlabDemand {
    /// The session's place in its engine.
    pub(crate) slot: u32,
    /// For whom.
    pub(crate) application: Arc<Application>,
    pub(crate) room: SlabRoom,
}

/// The part of a session that one engine keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SessionPart {
    /// The engine.
    pub(crate) group: GroupId,
    /// The session's place in it.
    pub(crate) slot: u32,
    pub(crate) class: Class,
    /// Number of its Channels.
    pub(crate) channels: u16,
}

impl SessionShared {
    pub(crate) fn new(number: u32, peer: SocketAddr) -> Arc<Self> {
        Arc::new(Self {
            number,
            peer,
            error: Mutex::default(),
            said: Mutex::default(),
            parts: OnceLock::new(),
            slabs: AtomicUsize::new(0),
            heard: AtomicU64::new(0),
        })
    }

    /// The peer is heard over the control connection.
    pub(crate) fn hear(&self, now: Timestamp) {
        self.heard.store(now.as_nanos(), Ordering::Relaxed);
    }

    /// When it was last.
    pub(crate) fn heard(&self) -> Timestamp {
        Timestamp::from_nanos(self.heard.load(Ordering::Relaxed))
    }

    /// Room for one more slab of receive windows, if all parts together have less than `most`.
    pub(crate) fn slab_room(self: &Arc<Self>, most: usize) -> Option<SlabRoom> {
        let one_more = |slabs: usize| (slabs < most).then_some(slabs + 1);
        let taken = self.slabs.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        taken.is_ok().then(|| SlabRoom(Arc::clone(self)))
    }

    /// The same for what it must have in any case.
    pub(crate) fn first_slab_room(self: &Arc<Self>) -> SlabRoom {
        self.slabs.fetch_add(1, Ordering::Relaxed);
        SlabRoom(Arc::clone(self))
    }

    /// Leaves a message for the peer to the helper thread.
    pub(crate) fn say(&self, message: ChannelMessage) {
        lock(&self.said).push(message);
    }

    /// What is to be told, in order.
    pub(crate) fn take_said(&self) -> Vec<ChannelMessage> {
        std::mem::take(&mut *lock(&self.said))
    }

    /// The session is up.
    pub(crate) fn set_parts(&self, parts: Vec<SessionPart>) {
        let _ = self.parts.set(parts);
    }

    /// Where its parts are; none before it is up.
    pub(crate) fn parts(&self) -> &[SessionPart] {
        self.parts.get().map_or(&[], Vec::as_slice)
    }

    /// Notes why the session is over; the first reason stays.
    pub(crate) fn fail(&self, error: Error) {
        lock(&self.error).get_or_insert(error);
    }

    pub(crate) fn error(&self) -> Error {
        self.failure().unwrap_or(Error::Closed)
    }

    /// Why the session is over, if it is.
    pub(crate) fn failure(&self) -> Option<Error> {
        lock(&self.error).clone()
    }
}

/// A stream that the engine made for an application.
#[derive(Debug, Clone)]
pub(crate) struct StreamSeed {
    pub(crate) key: StreamKey,
    pub(crate) cell: Cell,
    pub(crate) session: Arc<SessionShared>,
    pub(crate) claim: Claim,
}

impl StreamSeed {
    /// Channels of the stream's group of its session.
    pub(crate) fn channels(&self) -> u16 {
        let (group, slot) = (self.key.group(), self.key.session());
        let own = |part: &&SessionPart| part.group == group && part.slot == slot;
        self.session.parts().iter().find(own).map_or(0, |part| part.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_has_room_for_so_many_slabs_over_all_its_parts() {
        let session = SessionShared::new(0, SocketAddr::from(([192, 0, 2, 1], 1)));
        let first = session.first_slab_room();
        let second = session.slab_room(3).unwrap();
        let third = session.slab_room(3).unwrap();
        assert!(session.slab_room(3).is_none());
        // What it must have is not refused, and counts.
        let more = session.first_slab_room();
        drop((first, second));
        let fourth = session.slab_room(3).unwrap();
        assert!(session.slab_room(3).is_none());
        drop((third, more, fourth));
        assert_eq!(session.slabs.load(Ordering::Relaxed), 0);
    }
}
