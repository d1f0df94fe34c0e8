//! Sleeping on a completion queue.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Check;
use super::bench::{
    Chance, PATIENCE, Pair, Side, ensure, expect, expect_success, request, say, slices_of,
};
use crate::context::AsyncEvent;
use crate::queue_pair::{QueuePairInit, Service};
use crate::work::{ReceiveRequest, SendOperation, SendRequest, Status, WorkCompletion};
use crate::{CompletionQueue as _, Context, QueuePair as _};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("events: an armed queue wakes, others do not", arm),
        ("events: a SEND that completes wakes its sender", wakes_sender),
        ("events: a WRITE behind a silent SEND wakes too", write_behind_send),
        ("events: a receive posted late wakes too", late_receive),
        ("events: armed for solicited ones only", solicited),
        ("events: an overflown completion queue says so", overflow),
        ("events: two sleepers never miss one another", ping_pong),
    ]
}

fn readable(fd: BorrowedFd<'_>, wait: Duration) -> Result<bool, String> {
    let timeout = Timespec::try_from(wait).map_err(say("timeout"))?;
    let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&timeout)).map(|ready| ready > 0).map_err(say("poll(2)"))
}

/// Whether B's queue becomes readable. A's NIC may need its polls; the sleeper gets none.
fn sleeper_wakes<C: Context>(pair: &mut Pair<C>) -> Result<bool, String> {
    for _ in 0..PATIENCE.as_millis() {
        pair.a.poll()?;
        if readable(pair.b.queue.event_fd(), Duration::from_millis(1))? {
            return Ok(true);
        }
    }
    Ok(false)
}

const MOMENT: Duration = Duration::from_millis(20);

fn arm<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    for id in 0..4 {
        pair.b.receive(id, &[pair.b.slice(0, 8)])?;
    }
    let ping = request(10, SendOperation::Send, &[pair.a.slice(0, 8)]);
    pair.a.send(ping)?;
    expect_success(&pair.wait_b(0)?)?;
    ensure!(!readable(pair.b.queue.event_fd(), MOMENT)?, "an event without arming");
    for id in 1..4 {
        pair.b.queue.arm().map_err(say("arm"))?;
        pair.b.poll()?;
        ensure!(!pair.b.has_seen(), "a completion from nowhere");
        ensure!(!readable(pair.b.queue.event_fd(), MOMENT)?, "an event without a completion");
        pair.a.send(ping)?;
        let woken = sleeper_wakes(&mut pair)?;
        ensure!(woken, "no event for a message");
        pair.b.queue.drain_events().map_err(say("drain_events"))?;
        ensure!(!readable(pair.b.queue.event_fd(), MOMENT)?, "drained, and still readable");
        expect_success(&pair.wait_b(id)?)?;
        // Some devices may have had more to tell meanwhile.
        pair.b.queue.drain_events().map_err(say("drain_events"))?;
    }
    Ok(())
}

fn solicited<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    for id in 0..5 {
        pair.b.receive(id, &[pair.b.slice(0, 8)])?;
    }
    let silent = request(10, SendOperation::Send, &[pair.a.slice(0, 8)]);
    for id in [0, 2] {
        pair.b.queue.arm_solicited().map_err(say("arm_solicited"))?;
        pair.b.poll()?;
        pair.a.send(silent)?;
        for _ in 0..MOMENT.as_millis() {
            pair.a.poll()?;
            let woken = readable(pair.b.queue.event_fd(), Duration::from_millis(1))?;
            ensure!(!woken, "an event for a message that is not solicited");
        }
        pair.a.send(SendRequest { solicited: true, ..silent })?;
        ensure!(sleeper_wakes(&mut pair)?, "no event for a solicited message");
        pair.b.queue.drain_events().map_err(say("drain_events"))?;
        for id in [id, id + 1] {
            expect_success(&pair.wait_b(id)?)?;
        }
        pair.b.queue.drain_events().map_err(say("drain_events"))?;
    }
    pair.b.queue.arm_solicited().map_err(say("arm_solicited"))?;
    pair.b.poll()?;
    pair.b.queue_pair.fail().map_err(say("fail"))?;
    ensure!(sleeper_wakes(&mut pair)?, "no event for a flushed receive");
    expect(&pair.wait_b(4)?, &[Status::Flushed])
}

