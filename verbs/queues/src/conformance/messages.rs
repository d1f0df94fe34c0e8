//! SEND and receive.

use std::time::Duration;

use super::Check;
use super::bench::{DEPTH, Pair, Side, ensure, expect_success, request};
use crate::error::PostFailure;
use crate::work::{MAX_SLICES, Opcode, SendOperation};
use crate::{Context, QueuePair as _};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("send: bytes arrive, both sides complete", send),
        ("send: gather and scatter", gather_scatter),
        ("send: zero bytes", empty),
        ("send: immediate data", immediate),
        ("send: posted before the receive", early_send),
        ("send: inline source is free at once", inline),
        ("send: unsignalled ones complete silently", unsignalled),
        ("send: a full queue pushes back", full_queue),
        ("send: 1 MiB", large),
    ]
}

fn send<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    for (i, length) in [1, 39, 40, 41, 64, 1000, 4096, 4097, 65_536].into_iter().enumerate() {
        let id = i as u64;
        pair.a.fill(0, length, id);
        pair.b.receive(100 + id, &[pair.b.slice(0, 65_536)])?;
        pair.a.send(request(id, SendOperation::Send, &[pair.a.slice(0, length)]))?;
        let received = pair.wait_b(100 + id)?;
        expect_success(&received)?;
        ensure!(received.bytes as usize == length, "{} bytes, not {length}", received.bytes);
        ensure!(received.opcode == Opcode::Receive, "{received:?}");
        ensure!(received.queue_pair == pair.b.queue_pair.number(), "{received:?}");
        ensure!(received.immediate.is_none(), "{received:?}");
        pair.b.check(0, length, id)?;
        let sent = pair.wait_a(id)?;
        expect_success(&sent)?;
        ensure!(sent.opcode == Opcode::Send, "{sent:?}");
        ensure!(sent.queue_pair == pair.a.queue_pair.number(), "{sent:?}");
    }
    Ok(())
}

fn gather_scatter<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let slices = MAX_SLICES.min(a.attributes().max_slices as usize);
    let mut pair = Pair::new(a, b)?;
    let length = 3 * slices;
    pair.a.fill(0, length, 7);
    // Out of order at the source, and with other lengths at the destination.
    let from: Vec<_> = (0..slices).map(|i| pair.a.slice(3 * (slices - 1 - i), 3)).collect();
    let mut to: Vec<_> = (0..slices - 1).map(|i| pair.b.slice(100 * i, 2)).collect();
    to.push(pair.b.slice(5000, length));
    pair.b.receive(1, &to)?;
    pair.a.send(request(2, SendOperation::Send, &from))?;
    let received = pair.wait_b(1)?;
    expect_success(&received)?;
    expect_success(&pair.wait_a(2)?)?;
    ensure!(received.bytes as usize == length, "{} bytes, not {length}", received.bytes);
    let sent: Vec<u8> = (0..slices)
        .flat_map(|i| (0..3).map(move |j| 3 * (slices - 1 - i) + j))
        .map(|at| pair.a.byte(at))
        .collect();
    let places = (0..slices - 1)
        .flat_map(|i| [100 * i, 100 * i + 1])
        .chain(5000..5000 + length - 2 * (slices - 1));
    let arrived: Vec<u8> = places.map(|at| pair.b.byte(at)).collect();
    ensure!(sent == arrived, "sent {sent:02x?}, arrived {arrived:02x?}");
    Ok(())
}

fn empty<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    pair.b.receive(1, &[])?;
    pair.b.receive(2, &[pair.b.slice(0, 8)])?;
    pair.a.send(request(3, SendOperation::Send, &[]))?;
    pair.a.send(request(4, SendOperation::SendWithImmediate(9), &[]))?;
    for id in [1, 2] {
        let received = pair.wait_b(id)?;
        expect_success(&received)?;
        ensure!(received.bytes == 0, "{received:?}");
        ensure!(received.immediate == (id == 2).then_some(9), "{received:?}");
    }
    expect_success(&pair.wait_a(3)?)?;
    expect_success(&pair.wait_a(4)?)
}

fn immediate<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    pair.a.fill(0, 100, 1);
    pair.b.receive(1, &[pair.b.slice(0, 100)])?;
    let operation = SendOperation::SendWithImmediate(0x1234_5678);
    pair.a.send(request(2, operation, &[pair.a.slice(0, 100)]))?;
    let received = pair.wait_b(1)?;
    expect_success(&received)?;
    ensure!(received.immediate == Some(0x1234_5678), "{received:?}");
    expect_success(&pair.wait_a(2)?)?;
    pair.b.check(0, 100, 1)
}

