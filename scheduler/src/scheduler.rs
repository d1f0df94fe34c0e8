//! [`Scheduler`]: ready streams on one side, Channels on the other, one assignment at a time.

use core::num::NonZeroU64;

use netchannel_units::{Claim, Class};

use crate::choice::{Choice, Fit};
use crate::config::SchedulerConfig;
use crate::gather::Gather;
use crate::policy::Policy;
use crate::quota::Quota;
use crate::random::mix;
use crate::room::{Bounds, Lane, Wish};
use crate::streams::Streams;
use crate::view::{Assignment, ChannelId, ChannelView, StreamKey};

/// Longer chunks are cut to this many bytes, so that sums of a few stay within 64 bits.
const MAX_CHUNK: u64 = 1 << 40;

/// Decides which bytes go to which Channel.
///
/// ```
/// use netchannel_scheduler::{ChannelId, ChannelView, Scheduler, SchedulerConfig, StreamKey};
/// use netchannel_units::Class;
///
/// let mut scheduler = Scheduler::new(SchedulerConfig::default());
/// scheduler.on_backlog(StreamKey(7), Class::Throughput, 100_000);
/// scheduler.look([ChannelView::new(ChannelId(0))]);
/// let next = scheduler.next().unwrap();
/// assert_eq!((next.stream, next.channel, next.bytes), (StreamKey(7), ChannelId(0), 100_000));
/// assert_eq!(scheduler.next(), None);
/// ```
#[derive(Clone, Debug)]
pub struct Scheduler {
    policy: Policy,
    seed: u64,
    bounds: Bounds,
    gather: Gather,
    quota: Quota,
    choice: Choice,
    streams: Streams,
    lanes: Vec<Lane>,
    /// What the static policy's choices were made for.
    hashed_for: u64,
}

/// What of an [`Assignment`] is not known otherwise: two registers. What travels through memory is copied in
/// larger words than it was written in, and such a copy waits for all that was written before.
#[derive(Clone, Copy)]
struct Decision {
    bytes: NonZeroU64,
    channel: ChannelId,
}

impl Scheduler {
    /// A scheduler without streams.
    pub fn new(config: SchedulerConfig) -> Self {
        let chunk = config.chunk.clamp(1, MAX_CHUNK);
        let config = SchedulerConfig { chunk, ..config };
        Self {
            policy: config.policy,
            seed: config.seed,
            bounds: Bounds::new(&config),
            gather: Gather::new(config.gather),
            quota: Quota::new(config.throughput_share, config.chunk),
            choice: Choice::new(config.policy, config.seed),
            streams: Streams::new(config.chunk),
            lanes: Vec::new(),
            hashed_for: 0,
        }
    }

    /// How the Channels stand, in the same order every time (round robin goes by position). Between two
    /// looks the scheduler keeps account itself of what it assigns to them.
    pub fn look(&mut self, channels: impl IntoIterator<Item = ChannelView>) {
        self.lanes.clear();
        let bounds = &self.bounds;
        self.lanes.extend(channels.into_iter().map(|view| Lane::new(view, bounds)));
        if self.policy == Policy::StaticHash {
            self.note_set();
        }
    }

    /// All Channels together may take `bytes` more bytes.
    pub fn limit(&mut self, bytes: u64) {
        for lane in &mut self.lanes {
            lane.limit(bytes);
        }
    }

