//! What the runtime asks of an engine beside polling: the same for every provider.

use std::sync::Arc;

use netchannel_driver::ChannelKey;
use netchannel_units::{Bandwidth, ChannelId, Claim, Duration, Timestamp};
use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::{Access, Context, Endpoint, SourcePort};
use netchannel_vns::pool::SLAB_LOG2;
use netchannel_vns::streams::Role;
use netchannel_wire::control::ChannelMessage;

use crate::application::{Application, ApplicationId, Export};
use crate::engine::session::{Payload, WindowSlab};
use crate::error::Error;
use crate::shared::{SessionShared, SlabRoom, StreamSeed};

/// What a session needs that its two ends agreed on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SessionTerms {
    pub(crate) role: Role,
    pub(crate) peer_slots: u32,
    pub(crate) peer_slot_bytes: u32,
    pub(crate) peer_eager_credit: u64,
    /// Both can replace Channels.
    pub(crate) failover: bool,
    /// Number of the group in the session.
    pub(crate) group: u8,
}

/// Counters of one Channel.
#[derive(Clone, Debug)]
pub(crate) struct ChannelReport {
    pub(crate) session: u32,
    pub(crate) id: ChannelId,
    pub(crate) queue_pair: u32,
    pub(crate) source_port: Option<SourcePort>,
    pub(crate) payload: Payload,
    pub(crate) stats: netchannel_channel::ChannelStats,
    pub(crate) rate: Bandwidth,
    pub(crate) completion_time: Option<Duration>,
}

/// Set-up operations, the same for every provider.
pub(crate) trait EngineControl: Send {
    /// Makes `channels` unconnected Channels; returns their keys and endpoints.
    fn make_channels(
        &mut self,
        channels: u16,
        peer_slots: u32,
    ) -> Result<Vec<(ChannelKey, Endpoint)>, Error>;

    /// Takes back Channels that no session got.
    fn drop_channels(&mut self, keys: &[ChannelKey]);

    /// Connects Channels to the peer's endpoints, in order.
    fn connect_channels(
        &mut self,
        pairs: &[(ChannelKey, Endpoint)],
        peer_slots: u32,
    ) -> Result<(), Error>;

    /// Makes this engine's part of a session of connected Channels and their numbers in the
    /// session; returns its slot.
    fn add_session(
        &mut self,
        shared: Arc<SessionShared>,
        terms: SessionTerms,
        channels: Vec<(ChannelKey, ChannelId)>,
    ) -> Result<u32, Error>;

    /// Ends this part of a session; its streams fail with `error`. Does nothing if the slot belongs to another
    /// one by now.
    fn end_session(&mut self, slot: u32, session: &Arc<SessionShared>, error: Error);

    /// Whether streams of this session wait for the confirmation of their end.
    fn is_finishing(&self, slot: u32, session: &Arc<SessionShared>) -> bool;

    /// The peer said something of a Channel of this session; false if it is none of this part.
    fn on_channel_news(
        &mut self,
        now: Timestamp,
        slot: u32,
        session: &Arc<SessionShared>,
        message: &ChannelMessage,
    ) -> bool;

    /// Makes the queue pairs that sessions asked for.
    fn make_wanted(&mut self, now: Timestamp);

    /// The device says something.
    fn on_device_event(&mut self, now: Timestamp, event: AsyncEvent);

    /// Breaks a Channel that is up, as a fault would; false if there is none.
    fn break_channel(&mut self, now: Timestamp, number: usize) -> bool;

    /// Gives a session a slab of receive windows made by [`SlabMaker`].
    fn add_slab(&mut self, slot: u32, slab: Box<dyn std::any::Any + Send>);

    /// There is no memory for the slab that an application's streams wait for.
    fn deny_slab(&mut self, slot: u32, application: ApplicationId);

    /// Opens a stream for an application.
    fn open_stream(
        &mut self,
        slot: u32,
        application: ApplicationId,
        service: u16,
        claim: Claim,
    ) -> Result<StreamSeed, Error>;

    /// An application of another process may have streams from now on.
    fn add_application(&mut self, application: Arc<Application>);

    /// The process of an application is gone, and with it its streams.
    fn end_application(&mut self, id: ApplicationId);

    /// Counters of all Channels.
    fn channels(&self) -> Vec<ChannelReport>;

    /// Streams that their applications let go and whose bytes are not all confirmed.
    fn unfinished(&self) -> usize;

    /// The same of one application.
    fn unfinished_of(&self, id: ApplicationId) -> usize;

    /// Number of streams alive, and the numbers of the sessions.
    fn census(&self) -> (usize, Vec<u32>);
}

/// Makes slabs of receive windows off the polling cores.
pub(crate) trait SlabMaker: Send {
    /// A slab for the session that has the room, for [`EngineControl::add_slab`].
    fn make(
        &self,
        application: &Arc<Application>,
        room: SlabRoom,
    ) -> Result<Box<dyn std::any::Any + Send>, Error>;
}

impl<C: Context> SlabMaker for C {
    fn make(
        &self,
        application: &Arc<Application>,
        room: SlabRoom,
    ) -> Result<Box<dyn std::any::Any + Send>, Error> {
        use netchannel_verbs::MemoryRegion;
        let (len, access) = (1 << SLAB_LOG2, Access::LOCAL_WRITE | Access::REMOTE_WRITE);
        let (region, fd) = match application.is_attached() {
            false => (self.alloc(len, access)?, None),
            true => self.alloc_shared(len, access).map(|(region, fd)| (region, Some(fd)))?,
        };
        let export = || {
            let fd = fd.ok_or(Error::NoMemory { what: "memory to share" })?;
            Ok(Export { fd, len: region.len(), writable: false })
        };
        let id = application.add_region(region.as_ptr(), export)?;
        Ok(Box::new(WindowSlab::<C> { id, application: Arc::clone(application), region, room }))
    }
}
