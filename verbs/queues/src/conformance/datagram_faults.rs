//! Datagrams that do not arrive, and calls that are refused.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Check;
use super::bench::{DEPTH, PATIENCE, Pair, Side, ensure, expect, expect_success, request, say};
use super::datagrams::{GRH, INBOX, KEY_A, KEY_B, Talk, Way, grh_at};
use crate::datagram::{Datagram, DatagramEndpoint, DatagramOptions, FIRST_PRIVILEGED_KEY};
use crate::error::{Error, PostError, PostFailure};
use crate::queue_pair::{ConnectOptions, QueuePairState, Service};
use crate::work::{SendOperation, SendRequest, Status};
use crate::{
    Access, AddressHandle as _, AddressVector, CompletionQueue as _, Context, QueuePair as _,
};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("datagram: states, and calls for connections", states),
        ("datagram: what is too long is refused", too_long),
        ("datagram: a wrong queue key is dropped", wrong_key),
        ("datagram: an unknown queue pair is no error", nobody),
        ("datagram: without a receive it is dropped", no_receive),
        ("datagram: a receive that is too short", too_short),
        ("datagram: a full queue pushes back, and goes on", full_queue),
        ("datagram: failing flushes, and spares the peer", flush),
        ("datagram: a wrong local key fails the sender", bad_source),
        ("datagram: address handles come and go", handles),
        ("datagram: an armed queue wakes", wakes),
    ]
}

const MOMENT: Duration = Duration::from_millis(30);

fn send<C: Context>(side: &Side<C>, id: u64, length: usize) -> SendRequest {
    request(id, SendOperation::Send, &[side.slice(0, length)])
}

fn expect_invalid(result: Result<(), PostError>, what: &str) -> Result<(), String> {
    match result {
        Err(PostError { posted: 0, reason: PostFailure::Invalid(_) }) => Ok(()),
        other => Err(format!("{what}: {other:?}")),
    }
}

fn states<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let expect_state = |side: &Side<C>, expected| {
        let state = side.queue_pair.state().map_err(say("state"))?;
        ensure!(state == expected, "the state is {state:?}, not {expected:?}");
        Ok(())
    };
    let b = Side::datagrams(b, KEY_B)?;
    let way = Way::new(a, &b)?;
    ensure!(way.peer.queue_key == KEY_B, "{:?}", way.peer);
    ensure!(way.peer.number == b.queue_pair.number(), "{:?}", way.peer);
    let mut side = Side::make(a, Access::LOCAL_WRITE, Service::UnreliableDatagram)?;
    expect_state(&side, QueuePairState::Init)?;
    side.receive(1, &[side.slice(INBOX, 100)]).map_err(say("receives may be posted in Init"))?;
    let datagram = way.datagram(send(&side, 2, 8));
    ensure!(side.try_datagrams(&[datagram]).is_err(), "a datagram was accepted in Init");

    let connect = side.queue_pair.connect(&b.queue_pair.endpoint(), &ConnectOptions::default());
    ensure!(matches!(connect, Err(Error::Invalid { .. })), "connect: {connect:?}");
    let privileged = side.queue_pair.activate(&DatagramOptions { queue_key: FIRST_PRIVILEGED_KEY });
    ensure!(matches!(privileged, Err(Error::Invalid { .. })), "privileged key: {privileged:?}");
    let options = DatagramOptions { queue_key: KEY_A };
    side.queue_pair.activate(&options).map_err(say("activate"))?;
    expect_state(&side, QueuePairState::ReadyToSend)?;
    ensure!(side.queue_pair.activate(&options).is_err(), "it was activated twice");

    expect_invalid(side.try_send(&[send(&side, 3, 8)]), "post_send of a UD queue pair")?;
    let privileged = Datagram { queue_key: FIRST_PRIVILEGED_KEY, ..datagram };
    expect_invalid(side.try_datagrams(&[privileged]), "a privileged key")?;
    let write = SendOperation::Write { address: 0, key: crate::RemoteKey(0) };
    let write = way.datagram(request(4, write, &[side.slice(0, 8)]));
    expect_invalid(side.try_datagrams(&[write]), "a WRITE")?;

    let mut connection = Side::new(a)?;
    let activate = connection.queue_pair.activate(&options);
    ensure!(matches!(activate, Err(Error::Invalid { .. })), "activate: {activate:?}");
    expect_invalid(connection.try_datagrams(&[datagram]), "post_datagrams of a connection")?;
    let endpoint = DatagramEndpoint::parse(&connection.queue_pair.endpoint());
    ensure!(matches!(endpoint, Err(Error::BadEndpoint { .. })), "{endpoint:?}");
    Ok(())
}

