//! Ready streams, in turn by bytes.
//!
//! Deficit round robin (Shreedhar and Varghese, "Efficient Fair Queueing using Deficit Round
//! Robin", SIGCOMM 1995) in the surplus form: a stream's turn adds a quantum to its deficit, and
//! goes on while the deficit is positive; the last assignment of a turn may overdraw it, and the
//! next turn is shorter. So assignments are as large as the Channel takes, and two streams that
//! always have bytes differ by at most a quantum and the difference of their deficits.
//!
//! A stream that is bound to one Channel queues in a ring of that Channel, so that nobody looks at
//! it while the Channel is full. Each stream counts its turns as *rounds*; of the rings that could
//! be served, the one whose head has the lowest round is. A ring that had to wait does not make
//! up for it: its round is raised to that of the class (as the virtual time of start-time fair
//! queueing, Goyal, Vin and Cheng, SIGCOMM 1996, does for a flow that was idle).
//!
//! Streams of different weights queue in different rings, too. A turn is a quantum for all of them,
//! but after it the round of a stream of weight `w` rises by `1/w` only, so that it has `w` turns
//! where one of weight 1 has one, and they are spread evenly. A stream that runs dry within its turn and
//! comes back before the others are as far as that turn would take it goes on with it: who writes a
//! little less than a quantum at a time gets no more than who always has bytes.

use netchannel_units::{Claim, Class, Weight};

use crate::index::Index;
use crate::view::{ChannelId, StreamKey};

mod rings;

pub(crate) use rings::NOBODY;
use rings::{Rings, WEIGHTS};

/// A round of a stream of weight 1: what every weight divides.
const ROUND: u64 = 720_720;
/// How far a turn takes a stream, by weight: a division less per decision.
const STEPS: [u64; WEIGHTS] = {
    let mut steps = [0; WEIGHTS];
    let mut weight = 0;
    while weight < WEIGHTS {
        steps[weight] = ROUND / (weight as u64 + 1);
        weight += 1;
    }
    steps
};
/// How far a turn takes a stream.
#[inline]
fn step(weight: Weight) -> u64 {
    STEPS[usize::from(weight.to_wire()) % WEIGHTS]
}

/// Where a stream queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Nowhere: it has no bytes.
    Idle,
    /// In the ring of those that any Channel may serve.
    Any,
    /// In the ring of one Channel.
    Bound(ChannelId),
}

/// One stream. A cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) backlog: u64,
    deficit: i64,
    pub(crate) round: u64,
    next: u32,
    previous: u32,
    class: Class,
    weight: Weight,
    /// The caller's wish.
    pinned: Option<ChannelId>,
    /// The choice of the static policy.
    hashed: Option<ChannelId>,
    place: Place,
}

impl Stream {
    /// The round, with what it has used of its turn or overdrawn the last one.
    fn position(&self, quantum: u64) -> u64 {
        let bytes = match u64::try_from(self.deficit) {
            Ok(left @ 1..) => quantum.saturating_sub(left),
            _ => self.deficit.unsigned_abs(),
        };
        let part = u128::from(step(self.weight)) * u128::from(bytes) / u128::from(quantum);
        self.round.saturating_add(part as u64)
    }
}

/// The rings of one class.
#[derive(Clone, Debug)]
struct Queue {
    any: Rings,
    /// By Channel.
    bound: Vec<Rings>,
    ready: usize,
    ready_bound: usize,
    /// The highest round served.
    round: u64,
}

/// All streams.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    quantum: u64,
    index: Index,
    table: Vec<Stream>,
    free: Vec<u32>,
    queues: [Queue; 2],
    /// Served last, so likely reported next.
    served: u32,
}

impl Streams {
    pub(crate) fn new(quantum: u64) -> Self {
        let queue =
            Queue { any: Rings::EMPTY, bound: Vec::new(), ready: 0, ready_bound: 0, round: 0 };
        Self {
            quantum,
            index: Index::default(),
            table: Vec::new(),
            free: Vec::new(),
            queues: [queue.clone(), queue],
            served: NOBODY,
        }
    }

