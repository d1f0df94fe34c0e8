//! [`Scheduler`]: ready streams on one side, Channels on the other, one assignment at a time.

use netchannel_units::{Claim, Class};

use crate::choice::Choice;
use crate::config::SchedulerConfig;
use crate::policy::Policy;
use crate::quota::Quota;
use crate::random::mix;
use crate::room::{Bounds, Wish};
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
/// let mut channels = [ChannelView::new(ChannelId(0))];
/// let next = scheduler.next(&channels).unwrap();
/// assert_eq!((next.stream, next.channel, next.bytes), (StreamKey(7), ChannelId(0), 100_000));
/// channels[0].outstanding += next.bytes;
/// assert_eq!(scheduler.next(&channels), None);
/// ```
#[derive(Clone, Debug)]
pub struct Scheduler {
    policy: Policy,
    seed: u64,
    bounds: Bounds,
    quota: Quota,
    choice: Choice,
    streams: Streams,
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
            quota: Quota::new(config.throughput_share, config.chunk),
            choice: Choice::new(config.policy, config.seed),
            streams: Streams::new(config.chunk),
            hashed_for: 0,
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
    /// room. Bytes assigned are taken off the stream's backlog; the caller updates the view and,
    /// if it differs, the backlog.
    ///
    /// `channels` is in the same order in every call (round robin goes by position).
    pub fn next(&mut self, channels: &[ChannelView]) -> Option<Assignment> {
        if self.policy == Policy::StaticHash {
            self.bind_by_hash(channels);
        }
        let waiting = self.streams.is_ready(Class::Throughput);
        let latency = self.streams.is_ready(Class::Latency);
        let first = match (latency, waiting) {
            (false, false) => return None,
            (false, true) => Class::Throughput,
            (true, false) => Class::Latency,
            (true, true) => self.quota.first(),
        };
        let next = self.next_of(first, waiting, channels);
        if next.is_none() && latency && waiting {
            return self.next_of_other(first, channels);
        }
        next
    }

    /// The next assignment of the class that is not first.
    #[inline(never)]
    fn next_of_other(&mut self, first: Class, channels: &[ChannelView]) -> Option<Assignment> {
        let class = if first == Class::Latency { Class::Throughput } else { Class::Latency };
        self.next_of(class, true, channels)
    }

    /// The next assignment of one class.
    #[inline(always)]
    fn next_of(
        &mut self,
        class: Class,
        waiting: bool,
        channels: &[ChannelView],
    ) -> Option<Assignment> {
        let candidate = self.candidate(class, channels)?;
        let bytes = candidate.bytes;
        let (stream, left) = self.streams.serve(candidate.at, bytes);
        let channel = channels[candidate.channel].id;
        self.quota.on_assigned(class, bytes, waiting);
        Some(Assignment { stream, channel, bytes, left })
    }

    /// The stream of `class` whose turn it is, among those that some Channel has room for.
    #[inline(always)]
    fn candidate(&mut self, class: Class, channels: &[ChannelView]) -> Option<Candidate> {
        let bound = match self.streams.has_bound(class) {
            true => self.bound_candidate(class, channels),
            false => None,
        };
        let Some((at, stream)) = self.streams.any_head(class) else { return bound };
        if bound.is_some_and(|bound| bound.round < stream.round) {
            return bound;
        }
        let (round, backlog) = (stream.round, stream.backlog);
        let wish = Wish { bounds: &self.bounds, class, bytes: backlog };
        match self.choice.choose(channels, wish) {
            Some((channel, bytes)) => Some(Candidate { at, round, channel, bytes }),
            None => bound,
        }
    }

    /// The same among the streams that are bound to a Channel.
    #[inline(never)]
    fn bound_candidate(&self, class: Class, channels: &[ChannelView]) -> Option<Candidate> {
        let mut best: Option<Candidate> = None;
        for (channel, view) in channels.iter().enumerate() {
            let Some((at, stream)) = self.streams.bound_head(class, view.id) else { continue };
            let round = stream.round;
            if best.is_none_or(|best| round < best.round)
                && let Some(bytes) = self.bounds.takes(view, class, stream.backlog)
            {
                best = Some(Candidate { at, round, channel, bytes });
            }
        }
        best
    }

    /// Gives each ready stream without a Channel one, by its key. A change of the set of Channels
    /// binds all streams anew.
    fn bind_by_hash(&mut self, channels: &[ChannelView]) {
        let set = channels.iter().fold(1, |hash, view| {
            let class = view.class.map_or(0, |class| 1 + u64::from(class.to_wire()));
            mix(hash ^ (u64::from(view.id.0) << 2 | class))
        });
        if core::mem::replace(&mut self.hashed_for, set) != set {
            self.streams.unbind_all();
        }
        for class in Class::ALL {
            while let Some(key) = self.streams.unhashed(class) {
                let carriers = || channels.iter().filter(|view| view.carries(class));
                let count = carriers().count() as u64;
                if count == 0 {
                    break;
                }
                let nth = mix(key.0 ^ mix(self.seed)) % count;
                let Some(view) = carriers().nth(nth as usize) else { break };
                self.streams.bind_head(class, view.id);
            }
        }
    }
}