    /// A Channel left `bytes` bytes of what it was assigned, or (not `usable`) takes nothing more until
    /// the next [`look`](Self::look).
    pub fn on_refused(&mut self, channel: ChannelId, bytes: u64, usable: bool) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.id == channel) else { return };
        lane.on_refused(bytes);
        if !usable {
            lane.close();
        }
    }

    /// `stream` could send `bytes` bytes right now: it has them, and the receiver takes them.
    /// Absolute; zero takes it out of its ring. Among streams of a class that always have bytes, each
    /// gets them in proportion to its weight.
    pub fn on_backlog(&mut self, stream: StreamKey, claim: impl Into<Claim>, bytes: u64) {
        self.streams.set_backlog(stream, claim.into(), bytes);
    }

    /// From now on `stream` goes to `channel` alone, and waits for it; `None` frees it.
    pub fn pin(&mut self, stream: StreamKey, channel: Option<ChannelId>) {
        self.streams.pin(stream, channel);
    }

    /// The stream is gone.
    pub fn remove(&mut self, stream: StreamKey) {
        self.streams.remove(stream);
    }

    /// Whether no stream has anything to send.
    pub fn is_idle(&self) -> bool {
        Class::ALL.iter().all(|class| !self.streams.is_ready(*class))
    }

    /// The next assignment, or `None` if no stream is ready or no Channel that may serve one has
    /// room. Bytes assigned are taken off the stream's backlog and count as outstanding on the Channel;
    /// the caller says where that is not so.
    #[expect(
        clippy::should_implement_trait,
        reason = "what comes next may change between two calls"
    )]
    #[inline(always)]
    pub fn next(&mut self) -> Option<Assignment> {
        let Decision { bytes, channel } = self.decide()?;
        let (stream, left) = self.streams.served();
        Some(Assignment { stream, channel, bytes: bytes.get(), left })
    }

    fn decide(&mut self) -> Option<Decision> {
        if self.policy == Policy::StaticHash {
            self.bind_by_hash();
        }
        let waiting = self.streams.is_ready(Class::Throughput);
        let latency = self.streams.is_ready(Class::Latency);
        let first = match (latency, waiting) {
            (false, false) => return None,
            (false, true) => Class::Throughput,
            (true, false) => Class::Latency,
            (true, true) => self.quota.first(),
        };
        let next = self.next_of(first, waiting);
        if next.is_none() && latency && waiting {
            return self.next_of_other(first);
        }
        next
    }

    /// The next decision for the class that is not first.
    #[inline(never)]
    fn next_of_other(&mut self, first: Class) -> Option<Decision> {
        let class = if first == Class::Latency { Class::Throughput } else { Class::Latency };
        self.next_of(class, true)
    }

    /// The next decision for one class.
    #[inline(always)]
    fn next_of(&mut self, class: Class, waiting: bool) -> Option<Decision> {
        if class == Class::Throughput && self.gather.holds(&self.streams, &self.lanes) {
            return None;
        }
        let (at, fit) = match self.streams.has_bound(class) {
            false => self.any_candidate(class)?,
            true => self.candidate(class)?,
        };
        let bytes = fit.bytes.get();
        self.streams.serve(class, at, bytes);
        let lane = &mut self.lanes[fit.lane];
        lane.on_assigned(bytes);
        self.quota.on_assigned(class, bytes, waiting);
        Some(Decision { bytes: fit.bytes, channel: lane.id })
    }

    /// The stream of `class` whose turn it is among those that any Channel may serve, if one has room for it.
    #[inline(always)]
    fn any_candidate(&mut self, class: Class) -> Option<(u32, Fit)> {
        let (at, stream) = self.streams.any_head(class)?;
        let wish = Wish { class, bytes: stream.backlog };
        Some((at, self.choice.choose(&self.lanes, wish)?))
    }

    /// The stream of `class` whose turn it is, among all that some Channel has room for.
    #[inline(never)]
    fn candidate(&mut self, class: Class) -> Option<(u32, Fit)> {
        let bound = self.bound_candidate(class);
        let Some((_, any)) = self.streams.any_head(class) else {
            return bound.map(|(_, candidate)| candidate);
        };
        match bound {
            Some((round, candidate)) if round < any.round => Some(candidate),
            _ => self.any_candidate(class).or(bound.map(|(_, candidate)| candidate)),
        }
    }

    /// The same among the streams that are bound to a Channel, and its round.
    fn bound_candidate(&self, class: Class) -> Option<(u64, (u32, Fit))> {
        let mut best: Option<(u64, (u32, Fit))> = None;
        for (position, lane) in self.lanes.iter().enumerate() {
            let Some((at, stream)) = self.streams.bound_head(class, lane.id) else { continue };
            if best.is_none_or(|(round, _)| stream.round < round)
                && let Some(fit) = Fit::new(position, lane.takes(class, stream.backlog))
            {
                best = Some((stream.round, (at, fit)));
            }
        }
        best
    }

    /// A change of the set of Channels binds all streams anew.
    fn note_set(&mut self) {
        let set = self.lanes.iter().fold(1, |hash, Lane { id, class, .. }| {
            let class = class.map_or(0, |class| 1 + u64::from(class.to_wire()));
            mix(hash ^ (u64::from(id.0) << 2 | class))
        });
        if core::mem::replace(&mut self.hashed_for, set) != set {
            self.streams.unbind_all();
        }
    }

    /// Gives each ready stream without a Channel one, by its key.
    fn bind_by_hash(&mut self) {
        for class in Class::ALL {
            while let Some(key) = self.streams.unhashed(class) {
                let carriers = || self.lanes.iter().filter(|lane| lane.carries(class));
                let count = carriers().count() as u64;
                if count == 0 {
                    break;
                }
                let nth = mix(key.0 ^ mix(self.seed)) % count;
                let Some(lane) = carriers().nth(nth as usize) else { break };
                self.streams.bind_head(class, lane.id);
            }
        }
    }
}
