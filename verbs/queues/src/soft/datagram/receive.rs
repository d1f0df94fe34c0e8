//! The receiving half: takes datagrams out of the senders' rings in turn. Nothing that a sender writes
//! does more than lose its own datagrams.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netchannel_units::Duration;

use super::receives::{BadReceive, Bytes, Receives};
use super::{DatagramStatistics, GRH, Shared};
use crate::soft::gather::Cursor;
use crate::soft::wire_ring::{Kind, Receiver, Refusal, Ring, Rubbish, Slot, flag};
use crate::work::LocalSlice;

/// Rings that one queue pair has for senders. The one that delivered nothing for longest makes room for
/// a new one.
pub(super) const MAX_SENDERS: usize = 256;
/// Completions kept for a queue that is not polled, before matching stops.
const KEPT: usize = 1024;
/// Datagrams taken from one sender before it is the next one's turn.
const TURN: usize = 16;
/// No link model holds a datagram back for longer, its queue included: a later arrival is rubbish (and
/// would keep the receiver awake).
const LATEST: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub(super) struct ReceiveSide {
    pub(super) receives: Receives,
    incoming: Vec<Incoming>,
    /// Whose turn it is.
    next: usize,
    /// Counts datagrams, so that idle senders are known.
    deliveries: u64,
    /// A datagram lies here whose time has not come.
    early: bool,
}

/// The ring of one sender.
#[derive(Debug)]
pub(super) struct Incoming {
    ring: Ring,
    receiver: Receiver,
    /// Number of the sending queue pair, as it says.
    source: u32,
    /// The connection of the sender's device, by which it asked for the ring.
    connected: Arc<AtomicBool>,
    /// Overtaken by the next one.
    late: Option<Late>,
    /// `deliveries` when it delivered last.
    delivered: u64,
}

/// A datagram that was taken out of its ring, to be delivered after its successor.
#[derive(Debug)]
struct Late {
    slot: Slot,
    bytes: Box<[u8]>,
}

/// Why no more is taken from a ring now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// Nothing there, or enough for one turn.
    Turn,
    /// Something there whose time has not come.
    Early,
    /// The sender has gone, and all of it was taken.
    Gone,
    /// The sender wrote what no NIC writes.
    Rubbish,
    BadReceive,
}

impl From<Rubbish> for Pause {
    fn from(_: Rubbish) -> Self {
        Self::Rubbish
    }
}

impl From<BadReceive> for Pause {
    fn from(_: BadReceive) -> Self {
        Self::BadReceive
    }
}

/// What one turn works with.
struct Turn<'a> {
    qp: &'a Shared,
    queue_key: u32,
    receives: &'a mut Receives,
    statistics: &'a mut DatagramStatistics,
    deliveries: &'a mut u64,
    /// Completions after which it ends.
    budget: usize,
}

impl ReceiveSide {
    pub(super) fn new(receives: Receives) -> Self {
        Self { receives, incoming: Vec::new(), next: 0, deliveries: 0, early: false }
    }

    /// Whether there is work that only polling or time brings on.
    pub(super) fn is_delayed(&self) -> bool {
        self.early || self.receives.deferral.is_some() && self.receives.completed() > 0
    }

    /// Adds a sender; the one that had to make room for it. An older ring of the same sender goes first.
    pub(super) fn admit(&mut self, new: Incoming) -> Option<Incoming> {
        let is_older = |old: &Incoming| {
            old.source == new.source && Arc::ptr_eq(&old.connected, &new.connected)
        };
        let gone = self.incoming.iter().position(is_older).or_else(|| {
            let longest_idle =
                (0..self.incoming.len()).min_by_key(|&at| self.incoming[at].delivered);
            longest_idle.filter(|_| self.incoming.len() >= MAX_SENDERS)
        });
        let gone = gone.map(|at| self.remove(at, Refusal::Gone));
        self.incoming.push(new);
        gone
    }

    fn remove(&mut self, at: usize, why: Refusal) -> Incoming {
        let incoming = self.incoming.swap_remove(at);
        incoming.ring.refuse(why);
        incoming
    }

    /// Takes what has arrived, until `budget` completions wait.
    #[inline]
    pub(super) fn drain(
        &mut self,
        qp: &Shared,
        queue_key: u32,
        budget: usize,
        statistics: &mut DatagramStatistics,
    ) -> Result<(), BadReceive> {
        self.early = false;
        let budget = budget.min(KEPT);
        for _ in 0..self.incoming.len() {
            if self.receives.completed() >= budget {
                break;
            }
            if self.next >= self.incoming.len() {
                self.next = 0;
            }
            let at = self.next;
            let incoming = &mut self.incoming[at];
            let (receives, deliveries) = (&mut self.receives, &mut self.deliveries);
            let mut turn = Turn { qp, queue_key, receives, statistics, deliveries, budget };
            let pause = turn.take(incoming);
            incoming.receiver.show(&incoming.ring);
            self.early |= pause == Pause::Early || incoming.late.is_some();
            match pause {
                Pause::Turn | Pause::Early => self.next += 1,
                Pause::Gone => drop(self.remove(at, Refusal::Gone)),
                Pause::Rubbish => {
                    statistics.malformed += 1;
                    drop(self.remove(at, Refusal::Failed));
                }
                Pause::BadReceive => return Err(BadReceive),
            }
        }
        Ok(())
    }

