//! Small messages go where a message is due anyway.

use netchannel_scheduler::{ChannelId, ChannelView, Scheduler, SchedulerConfig, StreamKey};
use netchannel_units::{Class, Duration};

const ROUNDS: usize = 640;

fn due(view: ChannelView) -> ChannelView {
    ChannelView { message_due: true, ..view }
}

fn timed(number: u16, micros: u64) -> ChannelView {
    let completion_time = Duration::from_micros(micros);
    ChannelView { completion_time, ..ChannelView::new(ChannelId(number)) }
}

/// How many of many messages of `bytes` bytes go to each Channel.
fn shares<const N: usize>(views: [ChannelView; N], bytes: u64) -> [usize; N] {
    let mut scheduler = Scheduler::new(SchedulerConfig::default());
    let mut counts = [0; N];
    for _ in 0..ROUNDS {
        scheduler.on_backlog(StreamKey(1), Class::Latency, bytes);
        scheduler.look(views);
        let next = scheduler.next().expect("every Channel has room");
        counts[usize::from(next.channel.0)] += 1;
    }
    counts
}

#[test]
fn an_answer_takes_the_acknowledgement_along() {
    let views = [timed(0, 10), timed(1, 10), due(timed(2, 10)), timed(3, 10)];
    let counts = shares(views, 64);
    assert!(counts[2] > ROUNDS * 9 / 10, "{counts:?}");
    // The others are not forgotten: their completion times are to be known.
    assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
}

#[test]
fn a_slow_channel_is_no_company() {
    let views = [timed(0, 10), timed(1, 10), due(timed(2, 30)), timed(3, 10)];
    let counts = shares(views, 64);
    assert!(counts[2] < ROUNDS / 2, "{counts:?}");
}

#[test]
fn neither_is_a_busy_one() {
    let busy = ChannelView { outstanding: 10_000, ..due(timed(2, 10)) };
    let counts = shares([timed(0, 10), timed(1, 10), busy, timed(3, 10)], 64);
    assert!(counts[2] < ROUNDS / 20, "{counts:?}");
}

#[test]
fn many_bytes_are_spread_all_the_same() {
    let views = [timed(0, 10), timed(1, 10), due(timed(2, 10)), timed(3, 10)];
    let counts = shares(views, 64 << 10);
    assert!(counts.iter().all(|count| *count > ROUNDS / 8), "{counts:?}");
}
