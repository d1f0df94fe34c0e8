//! Streams to applications.

use std::sync::atomic::Ordering::{AcqRel, Relaxed, Release};
use std::sync::atomic::{AtomicU32, fence};

use netchannel_verbs::Context;
use netchannel_vns::receive::{ReceiveState, Window};
use netchannel_vns::send::SendState;
use netchannel_wire::StreamId;

use crate::boundary::application::ApplicationId;
use crate::boundary::cell::flags;
use crate::boundary::port::EnginePort;
use crate::boundary::ready::EngineList;
use crate::boundary::region::place;
use crate::engine::Engine;
use crate::engine::session::Session;
use crate::engine::stream::EngineStream;

impl<C: Context> Engine<C> {
    /// Writes the cells of streams that changed, and wakes who waits for them.
    pub(super) fn publish(&mut self, slot: u32) {
        let Some(Some(session)) = self.sessions.get_mut(slot as usize) else { return };
        let mut touched = std::mem::take(&mut self.touched);
        let now = self.last_poll;
        while let Some(id) = session.streams.poll_touched() {
            if session.publish_one(id) {
                session.note_idle_buffer(now, id);
            }
            touched.push(id);
        }
        if !touched.is_empty() {
            // The waker's half of the sleeper protocol: publish, fence, look for sleepers. The
            // sleeper: note itself, fence, look again. One fence for the batch.
            fence(std::sync::atomic::Ordering::SeqCst);
            let mut woken = 0;
            for id in touched.drain(..) {
                if let Some(entry) = session.table.get(id.0) {
                    woken += tell(&self.ports, &mut self.lists, entry);
                }
            }
            self.shared.counters.woken.add(woken);
        }
        self.touched = touched;
        self.collect_closed(slot);
    }
}

/// Tells whoever waits for this stream, or wants to hear of it. After a fence. Returns how many
/// threads it woke.
pub(super) fn tell(
    ports: &[EnginePort],
    lists: &mut [Option<EngineList>],
    stream: &EngineStream,
) -> u64 {
    let mut woken = 0;
    if let Some(watchers) = &stream.watchers {
        watchers.tell(stream.cell.state(), |number, name| {
            let list = lists.get_mut(number as usize).and_then(Option::as_mut);
            if let Some(list) = list.filter(|list| list.application() == stream.application) {
                list.push(name);
                woken += wake(ports, stream.application, list.waiter());
            }
        });
    }
    woken + wake_waiters(ports, stream)
}

/// Wakes the threads that wait for this stream; who writes, when there is as much room as it waits
/// for: every confirmation makes some.
fn wake_waiters(ports: &[EnginePort], stream: &EngineStream) -> u64 {
    let state = stream.cell.state();
    let waiters = &state.application;
    let mut woken = wake(ports, stream.application, &waiters.read_waiter);
    // A thread notes what it waits for, then itself, then looks again after a fence: if this is
    // too early to see the first, that sees what was published.
    if waiters.write_waiter.load(Relaxed) != 0 && state.is_writable() {
        woken += wake(ports, stream.application, &waiters.write_waiter);
    }
    woken
}

fn wake(ports: &[EnginePort], application: ApplicationId, waiter: &AtomicU32) -> u64 {
    if waiter.load(Relaxed) == 0 {
        return 0;
    }
    let number = waiter.swap(0, AcqRel);
    let port = ports.iter().find(|p| p.shared.number == number);
    let Some(port) = port.filter(|port| port.application() == application) else { return 0 };
    if let Err(error) = port.shared.wake.notify() {
        tracing::warn!(%error, "cannot wake an application thread");
    }
    1
}

impl<C: Context> Session<C> {
    /// Writes one cell. True if its send buffer holds nothing.
    fn publish_one(&mut self, id: StreamId) -> bool {
        let Some(entry) = self.table.get_mut(id.0) else { return false };
        let (Some(send), Some(receive)) =
            (self.streams.send_half(id), self.streams.receive_half(id))
        else {
            return false;
        };
        let cell = &entry.cell.state().engine;
        for window in receive.windows() {
            if window.generation > entry.generation {
                entry.generation = window.generation;
                let slab = self.slabs.get(window.lease.slab.0 as usize);
                if let Some(Some(slab)) = slab {
                    publish_window(cell, &window, place(slab.id, window.lease.offset));
                }
            }
        }
        let mut bits = 0;
        if self.streams.is_opened(id) {
            bits |= flags::OPENED;
        }
        match receive.state() {
            ReceiveState::Complete(_) => bits |= flags::FIN,
            ReceiveState::Reset(code) => {
                cell.reset_code.store(code, Relaxed);
                bits |= flags::RESET;
            }
            ReceiveState::Open | ReceiveState::FinalKnown(_) => {}
        }
        if let Some(code) = send.stopped() {
            cell.stop_code.store(code, Relaxed);
            bits |= flags::STOPPED;
        }
        if send.state() == SendState::Finished {
            bits |= flags::FINISHED;
        }
        // Release: who sees these sees the bytes, windows and codes that were written before.
        cell.confirmed.store(send.confirmed().get(), Release);
        cell.readable.store(receive.received().get(), Release);
        // None is ever taken back. Not a store: an application that has lost its engine sets DEAD itself.
        if cell.flags.load(Relaxed) & bits != bits {
            cell.flags.fetch_or(bits, Release);
        }
        send.confirmed() == send.tail()
    }
}

fn publish_window(cell: &crate::boundary::cell::EngineSide, window: &Window, place: u64) {
    // The slot's former window is two generations old: the application has read past it, or
    // `ReceiveHalf` would still hold it.
    let slot = &cell.windows[(window.generation & 1) as usize];
    slot.place.store(place, Relaxed);
    slot.from.store(window.from.get(), Relaxed);
    slot.log2.store(u32::from(window.lease.log2), Relaxed);
    cell.generation.store(window.generation, Release);
}