    /// Completes everything as flushed and refuses all senders.
    pub(super) fn flush(&mut self, qp: &Shared) {
        self.early = false;
        while !self.incoming.is_empty() {
            self.remove(0, Refusal::Gone);
        }
        self.receives.flush(qp);
    }
}

impl Incoming {
    pub(super) fn new(ring: Ring, source: u32, connected: Arc<AtomicBool>) -> Self {
        Self { ring, receiver: Receiver::default(), source, connected, late: None, delivered: 0 }
    }

    /// Whether nothing will be published any more. Asked before looking: what was published is seen.
    fn is_closed(&self) -> bool {
        !self.connected.load(Ordering::Acquire) || self.ring.closed().load(Ordering::Acquire) != 0
    }

    /// Takes an overtaken datagram out of its ring.
    #[cold]
    fn set_aside(&mut self, slot: &Slot) {
        let mut bytes = vec![0; slot.len as usize].into_boxed_slice();
        let address = bytes.as_mut_ptr() as u64;
        let local = LocalSlice { address, length: slot.len, local_key: 0 };
        self.receiver.copy(&self.ring, slot, &mut Cursor::new(&[local], 0));
        self.receiver.advance(slot);
        self.late = Some(Late { slot: *slot, bytes });
    }
}

/// What no NIC writes.
#[inline]
fn check(slot: &Slot, mtu: u32) -> Result<(), Rubbish> {
    let is_whole = slot.has(flag::FIRST) && slot.has(flag::LAST) && slot.len == slot.total;
    let fits = slot.len >= GRH && slot.len - GRH <= mtu;
    if slot.kind == Kind::Datagram && is_whole && fits { Ok(()) } else { Err(Rubbish) }
}

impl Turn<'_> {
    fn take(&mut self, incoming: &mut Incoming) -> Pause {
        match self.take_some(incoming) {
            Ok(pause) | Err(pause) => pause,
        }
    }

    #[inline]
    fn take_some(&mut self, incoming: &mut Incoming) -> Result<Pause, Pause> {
        let is_closed = incoming.is_closed();
        for _ in 0..TURN {
            if self.receives.completed() >= self.budget {
                break;
            }
            let Some(slot) = incoming.receiver.peek(&incoming.ring)? else {
                self.deliver_late(incoming, is_closed)?;
                return Ok(if is_closed { Pause::Gone } else { Pause::Turn });
            };
            check(&slot, self.qp.mtu)?;
            if slot.arrival != 0 {
                let now = self.qp.now();
                if slot.arrival > (now + LATEST).as_nanos() {
                    return Err(Pause::Rubbish);
                }
                if slot.has(flag::OVERTAKEN) && incoming.late.is_none() {
                    incoming.set_aside(&slot);
                    continue;
                }
                if slot.arrival > now.as_nanos() {
                    self.deliver_late(incoming, false)?;
                    return Ok(Pause::Early);
                }
            }
            if slot.queue_key == self.queue_key {
                let Incoming { ring, receiver, source, .. } = incoming;
                let bytes = Bytes::InRing(ring, receiver);
                let delivered =
                    self.receives.deliver(self.qp, *source, &slot, bytes, self.statistics)?;
                self.count(incoming, delivered);
            } else {
                self.statistics.wrong_key += 1;
            }
            incoming.receiver.advance(&slot);
            self.deliver_late(incoming, true)?;
        }
        Ok(Pause::Turn)
    }

    fn count(&mut self, incoming: &mut Incoming, delivered: bool) {
        *self.deliveries += u64::from(delivered);
        incoming.delivered = *self.deliveries;
    }

    /// Delivers what was set aside, if it was overtaken now or if its time has come.
    #[inline]
    fn deliver_late(&mut self, incoming: &mut Incoming, overtaken: bool) -> Result<(), BadReceive> {
        let Some(late) = &incoming.late else { return Ok(()) };
        if !overtaken && late.slot.arrival > self.qp.now().as_nanos() {
            return Ok(());
        }
        let Some(Late { slot, bytes }) = incoming.late.take() else { return Ok(()) };
        if slot.queue_key != self.queue_key {
            self.statistics.wrong_key += 1;
            return Ok(());
        }
        let (source, bytes) = (incoming.source, Bytes::Taken(&bytes));
        let delivered = self.receives.deliver(self.qp, source, &slot, bytes, self.statistics)?;
        self.count(incoming, delivered);
        Ok(())
    }
}
