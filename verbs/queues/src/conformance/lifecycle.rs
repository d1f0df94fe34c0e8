//! States, connecting, closing.

use std::time::Duration;

use super::Check;
use super::bench::{Pair, Side, ensure, expect, expect_success, hasty, request, say};
use crate::error::{Error, PostFailure};
use crate::queue_pair::{ConnectOptions, Endpoint, QueuePairState};
use crate::work::{SendOperation, SendRequest, Status};
use crate::{Context, QueuePair as _};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("states: Init, ReadyToSend, Error", states),
        ("states: requests in the wrong one are refused", wrong_state),
        ("connect: damaged endpoints are refused", damaged_endpoints),
        ("connect: options out of range are refused", bad_options),
        ("connect: one side first, requests wait", one_side_first),
        ("connect: without waiting, requests wait", without_waiting),
        ("fail: every request completes, as flushed", flush),
        ("close: connections come and go", come_and_go),
    ]
}

fn expect_state<C: Context>(side: &Side<C>, expected: QueuePairState) -> Result<(), String> {
    let state = side.queue_pair.state().map_err(say("state"))?;
    ensure!(state == expected, "the state is {state:?}, not {expected:?}");
    Ok(())
}

fn states<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let (mut a, mut b) = (Side::new(a)?, Side::new(b)?);
    expect_state(&a, QueuePairState::Init)?;
    a.connect(&b, &ConnectOptions::default())?;
    b.connect(&a, &ConnectOptions::default())?;
    expect_state(&a, QueuePairState::ReadyToSend)?;
    ensure!(a.connect(&b, &ConnectOptions::default()).is_err(), "it connected twice");
    expect_state(&a, QueuePairState::ReadyToSend)?;
    a.queue_pair.fail().map_err(say("fail"))?;
    expect_state(&a, QueuePairState::Error)?;
    a.queue_pair.fail().map_err(say("fail, once more"))?;
    let Side { queue_pair, .. } = a;
    queue_pair.close().map_err(say("close"))
}

fn wrong_state<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut side = Side::new(a)?;
    let send = request(1, SendOperation::Send, &[side.slice(0, 8)]);
    let early = side.try_send(&[send]);
    ensure!(early.is_err(), "a SEND was accepted in Init");
    side.receive(2, &[side.slice(8, 8)]).map_err(say("receives may be posted in Init"))?;
    let mut pair = Pair::new(a, b)?;
    pair.a.queue_pair.fail().map_err(say("fail"))?;
    // Refused, or (as the standard has it) accepted and flushed.
    match pair.a.try_send(&[send]) {
        Err(error) => {
            let expected = matches!(error.reason, PostFailure::WrongState | PostFailure::Os(_));
            ensure!(error.posted == 0 && expected, "{error}");
            Ok(())
        }
        Ok(()) => expect(&pair.wait_a(1)?, &[Status::Flushed]),
    }
}

fn damaged_endpoints<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let (mut a, b) = (Side::new(a)?, Side::new(b)?);
    let good = b.queue_pair.endpoint();
    ensure!(!good.0.is_empty() && good.0.len() <= Endpoint::MAX_LEN, "length {}", good.0.len());
    let mut other_provider = good.0.clone();
    other_provider[0] ^= 0xff;
    let cut = good.0[..good.0.len() / 4].to_vec();
    for bytes in [vec![], vec![0], other_provider, cut, vec![0xff; Endpoint::MAX_LEN + 1]] {
        let length = bytes.len();
        match a.queue_pair.connect(&Endpoint(bytes), &ConnectOptions::default()) {
            Err(Error::BadEndpoint { .. }) => {}
            other => return Err(format!("{length} bytes of rubbish: {other:?}")),
        }
    }
    // It did no harm.
    a.connect(&b, &ConnectOptions::default())
}

fn bad_options<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let (mut a, b) = (Side::new(a)?, Side::new(b)?);
    let bad = [
        ConnectOptions { retries: 7, ..ConnectOptions::default() },
        ConnectOptions { receiver_not_ready_retries: 8, ..ConnectOptions::default() },
    ];
    for options in bad {
        let result = a.queue_pair.connect(&b.queue_pair.endpoint(), &options);
        ensure!(matches!(result, Err(Error::Invalid { .. })), "{options:?}: {result:?}");
    }
    a.connect(&b, &ConnectOptions::default())
}

