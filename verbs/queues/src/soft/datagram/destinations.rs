//! The receivers of a queue pair's datagrams: a ring to each, asked for on first use.
//!
//! ```text
//! Resolving --ring--> Open --refused, device gone--> Resolving
//! Resolving --none--> Unreachable --after a while, next datagram--> Resolving
//! ```
//!
//! What is sent meanwhile waits in copies, as behind an unanswered ARP request, so that neither its
//! source nor the datagrams to others wait.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering, fence};

use netchannel_units::{Duration, Timestamp};

use super::{DatagramStatistics, GRH, Shared};
use crate::grh::Grh;
use crate::soft::arm::RemoteAlarm;
use crate::soft::gather::Cursor;
use crate::soft::send_queue::copied;
use crate::soft::wire_ring::{IN_SLOT, Kind, Ring, Rubbish, Sender, Slot, flag};
use crate::work::{LocalSlice, MAX_SLICES};

/// A receiver. One that was asked with a wrong queue key gives no ring, so the key is a part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::soft) struct Key {
    pub(in crate::soft) gid: [u8; 16],
    pub(in crate::soft) number: u32,
    pub(in crate::soft) queue_key: u32,
}

/// Rings that one queue pair sends on, at most; the one that was used longest ago makes room.
const MAX_DESTINATIONS: usize = 1024;
/// Datagrams, and bytes of them, that wait for one ring: what the ring will hold (511 slots and 256 KiB,
/// of which each takes whole lines of 64 bytes).
const MAX_HELD: usize = 511;
const MAX_HELD_BYTES: usize = 224 << 10;
/// Bytes that wait for all rings of one queue pair.
const MAX_HELD_BY_ALL: usize = 1 << 20;
/// Before a receiver that was not there is asked for again: a question costs its device some ten
/// microseconds.
const RETRY: Duration = Duration::from_millis(1);

/// What goes into a ring, apart from the payload.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) grh: [u8; Grh::LEN],
    pub(super) payload: u32,
    pub(super) queue_key: u32,
    pub(super) immediate: u32,
    pub(super) flags: u8,
    pub(super) arrival: u64,
}

#[derive(Debug)]
struct Held {
    packet: Packet,
    payload: Box<[u8]>,
}

/// A ring that we send on. Dropping it tells the receiver.
#[derive(Debug)]
pub(in crate::soft) struct Path {
    ring: Ring,
    alarm: RemoteAlarm,
    sender: Sender,
    connected: Arc<AtomicBool>,
    /// Slots were published since the last `end_batch`; whether one of them is solicited.
    published: Option<bool>,
}

/// What waits for a ring.
#[derive(Debug, Default)]
struct Queue {
    held: Vec<Held>,
    bytes: usize,
}

#[derive(Debug)]
enum Way {
    Resolving(Queue),
    Open(Path),
    Unreachable { until: Timestamp },
}

#[derive(Debug)]
struct Destination {
    key: Key,
    way: Way,
    /// Tick of the last datagram.
    used: u64,
}

#[derive(Debug, Default)]
pub(super) struct Destinations {
    /// Where in `list`.
    index: HashMap<Key, usize>,
    list: Vec<Destination>,
    /// Place of the last one asked for.
    last: usize,
    tick: u64,
    /// Places of those with something published.
    touched: Vec<usize>,
    /// Bytes that wait for rings.
    held_bytes: usize,
}

impl Path {
    pub(super) fn new(ring: Ring, alarm: RemoteAlarm, connected: Arc<AtomicBool>) -> Self {
        Self { ring, alarm, sender: Sender::new(), connected, published: None }
    }

    #[cfg(test)]
    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    #[inline]
    fn is_good(&self) -> bool {
        self.connected.load(Ordering::Relaxed) && self.ring.refusal(Ordering::Relaxed).is_none()
    }