    pub(crate) fn set_backlog(&mut self, key: StreamKey, claim: Claim, bytes: u64) {
        let at = match self.place(key) {
            Some(at) => at,
            None if bytes == 0 => return,
            None => self.insert(key, claim),
        };
        let stream = &self.table[at as usize];
        if (stream.class, stream.weight) != (claim.class, claim.weight) {
            self.leave(at);
            let stream = &mut self.table[at as usize];
            if stream.class != claim.class {
                // The Channel that the static policy chose may not carry this class.
                stream.hashed = None;
            }
            (stream.class, stream.weight) = (claim.class, claim.weight);
        }
        let stream = &mut self.table[at as usize];
        stream.backlog = bytes;
        match (stream.place, bytes) {
            (Place::Idle, 1..) => self.enter(at),
            (Place::Any | Place::Bound(_), 0) => self.leave(at),
            _ => {}
        }
    }

    pub(crate) fn pin(&mut self, key: StreamKey, channel: Option<ChannelId>) {
        let at = match self.place(key) {
            Some(at) => at,
            None if channel.is_none() => return,
            None => self.insert(key, Claim::default()),
        };
        if self.table[at as usize].pinned == channel {
            // It keeps its place in its ring.
            return;
        }
        self.leave(at);
        self.table[at as usize].pinned = channel;
        self.enter(at);
    }

    pub(crate) fn remove(&mut self, key: StreamKey) {
        if let Some(at) = self.index.remove(key) {
            self.leave(at);
            self.served = NOBODY;
            self.table[at as usize].hashed = None;
            self.free.push(at);
        }
    }

    pub(crate) fn is_ready(&self, class: Class) -> bool {
        self.queues[class as usize].ready > 0
    }

    /// The next stream that any Channel may serve.
    #[inline]
    pub(crate) fn any_head(&self, class: Class) -> Option<(u32, &Stream)> {
        self.head(&self.queues[class as usize].any)
    }

    /// Whether the streams that any Channel may serve, of which at most `most` are looked at, have
    /// this many bytes together; also if there are more streams, or others.
    pub(crate) fn have(&self, class: Class, bytes: u64, most: usize) -> bool {
        let queue = &self.queues[class as usize];
        if queue.ready_bound > 0 || queue.ready > most {
            return true;
        }
        let mut sum = 0u64;
        for mut at in queue.any.heads() {
            let head = at;
            loop {
                let stream = &self.table[at as usize];
                sum = sum.saturating_add(stream.backlog);
                if sum >= bytes {
                    return true;
                }
                at = stream.next;
                if at == head {
                    break;
                }
            }
        }
        false
    }

    /// Whether [`Self::bound_head`] may find something.
    #[inline]
    pub(crate) fn has_bound(&self, class: Class) -> bool {
        self.queues[class as usize].ready_bound > 0
    }

    /// The next stream that only `channel` may serve.
    #[inline]
    pub(crate) fn bound_head(&self, class: Class, channel: ChannelId) -> Option<(u32, &Stream)> {
        self.head(self.queues[class as usize].bound.get(usize::from(channel.0))?)
    }

    #[inline]
    fn head(&self, rings: &Rings) -> Option<(u32, &Stream)> {
        rings.first(&self.table).map(|at| (at, &self.table[at as usize]))
    }

    /// The key of the stream that has just been served, and what it has left.
    #[inline(always)]
    pub(crate) fn served(&self) -> (StreamKey, u64) {
        let stream = &self.table[self.served as usize];
        (stream.key, stream.backlog)
    }

    /// The stream at `at`, the head of its ring, is served `bytes` bytes of its backlog.
    #[inline(always)]
    pub(crate) fn serve(&mut self, class: Class, at: u32, bytes: u64) {
        self.served = at;
        let quantum = self.quantum as i64;
        let stream = &mut self.table[at as usize];
        let queue = &mut self.queues[class as usize];
        if stream.deficit <= 0 {
            // A new turn.
            stream.round = stream.round.max(queue.round);
            stream.deficit += quantum;
        }
        queue.round = queue.round.max(stream.round);
        stream.deficit -= bytes as i64;
        stream.backlog -= bytes;
        let turn_over = stream.deficit <= 0;
        if turn_over {
            stream.round += step(stream.weight);
        }
        if stream.backlog == 0 {
            self.leave(at);
        } else if turn_over {
            queue.rings(stream.place).rotate(stream.weight, stream.next);
        }
    }

