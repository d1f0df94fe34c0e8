//! The streams of one session.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

use netchannel_units::{ByteRange, ChannelId, Class, Duration, StreamOffset, Timestamp};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, StreamId};

use crate::error::{ProtocolError, StreamError};
use crate::ids::SeenIds;
use crate::pool::{Lease, SlabId, WindowPool};
use crate::receive::{Arrival, Piece, ReceiveHalf, ReceiveLimits, ReceiveState, Violation};
use crate::send::{Chunk, ChunkLimits, Grant, SendHalf, SendState};
use crate::stream::{Opening, Owed, Stream};

/// An empty window is given back after this long without a byte: far above a data-centre round
/// trip, so that a pause between two writes costs no new grant.
const IDLE_RELEASE: Duration = Duration::from_millis(10);

/// Which side of the session this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Opened the control connection: its streams have even numbers.
    Client,
    /// Accepted it: its streams have odd numbers.
    Server,
}

/// Settings of a session's streams.
#[derive(Clone, Copy, Debug)]
pub struct StreamsConfig {
    /// Which side this is.
    pub role: Role,
    /// Bytes that this side takes on a new or idle stream, eagerly. A power of two.
    pub eager_credit: u64,
    /// Bytes that the peer takes so.
    pub peer_eager_credit: u64,
    /// log2 of the largest receive window.
    pub window_log2: u8,
    /// Most bytes of one eager chunk.
    pub eager_chunk: u64,
    /// Fewer bytes than this go eagerly even where there is a window.
    pub bulk_min: u64,
}

/// What a message carried for the streams; comes back confirmed or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Bytes.
    Chunk {
        /// The stream.
        stream: StreamId,
        /// Which bytes.
        range: ByteRange,
        /// Whether they were written into a window.
        bulk: bool,
    },
    /// Other frames.
    Control {
        /// The stream.
        stream: StreamId,
        /// Which frames.
        what: Owed,
    },
}

/// What to do with the bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Nothing: there were none, or nobody wants them.
    None,
    /// Copy them as [`Streams::pieces`] says.
    Copy {
        /// Whether earlier bytes are missing.
        out_of_order: bool,
    },
    /// They are in place already.
    InPlace {
        /// Number of bytes.
        bytes: u64,
        /// Whether earlier bytes are missing.
        out_of_order: bool,
    },
}

/// A frame to send that carries no bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Complete as it is.
    Frame(Frame<'static>),
    /// A window; the engine knows its address and key ([`Frame::Window`]).
    Window {
        /// The stream.
        stream: StreamId,
        /// Name of the grant.
        grant: GrantId,
        /// The memory.
        lease: Lease,
        /// First byte that may be written.
        from: StreamOffset,
        /// Bytes below may be sent.
        limit: StreamOffset,
    },
}

/// A [`Control`] frame and its circumstances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The frame.
    pub frame: Control,
    /// The Channel it must use, if it matters.
    pub via: Option<ChannelId>,
    /// What to hand to [`Streams::on_control_sent`].
    pub carried: Carried,
}

/// What a stream could send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The stream.
    pub stream: StreamId,
    /// Its class.
    pub class: Class,
    /// Bytes that could go now.
    pub bytes: u64,
    /// The Channel they must use, if it matters.
    pub via: Option<ChannelId>,
}

/// A stream that the peer opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The stream.
    pub stream: StreamId,
    /// Its class.
    pub class: Class,
    /// The listener it wants.
    pub service: u16,
}

