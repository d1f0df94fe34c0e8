//! Cost of one decision, the report of what is left and the change of the view among it.
//!
//! `cargo bench -p netchannel-scheduler` prints nanoseconds (the fastest of many rounds, as other
//! work on the machine only adds). `cargo bench -p netchannel-scheduler -- CASE COUNT` runs one
//! case `COUNT` times without looking at a clock; the difference of the instructions that
//! `valgrind --tool=callgrind` counts for two values of `COUNT` is the cost of one.

use std::hint::black_box;
use std::time::{Duration, Instant};

use netchannel_scheduler::{ChannelId, ChannelView, Policy, Scheduler, SchedulerConfig, StreamKey};
use netchannel_units::{Bandwidth, Class};

const PLENTY: u64 = 1 << 50;

struct Case {
    name: &'static str,
    scheduler: Scheduler,
    views: Vec<ChannelView>,
    /// Reported after each assignment; `None` leaves it to the scheduler's own count.
    backlog: Option<u64>,
}

fn case(name: &'static str, policy: Policy, streams: u64, channels: u16) -> Case {
    let mut scheduler = Scheduler::new(SchedulerConfig { policy, ..SchedulerConfig::default() });
    for key in 0..streams {
        scheduler.on_backlog(StreamKey(key), Class::Throughput, PLENTY);
    }
    let view =
        |id| ChannelView { rate: Bandwidth::from_gbps(100), ..ChannelView::new(ChannelId(id)) };
    Case { name, scheduler, views: (0..channels).map(view).collect(), backlog: Some(PLENTY) }
}

fn cases() -> Vec<Case> {
    let mut small = case("small-messages", Policy::LeastDelay, 4, 4);
    small.backlog = Some(64);
    let mut own_count = case("least-delay-no-report", Policy::LeastDelay, 4, 4);
    own_count.backlog = None;
    let mut full = case("nothing-has-room", Policy::LeastDelay, 4, 4);
    full.views.iter_mut().for_each(|view| view.outstanding = PLENTY);
    vec![
        case("least-delay", Policy::LeastDelay, 4, 4),
        own_count,
        case("least-delay-1-stream", Policy::LeastDelay, 1, 4),
        case("least-delay-10000-streams", Policy::LeastDelay, 10_000, 4),
        case("least-delay-16-channels", Policy::LeastDelay, 4, 16),
        case("round-robin", Policy::RoundRobin, 4, 4),
        case("hash", Policy::StaticHash, 4, 4),
        small,
        full,
    ]
}

impl Case {
    fn run(&mut self, times: u64) {
        for _ in 0..times {
            let Some(next) = black_box(self.scheduler.next(black_box(&self.views))) else {
                continue;
            };
            if let Some(backlog) = self.backlog {
                self.scheduler.on_backlog(next.stream, Class::Throughput, backlog);
            }
            // The queue stays about half full.
            let view = &mut self.views[usize::from(next.channel.0)];
            view.outstanding = (view.outstanding + next.bytes) & 0x7_FFFF;
        }
    }

    #[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
    fn measure(&mut self) -> f64 {
        const TIMES: u64 = 20_000;
        let mut best = Duration::MAX;
        for _ in 0..200 {
            let start = Instant::now();
            self.run(TIMES);
            best = best.min(start.elapsed());
        }
        best.as_nanos() as f64 / TIMES as f64
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    match arguments.as_slice() {
        [name, times] => {
            let times = times.parse().expect("COUNT is a number");
            let mut cases = cases();
            let case = cases.iter_mut().find(|case| case.name == name).expect("no such CASE");
            case.run(times);
        }
        _ => {
            for mut case in cases() {
                let nanos = case.measure();
                println!("{:28} {nanos:6.1} ns", case.name);
            }
        }
    }
}
