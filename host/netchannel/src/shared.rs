//! What the engines, the helper thread and the applications of a runtime share.

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use netchannel_shared_memory::wake::Wake;
use netchannel_units::{Claim, Class, Duration, GroupId};
use netchannel_wire::control::ChannelMessage;

use crate::application::{Application, ApplicationId};
use crate::cell::Cell;
use crate::engine::StreamKey;
use crate::engine::budget::PortBudget;
use crate::error::Error;
use crate::listener::Backlog;
use crate::port::EnginePort;
use crate::ready::{EngineList, Watch};

/// A counter that one thread at a time adds to and anybody reads.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    /// Not a read-modify-write: the owner of the engine is the only writer.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed) + n, Ordering::Relaxed);
    }

    /// For counters that several threads write.
    pub(crate) fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes off what was added.
    pub(crate) fn sub(&self, n: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).saturating_sub(n), Ordering::Relaxed);
    }

    pub(crate) fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Counters of a runtime that several threads write.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Payload bytes that applications' threads copied.
    pub(crate) application_copied: Counter,
    /// Times that a thread of the runtime returned from sleep.
    pub(crate) wakeups: Counter,
}

/// Counters of one engine, written by who drives it.
#[derive(Debug, Default)]
pub(crate) struct EngineCounters {
    /// Poll passes.
    pub(crate) polls: Counter,
    /// Applications' threads that were woken.
    pub(crate) woken: Counter,
    /// Streams and sessions on it now.
    pub(crate) streams: Counter,
    pub(crate) sessions: Counter,
    /// Payload bytes that the engine's processor copied.
    pub(crate) engine_copied: Counter,
    /// Payload bytes that posting moved (providers that move bytes while posting).
    pub(crate) moved_by_posting: Counter,
    pub(crate) placed_bytes: Counter,
    pub(crate) placed_out_of_order: Counter,
    pub(crate) refused: Counter,
    /// Queue pairs that died and were fenced.
    pub(crate) failovers: Counter,
    /// Stream bytes that died with them and were sent again.
    pub(crate) replayed_bytes: Counter,
}

/// Gaps that are remembered.
const MAX_GAPS: usize = 1_024;

/// The newest gaps in the arrival of bytes that dead Channels left.
#[derive(Debug, Default)]
pub(crate) struct Gaps(Mutex<VecDeque<Duration>>);

impl Gaps {
    pub(crate) fn add(&self, gap: Duration) {
        let mut gaps = lock(&self.0);
        if gaps.len() == MAX_GAPS {
            gaps.pop_front();
        }
        gaps.push_back(gap);
    }

    pub(crate) fn list(&self) -> Vec<Duration> {
        lock(&self.0).iter().copied().collect()
    }
}

/// What happens to streams beside reading and writing: rare, so a lock will do.
#[derive(Debug)]
pub(crate) enum Command {
    /// A thread's new port. Boxed: others come by the thousand.
    Port(Box<EnginePort>),
    /// The application wrote its last byte.
    Finish(StreamKey),
    /// The application gives up sending.
    Reset(StreamKey, u32),
    /// The application reads no more.
    Stop(StreamKey, u32),
    /// The application wants to hear of a stream.
    Watch(Watch),
    /// A ready list. Boxed as ports are.
    List(Box<EngineList>),
    /// The ready list of this number is gone.
    Unlist(u32),
    /// The application has let go; the cell comes back when the stream is gone.
    Release(StreamKey),
}

impl Command {
    /// The stream that it is for.
    pub(crate) fn stream(&self) -> Option<StreamKey> {
        match *self {
            Self::Port(_) | Self::List(_) | Self::Unlist(_) => None,
            Self::Watch(ref watch) => Some(watch.stream),
            Self::Finish(key) | Self::Reset(key, _) | Self::Stop(key, _) | Self::Release(key) => {
                Some(key)
            }
        }
    }
}

/// Commands on their way to the engine.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    commands: Mutex<Vec<(ApplicationId, Command)>>,
    any: AtomicBool,
}