    /// The next stream that the static policy has not bound yet.
    pub(crate) fn unhashed(&self, class: Class) -> Option<StreamKey> {
        self.any_head(class).map(|(_, stream)| stream.key)
    }

    /// Binds the head of the ring for any Channel to one.
    pub(crate) fn bind_head(&mut self, class: Class, channel: ChannelId) {
        let Some((at, _)) = self.any_head(class) else { return };
        self.leave(at);
        self.table[at as usize].hashed = Some(channel);
        self.enter(at);
    }

    /// Forgets what the static policy bound.
    pub(crate) fn unbind_all(&mut self) {
        for at in 0..self.table.len() as u32 {
            if self.table[at as usize].hashed.is_some() {
                self.leave(at);
                self.table[at as usize].hashed = None;
                self.enter(at);
            }
        }
    }

    #[inline]
    fn place(&self, key: StreamKey) -> Option<u32> {
        match self.table.get(self.served as usize) {
            Some(stream) if stream.key == key => Some(self.served),
            _ => self.index.place(key),
        }
    }

    fn insert(&mut self, key: StreamKey, Claim { class, weight }: Claim) -> u32 {
        let stream = Stream {
            key,
            backlog: 0,
            deficit: 0,
            round: 0,
            next: NOBODY,
            previous: NOBODY,
            class,
            weight,
            pinned: None,
            hashed: None,
            place: Place::Idle,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.table[at as usize] = stream;
                at
            }
            None => {
                self.table.push(stream);
                (self.table.len() - 1) as u32
            }
        };
        self.index.insert(key, at);
        at
    }

    /// Queues a stream, if it has bytes, at the end of its ring.
    fn enter(&mut self, at: u32) {
        let stream = &mut self.table[at as usize];
        if stream.backlog == 0 || stream.place != Place::Idle {
            return;
        }
        let queue = &mut self.queues[stream.class as usize];
        queue.ready += 1;
        stream.place = match stream.pinned.or(stream.hashed) {
            None => Place::Any,
            Some(channel) => {
                let needed = usize::from(channel.0) + 1;
                if queue.bound.len() < needed {
                    queue.bound.resize(needed, Rings::EMPTY);
                }
                queue.ready_bound += 1;
                Place::Bound(channel)
            }
        };
        // It goes on where it was if the others are not further than the bytes that it had have taken it;
        // else it saved nothing up and owes nothing.
        if stream.round < queue.round && stream.position(self.quantum) <= queue.round {
            stream.round = queue.round;
            stream.deficit = 0;
        }
        let weight = stream.weight;
        let (rings, table) = self.rings(at);
        if let Some(tail) = rings.last(table, weight) {
            let tail_round = table[tail as usize].round;
            let stream = &mut table[at as usize];
            if stream.round < tail_round {
                stream.round = tail_round;
                stream.deficit = stream.deficit.min(0);
            }
        }
        rings.push(table, at);
    }

    /// Takes a stream out of its ring, if it is in one.
    fn leave(&mut self, at: u32) {
        let stream = &self.table[at as usize];
        let queue = &mut self.queues[stream.class as usize];
        match stream.place {
            Place::Idle => return,
            Place::Any => {}
            Place::Bound(_) => queue.ready_bound -= 1,
        }
        queue.ready -= 1;
        let (rings, table) = self.rings(at);
        rings.remove(table, at);
        self.table[at as usize].place = Place::Idle;
    }

    /// Where a stream queues, and all streams.
    fn rings(&mut self, at: u32) -> (&mut Rings, &mut [Stream]) {
        let stream = &self.table[at as usize];
        let rings = self.queues[stream.class as usize].rings(stream.place);
        (rings, &mut self.table)
    }
}

impl Queue {
    #[inline]
    fn rings(&mut self, place: Place) -> &mut Rings {
        match place {
            Place::Bound(channel) => &mut self.bound[usize::from(channel.0)],
            Place::Any | Place::Idle => &mut self.any,
        }
    }
}