    /// Publishes a datagram; false if there is no room.
    #[inline]
    fn push(&mut self, packet: &Packet, payload: &[LocalSlice]) -> Result<bool, Rubbish> {
        let len = GRH + packet.payload;
        // A slot with an arrival time holds no payload.
        let room = len.max(IN_SLOT + 1);
        if !self.sender.has_room(room) {
            self.sender.refresh(&self.ring)?;
            if !self.sender.has_room(room) {
                return Ok(false);
            }
        }
        let mut slices = [LocalSlice::default(); MAX_SLICES + 1];
        slices[0].address = packet.grh.as_ptr() as u64;
        slices[0].length = GRH;
        slices[1..=payload.len()].copy_from_slice(payload);
        let slot = Slot {
            kind: Kind::Datagram,
            flags: packet.flags | flag::FIRST | flag::LAST,
            len,
            immediate: packet.immediate,
            total: len,
            queue_key: packet.queue_key,
            arrival: packet.arrival,
        };
        self.sender.push(&self.ring, &slot, &mut Cursor::new(&slices, 0));
        let solicited = self.published.unwrap_or(false) | (packet.flags & flag::SOLICITED != 0);
        self.published = Some(solicited);
        Ok(true)
    }

    fn wake(&mut self) {
        if let Some(solicited) = self.published.take() {
            self.alarm.notify_if_armed(solicited);
        }
    }
}

impl Drop for Path {
    fn drop(&mut self) {
        // Release: what was published comes before.
        self.ring.closed().store(1, Ordering::Release);
    }
}

impl Queue {
    /// Keeps a copy, which takes so many bytes; none if there are too many already.
    ///
    /// # Safety
    /// The slices are readable and hold the payload.
    unsafe fn push(&mut self, packet: &Packet, payload: &[LocalSlice]) -> Option<usize> {
        let bytes = (GRH + packet.payload) as usize;
        if self.held.len() >= MAX_HELD || self.bytes + bytes > MAX_HELD_BYTES {
            return None;
        }
        self.bytes += bytes;
        // SAFETY: the caller's word.
        let payload = unsafe { copied(payload, packet.payload.into()) };
        self.held.push(Held { packet: *packet, payload });
        Some(bytes)
    }
}

impl Destinations {
    /// Sends a datagram, drops it (counted), or keeps a copy until there is a ring.
    ///
    /// # Safety
    /// The slices are readable and hold the packet's payload.
    #[inline]
    pub(super) unsafe fn send(
        &mut self,
        qp: &Shared,
        key: &Key,
        packet: &Packet,
        payload: &[LocalSlice],
        statistics: &mut DatagramStatistics,
    ) {
        let at = self.find(qp, key, statistics);
        if let Way::Open(path) = &mut self.list[at].way
            && path.is_good()
        {
            let fresh = path.published.is_none();
            match path.push(packet, payload) {
                Ok(true) if fresh => self.touched.push(at),
                Ok(true) => {}
                Ok(false) => statistics.ring_full += 1,
                Err(Rubbish) => {
                    statistics.unreachable += 1;
                    self.give_up(qp, at);
                }
            }
            return;
        }
        // SAFETY: the caller's word.
        unsafe { self.hold(qp, at, packet, payload, statistics) };
    }

    /// The place of a destination, made if it is a new one.
    #[inline]
    fn find(&mut self, qp: &Shared, key: &Key, statistics: &mut DatagramStatistics) -> usize {
        self.tick += 1;
        let known = match self.list.get(self.last) {
            Some(destination) if destination.key == *key => Some(self.last),
            _ => self.index.get(key).copied(),
        };
        let at = known.unwrap_or_else(|| self.insert(qp, key, statistics));
        self.last = at;
        self.list[at].used = self.tick;
        at
    }

    #[cold]
    fn insert(&mut self, qp: &Shared, key: &Key, statistics: &mut DatagramStatistics) -> usize {
        if self.list.len() >= MAX_DESTINATIONS {
            self.evict(statistics);
        }
        qp.device.resolve(qp, key);
        let at = self.list.len();
        self.list.push(Destination { key: *key, way: Way::Resolving(Queue::default()), used: 0 });
        self.index.insert(*key, at);
        at
    }

