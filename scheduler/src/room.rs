//! How much a Channel may take before work waits in its stream instead.
//!
//! Work that waits in a stream can still go anywhere; work on a Channel has to go through it, and
//! later bytes of the stream wait for it at the receiver. So a Channel holds at most what its
//! measured rate completes in the target delay. A Channel with nothing outstanding always has
//! room: nothing waits for an idle queue.
//!
//! `limit = rate x target + min_chunk`. The constant part makes Channels that share a port come to
//! equal shares: there the measured rate follows the bytes outstanding, so that limits in
//! proportion to rates would keep whatever shares they began with.

use core::hint::select_unpredictable;

use netchannel_units::{Bandwidth, ChannelId, Class, Duration};

use crate::config::SchedulerConfig;
use crate::policy::Policy;
use crate::view::ChannelView;

/// Bits per byte times nanoseconds per second.
const BIT_NANOS: u128 = 8 * 1_000_000_000;

/// A target delay as [`Bounds`] multiplies with: rounded up, so that a round rate has a round limit.
fn fraction(target: Duration) -> u64 {
    let fraction = (target.as_nanos().min(BIT_NANOS) << 64).div_ceil(BIT_NANOS);
    u64::try_from(fraction).unwrap_or(u64::MAX)
}

/// The bounds that a configuration puts on a Channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    chunk: u64,
    min_chunk: u64,
    explore: u64,
    /// Bytes outstanding per bit per second, as a fraction of 2^64; `None`: not bounded.
    target: Option<u64>,
}

/// What one Channel may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Room {
    /// Most bytes in one assignment.
    grain: u64,
    /// Most bytes outstanding.
    limit: u64,
}

impl Bounds {
    pub(crate) fn new(config: &SchedulerConfig) -> Self {
        let target = config.target_delay.filter(|_| config.policy == Policy::LeastDelay);
        let chunk = config.chunk;
        Self {
            chunk,
            min_chunk: config.min_chunk.clamp(1, chunk),
            explore: config.explore,
            target: target.map(fraction),
        }
    }

    #[inline(always)]
    fn room(&self, view: &ChannelView) -> Room {
        let Some(target) = self.target else {
            return Room { grain: self.chunk, limit: u64::MAX };
        };
        let limit = match view.rate.bits_per_second() {
            0 => self.explore,
            rate => ((u128::from(rate) * u128::from(target)) >> 64) as u64 + self.min_chunk,
        };
        let grain = (limit / 2).min(self.chunk).max(self.min_chunk);
        Room { grain, limit: limit.max(2 * grain) }
    }
}

/// A Channel between two looks at it: what follows from its view is worked out once for all
/// decisions, and what they assign to it is noted. A cache line.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Lane {
    /// Bytes posted and not completed.
    pub(crate) outstanding: u64,
    window_left: u64,
    /// Most bytes outstanding.
    limit: u64,
    /// Most bytes in one assignment, by class; zero: it takes none.
    grains: [u64; Class::ALL.len()],
    /// Measured delivery rate; zero is unknown.
    pub(crate) rate: Bandwidth,
    /// Nanoseconds; zero is unknown.
    pub(crate) completion_time: u64,
    pub(crate) id: ChannelId,
    /// The class that it carries; `None` is any.
    pub(crate) class: Option<Class>,
    pub(crate) message_due: bool,
}

const _: () = assert!(size_of::<Lane>() == 64);

impl Lane {
    #[inline(always)]
    pub(crate) fn new(view: ChannelView, bounds: &Bounds) -> Self {
        let Room { grain, limit } = bounds.room(&view);
        let takes = |class| view.usable && view.carries(class);
        Self {
            outstanding: view.outstanding,
            window_left: view.window_left,
            limit,
            grains: Class::ALL.map(|class| if takes(class) { grain } else { 0 }),
            rate: view.rate,
            completion_time: u64::try_from(view.completion_time.as_nanos()).unwrap_or(u64::MAX),
            id: view.id,
            class: view.class,
            message_due: view.message_due,
        }
    }

    /// Whether it carries streams of `class`.
    pub(crate) fn carries(&self, class: Class) -> bool {
        self.class.is_none_or(|own| own == class)
    }

    /// Whether it may take bytes of `class`.
    pub(crate) fn is_open(&self, class: Class) -> bool {
        self.grains[class as usize] > 0
    }

    /// How many of `backlog` bytes of a stream of `class` it should take now; zero if none.
    ///
    /// Every branch here goes the same way from call to call: which Channels are idle or full, which
    /// nobody can predict, is arithmetic.
    #[inline(always)]
    pub(crate) fn takes(&self, class: Class, backlog: u64) -> u64 {
        let grain = self.grains[class as usize];
        let want = backlog.min(grain);
        if self.window_left < want {
            return self.takes_of_window(grain, want);
        }
        self.unless_full(want)
    }

