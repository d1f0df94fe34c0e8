//! What ends a connection, and how it shows on both sides.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::Check;
use super::bench::{Pair, Side, ensure, expect, hasty, request, say};
use crate::queue_pair::{ConnectOptions, QueuePairState};
use crate::work::{SendOperation, Status};
use crate::{Context, QueuePair as _};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("fault: a receive that is too short", too_short),
        ("fault: no receive within the retries", not_ready),
        ("fault: a receive with a wrong local key", bad_receive),
        ("fault: the peer's queue pair failed", peer_failed),
        ("fault: the peer's queue pair is closed", peer_closed),
        ("fault: nothing is written after a fence", fence),
    ]
}

/// Polls until the queue pair of side A is in error.
fn until_error<C: Context>(pair: &mut Pair<C>) -> Result<(), String> {
    pair.until("the state Error", |a, _| matches!(a.queue_pair.state(), Ok(QueuePairState::Error)))
}

fn too_short<C: Context>(a: &C, b: &C) -> Result<(), String> {
    for length in [65, 5000, 300_000] {
        let mut pair = Pair::new(a, b)?;
        pair.b.receive(1, &[pair.b.slice(0, 64)])?;
        pair.b.receive(2, &[pair.b.slice(0, 64)])?;
        pair.b.fill(64, 64, 3);
        let long = request(3, SendOperation::Send, &[pair.a.slice(0, length)]);
        let behind = request(4, SendOperation::Send, &[pair.a.slice(0, 8)]);
        pair.a.try_send(&[long, behind]).map_err(say("post_send"))?;
        // rxe reports the second of each, beside the specification.
        expect(&pair.wait_b(1)?, &[Status::LocalLength, Status::LocalOperation])?;
        expect(&pair.wait_b(2)?, &[Status::Flushed])?;
        let allowed = [Status::RemoteInvalidRequest, Status::RemoteOperation];
        expect(&pair.wait_a(3)?, &allowed)?;
        expect(&pair.wait_a(4)?, &[Status::Flushed])?;
        pair.b.check(64, 64, 3).map_err(say("beyond the receive"))?;
        until_error(&mut pair)?;
    }
    Ok(())
}

fn not_ready<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let options = ConnectOptions { receiver_not_ready_retries: 2, ..hasty() };
    let mut pair = Pair::with(a, b, &options)?;
    pair.a.receive(1, &[pair.a.slice(0, 64)])?;
    pair.a.send(request(2, SendOperation::Send, &[pair.a.slice(0, 64)]))?;
    pair.a.send(request(3, SendOperation::Send, &[pair.a.slice(0, 64)]))?;
    expect(&pair.wait_a(2)?, &[Status::ReceiverNotReady])?;
    expect(&pair.wait_a(3)?, &[Status::Flushed])?;
    expect(&pair.wait_a(1)?, &[Status::Flushed])?;
    until_error(&mut pair)
}

fn bad_receive<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    let mut slice = pair.b.slice(0, 64);
    slice.local_key ^= 0x5a5a_5a00;
    if pair.b.receive(1, &[slice]).is_err() {
        // Some drivers look at the key while posting.
        return Ok(());
    }
    pair.a.send(request(2, SendOperation::Send, &[pair.a.slice(0, 64)]))?;
    let allowed = [Status::LocalProtection, Status::LocalOperation, Status::LocalLength];
    expect(&pair.wait_b(1)?, &allowed)?;
    let allowed = [
        Status::RemoteOperation,
        Status::RemoteInvalidRequest,
        Status::RemoteAccess,
        Status::RetryExceeded,
    ];
    expect(&pair.wait_a(2)?, &allowed)
}

