//! One decision, and its part of a look at the Channels, which an engine takes once a pass. What streams
//! have left is reported where it is not what the scheduler thinks, between the batches here.

use std::hint::black_box;

use netchannel_scheduler::{ChannelId, ChannelView, Policy, Scheduler, SchedulerConfig, StreamKey};
use netchannel_units::{Bandwidth, Class, Duration};

use super::stack::CHUNK;
use crate::case::{Bench, Case};

const BATCH: u64 = 1024;
/// Decisions from one look at the Channels to the next, as for the batches of `stack`.
const PASS: u64 = 16;
const PLENTY: u64 = 1 << 50;

const fn case(name: &'static str, build: fn() -> Box<dyn Bench>) -> Case {
    Case { name, batch: BATCH, build }
}

/// See the module.
pub const CASES: &[Case] = &[
    case("scheduler/decision", || Decisions::of(Policy::LeastDelay, 4, 4)),
    case("scheduler/decision-1-stream", || Decisions::of(Policy::LeastDelay, 1, 4)),
    case("scheduler/decision-10000-streams", || Decisions::of(Policy::LeastDelay, 10_000, 4)),
    case("scheduler/decision-16-channels", || Decisions::of(Policy::LeastDelay, 4, 16)),
    case("scheduler/decision-round-robin", || Decisions::of(Policy::RoundRobin, 4, 4)),
    case("scheduler/decision-hash", || Decisions::of(Policy::StaticHash, 4, 4)),
    case("scheduler/nothing-has-room", || {
        let mut full = Decisions::new(Policy::LeastDelay, 4, 4);
        full.views.iter_mut().for_each(|view| view.outstanding = PLENTY);
        Box::new(full)
    }),
];

struct Decisions {
    scheduler: Scheduler,
    streams: u64,
    views: Vec<ChannelView>,
}

impl Decisions {
    fn new(policy: Policy, streams: u64, channels: u16) -> Self {
        let config = SchedulerConfig { policy, chunk: CHUNK as u64, ..SchedulerConfig::default() };
        let scheduler = Scheduler::new(config);
        let view = |id| ChannelView {
            rate: Bandwidth::from_gbps(100),
            completion_time: Duration::from_micros(2),
            ..ChannelView::new(ChannelId(id))
        };
        Self { scheduler, streams, views: (0..channels).map(view).collect() }
    }

    fn of(policy: Policy, streams: u64, channels: u16) -> Box<dyn Bench> {
        Box::new(Self::new(policy, streams, channels))
    }
}

impl Bench for Decisions {
    fn prepare(&mut self) {
        for key in 0..self.streams {
            self.scheduler.on_backlog(StreamKey(key), Class::Throughput, PLENTY);
        }
    }
    fn measured(&mut self) {
        for _ in 0..BATCH / PASS {
            self.scheduler.look(self.views.iter().copied());
            for _ in 0..PASS {
                let Some(next) = black_box(self.scheduler.next()) else { continue };
                // The queues stay about half full.
                let view = &mut self.views[usize::from(next.channel.0)];
                view.outstanding = (view.outstanding + next.bytes) & 0x7_FFFF;
            }
        }
    }
}