fn too_long<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mtu = a.attributes().port.mtu as usize;
    let mut talk = Talk::new(a, b)?;
    let a = &mut talk.pair.a;
    let requests = [send(a, 1, mtu), send(a, 2, mtu + 1), send(a, 3, 1)];
    let datagrams = requests.map(|request| talk.to_b.datagram(request));
    match a.try_datagrams(&datagrams) {
        Err(PostError { posted: 1, reason: PostFailure::Invalid(reason) }) => {
            ensure!(reason.contains("MTU"), "it does not say why: {reason}");
        }
        other => return Err(format!("{} bytes with an MTU of {mtu}: {other:?}", mtu + 1)),
    }
    expect_success(&talk.pair.wait_a(1)?)?;
    talk.pair.poll_for(Duration::from_millis(2))?;
    let more = talk.pair.a.take_all();
    ensure!(more.is_empty(), "completions of what was refused: {more:?}");
    Ok(())
}

/// Side A sends 100 bytes to `queue_pair` with `queue_key`, and side B sees nothing of it.
fn lose<C: Context>(talk: &mut Talk<C>, queue_pair: u32, queue_key: u32) -> Result<(), String> {
    let request = send(&talk.pair.a, 2, 100);
    let datagram = Datagram { queue_pair, queue_key, ..talk.to_b.datagram(request) };
    talk.pair.a.try_datagrams(&[datagram]).map_err(say("post_datagrams"))?;
    expect_success(&talk.pair.wait_a(2)?)?;
    talk.pair.poll_for(MOMENT)?;
    let seen = talk.pair.b.take_all();
    ensure!(seen.is_empty(), "to {queue_pair} with key {queue_key:#x}: {seen:?}");
    Ok(())
}

/// A good datagram arrives in B's receive `receive`, which is the next one.
fn right_one<C: Context>(talk: &mut Talk<C>, receive: u64) -> Result<(), String> {
    talk.pair.a.fill(200, 60, receive);
    let right = request(3, SendOperation::Send, &[talk.pair.a.slice(200, 60)]);
    let (_, received) = talk.deliver(right, receive)?;
    ensure!(received.bytes as usize == GRH + 60, "{received:?}");
    talk.pair.b.check(INBOX + GRH, 60, receive)
}

fn wrong_key<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    talk.pair.b.receive(1, &[talk.pair.b.slice(INBOX, 200)])?;
    let number = talk.to_b.peer.number;
    for queue_key in [0, KEY_B + 1, KEY_A] {
        lose(&mut talk, number, queue_key)?;
    }
    right_one(&mut talk, 1)
}

fn nobody<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    talk.pair.b.receive(1, &[talk.pair.b.slice(INBOX, 200)])?;
    let gone = Side::datagrams(b, KEY_B)?;
    let number = gone.queue_pair.number();
    gone.queue_pair.close().map_err(say("close"))?;
    // Neither one that has gone, nor a connection, nor one that was not activated.
    let connection = Side::new(b)?;
    let silent = Side::make(b, Access::LOCAL_WRITE, Service::UnreliableDatagram)?;
    for number in [number, connection.queue_pair.number(), silent.queue_pair.number()] {
        lose(&mut talk, number, KEY_B)?;
    }
    right_one(&mut talk, 1)
}

