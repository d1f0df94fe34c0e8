//! [`Scheduler`]: ready streams on one side, Channels on the other, one assignment at a time.

use netchannel_units::{Claim, Class};

use crate::choice::Choice;
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

/// A stream that could be served, and by which Channel.
#[derive(Clone, Copy)]
struct Candidate {
    at: u32,
    round: u64,
    /// Position in the views.
    channel: usize,
    bytes: u64,
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
            lane.view.window_left = lane.view.window_left.min(bytes);
        }
    }

    /// A Channel left `bytes` bytes of what it was assigned, or (not `usable`) takes nothing more until
    /// the next [`look`](Self::look).
    pub fn on_refused(&mut self, channel: ChannelId, bytes: u64, usable: bool) {
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.view.id == channel) else { return };
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
    pub fn next(&mut self) -> Option<Assignment> {
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

    /// The next assignment of the class that is not first.
    #[inline(never)]
    fn next_of_other(&mut self, first: Class) -> Option<Assignment> {
        let class = if first == Class::Latency { Class::Throughput } else { Class::Latency };
        self.next_of(class, true)
    }

    /// The next assignment of one class.
    #[inline(always)]
    fn next_of(&mut self, class: Class, waiting: bool) -> Option<Assignment> {
        if class == Class::Throughput && self.gather.holds(&self.streams, &self.lanes) {
            return None;
        }
        let candidate = self.candidate(class)?;
        let bytes = candidate.bytes;
        let (stream, left) = self.streams.serve(candidate.at, bytes);
        let lane = &mut self.lanes[candidate.channel];
        lane.on_assigned(bytes);
        let channel = lane.view.id;
        self.quota.on_assigned(class, bytes, waiting);
        Some(Assignment { stream, channel, bytes, left })
    }

    /// The stream of `class` whose turn it is, among those that some Channel has room for.
    #[inline(always)]
    fn candidate(&mut self, class: Class) -> Option<Candidate> {
        let bound = match self.streams.has_bound(class) {
            true => self.bound_candidate(class),
            false => None,
        };
        let Some((at, stream)) = self.streams.any_head(class) else { return bound };
        if bound.is_some_and(|bound| bound.round < stream.round) {
            return bound;
        }
        let (round, backlog) = (stream.round, stream.backlog);
        let wish = Wish { bounds: &self.bounds, class, bytes: backlog };
        match self.choice.choose(&self.lanes, wish) {
            Some((channel, bytes)) => Some(Candidate { at, round, channel, bytes }),
            None => bound,
        }
    }

    /// The same among the streams that are bound to a Channel.
    #[inline(never)]
    fn bound_candidate(&self, class: Class) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        for (channel, lane) in self.lanes.iter().enumerate() {
            let Some((at, stream)) = self.streams.bound_head(class, lane.view.id) else { continue };
            let round = stream.round;
            if best.is_none_or(|best| round < best.round) {
                let bytes = self.bounds.takes(lane, class, stream.backlog);
                if bytes > 0 {
                    best = Some(Candidate { at, round, channel, bytes });
                }
            }
        }
        best
    }

    /// A change of the set of Channels binds all streams anew.
    fn note_set(&mut self) {
        let set = self.lanes.iter().fold(1, |hash, Lane { view, .. }| {
            let class = view.class.map_or(0, |class| 1 + u64::from(class.to_wire()));
            mix(hash ^ (u64::from(view.id.0) << 2 | class))
        });
        if core::mem::replace(&mut self.hashed_for, set) != set {
            self.streams.unbind_all();
        }
    }

    /// Gives each ready stream without a Channel one, by its key.
    fn bind_by_hash(&mut self) {
        for class in Class::ALL {
            while let Some(key) = self.streams.unhashed(class) {
                let carriers = || self.lanes.iter().filter(|lane| lane.view.carries(class));
                let count = carriers().count() as u64;
                if count == 0 {
                    break;
                }
                let nth = mix(key.0 ^ mix(self.seed)) % count;
                let Some(lane) = carriers().nth(nth as usize) else { break };
                self.streams.bind_head(class, lane.view.id);
            }
        }
    }
}
