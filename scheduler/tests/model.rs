//! The scheduler beside an oracle that keeps plain maps and looks at everything: an assignment is
//! one that the rules allow, and there is one whenever the rules allow any.

use std::collections::BTreeMap;

use netchannel_scheduler::{
    Assignment, ChannelId, ChannelView, Policy, Scheduler, SchedulerConfig, StreamKey,
};
use netchannel_units::{Bandwidth, Class, Duration};
use proptest::prelude::*;

const CHUNK: u64 = 64_000;
const MIN_CHUNK: u64 = 8_000;
const EXPLORE: u64 = 100_000;
const TARGET: Duration = Duration::from_micros(50);

/// What a Channel leaves of an assignment: some bytes, and with or without them it may be closed.
#[derive(Clone, Copy, Debug)]
struct Leaves {
    bytes: u64,
    usable: bool,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Backlog(u64, Class, u64),
    Pin(u64, Option<u16>),
    Remove(u64),
    Change(usize, bool, u64, u64, u64),
    /// So many decisions; the assigned bytes become outstanding, but for those that the Channel leaves.
    Decide(usize, Option<Leaves>),
    /// What is outstanding completes.
    Drain,
}

#[derive(Clone, Copy, Debug, Default)]
struct Stream {
    class: Class,
    backlog: u64,
    pinned: Option<u16>,
    /// The Channel that the static policy chose, once seen.
    hashed: Option<ChannelId>,
}

struct Oracle {
    policy: Policy,
    target: Option<Duration>,
    streams: BTreeMap<u64, Stream>,
    views: Vec<ChannelView>,
}

impl Oracle {
    /// Most bytes of an assignment and most outstanding, from the definition.
    fn bounds(&self, view: &ChannelView) -> (u64, u64) {
        let Some(target) = self.target.filter(|_| self.policy == Policy::LeastDelay) else {
            return (CHUNK, u64::MAX);
        };
        let limit = match view.rate {
            Bandwidth::ZERO => EXPLORE,
            rate => rate.bytes_in(target) + MIN_CHUNK,
        };
        let grain = (limit / 2).clamp(MIN_CHUNK, CHUNK);
        (grain, limit.max(2 * grain))
    }

    /// Whether the rules let this Channel take bytes of this stream now.
    fn allows(&self, stream: &Stream, view: &ChannelView) -> bool {
        let carries = view.class.is_none_or(|class| class == stream.class);
        let bound = stream.pinned.map(ChannelId).or(stream.hashed);
        if !view.usable || !carries || bound.is_some_and(|id| id != view.id) {
            return false;
        }
        if stream.backlog == 0 || view.window_left == 0 {
            return false;
        }
        let (grain, limit) = self.bounds(view);
        let want = stream.backlog.min(grain);
        let silly = view.window_left < want && view.window_left < grain.div_ceil(2);
        view.outstanding == 0 || (!silly && view.outstanding + want <= limit)
    }

    /// Streams of one ring go in turn, so one that wants more than there is room for holds up
    /// smaller ones; but if all of a ring could go on some Channel, one must.
    fn check_idle(&self) {
        for (view, class) in self.views.iter().flat_map(|v| Class::ALL.map(|class| (v, class))) {
            for ring in [None, Some(view.id.0)] {
                // The static policy puts streams into the rings of the Channels.
                let here = |s: &Stream| match self.policy {
                    Policy::StaticHash => s.pinned.is_none() || s.pinned == ring,
                    _ => s.pinned == ring,
                };
                let ready = |s: &&Stream| s.class == class && s.backlog > 0 && here(s);
                let mut ready = self.streams.values().filter(ready).peekable();
                let pinned = |s: &Stream| s.pinned.is_some() || self.policy != Policy::StaticHash;
                let must = |s: &Stream| pinned(s) && self.allows(s, view);
                let idle = ready.peek().is_none() || !ready.all(must);
                assert!(idle, "{class} streams pinned to {ring:?} could go on {view:?}");
            }
        }
    }

    fn check(&mut self, next: Option<Assignment>) {
        let Some(next) = next else { return self.check_idle() };
        let stream = self.streams[&next.stream.0];
        let at = self.views.iter().position(|v| v.id == next.channel).expect("a Channel");
        let view = self.views[at];
        assert!(self.allows(&stream, &view), "{next:?} of {stream:?} on {view:?}");
        let (grain, _) = self.bounds(&view);
        assert_eq!(next.bytes, stream.backlog.min(grain).min(view.window_left));
        let stream = self.streams.get_mut(&next.stream.0).unwrap();
        stream.backlog -= next.bytes;
        if self.policy == Policy::StaticHash && stream.pinned.is_none() {
            stream.hashed = Some(next.channel);
        }
        self.views[at].outstanding += next.bytes;
        self.views[at].window_left = self.views[at].window_left.saturating_sub(next.bytes);
    }

    fn on_refused(&mut self, channel: ChannelId, leaves: Leaves) {
        let view = &mut self.views[usize::from(channel.0)];
        view.outstanding -= leaves.bytes;
        view.window_left = view.window_left.saturating_add(leaves.bytes);
        view.usable &= leaves.usable;
    }
}

fn class() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Latency), Just(Class::Throughput)]
}