fn no_receive<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    let number = talk.to_b.peer.number;
    // The first one between two queue pairs may take its time.
    talk.pair.b.receive(9, &[talk.pair.b.slice(INBOX, 200)])?;
    right_one(&mut talk, 9)?;
    for id in 0..3 {
        lose(&mut talk, number, KEY_B)?;
        talk.pair.b.receive(id, &[talk.pair.b.slice(INBOX, 200)])?;
        talk.pair.poll_for(MOMENT)?;
        ensure!(!talk.pair.b.has_seen(), "it waited for a receive");
        right_one(&mut talk, id)?;
    }
    Ok(())
}

/// What the specification leaves to devices (they drop it, or fail the receive, and the queue pair or
/// not), but never a byte behind the receive, and never an error at the sender.
fn too_short<C: Context>(a: &C, b: &C) -> Result<(), String> {
    for room in [8, GRH, GRH + 99] {
        let mut talk = Talk::new(a, b)?;
        let Pair { b, .. } = &mut talk.pair;
        b.fill(INBOX + room, 200, 9);
        b.receive(1, &[b.slice(INBOX, room)])?;
        b.receive(4, &[b.slice(INBOX + 4096, 200)])?;
        let datagram = talk.to_b.datagram(send(&talk.pair.a, 2, 100));
        talk.pair.a.try_datagrams(&[datagram]).map_err(say("post_datagrams"))?;
        expect_success(&talk.pair.wait_a(2)?)?;
        talk.pair.poll_for(MOMENT)?;
        let allowed = [Status::LocalLength, Status::LocalOperation, Status::RemoteInvalidRequest];
        for completion in talk.pair.b.take_all() {
            // A queue pair that failed flushes the other one.
            let flushed = completion.id == 4;
            expect(&completion, if flushed { &[Status::Flushed] } else { &allowed })?;
        }
        talk.pair.b.check(INBOX + room, 200, 9).map_err(say("behind the receive"))?;
    }
    Ok(())
}

/// Some devices send while posting, and their queue is never full.
fn full_queue<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    let mut next = 0;
    for round in 0..3 {
        let begin = next;
        // All completions fit the completion queue, which is another one's to overflow.
        while next < begin + 3 * u64::from(DEPTH) {
            let datagram = talk.to_b.datagram(send(&talk.pair.a, next, 64));
            if let Err(error) = talk.pair.a.try_datagrams(&[datagram]) {
                ensure!(matches!(error.reason, PostFailure::QueueFull), "{error}");
                ensure!(next - begin >= u64::from(DEPTH), "round {round}: {} fit", next - begin);
                break;
            }
            next += 1;
        }
        let mut reaped = Vec::new();
        talk.pair.until("all completions", |a, _| {
            reaped.extend(a.take_all());
            reaped.last().is_some_and(|last| last.id + 1 == next)
        })?;
        reaped.iter().try_for_each(expect_success)?;
        ensure!(reaped.len() as u64 == next - begin, "{} completions", reaped.len());
    }
    Ok(())
}

fn flush<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    for id in 10..14 {
        talk.pair.a.receive(id, &[talk.pair.a.slice(INBOX, 200)])?;
    }
    talk.pair.b.receive(1, &[talk.pair.b.slice(INBOX, 200)])?;
    talk.pair.a.queue_pair.fail().map_err(say("fail"))?;
    for id in 10..14 {
        expect(&talk.pair.wait_a(id)?, &[Status::Flushed])?;
    }
    let state = talk.pair.a.queue_pair.state().map_err(say("state"))?;
    ensure!(state == QueuePairState::Error, "{state:?}");
    // Refused, or (as the standard has it) accepted and flushed.
    let datagram = talk.to_b.datagram(send(&talk.pair.a, 2, 100));
    match talk.pair.a.try_datagrams(&[datagram]) {
        Ok(()) => expect(&talk.pair.wait_a(2)?, &[Status::Flushed])?,
        Err(error) => ensure!(error.posted == 0, "{error}"),
    }
    // B sends to the one that failed, which is no error, and gets what others send.
    let back = talk.to_a.datagram(send(&talk.pair.b, 3, 100));
    talk.pair.b.try_datagrams(&[back]).map_err(say("post_datagrams"))?;
    expect_success(&talk.pair.wait_b(3)?)?;
    let other = Side::datagrams(a, KEY_A)?;
    talk.pair.a = other;
    right_one(&mut talk, 1)
}

