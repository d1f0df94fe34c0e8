//! Small pieces wait while the Channels are busy with earlier ones.
//!
//! A message costs the same whatever it carries. While a NIC still works on what it was given,
//! bytes that wait lose nothing, and what applications add meanwhile goes along: Nagle's algorithm (RFC 896)
//! by how busy the device is, as Linux TCP corks (`tcp_autocorking`). Streams share messages, so
//! it is all ready bytes together that are few or many. When a good part of what was outstanding is gone
//! they leave, however few they are: no timer, and no queue runs dry for them. What is outstanding on a
//! Channel that takes nothing, because it fails or is full, holds up nobody.
//!
//! Latency streams wait for nothing, nor do streams that are bound to a Channel: their first bytes
//! go with the message that opens them.

use netchannel_units::Class;

use crate::room::Lane;
use crate::streams::Streams;

/// Part of the bytes to gather that the Channels must have outstanding together to be busy: so much is
/// left to do when gathering ends.
const BUSY: u64 = 4;
/// So many streams with little each are a message's worth.
const MANY: usize = 64;

/// The rule.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gather {
    /// Fewer bytes wait; zero: none do.
    bytes: u64,
}

impl Gather {
    pub(crate) fn new(bytes: u64) -> Self {
        Self { bytes }
    }

    /// Whether what throughput streams have ready waits for company.
    #[inline(always)]
    pub(crate) fn holds(self, streams: &Streams, lanes: &[Lane]) -> bool {
        self.bytes > 0 && self.holds_now(streams, lanes)
    }

    #[inline(never)]
    fn holds_now(self, streams: &Streams, lanes: &[Lane]) -> bool {
        !streams.have(Class::Throughput, self.bytes, MANY) && self.are_busy(lanes)
    }

    fn are_busy(self, lanes: &[Lane]) -> bool {
        let carriers = lanes.iter().filter(|lane| lane.is_open(Class::Throughput));
        let outstanding = carriers.fold(0u64, |sum, lane| sum.saturating_add(lane.outstanding));
        outstanding > 0 && outstanding >= self.bytes / BUSY
    }
}

#[cfg(test)]
mod tests {
    use netchannel_units::Claim;

    use super::*;
    use crate::config::SchedulerConfig;
    use crate::scheduler::Scheduler;
    use crate::view::{ChannelId, ChannelView, StreamKey};

    const GATHER: u64 = 40_000;

    /// What a scheduler assigns with so much outstanding on each Channel and so much ready in each
    /// stream of a class.
    fn next(outstanding: &[u64], class: Class, ready: &[u64]) -> Option<u64> {
        let config = SchedulerConfig { gather: GATHER, target_delay: None, ..Default::default() };
        let mut scheduler = Scheduler::new(config);
        for (key, bytes) in ready.iter().enumerate() {
            scheduler.on_backlog(StreamKey(key as u64), Claim::from(class), *bytes);
        }
        let view = |(number, bytes): (usize, &u64)| ChannelView {
            outstanding: *bytes,
            ..ChannelView::new(ChannelId(number as u16))
        };
        scheduler.look(outstanding.iter().enumerate().map(view));
        scheduler.next().map(|assignment| assignment.bytes)
    }

    #[test]
    fn few_bytes_wait_while_the_channels_are_busy() {
        let few = [GATHER - 1];
        assert_eq!(next(&[0, 0], Class::Throughput, &few), Some(GATHER - 1), "they are idle");
        assert_eq!(next(&[9_999, 0], Class::Throughput, &few), Some(GATHER - 1), "or nearly so");
        assert_eq!(next(&[10_000, 0], Class::Throughput, &few), None);
        assert_eq!(next(&[5_000, 5_000], Class::Throughput, &few), None);
    }

    #[test]
    fn many_bytes_wait_for_nothing() {
        assert_eq!(next(&[1 << 20], Class::Throughput, &[GATHER]), Some(GATHER));
        assert_eq!(next(&[1 << 20], Class::Throughput, &[1, GATHER]), Some(1), "together");
        assert_eq!(next(&[1 << 20], Class::Throughput, &[1; MANY]), None);
        assert_eq!(next(&[1 << 20], Class::Throughput, &[1; MANY + 1]), Some(1));
    }

    #[test]
    fn a_channel_that_takes_nothing_holds_up_nobody() {
        let config = SchedulerConfig { gather: GATHER, ..SchedulerConfig::default() };
        let mut scheduler = Scheduler::new(config);
        scheduler.on_backlog(StreamKey(1), Class::Throughput, 1);
        let dead =
            |usable| ChannelView { outstanding: 1 << 20, usable, ..ChannelView::new(ChannelId(0)) };
        scheduler.look([dead(true), ChannelView::new(ChannelId(1))]);
        assert_eq!(scheduler.next(), None);
        scheduler.look([dead(false), ChannelView::new(ChannelId(1))]);
        assert_eq!(scheduler.next().map(|next| next.channel), Some(ChannelId(1)));
    }

    #[test]
    fn latency_and_pinned_streams_wait_for_nothing() {
        assert_eq!(next(&[1 << 20], Class::Latency, &[1]), Some(1));
        let mut scheduler =
            Scheduler::new(SchedulerConfig { gather: GATHER, ..SchedulerConfig::default() });
        scheduler.on_backlog(StreamKey(1), Class::Throughput, 1);
        scheduler.look([ChannelView { outstanding: 20_000, ..ChannelView::new(ChannelId(0)) }]);
        assert_eq!(scheduler.next(), None);
        scheduler.pin(StreamKey(1), Some(ChannelId(0)));
        assert!(scheduler.next().is_some());
    }
}