/// A lock whose holders cannot leave broken state behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inbox {
    /// From the own process.
    pub(crate) fn push(&self, command: Command) {
        self.push_from(ApplicationId::LOCAL, command);
    }

    pub(crate) fn push_from(&self, application: ApplicationId, command: Command) {
        lock(&self.commands).push((application, command));
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn has_any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    pub(crate) fn take(&self) -> Vec<(ApplicationId, Command)> {
        self.any.store(false, Ordering::Release);
        std::mem::take(&mut lock(&self.commands))
    }
}

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
        })
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

/// What one engine shares with the helper thread and the applications.
pub(crate) struct GroupShared {
    pub(crate) id: GroupId,
    /// Class of its Channels.
    pub(crate) class: Class,
    pub(crate) runtime: Arc<Shared>,
    pub(crate) counters: EngineCounters,
    pub(crate) inbox: Inbox,
    /// Slabs of receive windows that sessions want.
    pub(crate) slab_demand: Mutex<Vec<SlabDemand>>,
    /// Sessions (their slots) that want queue pairs in place of dead ones.
    pub(crate) renewals: Mutex<Vec<u32>>,
}

impl GroupShared {
    pub(crate) fn new(id: GroupId, class: Class, runtime: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            id,
            class,
            runtime,
            counters: EngineCounters::default(),
            inbox: Inbox::default(),
            slab_demand: Mutex::default(),
            renewals: Mutex::default(),
        })
    }
}

/// Shared state of a runtime.
pub(crate) struct Shared {
    /// The own process, as an application.
    pub(crate) local: Arc<Application>,
    pub(crate) counters: Counters,
    /// Listeners by service.
    pub(crate) listeners: Mutex<HashMap<u16, Arc<Backlog>>>,
    /// Wake those who serve applications of other processes.
    pub(crate) servers: Mutex<Vec<Arc<Wake>>>,
    /// The number of the next of those.
    pub(crate) next_application: AtomicU32,
    /// Memory that nobody needs any more, for the helper thread to drop: to give back registered
    /// memory takes system calls.
    discarded: Mutex<Vec<Box<dyn Any + Send>>>,
    pub(crate) gaps: Gaps,
    /// Set when the helper thread has something to do for an engine.
    helper_wanted: AtomicBool,
    next_session: AtomicU32,
    pub(crate) helper_wake: Wake,
    /// The bulk budget of the port; none where there is nothing to bound.
    pub(crate) budget: OnceLock<PortBudget>,
}

impl Shared {
    pub(crate) fn new() -> Result<Self, Error> {
        let helper_wake =
            Wake::new().map_err(Error::shared_memory("making the helper thread's wake-up"))?;
        Ok(Self {
            helper_wake,
            budget: OnceLock::new(),
            local: Application::local(),
            counters: Counters::default(),
            listeners: Mutex::default(),
            servers: Mutex::default(),
            next_application: AtomicU32::new(1),
            discarded: Mutex::default(),
            gaps: Gaps::default(),
            helper_wanted: AtomicBool::new(false),
            next_session: AtomicU32::new(0),
        })
    }

    /// A number for a session.
    pub(crate) fn next_session(&self) -> u32 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Asks the helper thread to look at what the engine left for it.
    pub(crate) fn ask_helper(&self) {
        if !self.helper_wanted.swap(true, Ordering::AcqRel)
            && let Err(error) = self.helper_wake.notify()
        {
            tracing::warn!(%error, "cannot wake the helper thread");
        }
    }

    /// Leaves memory to the helper thread.
    pub(crate) fn discard(&self, memory: Box<dyn Any + Send>) {
        lock(&self.discarded).push(memory);
        self.ask_helper();
    }

    /// Drops what was left to the helper thread.
    pub(crate) fn drop_discarded(&self) {
        let discarded = std::mem::take(&mut *lock(&self.discarded));
        drop(discarded);
    }

    /// The helper looks now; returns whether anybody asked.
    pub(crate) fn helper_looks(&self) -> bool {
        self.helper_wanted.swap(false, Ordering::AcqRel)
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