/// The peer is gone: the first request that is left says so, the others are flushed.
fn expect_gone<C: Context>(pair: &mut Pair<C>) -> Result<(), String> {
    let write = request(3, Side::write_to(&pair.b, 0), &[pair.a.slice(0, 64)]);
    let send = request(4, SendOperation::Send, &[pair.a.slice(0, 64)]);
    match pair.a.try_send(&[write, send]) {
        Ok(()) => {
            let first = pair.wait_a(3)?;
            let allowed = [Status::RetryExceeded, Status::RemoteOperation, Status::Flushed];
            expect(&first, &allowed)?;
            expect(&pair.wait_a(4)?, &[Status::Flushed, Status::RetryExceeded])?;
        }
        // The device noticed by itself.
        Err(error) => ensure!(error.posted == 0, "{error}"),
    }
    expect(&pair.wait_a(1)?, &[Status::Flushed])?;
    until_error(pair)
}

fn peer_failed<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::with(a, b, &hasty())?;
    pair.a.receive(1, &[pair.a.slice(0, 64)])?;
    pair.b.receive(2, &[pair.b.slice(0, 64)])?;
    pair.b.fill(0, 64, 9);
    pair.b.queue_pair.fail().map_err(say("fail"))?;
    expect(&pair.wait_b(2)?, &[Status::Flushed])?;
    expect_gone(&mut pair)?;
    pair.b.check(0, 64, 9).map_err(say("it was written to after its failure"))
}

fn peer_closed<C: Context>(a: &C, b: &C) -> Result<(), String> {
    for outstanding in [false, true] {
        let mut pair = Pair::with(a, b, &hasty())?;
        pair.a.receive(1, &[pair.a.slice(0, 64)])?;
        if outstanding {
            pair.a.send(request(2, SendOperation::Send, &[pair.a.slice(0, 64)]))?;
            pair.poll_for(Duration::from_millis(1))?;
        }
        // Its place is taken by a fresh one, which knows nothing of A.
        let gone = std::mem::replace(&mut pair.b.queue_pair, Side::new(b)?.queue_pair);
        gone.close().map_err(say("close"))?;
        if outstanding {
            expect(&pair.wait_a(2)?, &[Status::RetryExceeded, Status::ReceiverNotReady])?;
            expect(&pair.wait_a(1)?, &[Status::Flushed])?;
            until_error(&mut pair)?;
        } else {
            expect_gone(&mut pair)?;
        }
    }
    Ok(())
}

fn fence<C: Context>(a: &C, b: &C) -> Result<(), String> {
    const LENGTH: usize = 1 << 20;
    for round in 0..5 {
        let Pair { mut a, mut b } = Pair::with(a, b, &hasty())?;
        let target = Side::write_to(&b, 0);
        let stop = AtomicBool::new(false);
        let (stop, writer) = (&stop, &mut a);
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || -> Result<(), String> {
                let mut value = round;
                while !stop.load(Ordering::Relaxed) {
                    value += 1;
                    let write = request(value, target, &[writer.slice(0, LENGTH)]);
                    if writer.try_send(&[write]).is_err() {
                        std::thread::yield_now();
                    }
                    writer.poll()?;
                    writer.take_all();
                }
                Ok(())
            });
            let fenced = fenced_memory_is_quiet(&mut b, LENGTH);
            stop.store(true, Ordering::Relaxed);
            let wrote = thread.join().map_err(|_| "a thread panicked".to_owned())?;
            fenced.and(wrote)
        })?;
    }
    Ok(())
}

fn fenced_memory_is_quiet<C: Context>(b: &mut Side<C>, length: usize) -> Result<(), String> {
    b.receive(1, &[b.slice(length, 8)])?;
    std::thread::sleep(Duration::from_millis(10));
    b.queue_pair.fail().map_err(say("fail"))?;
    let deadline = std::time::Instant::now() + super::bench::PATIENCE;
    let flushed = loop {
        b.poll()?;
        if let Some(completion) = b.take(1) {
            break completion;
        }
        ensure!(std::time::Instant::now() < deadline, "the receive was not flushed");
        std::thread::yield_now();
    };
    expect(&flushed, &[Status::Flushed])?;
    // Fenced: the memory is ours now.
    b.fill(0, length, 77);
    std::thread::sleep(Duration::from_millis(20));
    b.check(0, length, 77).map_err(say("written to after the fence"))
}