/// Stream numbers are small and dense: multiplication by an odd constant (Knuth, The Art of
/// Computer Programming, volume 3, section 6.4) spreads them, and no seed means that a run can be
/// reproduced. A peer gains nothing by choosing numbers: it must count up.
#[derive(Clone, Copy, Debug, Default)]
pub struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32(u32::from(*byte));
        }
    }
    fn write_u32(&mut self, value: u32) {
        self.0 = (self.0 ^ u64::from(value)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}

type Table = HashMap<u32, Box<Stream>, BuildHasherDefault<IdHasher>>;

/// The streams of one session. See the [crate documentation](crate) for the order of calls.
#[derive(Debug)]
pub struct Streams {
    config: StreamsConfig,
    table: Table,
    next_id: u32,
    seen: SeenIds,
    pool: WindowPool,
    next_grant: u32,
    slab_wanted: bool,
    pieces: Vec<Piece>,
    owing: VecDeque<StreamId>,
    backlogs: VecDeque<StreamId>,
    touched: VecDeque<StreamId>,
    incoming: VecDeque<Incoming>,
    starved: VecDeque<StreamId>,
    stray_returns: VecDeque<(StreamId, GrantId)>,
    idle: VecDeque<(Timestamp, StreamId)>,
    closed: VecDeque<StreamId>,
}

impl Streams {
    /// No streams yet.
    pub fn new(config: StreamsConfig) -> Self {
        Self {
            config,
            table: Table::default(),
            next_id: match config.role {
                Role::Client => 0,
                Role::Server => 1,
            },
            seen: SeenIds::default(),
            pool: WindowPool::default(),
            next_grant: 0,
            slab_wanted: false,
            pieces: Vec::new(),
            owing: VecDeque::new(),
            backlogs: VecDeque::new(),
            touched: VecDeque::new(),
            incoming: VecDeque::new(),
            starved: VecDeque::new(),
            stray_returns: VecDeque::new(),
            idle: VecDeque::new(),
            closed: VecDeque::new(),
        }
    }

    fn limits(&self) -> ReceiveLimits {
        ReceiveLimits { eager: self.config.eager_credit, window_log2: self.config.window_log2 }
    }

    fn is_ours(&self, id: StreamId) -> bool {
        (id.0 & 1 == 0) == (self.config.role == Role::Client)
    }

    /// Number of streams alive.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Number of streams that their applications let go.
    pub fn released(&self) -> usize {
        self.table.values().filter(|s| s.released).count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// The sending half of a stream.
    pub fn send_half(&self, id: StreamId) -> Option<&SendHalf> {
        self.table.get(&id.0).map(|s| &s.send)
    }

    /// The receiving half of a stream.
    pub fn receive_half(&self, id: StreamId) -> Option<&ReceiveHalf> {
        self.table.get(&id.0).map(|s| &s.receive)
    }

    /// Whether the peer has confirmed that it knows the stream.
    pub fn is_opened(&self, id: StreamId) -> bool {
        self.table.get(&id.0).is_some_and(|s| s.opening == Opening::Done)
    }

    /// The class of a stream.
    pub fn class(&self, id: StreamId) -> Option<Class> {
        self.table.get(&id.0).map(|s| s.class)
    }

    // --- commands of the application ---

    /// Opens a stream to the peer's listener `service`. Bytes may be written at once.
    ///
    /// # Errors
    /// [`StreamError::NumbersExhausted`].
    pub fn open(&mut self, service: u16, class: Class) -> Result<StreamId, StreamError> {
        let id = StreamId(self.next_id);
        self.next_id = id.0.checked_add(2).ok_or(StreamError::NumbersExhausted)?;
        let send = SendHalf::new(StreamOffset::new(self.config.peer_eager_credit));
        let receive = ReceiveHalf::new(self.limits());
        let stream = Stream::new(class, service, Opening::Wanted, send, receive);
        self.table.insert(id.0, Box::new(stream));
        self.owe(id, Owed::OPEN);
        Ok(id)
    }

    /// The application has written bytes up to `tail`.
    ///
    /// # Errors
    /// Why nothing may be written.
    pub fn write(&mut self, id: StreamId, tail: StreamOffset) -> Result<(), StreamError> {
        let stream = self.table.get_mut(&id.0).ok_or(StreamError::Closed)?;
        if let Some(code) = stream.send.stopped() {
            return Err(StreamError::Stopped(code));
        }
        if !stream.send.write(tail) {
            return Err(StreamError::Finished);
        }
        self.note_backlog(id);
        Ok(())
    }

    /// Takes back written bytes above `tail` that were not sent.
    pub fn unwrite(&mut self, id: StreamId, tail: StreamOffset) {
        if let Some(stream) = self.table.get_mut(&id.0) {
            stream.send.unwrite(tail);
            self.note_backlog(id);
        }
    }

    /// The application has read up to `upto`. False if that cannot be: then it is ignored.
    pub fn consume(&mut self, now: Timestamp, id: StreamId, upto: StreamOffset) -> bool {
        let limits = self.limits();
        let Some(stream) = self.table.get_mut(&id.0) else { return true };
        if !stream.receive.consume(upto, &mut self.pool) {
            return false;
        }
        stream.last_active = now;
        let credit = stream.receive.credit_due(limits);
        if stream.receive.is_idle() && !stream.in_idle_queue {
            stream.in_idle_queue = true;
            self.idle.push_back((now + IDLE_RELEASE, id));
        }
        if credit {
            self.owe(id, Owed::CREDIT);
        }
        self.retire(id);
        true
    }

    /// The application has written its last byte.
    pub fn finish(&mut self, id: StreamId) {
        if self.table.get_mut(&id.0).is_some_and(|s| s.send.finish()) {
            self.owe(id, Owed::FIN);
        }
    }

    /// The application gives up sending.
    pub fn reset(&mut self, id: StreamId, code: u32) {
        let Some(stream) = self.table.get_mut(&id.0) else { return };
        if stream.send.reset() {
            stream.reset_code = code;
            self.note_backlog(id);
            self.owe(id, Owed::RESET);
            self.check_return(id);
        }
    }

    /// The application reads no more.
    pub fn stop(&mut self, id: StreamId, code: u32) {
        let Some(stream) = self.table.get_mut(&id.0) else { return };
        let tell = stream.receive.stop(&mut self.pool);
        // A window that the peer may write into comes back with its FIN or its RETURN: STOP makes
        // it reset.
        stream.stop_code = code;
        if tell {
            self.owe(id, Owed::STOP);
        }
        self.retire(id);
    }

    /// The application has let go: what was written still goes out, what arrives is not wanted.
    pub fn release(&mut self, id: StreamId, code: u32) {
        self.finish(id);
        self.stop(id, code);
        if let Some(stream) = self.table.get_mut(&id.0) {
            stream.released = true;
        }
        self.retire(id);
    }

    /// Refuses a stream that the peer opened, instead of giving it to an application: the opener
    /// sees RESET and STOP with `code` and never OPENED.
    pub fn refuse(&mut self, id: StreamId, code: u32) {
        self.with(id, |s| s.owed = s.owed & !Owed::OPENED);
        self.reset(id, code);
        self.release(id, code);
    }

    // --- memory ---

    /// A slab of remote-writable memory for windows of this session.
    pub fn add_slab(&mut self, slab: SlabId) {
        self.pool.add_slab(slab);
        self.slab_wanted = false;
    }

    /// Whether more slabs would help; asks once per shortage.
    pub fn take_slab_demand(&mut self) -> bool {
        std::mem::take(&mut self.slab_wanted)
    }

    /// The pool of windows.
    pub fn pool(&self) -> &WindowPool {
        &self.pool
    }

    // --- the network ---

    /// A frame arrived through Channel `via`.
    ///
    /// # Errors
    /// The peer broke the protocol.
    pub fn on_frame(
        &mut self,
        now: Timestamp,
        via: ChannelId,
        frame: &Frame<'_>,
    ) -> Result<Placement, ProtocolError> {
        let id = frame.stream();
        if let Frame::Open { class, service, limit, .. } = *frame {
            return self.on_open(id, class, service, limit);
        }
        if !self.table.contains_key(&id.0) {
            return self.on_stray(id, frame);
        }
        match *frame {
            Frame::Open { .. } => {}
            Frame::Opened { limit, .. } => self.on_opened(id, limit)?,
            Frame::Data { offset, backlog, bytes, .. } => {
                let range = ByteRange::new(offset, bytes.len() as u64)
                    .ok_or(ProtocolError::Unexpected { stream: id, what: "bytes past 2^64" })?;
                return self.on_data(now, via, id, range, backlog);
            }
            Frame::Written { grant, range, backlog, .. } => {
                return self.on_written(now, id, grant, range, backlog);
            }
            Frame::Credit { limit, .. } => {
                self.with(id, |s| s.send.on_credit(limit));
                self.note_backlog(id);
            }
            Frame::Window { grant, log2_size, address, key, from, limit, .. } => {
                let grant = Grant { id: grant, log2: log2_size, address, key, from };
                self.with(id, |s| s.send.on_window(grant, limit));
                self.note_backlog(id);
                self.check_return(id);
            }
            Frame::Recall { grant, .. } => {
                self.with(id, |s| s.send.on_recall(grant));
                self.check_return(id);
            }
            Frame::Return { grant, .. } => self.on_return(id, grant)?,
            Frame::Refuse { range, .. } => self.on_refuse(id, range)?,
            Frame::Fin { final_offset, .. } => self.on_fin(id, final_offset)?,
            Frame::Reset { code, .. } => {
                self.with(id, |s| s.receive.on_reset(code));
                self.touch(id);
                self.retire(id);
            }
            Frame::Stop { code, .. } => {
                self.with(id, |s| s.send.on_stop(code));
                self.reset(id, code);
                self.touch(id);
            }
        }
        Ok(Placement::None)
    }

    /// Where the bytes of the last frame go, after [`Placement::Copy`].
    pub fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    fn with(&mut self, id: StreamId, f: impl FnOnce(&mut Stream)) {
        if let Some(stream) = self.table.get_mut(&id.0) {
            f(stream);
        }
    }

    /// A frame for a stream that is not in the table: late if it was there once. A window that
    /// arrives late goes back at once, or the peer would keep it for ever.
    fn on_stray(&mut self, id: StreamId, frame: &Frame<'_>) -> Result<Placement, ProtocolError> {
        let known = if self.is_ours(id) { id.0 < self.next_id } else { self.seen.contains(id) };
        if !known {
            return Err(ProtocolError::UnknownStream(id));
        }
        if let Frame::Window { grant, .. } = *frame {
            self.stray_returns.push_back((id, grant));
        }
        Ok(Placement::None)
    }

    fn on_open(
        &mut self,
        id: StreamId,
        class: Class,
        service: u16,
        limit: StreamOffset,
    ) -> Result<Placement, ProtocolError> {
        if self.is_ours(id) || !self.seen.insert(id) {
            return Err(ProtocolError::BadStreamNumber(id));
        }
        let send = SendHalf::new(limit);
        let receive = ReceiveHalf::new(self.limits());
        let stream = Stream::new(class, service, Opening::Done, send, receive);
        self.table.insert(id.0, Box::new(stream));
        self.incoming.push_back(Incoming { stream: id, class, service });
        self.owe(id, Owed::OPENED);
        Ok(Placement::None)
    }

    fn on_opened(&mut self, id: StreamId, limit: StreamOffset) -> Result<(), ProtocolError> {
        let stream = self.table.get_mut(&id.0).ok_or(ProtocolError::UnknownStream(id))?;
        if !matches!(stream.opening, Opening::Sent(_)) {
            return Err(ProtocolError::Unexpected { stream: id, what: "OPENED" });
        }
        stream.opening = Opening::Done;
        stream.send.on_credit(limit);
        self.note_backlog(id);
        self.touch(id);
        Ok(())
    }

    fn on_data(
        &mut self,
        now: Timestamp,
        via: ChannelId,
        id: StreamId,
        range: ByteRange,
        backlog: u32,
    ) -> Result<Placement, ProtocolError> {
        let limits = self.limits();
        let Some(stream) = self.table.get_mut(&id.0) else { return Ok(Placement::None) };
        stream.last_active = now;
        let arrival = stream
            .receive
            .on_data(range, limits, &mut self.pool, &mut self.pieces)
            .map_err(|violation| protocol_error(id, range, GrantId(0), violation))?;
        match arrival {
            Arrival::Refuse => {
                stream.refusals.push((range, via));
                self.slab_wanted = true;
                if !std::mem::replace(&mut stream.is_starved, true) {
                    self.starved.push_back(id);
                }
                self.owe(id, Owed::REFUSE);
                Ok(Placement::None)
            }
            Arrival::Discard => {
                self.arrived(id, backlog);
                Ok(Placement::None)
            }
            Arrival::Place { out_of_order } => {
                self.arrived(id, backlog);
                Ok(Placement::Copy { out_of_order })
            }
        }
    }

    fn on_written(
        &mut self,
        now: Timestamp,
        id: StreamId,
        grant: GrantId,
        range: ByteRange,
        backlog: u32,
    ) -> Result<Placement, ProtocolError> {
        let Some(stream) = self.table.get_mut(&id.0) else { return Ok(Placement::None) };
        stream.last_active = now;
        let out_of_order = stream
            .receive
            .on_written(range, grant)
            .map_err(|violation| protocol_error(id, range, grant, violation))?;
        self.arrived(id, backlog);
        Ok(Placement::InPlace { bytes: range.len(), out_of_order })
    }

    /// Bytes arrived in order or not: the application may read, the peer may deserve a window.
    fn arrived(&mut self, id: StreamId, backlog: u32) {
        let limits = self.limits();
        let grant = GrantId(self.next_grant);
        let Some(stream) = self.table.get_mut(&id.0) else { return };
        let mut owed = Owed::NONE;
        if u64::from(backlog) > self.config.eager_chunk {
            if stream.receive.upgrade(u64::from(backlog), grant, limits, &mut self.pool) {
                self.next_grant = self.next_grant.wrapping_add(1);
                owed |= Owed::WINDOW;
            } else if stream.receive.windows().all(|w| w.grant.is_none()) {
                self.slab_wanted = true;
            }
        }
        if stream.receive.credit_due(limits) {
            owed |= Owed::CREDIT;
        }
        if !owed.is_empty() {
            self.owe(id, owed);
        }
        self.touch(id);
        self.retire(id);
    }

    fn on_return(&mut self, id: StreamId, grant: GrantId) -> Result<(), ProtocolError> {
        let stream = self.table.get_mut(&id.0).ok_or(ProtocolError::UnknownStream(id))?;
        // Late RETURNs of windows that were recycled otherwise are harmless.
        stream.receive.on_return(grant, &mut self.pool);
        self.retire(id);
        Ok(())
    }

    fn on_refuse(&mut self, id: StreamId, range: ByteRange) -> Result<(), ProtocolError> {
        let stream = self.table.get_mut(&id.0).ok_or(ProtocolError::UnknownStream(id))?;
        if !stream.send.on_refused(range) {
            return Err(ProtocolError::Unexpected { stream: id, what: "REFUSE of unsent bytes" });
        }
        self.note_backlog(id);
        Ok(())
    }

    fn on_fin(&mut self, id: StreamId, end: StreamOffset) -> Result<(), ProtocolError> {
        let stream = self.table.get_mut(&id.0).ok_or(ProtocolError::UnknownStream(id))?;
        stream.receive.on_fin(end).map_err(|was| ProtocolError::FinalOffset {
            stream: id,
            was,
            now: end,
        })?;
        stream.receive.recycle(&mut self.pool);
        self.touch(id);
        self.retire(id);
        Ok(())
    }

    /// The peer's engine has processed a message that carried this.
    pub fn on_confirmed(&mut self, carried: &Carried) {
        match *carried {
            Carried::Chunk { stream, range, bulk } => {
                self.with(stream, |s| s.send.on_confirmed(range, bulk));
                self.touch(stream);
                self.check_return(stream);
                self.retire(stream);
            }
            Carried::Control { what, .. } if what.is_empty() => {}
            Carried::Control { stream, what } => {
                self.with(stream, |s| {
                    s.unconfirmed -= 1;
                    if what.has(Owed::FIN) {
                        s.send.on_fin_confirmed();
                    }
                });
                if what.has(Owed::FIN) {
                    self.touch(stream);
                }
                self.retire(stream);
            }
        }
    }

    /// A message that carried this is lost with its Channel, which is fenced.
    pub fn on_lost(&mut self, carried: &Carried) {
        match *carried {
            Carried::Chunk { stream, range, bulk } => {
                self.with(stream, |s| s.send.on_lost(range, bulk));
                self.note_backlog(stream);
                self.check_return(stream);
            }
            Carried::Control { stream, what } => {
                self.with(stream, |s| {
                    s.unconfirmed -= 1;
                    if what.has(Owed::OPEN) {
                        s.opening = Opening::Wanted;
                    }
                });
                self.owe(stream, what);
            }
        }
    }

    // --- outputs ---

    /// The next control frame to send. Ask again after [`on_control_sent`](Self::on_control_sent);
    /// a frame that cannot be sent now is offered again.
    pub fn poll_control(&mut self) -> Option<Outgoing> {
        self.feed_starved();
        if let Some(&(stream, grant)) = self.stray_returns.front() {
            let frame = Control::Frame(Frame::Return { stream, grant });
            let carried = Carried::Control { stream, what: Owed::NONE };
            return Some(Outgoing { frame, via: None, carried });
        }
        while let Some(&id) = self.owing.front() {
            if let Some(outgoing) = self.next_owed(id) {
                return Some(outgoing);
            }
            self.owing.pop_front();
            self.with(id, |s| s.in_owing_queue = false);
            self.retire(id);
        }
        None
    }

    /// Puts the stream at the front of the queue of those that owe frames at its end, because its
    /// frame cannot be sent now but others' may.
    pub fn defer_control(&mut self) {
        if let Some(id) = self.owing.pop_front() {
            self.owing.push_back(id);
        }
    }

    /// How many streams owe frames.
    pub fn owing(&self) -> usize {
        self.owing.len()
    }

    fn next_owed(&mut self, id: StreamId) -> Option<Outgoing> {
        let limits = self.limits();
        let eager = StreamOffset::new(self.config.eager_credit);
        let stream = self.table.get_mut(&id.0)?;
        loop {
            let what = stream.owed.first();
            let mut via = stream.pinned();
            let frame = match what {
                Owed::OPEN => Some(Control::Frame(Frame::Open {
                    stream: id,
                    class: stream.class,
                    service: stream.service,
                    limit: eager,
                })),
                Owed::OPENED => Some(Control::Frame(Frame::Opened { stream: id, limit: eager })),
                Owed::REFUSE => stream.refusals.first().map(|(range, channel)| {
                    via = Some(*channel);
                    Control::Frame(Frame::Refuse { stream: id, range: *range })
                }),
                Owed::WINDOW => stream.receive.current().and_then(|w| {
                    let grant = w.grant?;
                    let limit = stream.receive.credit(limits);
                    Some(Control::Window { stream: id, grant, lease: w.lease, from: w.from, limit })
                }),
                Owed::CREDIT => {
                    let limit = stream.receive.credit(limits);
                    Some(Control::Frame(Frame::Credit { stream: id, limit }))
                }
                Owed::RECALL => {
                    stream.recall.map(|grant| Control::Frame(Frame::Recall { stream: id, grant }))
                }
                Owed::RETURN => stream
                    .send
                    .returnable()
                    .map(|grant| Control::Frame(Frame::Return { stream: id, grant })),
                Owed::FIN => stream
                    .send
                    .final_offset()
                    .map(|final_offset| Control::Frame(Frame::Fin { stream: id, final_offset })),
                Owed::RESET => {
                    Some(Control::Frame(Frame::Reset { stream: id, code: stream.reset_code }))
                }
                Owed::STOP => {
                    Some(Control::Frame(Frame::Stop { stream: id, code: stream.stop_code }))
                }
                _ => return None,
            };
            match frame {
                Some(frame) => {
                    return Some(Outgoing {
                        frame,
                        via,
                        carried: Carried::Control { stream: id, what },
                    });
                }
                // Overtaken by events.
                None => stream.owed = stream.owed & !what,
            }
        }
    }

    /// The frame from [`poll_control`](Self::poll_control) is in a message on Channel `via`.
    pub fn on_control_sent(&mut self, carried: &Carried, via: ChannelId) {
        let Carried::Control { stream: id, what } = *carried else { return };
        if what.is_empty() {
            self.stray_returns.pop_front();
            return;
        }
        let Some(stream) = self.table.get_mut(&id.0) else { return };
        stream.unconfirmed += 1;
        match what {
            Owed::REFUSE => {
                stream.refusals.remove(0);
                if !stream.refusals.is_empty() {
                    return;
                }
            }
            Owed::OPEN => {
                stream.opening = Opening::Sent(via);
            }
            Owed::WINDOW => stream.owed = stream.owed & !Owed::CREDIT,
            Owed::RETURN => stream.send.on_returned(),
            _ => {}
        }
        stream.owed = stream.owed & !what;
        if what == Owed::OPEN {
            self.note_backlog(id);
        }
    }

    /// The next stream whose sendable bytes changed.
    pub fn poll_backlog(&mut self) -> Option<Backlog> {
        while let Some(id) = self.backlogs.pop_front() {
            let Some(stream) = self.table.get_mut(&id.0) else { continue };
            stream.in_backlog_queue = false;
            if stream.opening == Opening::Wanted {
                continue;
            }
            return Some(Backlog {
                stream: id,
                class: stream.class,
                bytes: stream.send.sendable(),
                via: stream.pinned(),
            });
        }
        None
    }

    /// The next stream whose state the application should see.
    pub fn poll_touched(&mut self) -> Option<StreamId> {
        let id = self.touched.pop_front()?;
        self.with(id, |s| s.in_touched_queue = false);
        Some(id)
    }

    /// The next stream that the peer opened.
    pub fn poll_incoming(&mut self) -> Option<Incoming> {
        self.incoming.pop_front()
    }

    /// The next stream that is gone; its number never comes back.
    pub fn poll_closed(&mut self) -> Option<StreamId> {
        self.closed.pop_front()
    }

    /// The next bytes of a stream, at most `bytes`.
    pub fn next_chunk(&self, id: StreamId, bytes: u64) -> Option<Chunk> {
        let stream = self.table.get(&id.0)?;
        stream.send.next_chunk(ChunkLimits {
            bytes,
            eager: self.config.eager_chunk,
            bulk_min: self.config.bulk_min,
        })
    }

    /// A chunk (perhaps shortened at its end) is in a message. Returns what comes back when that
    /// message is confirmed or lost, and the bytes that could be sent after it.
    pub fn on_chunk_sent(&mut self, id: StreamId, chunk: &Chunk) -> (Carried, u64) {
        let bulk = matches!(chunk.form, crate::send::Form::Bulk(_));
        let mut left = 0;
        self.with(id, |s| {
            s.send.on_sent(chunk);
            left = s.send.sendable();
        });
        (Carried::Chunk { stream: id, range: chunk.range, bulk }, left)
    }

    /// Bytes behind `upto` that wait at this side, for the frame that carries bytes up to there.
    pub fn backlog_hint(&self, id: StreamId, chunk: &Chunk) -> u32 {
        let waiting =
            self.table.get(&id.0).map_or(0, |s| s.send.backlog()).saturating_sub(chunk.range.len());
        u32::try_from(waiting).unwrap_or(u32::MAX)
    }

    /// When [`on_timeout`](Self::on_timeout) wants to be called.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        self.idle.front().map(|(at, _)| *at)
    }

    /// Gives up windows of streams that were idle for long.
    pub fn on_timeout(&mut self, now: Timestamp) {
        while let Some(&(at, id)) = self.idle.front()
            && at <= now
        {
            self.idle.pop_front();
            let Some(stream) = self.table.get_mut(&id.0) else { continue };
            let due = stream.last_active + IDLE_RELEASE;
            if due > now && stream.receive.is_idle() {
                self.idle.push_back((due, id));
                continue;
            }
            stream.in_idle_queue = false;
            if stream.receive.is_idle()
                && let Some(grant) = stream.receive.release_idle(&mut self.pool)
            {
                stream.recall = Some(grant);
                self.owe(id, Owed::RECALL);
            }
        }
    }

    // --- queues ---

    fn owe(&mut self, id: StreamId, what: Owed) {
        let Some(stream) = self.table.get_mut(&id.0) else { return };
        stream.owed |= what;
        if !stream.in_owing_queue {
            stream.in_owing_queue = true;
            self.owing.push_back(id);
        }
    }

    fn touch(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id.0) else { return };
        if !stream.in_touched_queue {
            stream.in_touched_queue = true;
            self.touched.push_back(id);
        }
    }

    fn note_backlog(&mut self, id: StreamId) {
        let Some(stream) = self.table.get_mut(&id.0) else { return };
        if !stream.in_backlog_queue {
            stream.in_backlog_queue = true;
            self.backlogs.push_back(id);
        }
    }

    fn check_return(&mut self, id: StreamId) {
        if self.table.get(&id.0).is_some_and(|s| s.send.returnable().is_some()) {
            self.owe(id, Owed::RETURN);
        }
    }

    /// Streams whose bytes were refused get new credit when there is room.
    fn feed_starved(&mut self) {
        let limits = self.limits();
        for _ in 0..self.starved.len() {
            let Some(id) = self.starved.pop_front() else { return };
            let Some(stream) = self.table.get_mut(&id.0) else { continue };
            // The refusal goes first; credit before it would be lost.
            let refused = stream.owed.has(Owed::REFUSE);
            if !refused && stream.receive.retry_room(limits, &mut self.pool) {
                self.owe(id, Owed::CREDIT);
            } else if matches!(
                stream.receive.state(),
                ReceiveState::Open | ReceiveState::FinalKnown(_)
            ) {
                self.starved.push_back(id);
            }
        }
    }

    /// Forgets a stream that both sides are done with.
    fn retire(&mut self, id: StreamId) {
        if self.table.get(&id.0).is_some_and(|s| s.is_over()) {
            self.table.remove(&id.0);
            self.closed.push_back(id);
        }
    }

    /// Whether the sending half was given up (by either side).
    pub fn is_reset(&self, id: StreamId) -> bool {
        self.send_half(id).is_some_and(|s| s.state() == SendState::Reset)
    }
}

fn protocol_error(
    stream: StreamId,
    range: ByteRange,
    grant: GrantId,
    violation: Violation,
) -> ProtocolError {
    match violation {
        Violation::AboveLimit(limit) => ProtocolError::AboveLimit { stream, range, limit },
        Violation::BeyondFinal(was) => ProtocolError::FinalOffset { stream, was, now: range.end },
        Violation::WrongWindow => ProtocolError::BadGrant { stream, grant, range },
    }
}