    /// The same where the window is smaller. One that is nearly closed is left to open, as otherwise it
    /// would be used up in ever smaller messages (silly window avoidance by the sender, RFC 9293 section
    /// 3.8.6.2.1).
    #[inline(never)]
    fn takes_of_window(&self, grain: u64, want: u64) -> u64 {
        let worth_it = self.outstanding == 0 || self.window_left >= grain.div_ceil(2);
        if worth_it { self.unless_full(want).min(self.window_left) } else { 0 }
    }

    /// An idle Channel has room for two grains at least, so it is never full.
    #[inline(always)]
    fn unless_full(&self, want: u64) -> u64 {
        let full = self.outstanding.saturating_add(want) > self.limit;
        select_unpredictable(full, 0, want)
    }

    /// It was assigned `bytes` bytes.
    #[inline(always)]
    pub(crate) fn on_assigned(&mut self, bytes: u64) {
        self.outstanding = self.outstanding.saturating_add(bytes);
        self.window_left = self.window_left.saturating_sub(bytes);
        self.message_due = true;
    }

    /// It did not take that many of them.
    pub(crate) fn on_refused(&mut self, bytes: u64) {
        self.outstanding = self.outstanding.saturating_sub(bytes);
        self.window_left = self.window_left.saturating_add(bytes);
    }

    /// It takes at most `bytes` more.
    pub(crate) fn limit(&mut self, bytes: u64) {
        self.window_left = self.window_left.min(bytes);
    }

    pub(crate) fn close(&mut self) {
        self.grains = Default::default();
    }
}

/// Bytes of one stream that look for a Channel.
#[derive(Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) class: Class,
    pub(crate) bytes: u64,
}

impl Wish {
    /// As [`Lane::takes`].
    #[inline(always)]
    pub(crate) fn fits(self, lane: &Lane) -> u64 {
        lane.takes(self.class, self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(outstanding: u64, window_left: u64, gbps: u64) -> ChannelView {
        let rate = Bandwidth::from_gbps(gbps);
        ChannelView { outstanding, window_left, rate, ..ChannelView::new(ChannelId(0)) }
    }

    fn bounds() -> Bounds {
        let target_delay = Some(Duration::from_micros(10));
        Bounds::new(&SchedulerConfig { target_delay, ..config() })
    }

    fn config() -> SchedulerConfig {
        SchedulerConfig {
            chunk: 256_000,
            min_chunk: 10_000,
            explore: 400_000,
            ..SchedulerConfig::default()
        }
    }

    #[test]
    fn two_assignments_fill_a_channel() {
        let view = view(0, u64::MAX, 80); // 10 bytes per nanosecond
        assert_eq!(bounds().room(&view), Room { grain: 55_000, limit: 110_000 });
    }

    #[test]
    fn slow_and_unknown_channels_have_bounds_of_their_own() {
        assert_eq!(bounds().room(&view(0, 0, 1)), Room { grain: 10_000, limit: 20_000 });
        assert_eq!(bounds().room(&view(0, 0, 0)), Room { grain: 200_000, limit: 400_000 });
    }

    fn takes(view: ChannelView, backlog: u64) -> bool {
        Lane::new(view, &bounds()).takes(Class::Throughput, backlog) > 0
    }

    #[test]
    fn an_idle_channel_takes_anything_and_a_full_one_nothing() {
        assert!(takes(view(0, 1, 80), 1 << 30));
        assert!(!takes(view(0, 0, 80), 1));
        assert!(takes(view(55_000, u64::MAX, 80), 1 << 30));
        assert!(!takes(view(55_001, u64::MAX, 80), 1 << 30));
        assert!(takes(view(109_999, u64::MAX, 80), 1));
        assert!(!takes(view(110_000, u64::MAX, 80), 1));
    }

    #[test]
    fn a_nearly_closed_window_is_left_to_open() {
        assert!(!takes(view(1, 27_499, 80), 1 << 30));
        assert!(takes(view(1, 27_500, 80), 1 << 30));
        assert!(takes(view(1, 100, 80), 100));
    }

    #[test]
    fn other_classes_and_unusable_channels_are_left_alone() {
        assert!(!takes(ChannelView { usable: false, ..view(0, 1, 80) }, 1));
        assert!(!takes(ChannelView { class: Some(Class::Latency), ..view(0, 1, 80) }, 1));
        assert!(takes(ChannelView { class: Some(Class::Throughput), ..view(0, 1, 80) }, 1));
    }
}