fn early_send<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    pair.a.fill(0, 5000, 3);
    pair.a.send(request(1, SendOperation::Send, &[pair.a.slice(0, 5000)]))?;
    pair.poll_for(Duration::from_millis(5))?;
    ensure!(pair.a.take(1).is_none(), "it completed without a receive");
    pair.b.receive(2, &[pair.b.slice(0, 5000)])?;
    expect_success(&pair.wait_b(2)?)?;
    expect_success(&pair.wait_a(1)?)?;
    pair.b.check(0, 5000, 3)
}

fn inline<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    let most = pair.a.queue_pair.max_inline().min(100_000) as usize;
    ensure!(most > 0, "the queue pair takes no inline bytes");
    for (i, length) in [1, most / 2, most].into_iter().enumerate() {
        let id = i as u64;
        pair.b.receive(100 + id, &[pair.b.slice(0, 100_000)])?;
        pair.a.fill(0, length, id);
        let mut send = request(id, SendOperation::Send, &[pair.a.slice(0, length)]);
        send.inline = true;
        // Inline sources need no key.
        let mut slice = pair.a.slice(0, length);
        slice.local_key = !slice.local_key;
        send.local = super::bench::slices_of(&[slice]);
        pair.a.send(send)?;
        pair.a.fill(0, length, 99);
        expect_success(&pair.wait_b(100 + id)?)?;
        pair.b.check(0, length, id)?;
        expect_success(&pair.wait_a(id)?)?;
    }
    Ok(())
}

fn unsignalled<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    for id in 0..10 {
        pair.b.receive(id, &[pair.b.slice(100 * id as usize, 100)])?;
    }
    for id in 0..10u64 {
        pair.a.fill(100 * id as usize, 100, id);
        let slice = pair.a.slice(100 * id as usize, 100);
        let mut send = request(id, SendOperation::Send, &[slice]);
        send.signaled = id % 5 == 4;
        pair.a.send(send)?;
    }
    for id in 0..10 {
        expect_success(&pair.wait_b(id)?)?;
        pair.b.check(100 * id as usize, 100, id)?;
    }
    pair.wait_a(9)?;
    let others: Vec<u64> = pair.a.take_all().iter().map(|completion| completion.id).collect();
    ensure!(others == [4], "completions before the last one: {others:?}, not [4]");
    Ok(())
}

fn full_queue<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    // No receive is posted, so nothing completes. Devices may give more room than was asked for.
    let most = a.attributes().max_work_requests.min(16 * DEPTH) as u64;
    let mut posted = 0;
    let full = loop {
        let send = request(posted, SendOperation::Send, &[pair.a.slice(0, 8)]);
        match pair.a.try_send(&[send, send]) {
            Ok(()) => posted += 2,
            Err(error) => {
                posted += error.posted as u64;
                break error;
            }
        }
        ensure!(posted <= most, "{posted} requests fit in a queue for {DEPTH}");
    };
    ensure!(matches!(full.reason, PostFailure::QueueFull), "{full}");
    ensure!(posted >= u64::from(DEPTH), "only {posted} requests fit");
    let mut received = 0;
    for _ in 0..DEPTH {
        pair.b.receive(7, &[pair.b.slice(0, 8)])?;
    }
    let mut sent = 0;
    while sent < posted {
        pair.until("a completion", |a, b| a.has_seen() || b.has_seen())?;
        sent += drain(&mut pair.a)?;
        let arrived = drain(&mut pair.b)?;
        received += arrived;
        for _ in 0..arrived {
            pair.b.receive(7, &[pair.b.slice(0, 8)])?;
        }
    }
    pair.until("receives", |_, b| {
        received += b.take_all().len() as u64;
        received == posted
    })?;
    let again = request(1, SendOperation::Send, &[pair.a.slice(0, 8)]);
    pair.a.send(again)
}

fn drain<C: Context>(side: &mut Side<C>) -> Result<u64, String> {
    let all = side.take_all();
    all.iter().try_for_each(expect_success)?;
    Ok(all.len() as u64)
}

fn large<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    let length = 1 << 20;
    for round in 0..2 {
        pair.a.fill(5, length, round);
        pair.b.receive(1, &[pair.b.slice(3, 77), pair.b.slice(4096, length)])?;
        pair.a.send(request(2, SendOperation::Send, &[pair.a.slice(5, length)]))?;
        let received = pair.wait_b(1)?;
        expect_success(&received)?;
        ensure!(received.bytes as usize == length, "{} bytes", received.bytes);
        expect_success(&pair.wait_a(2)?)?;
        pair.b.check(3, 77, round)?;
        let rest: Vec<u8> = super::bench::pattern(round).take(length).skip(77).collect();
        for (i, expected) in rest.iter().enumerate() {
            ensure!(pair.b.byte(4096 + i) == *expected, "byte {i} of the second slice");
        }
    }
    Ok(())
}