    fn evict(&mut self, statistics: &mut DatagramStatistics) {
        // Places change.
        self.end_batch();
        let oldest = (0..self.list.len()).min_by_key(|&at| self.list[at].used);
        let Some(at) = oldest else { return };
        let gone = self.list.swap_remove(at);
        self.index.remove(&gone.key);
        if let Some(moved) = self.list.get(at) {
            self.index.insert(moved.key, at);
        }
        if let Way::Resolving(queue) = gone.way {
            self.held_bytes -= queue.bytes;
            statistics.ring_full += queue.held.len() as u64;
        }
    }

    /// What is sent to a destination without a good ring.
    ///
    /// # Safety
    /// As `send`.
    #[cold]
    unsafe fn hold(
        &mut self,
        qp: &Shared,
        at: usize,
        packet: &Packet,
        payload: &[LocalSlice],
        statistics: &mut DatagramStatistics,
    ) {
        if matches!(self.list[at].way, Way::Open(_)) {
            self.end_batch();
        }
        let Destination { key, way, .. } = &mut self.list[at];
        match way {
            Way::Resolving(_) => {}
            Way::Unreachable { until } if qp.now() < *until => {
                statistics.unreachable += 1;
                return;
            }
            Way::Unreachable { .. } | Way::Open(_) => {
                qp.device.resolve(qp, key);
                *way = Way::Resolving(Queue::default());
            }
        }
        let has_room = self.held_bytes < MAX_HELD_BY_ALL;
        let kept = match way {
            // SAFETY: the caller's word.
            Way::Resolving(queue) if has_room => unsafe { queue.push(packet, payload) },
            _ => None,
        };
        match kept {
            Some(bytes) => self.held_bytes += bytes,
            None => statistics.ring_full += 1,
        }
    }

    fn give_up(&mut self, qp: &Shared, at: usize) {
        self.end_batch();
        self.list[at].way = Way::Unreachable { until: qp.now() + RETRY };
    }

    /// There is a ring, or none: what waited for it goes, or is dropped.
    pub(super) fn resolved(
        &mut self,
        qp: &Shared,
        key: &Key,
        path: Option<Path>,
        statistics: &mut DatagramStatistics,
    ) {
        let Some(&at) = self.index.get(key) else { return };
        let Way::Resolving(queue) = &mut self.list[at].way else { return };
        let Queue { held, bytes } = std::mem::take(queue);
        self.held_bytes -= bytes;
        let Some(mut path) = path else {
            statistics.unreachable += held.len() as u64;
            return self.give_up(qp, at);
        };
        for Held { packet, payload } in &held {
            let slice = LocalSlice {
                address: payload.as_ptr() as u64,
                length: packet.payload,
                local_key: 0,
            };
            // Its memory is fresh; what a hostile owner does to it meanwhile shows with the next one.
            if path.push(packet, &[slice]) != Ok(true) {
                statistics.ring_full += 1;
            }
        }
        fence(Ordering::SeqCst);
        path.wake();
        self.list[at].way = Way::Open(path);
    }

    /// Ends a batch of datagrams: wakes the receivers that sleep.
    #[inline]
    pub(super) fn end_batch(&mut self) {
        if self.touched.is_empty() {
            return;
        }
        // The slots before the loads of the arm words: see `arm`.
        fence(Ordering::SeqCst);
        while let Some(at) = self.touched.pop() {
            if let Way::Open(path) = &mut self.list[at].way {
                path.wake();
            }
        }
    }

    /// Forgets all: the receivers are told.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn rings(&self) -> impl Iterator<Item = &Ring> {
        self.list.iter().filter_map(|destination| match &destination.way {
            Way::Open(path) => Some(path.ring()),
            _ => None,
        })
    }
}
