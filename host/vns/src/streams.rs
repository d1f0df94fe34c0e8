//! The streams of one session.
//!
//! - [`items`]: what goes in and comes out.
//! - `accounts`: receive memory of each application.
//! - `commands`: inputs from the application.
//! - `network`: frames from the peer.
//! - `fate`: what became of what was sent: confirmed, lost, refused.
//! - `output`: frames and bytes to send, and what changed.
//! - `queues`: streams that somebody should look at. [`Table`]: streams by number.

use netchannel_units::{Claim, Class, StreamOffset};
use netchannel_wire::StreamId;

use crate::error::StreamError;
pub use crate::ids::IdHasher;
use crate::ids::SeenIds;
use crate::pool::{SlabId, WindowPool};
use crate::receive::{Piece, ReceiveHalf, ReceiveLimits};
use crate::send::{SendHalf, SendState};
use crate::stream::{Opening, Owed, Stream};

mod accounts;
mod commands;
mod fate;
pub mod items;
mod network;
mod output;
mod queues;
mod table;

pub(crate) use accounts::AccountIndex;
use accounts::Accounts;
pub use accounts::ApplicationId;
pub use items::{Backlog, Carried, Control, Incoming, Outgoing, Placement, Role, StreamsConfig};
pub use output::Sending;
use queues::Queues;
pub use table::Table;

/// Streams that a side may have open at once. Half of what its peer puts up with: streams that one
/// side is done with may live on at the other for a while.
pub const MAX_STREAMS: usize = MAX_PEER_STREAMS / 2;
/// Streams of its peer that a side puts up with at once: 1 GiB or so.
pub const MAX_PEER_STREAMS: usize = 1 << 20;

/// The streams of one session. See the [crate documentation](crate) for the order of calls.
#[derive(Debug)]
pub struct Streams {
    config: StreamsConfig,
    table: Table<Box<Stream>>,
    /// Streams in the table that the peer opened.
    theirs: usize,
    next_id: u32,
    seen: SeenIds,
    accounts: Accounts,
    next_grant: u32,
    pieces: Vec<Piece>,
    queues: Queues,
}

impl Streams {
    /// No streams yet.
    pub fn new(config: StreamsConfig) -> Self {
        Self {
            config,
            table: Table::default(),
            theirs: 0,
            next_id: match config.role {
                Role::Client => 0,
                Role::Server => 1,
            },
            seen: SeenIds::default(),
            accounts: Accounts::default(),
            next_grant: 0,
            pieces: Vec::new(),
            queues: Queues::default(),
        }
    }

    fn limits(&self) -> ReceiveLimits {
        self.config.receive_limits()
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
        self.table.get(id.0).map(|s| &s.send)
    }

    /// The receiving half of a stream.
    pub fn receive_half(&self, id: StreamId) -> Option<&ReceiveHalf> {
        self.table.get(id.0).map(|s| &s.receive)
    }

    /// Whether the peer has taken the stream (its OPENED came).
    pub fn is_opened(&self, id: StreamId) -> bool {
        self.table.get(id.0).is_some_and(|s| s.opening == Opening::Done)
    }

    /// Whether the sending half was given up (by either side).
    pub fn is_reset(&self, id: StreamId) -> bool {
        self.send_half(id).is_some_and(|s| s.state() == SendState::Reset)
    }

    /// The class of a stream.
    pub fn class(&self, id: StreamId) -> Option<Class> {
        self.table.get(id.0).map(|s| s.claim.class)
    }

    // --- memory ---

    /// A slab of remote-writable memory for windows of an application's streams in this session.
    pub fn add_slab(&mut self, application: ApplicationId, slab: SlabId) {
        self.accounts.add_slab(application, slab);
    }

    /// An application for which more slabs would help. It is named once, until one
    /// [came](Self::add_slab) or [does not](Self::on_slab_denied).
    pub fn take_slab_demand(&mut self) -> Option<ApplicationId> {
        self.settle();
        self.accounts.take_slab_demand()
    }

    /// The slab that [`take_slab_demand`](Self::take_slab_demand) asked for does not come.
    pub fn on_slab_denied(&mut self, application: ApplicationId) {
        self.accounts.on_slab_denied(application);
    }

    /// The pool of windows of an application, if it has slabs or streams.
    pub fn pool(&self, application: ApplicationId) -> Option<&WindowPool> {
        self.accounts.find(application).map(|account| &account.pool)
    }

    /// Makes a stream the business of `application`: its windows lie in that one's slabs. To be
    /// called before the first byte arrives, right after [`open`](Self::open) or the frame that
    /// made [`poll_incoming`](Self::poll_incoming) name it; until then it is the engine's own
    /// process's. False, and nothing changed, if it is too late.
    pub fn assign(&mut self, id: StreamId, application: ApplicationId) -> bool {
        let Some(stream) = self.table.get_mut(id.0) else { return false };
        if stream.receive.windows().next().is_some() {
            return false;
        }
        let account = self.accounts.open(application);
        self.accounts.on_stream_removed(stream.account);
        self.accounts.on_stream_added(account);
        stream.account = account;
        true
    }

    /// Whose a stream is.
    pub fn application(&self, id: StreamId) -> Option<ApplicationId> {
        self.table.get(id.0).map(|stream| self.accounts.application(stream.account))
    }

    /// Forgets an application whose streams are all gone, and with it its slabs, in which nothing
    /// is leased then. False if it still has streams.
    pub fn close_application(&mut self, application: ApplicationId) -> bool {
        self.accounts.close(application)
    }

    // --- the table ---

    fn insert(
        &mut self,
        id: StreamId,
        claim: Claim,
        service: u16,
        opening: Opening,
        send: SendHalf,
    ) {
        let receive = ReceiveHalf::new(self.limits());
        let mut stream = Box::new(Stream::new(claim, service, opening, send, receive));
        let first = if opening == Opening::New { Owed::OPEN } else { Owed::OPENED };
        self.queues.owe(id, &mut stream, first);
        self.accounts.on_stream_added(stream.account);
        self.table.insert(id.0, stream);
    }

    /// Forgets a stream that both sides are done with.
    fn retire(&mut self, id: StreamId) {
        if self.table.get(id.0).is_some_and(|s| s.is_over())
            && let Some(stream) = self.table.remove(id.0)
        {
            self.accounts.on_stream_removed(stream.account);
            self.queues.closed.push_back(id);
            if !self.is_ours(id) {
                self.theirs -= 1;
            }
        }
    }

    /// The number of the next stream of this side.
    fn take_id(&mut self) -> Result<StreamId, StreamError> {
        if self.table.len() - self.theirs >= MAX_STREAMS {
            return Err(StreamError::TooMany);
        }
        let id = StreamId(self.next_id);
        self.next_id = id.0.checked_add(2).ok_or(StreamError::NumbersExhausted)?;
        Ok(id)
    }

    /// What a new stream may send before it hears from the peer.
    fn first_credit(&self) -> StreamOffset {
        StreamOffset::new(self.config.peer_eager_credit)
    }
}