fn op() -> impl Strategy<Value = Op> {
    let bytes = prop_oneof![0..3_u64, 0..300_000_u64];
    let window = prop_oneof![Just(u64::MAX), 0..200_000_u64];
    let leaves = (0..100_000_u64, any::<bool>());
    let leaves = leaves.prop_map(|(bytes, usable)| Leaves { bytes, usable });
    prop_oneof![
        4 => (0..12_u64, class(), bytes).prop_map(|(k, c, b)| Op::Backlog(k, c, b)),
        1 => (0..12_u64, proptest::option::of(0..5_u16)).prop_map(|(k, c)| Op::Pin(k, c)),
        1 => (0..12_u64).prop_map(Op::Remove),
        3 => (0..5_usize, any::<bool>(), 0..200_000_u64, window, 0..100_u64)
            .prop_map(|(i, u, o, w, r)| Op::Change(i, u, o, w, r)),
        4 => (1..8_usize, proptest::option::of(leaves)).prop_map(|(n, l)| Op::Decide(n, l)),
        1 => Just(Op::Drain),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn every_decision_is_one_that_the_rules_allow(
        policy in proptest::sample::select(Policy::ALL.to_vec()),
        target in proptest::option::of(Just(TARGET)),
        seed in any::<u64>(),
        classes in proptest::collection::vec(proptest::option::of(class()), 1..6),
        ops in proptest::collection::vec(op(), 1..120),
    ) {
        let mut scheduler = Scheduler::new(SchedulerConfig {
            policy,
            seed,
            chunk: CHUNK,
            min_chunk: MIN_CHUNK,
            explore: EXPLORE,
            target_delay: target,
            ..SchedulerConfig::default()
        });
        let view = |(i, class): (usize, &Option<Class>)| ChannelView {
            class: *class,
            ..ChannelView::new(ChannelId(i as u16))
        };
        let views = classes.iter().enumerate().map(view).collect();
        let mut oracle = Oracle { policy, target, streams: BTreeMap::new(), views };
        for op in ops {
            match op {
                Op::Backlog(key, class, bytes) => {
                    let stream = oracle.streams.entry(key).or_default();
                    if stream.class != class {
                        stream.hashed = None; // other Channels may carry it now
                    }
                    (stream.class, stream.backlog) = (class, bytes);
                    scheduler.on_backlog(StreamKey(key), class, bytes);
                }
                Op::Pin(key, channel) => {
                    oracle.streams.entry(key).or_default().pinned = channel;
                    scheduler.pin(StreamKey(key), channel.map(ChannelId));
                }
                Op::Remove(key) => {
                    oracle.streams.remove(&key);
                    scheduler.remove(StreamKey(key));
                }
                Op::Change(i, usable, outstanding, window_left, gbps) => {
                    if let Some(view) = oracle.views.get_mut(i) {
                        let rate = Bandwidth::from_gbps(gbps);
                        *view = ChannelView { usable, outstanding, window_left, rate, ..*view };
                    }
                }
                Op::Decide(times, leaves) => {
                    scheduler.look(oracle.views.iter().copied());
                    for _ in 0..times {
                        let next = scheduler.next();
                        oracle.check(next);
                        if let (Some(Assignment { channel, bytes, .. }), Some(leaves)) = (next, leaves) {
                            let leaves = Leaves { bytes: leaves.bytes.min(bytes), ..leaves };
                            scheduler.on_refused(channel, leaves.bytes, leaves.usable);
                            oracle.on_refused(channel, leaves);
                        }
                    }
                }
                Op::Drain => oracle.views.iter_mut().for_each(|view| view.outstanding = 0),
            }
        }
        // With every Channel idle all of it goes, unless no Channel may take it.
        for _ in 0..10_000 {
            for view in &mut oracle.views {
                *view = ChannelView {
                    usable: true, outstanding: 0, window_left: u64::MAX, ..*view
                };
            }
            scheduler.look(oracle.views.iter().copied());
            let next = scheduler.next();
            oracle.check(next);
            if next.is_none() {
                break;
            }
        }
        for stream in oracle.streams.values().filter(|stream| stream.backlog > 0) {
            let free = Stream { hashed: None, ..*stream };
            prop_assert!(!oracle.views.iter().any(|view| oracle.allows(&free, view)));
        }
    }
}

/// The static policy spreads streams and keeps each where it is, until the set of Channels
/// changes.
#[test]
fn the_static_policy_spreads_and_stays() {
    let config = SchedulerConfig { policy: Policy::StaticHash, ..SchedulerConfig::default() };
    let mut scheduler = Scheduler::new(config);
    let view = |id| ChannelView::new(ChannelId(id));
    let mut run = |channels: &[ChannelView]| {
        let mut places = BTreeMap::new();
        for key in 0..400 {
            scheduler.on_backlog(StreamKey(key), Class::Throughput, 10);
        }
        scheduler.look(channels.iter().copied());
        while let Some(next) = scheduler.next() {
            places.insert(next.stream, next.channel);
        }
        places
    };
    let four: Vec<_> = (0..4).map(view).collect();
    let places = run(&four);
    for id in 0..4 {
        let count = places.values().filter(|channel| channel.0 == id).count();
        assert!((60..140).contains(&count), "{count} of 400 on one of four");
    }
    assert_eq!(run(&four), places);
    assert!(run(&four[..2]).values().all(|channel| channel.0 < 2));
    assert_eq!(run(&four), places);
}