fn one_side_first<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let (mut a, mut b) = (Side::new(a)?, Side::new(b)?);
    // NICs send again until the other side is there: 7 x 0.54 s, so that a stalled machine has time.
    let options =
        ConnectOptions { ack_timeout: Duration::from_micros(536_870), ..ConnectOptions::default() };
    b.receive(1, &[b.slice(0, 100)])?;
    a.connect(&b, &options)?;
    a.fill(0, 100, 5);
    a.send(request(2, SendOperation::Send, &[a.slice(0, 100)]))?;
    let inline = a.queue_pair.max_inline() >= 8;
    let mut write = request(3, Side::write_to(&b, 200), &[a.slice(0, 8)]);
    write.inline = inline;
    a.send(write)?;
    for _ in 0..10 {
        a.poll()?;
        std::thread::sleep(Duration::from_millis(1));
    }
    b.connect(&a, &options)?;
    let mut pair = Pair { a, b };
    expect_success(&pair.wait_b(1)?)?;
    expect_success(&pair.wait_a(2)?)?;
    expect_success(&pair.wait_a(3)?)?;
    pair.b.check(0, 100, 5)?;
    pair.b.check(200, 8, 5)
}

fn without_waiting<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let (mut a, mut b) = (Side::new(a)?, Side::new(b)?);
    let options = ConnectOptions::default();
    let ends = [a.queue_pair.endpoint(), b.queue_pair.endpoint()];
    for (side, peer) in [(&mut a, &ends[1]), (&mut b, &ends[0])] {
        side.receive(1, &[side.slice(0, 64)])?;
        side.queue_pair.start_connect(peer, &options).map_err(say("start_connect"))?;
        expect_state(side, QueuePairState::ReadyToSend)?;
        ensure!(side.queue_pair.start_connect(peer, &options).is_err(), "it connected twice");
        side.fill(64, 64, 7);
    }
    let to_b = request(3, Side::write_to(&b, 128), &[a.slice(64, 64)]);
    a.send(SendRequest { signaled: false, ..to_b })?;
    for side in [&mut a, &mut b] {
        side.send(request(2, SendOperation::Send, &[side.slice(64, 64)]))?;
    }
    let mut pair = Pair { a, b };
    for id in [1, 2] {
        expect_success(&pair.wait_a(id)?)?;
        expect_success(&pair.wait_b(id)?)?;
    }
    pair.b.check(128, 64, 7)?;
    pair.a.check(0, 64, 7)
}

fn flush<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    for id in 0..8 {
        pair.a.receive(100 + id, &[pair.a.slice(0, 64)])?;
        // B has posted nothing, so these stay outstanding; success is silent for half of them.
        let mut send = request(id, SendOperation::Send, &[pair.a.slice(64, 64)]);
        send.signaled = id % 2 == 0;
        pair.a.send(send)?;
    }
    pair.a.queue_pair.fail().map_err(say("fail"))?;
    let mut sends = Vec::new();
    for id in 0..8 {
        sends.push(pair.wait_a(id)?);
        expect(&pair.wait_a(100 + id)?, &[Status::Flushed])?;
    }
    // Devices may have begun with the first one.
    sends.iter().try_for_each(|send| expect(send, &[Status::Flushed]))?;
    pair.poll_for(Duration::from_millis(2))?;
    let more = pair.a.take_all();
    ensure!(more.is_empty(), "completions that nobody asked for: {more:?}");
    Ok(())
}

fn come_and_go<C: Context>(a: &C, b: &C) -> Result<(), String> {
    for round in 0..20 {
        let mut pair = Pair::with(a, b, &hasty())?;
        pair.b.receive(1, &[pair.b.slice(0, 64)])?;
        pair.a.fill(0, 64, round);
        pair.a.send(request(2, SendOperation::Send, &[pair.a.slice(0, 64)]))?;
        expect_success(&pair.wait_b(1)?)?;
        pair.b.check(0, 64, round)?;
        let Pair { a: side, b: other } = pair;
        side.queue_pair.close().map_err(say("close"))?;
        other.queue_pair.close().map_err(say("close"))?;
    }
    Ok(())
}
