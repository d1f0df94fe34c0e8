//! Which streams of a session have send buffers: who wants one gets it, from those that have had no
//! use for theirs for a while if need be.

use std::sync::atomic::Ordering;

use netchannel_units::{Duration, StreamOffset, Timestamp};
use netchannel_verbs::Context;
use netchannel_wire::StreamId;

use crate::boundary::application::ApplicationId;
use crate::boundary::cell::{CellState, buffer};
use crate::engine::session::Session;
use crate::engine::tenants::Tenants;

/// A send buffer whose bytes are all confirmed is taken back after this long.
const IDLE_BUFFER: Duration = Duration::from_millis(100);

/// One that has held nothing for this long goes to the next stream that wants one, so that many
/// streams that write once in turn touch few pages.
const LENT_AFTER: Duration = Duration::from_millis(5);
/// Idle streams that are looked at for one send buffer.
const RECLAIM_ATTEMPTS: usize = 8;
/// Entries that an empty queue of idle buffers has room for.
const IDLE_CAPACITY: usize = 64;

/// Takes the send buffer away from the application. False if that uses it at the moment.
fn withdraw(state: &CellState) -> bool {
    state
        .application
        .buffer_state
        .compare_exchange(buffer::IDLE, buffer::NONE, Ordering::AcqRel, Ordering::Relaxed)
        .is_ok()
}

impl<C: Context> Session<C> {
    /// Leases a send buffer, or a larger one if the old one is empty.
    pub(super) fn supply_buffer(
        &mut self,
        now: Timestamp,
        id: StreamId,
        bytes: u64,
        tenants: &mut Tenants<C>,
    ) {
        let Some(entry) = self.table.get_mut(id.0) else { return };
        let Some(buffers) = tenants.buffers(entry.application) else { return };
        let Some(half) = self.streams.send_half(id) else { return };
        if let Some(old) = &entry.buffer {
            let state = &entry.cell.state().application.buffer_state;
            let wanted = state.load(Ordering::Acquire) == buffer::WANTED;
            if half.confirmed() < half.tail() || old.size() >= bytes {
                if wanted {
                    // It may go on with the one it has.
                    state.store(buffer::IDLE, Ordering::Release);
                    self.streams.touch(id);
                }
                return;
            }
            // Who wants another has let go of the old one.
            if !wanted && !withdraw(entry.cell.state()) {
                return;
            }
            entry.buffer.take().into_iter().for_each(|old| buffers.release(old));
        }
        let application = entry.application;
        self.reclaim_buffers(now, application, bytes, tenants);
        let Some(buffers) = tenants.buffers(application) else { return };
        let Some(entry) = self.table.get_mut(id.0) else { return };
        let state = entry.cell.state();
        let answer = match buffers.lease(bytes) {
            Ok(new) => {
                state.engine.buffer_place.store(buffers.place(&new), Ordering::Relaxed);
                state.engine.buffer_log2.store(u32::from(new.log2()), Ordering::Relaxed);
                entry.buffer = Some(new);
                buffer::IDLE
            }
            Err(error) => {
                // The application asks again; other buffers come back meanwhile.
                tracing::debug!(%error, "no send buffer");
                buffer::NONE
            }
        };
        state.application.buffer_state.store(answer, Ordering::Release);
        self.streams.touch(id);
    }

    /// Notes that a stream's send buffer holds nothing now.
    pub(crate) fn note_idle_buffer(&mut self, now: Timestamp, id: StreamId) {
        if let Some(entry) = self.table.get_mut(id.0)
            && entry.buffer.is_some()
            && !entry.in_idle_queue
        {
            entry.in_idle_queue = true;
            let tail = self.streams.send_half(id).map_or(StreamOffset::ZERO, |half| half.tail());
            self.idle_buffers.push_back((now + IDLE_BUFFER, id, tail));
        }
    }

    /// Gives back what was idle for long.
    pub(super) fn on_timeout(&mut self, now: Timestamp, tenants: &mut Tenants<C>) {
        if self.streams.next_timeout().is_some_and(|at| at <= now) {
            self.streams.on_timeout(now);
        }
        while let Some(&(at, id, noted)) = self.idle_buffers.front()
            && at <= now
        {
            self.idle_buffers.pop_front();
            let Some(entry) = self.table.get_mut(id.0) else { continue };
            entry.in_idle_queue = false;
            let Some(half) = self.streams.send_half(id) else { continue };
            if half.tail() == noted {
                self.take_buffer_back(id, tenants);
            } else {
                // In use since then.
                self.note_idle_buffer(now, id);
            }
        }
        if self.idle_buffers.is_empty() {
            self.idle_buffers.shrink_to(IDLE_CAPACITY);
        }
    }

    /// Takes the send buffer of a stream that has no byte in it, and forgets what the scheduler
    /// knows of such a stream.
    fn take_buffer_back(&mut self, id: StreamId, tenants: &mut Tenants<C>) {
        let lends = self.borrowed(id).is_some();
        let Some(entry) = self.table.get_mut(id.0) else { return };
        let Some(buffers) = tenants.buffers(entry.application) else { return };
        let Some(half) = self.streams.send_half(id) else { return };
        let state = entry.cell.state();
        // Bytes of which we have not heard yet may lie in it.
        let unseen = || state.application.tail.load(Ordering::Acquire) > half.confirmed().get();
        if lends || half.confirmed() < half.tail() || unseen() || !withdraw(state) {
            return;
        }
        if unseen() {
            // The writer came and went between the two looks.
            state.application.buffer_state.store(buffer::IDLE, Ordering::Release);
            return;
        }
        entry.buffer.take().into_iter().for_each(|old| buffers.release(old));
        self.streams.on_send_idle(id);
        self.scheduler.remove(netchannel_scheduler::StreamKey(u64::from(id.0)));
    }

    /// Takes buffers from streams of an application that have no use for them just now, the longest
    /// idle first, while there is none of `bytes` bytes or they have been idle for a while; gives up
    /// soon if those in front do have a use.
    fn reclaim_buffers(
        &mut self,
        now: Timestamp,
        application: ApplicationId,
        bytes: u64,
        tenants: &mut Tenants<C>,
    ) {
        for _ in 0..RECLAIM_ATTEMPTS {
            let has = tenants.buffers(application).is_none_or(|buffers| buffers.has(bytes));
            let Some(&(at, id, noted)) = self.idle_buffers.front() else { return };
            if has && at > now + (IDLE_BUFFER - LENT_AFTER) {
                return;
            }
            self.idle_buffers.pop_front();
            let Some(entry) = self.table.get_mut(id.0) else { continue };
            entry.in_idle_queue = false;
            let entry_application = entry.application;
            let idle = self.streams.send_half(id).is_some_and(|half| half.tail() == noted);
            if idle || (!has && entry_application == application) {
                self.take_buffer_back(id, tenants);
            }
            self.note_idle_buffer(now, id);
        }
    }
}