fn bad_source<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    talk.pair.b.receive(1, &[talk.pair.b.slice(INBOX, 200)])?;
    let mut slice = talk.pair.a.slice(0, 100);
    slice.local_key ^= 0x5a5a_5a00;
    let datagram = talk.to_b.datagram(request(2, SendOperation::Send, &[slice]));
    if talk.pair.a.try_datagrams(&[datagram]).is_err() {
        // Some drivers look at the key while posting.
        return Ok(());
    }
    let allowed = [Status::LocalProtection, Status::LocalOperation];
    expect(&talk.pair.wait_a(2)?, &allowed)?;
    talk.pair.poll_for(MOMENT)?;
    ensure!(!talk.pair.b.has_seen(), "it was sent all the same");
    Ok(())
}

fn handles<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    let good = talk.to_b.peer.address();
    for bad in [
        AddressVector { flow_label: 1 << 20, ..good },
        AddressVector { service_level: 16, ..good },
        AddressVector { gid: [0; 16], lid: 0, ..good },
    ] {
        let refused = a.create_address_handle(&bad);
        ensure!(matches!(refused, Err(Error::Invalid { .. })), "{bad:?} was taken");
    }
    let many = (0..50)
        .map(|_| a.create_address_handle(&good).map_err(say("address handle")))
        .collect::<Result<Vec<_>, _>>()?;
    for handle in many {
        handle.close().map_err(say("close"))?;
    }
    // One handle for two queue pairs, which it outlives; the next one is as good.
    for round in 0..3 {
        talk.pair.b.receive(round, &[talk.pair.b.slice(INBOX, 200)])?;
        right_one(&mut talk, round)?;
        talk.pair.a = Side::datagrams(a, KEY_A)?;
    }
    let next = Way::new(a, &talk.pair.b)?;
    std::mem::replace(&mut talk.to_b, next).handle.close().map_err(say("close"))?;
    talk.pair.b.receive(9, &[talk.pair.b.slice(INBOX, 200)])?;
    right_one(&mut talk, 9)?;
    // A handle of another protection domain is refused, unless it is the same.
    let foreign = Way::new(b, &talk.pair.a)?;
    let datagram = foreign.datagram(send(&talk.pair.a, 5, 8));
    expect_invalid(talk.pair.a.try_datagrams(&[datagram]), "a handle of another context")
}

fn wakes<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let readable = |side: &Side<C>, wait: Duration| {
        let timeout = Timespec::try_from(wait).map_err(say("timeout"))?;
        let mut fds = [PollFd::from_borrowed_fd(side.queue.event_fd(), PollFlags::IN)];
        let ready = rustix::event::poll(&mut fds, Some(&timeout));
        ready.map(|ready| ready > 0).map_err(say("poll(2)"))
    };
    let mut talk = Talk::new(a, b)?;
    for (id, solicited) in [(0, false), (1, true), (2, false)] {
        let Pair { a, b } = &mut talk.pair;
        b.receive(id, &[b.slice(INBOX, 200)])?;
        let armed = if solicited { b.queue.arm_solicited() } else { b.queue.arm() };
        armed.map_err(say("arm"))?;
        b.poll()?;
        let deadline = Instant::now() + PATIENCE;
        // A link may lose it: then it is sent again.
        let mut woken = false;
        while !woken {
            ensure!(Instant::now() < deadline, "no event for datagram {id}");
            let request = SendRequest { solicited, ..send(a, 3, 64) };
            a.try_datagrams(&[talk.to_b.datagram(request)]).map_err(say("post_datagrams"))?;
            for _ in 0..1000 {
                a.poll()?;
                woken = readable(b, Duration::from_millis(1))?;
                if woken {
                    break;
                }
            }
            a.take_all();
        }
        expect_success(&talk.pair.wait_b(id)?)?;
        talk.pair.b.queue.drain_events().map_err(say("drain_events"))?;
    }
    let grh = grh_at(&talk.pair.b, INBOX)?;
    let gid = a.attributes().port.gid.map(|gid| gid.value);
    ensure!(Some(grh.source) == gid, "{grh}");
    Ok(())
}
