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

use netchannel_units::Class;

use crate::config::SchedulerConfig;
use crate::policy::Policy;
use crate::view::ChannelView;

/// Bits per byte times nanoseconds per second.
const BIT_NANOS: u64 = 8 * 1_000_000_000;

/// The bounds that a configuration puts on a Channel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    chunk: u64,
    min_chunk: u64,
    gather: u64,
    explore: u64,
    /// `None`: bytes outstanding are not bounded.
    target_nanos: Option<u64>,
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
            gather: config.gather.min(chunk),
            explore: config.explore,
            target_nanos: target.map(|t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX)),
        }
    }

    #[inline]
    fn room(&self, view: &ChannelView) -> Room {
        let Some(target) = self.target_nanos else {
            return Room { grain: self.chunk, limit: u64::MAX };
        };
        let limit = match view.rate.bits_per_second() {
            0 => self.explore,
            rate => rate.saturating_mul(target) / BIT_NANOS + self.min_chunk,
        };
        let grain = (limit / 2).clamp(self.min_chunk, self.chunk);
        Room { grain, limit: limit.max(2 * grain) }
    }

    /// How many of `backlog` bytes of a stream of `class` the Channel should take now, if any.
    ///
    /// A window that is nearly closed is left to open, as otherwise it would be used up in ever
    /// smaller messages (silly window avoidance by the sender, RFC 9293 section 3.8.6.2.1).
    #[inline]
    pub(crate) fn takes(&self, view: &ChannelView, class: Class, backlog: u64) -> Option<u64> {
        if !view.usable || !view.carries(class) || view.window_left == 0 {
            return None;
        }
        let room = self.room(view);
        let want = backlog.min(room.grain);
        // Without branches: which of these holds changes from call to call.
        let open = view.window_left >= want.min(room.grain.div_ceil(2));
        let short = view.outstanding.saturating_add(want) <= room.limit;
        // Nagle's algorithm (RFC 896), by how busy the Channel is instead of by acknowledgements.
        let enough = (class == Class::Latency)
            | (want >= self.gather.min(room.grain))
            | (view.outstanding < self.gather / 4);
        let takes = (view.outstanding == 0) | (open & short & enough);
        takes.then_some(want.min(view.window_left))
    }
}

#[cfg(test)]
mod tests {
    use netchannel_units::{Bandwidth, Duration};

    use super::*;
    use crate::view::ChannelId;

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
        bounds().takes(&view, Class::Throughput, backlog).is_some()
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
    fn small_pieces_gather_while_the_channel_is_busy() {
        let bounds =
            Bounds::new(&SchedulerConfig { gather: 40_000, target_delay: None, ..config() });
        let takes = |outstanding, class, backlog| {
            bounds.takes(&view(outstanding, u64::MAX, 80), class, backlog).is_some()
        };
        assert!(takes(0, Class::Throughput, 1), "nothing waits for an idle queue");
        assert!(takes(9_999, Class::Throughput, 1), "nor for one that is nearly so");
        assert!(!takes(10_000, Class::Throughput, 39_999));
        assert!(takes(10_000, Class::Throughput, 40_000), "many bytes wait for nothing");
        assert!(takes(1 << 20, Class::Latency, 1), "latency streams never wait");
    }

    #[test]
    fn other_classes_and_unusable_channels_are_left_alone() {
        assert!(!takes(ChannelView { usable: false, ..view(0, 1, 80) }, 1));
        assert!(!takes(ChannelView { class: Some(Class::Latency), ..view(0, 1, 80) }, 1));
        assert!(takes(ChannelView { class: Some(Class::Throughput), ..view(0, 1, 80) }, 1));
    }
}