fn overflow<C: Context>(_: &C, b: &C) -> Result<(), String> {
    // Devices round the capacity of one up.
    const RECEIVES: u32 = 600;
    while b.poll_event().map_err(say("poll_event"))?.is_some() {}
    let mut queue = b.create_completion_queue(1).map_err(say("completion queue"))?;
    let mut queue_pair = b
        .create_queue_pair(&QueuePairInit {
            service: Service::ReliableConnection,
            send_queue: &queue,
            receive_queue: &queue,
            shared_receive_queue: None,
            send_capacity: 1,
            receive_capacity: RECEIVES,
            inline_bytes: 0,
        })
        .map_err(say("queue pair"))?;
    for id in 0..u64::from(RECEIVES) {
        let request = ReceiveRequest { id, local: slices_of(&[]) };
        // SAFETY: there are no slices.
        unsafe { queue_pair.post_receive(&[request]) }.map_err(say("post_receive"))?;
    }
    queue_pair.fail().map_err(say("fail"))?;
    let (mut event, mut error) = (false, false);
    let deadline = Instant::now() + PATIENCE;
    while !(event && error) {
        event |=
            b.poll_event().map_err(say("poll_event"))? == Some(AsyncEvent::CompletionQueueFatal);
        // What it held may come out of it first.
        error |= queue.poll(&mut [WorkCompletion::default(); 64]).is_err();
        ensure!(Instant::now() < deadline, "event: {event}, error of poll: {error}");
        std::thread::yield_now();
    }
    Ok(())
}

fn wakes_sender<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    pair.a.send(request(1, SendOperation::Send, &[pair.a.slice(0, 8)]))?;
    sleep_until_received(&mut pair)?;
    expect_success(&pair.wait_a(1)?)
}

fn write_behind_send<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    let send = request(1, SendOperation::Send, &[pair.a.slice(0, 8)]);
    let write = request(3, Side::write_to(&pair.b, 64), &[pair.a.slice(0, 8)]);
    let read = request(4, Side::read_from(&pair.b, 64), &[pair.a.slice(64, 8)]);
    for last in [write, read] {
        pair.a.send(SendRequest { signaled: false, ..send })?;
        pair.a.send(SendRequest { signaled: false, ..write })?;
        pair.a.send(last)?;
        sleep_until_received(&mut pair)?;
        expect_success(&pair.wait_a(last.id)?)?;
        pair.a.queue.drain_events().map_err(say("drain_events"))?;
        ensure!(!pair.a.has_seen(), "a completion that was not asked for");
    }
    Ok(())
}

/// A has sent something for which B has no receive, and sleeps until that is posted.
fn sleep_until_received<C: Context>(pair: &mut Pair<C>) -> Result<(), String> {
    pair.poll_for(Duration::from_millis(2))?;
    pair.a.queue.arm().map_err(say("arm"))?;
    pair.a.poll()?;
    ensure!(!pair.a.has_seen(), "it completed without a receive");
    pair.b.receive(2, &[pair.b.slice(0, 8)])?;
    for _ in 0..PATIENCE.as_millis() {
        pair.b.poll()?;
        if readable(pair.a.queue.event_fd(), Duration::from_millis(1))? {
            expect_success(&pair.wait_b(2)?)?;
            return Ok(());
        }
    }
    Err("no event for what has completed".into())
}

fn late_receive<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    pair.a.send(request(1, SendOperation::Send, &[pair.a.slice(0, 8)]))?;
    pair.poll_for(Duration::from_millis(2))?;
    pair.b.queue.arm().map_err(say("arm"))?;
    pair.b.poll()?;
    pair.b.receive(2, &[pair.b.slice(0, 8)])?;
    ensure!(sleeper_wakes(&mut pair)?, "no event");
    expect_success(&pair.wait_b(2)?)
}

const ROUNDS: u64 = 300;

/// Waits as the trait's documentation says: arm, poll once more, sleep, drain.
fn sleep_until<C: Context>(side: &mut Side<C>, id: u64) -> Result<(), String> {
    loop {
        side.poll()?;
        if let Some(completion) = side.take(id) {
            return expect_success(&completion);
        }
        side.queue.arm().map_err(say("arm"))?;
        if side.poll()? > 0 {
            continue;
        }
        ensure!(readable(side.queue.event_fd(), PATIENCE)?, "request {id}: no event in time");
        side.queue.drain_events().map_err(say("drain_events"))?;
    }
}

fn play<C: Context>(side: &mut Side<C>, begins: bool) -> Result<(), String> {
    let mut chance = Chance::new(u64::from(begins));
    let ping = request(1_000_000, SendOperation::Send, &[side.slice(0, 8)]);
    let turn = |side: &mut Side<C>| {
        side.send(ping)?;
        sleep_until(side, ping.id)
    };
    if begins {
        turn(side)?;
    }
    for round in 0..ROUNDS {
        sleep_until(side, round)?;
        side.receive(round + 8, &[side.slice(64, 64)])?;
        // Sometimes late enough for the other to fall asleep, sometimes in the middle of it.
        for _ in 0..chance.below(2000) {
            std::hint::spin_loop();
        }
        if round + 1 < ROUNDS || !begins {
            turn(side)?;
        }
    }
    Ok(())
}

fn ping_pong<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let Pair { mut a, mut b } = Pair::new(a, b)?;
    for side in [&mut a, &mut b] {
        for id in 0..8 {
            side.receive(id, &[side.slice(64, 64)])?;
        }
    }
    std::thread::scope(|scope| {
        let other = scope.spawn(|| play(&mut b, false));
        let ours = play(&mut a, true);
        let others = other.join().map_err(|_| "a thread panicked".to_owned())?;
        ours.and(others)
    })
}
