//! The two halves of a stream: every state and event, and what the model of two hosts seldom
//! meets.

use std::fmt::Write as _;

use netchannel_units::{ByteRange, StreamOffset};
use netchannel_vns::receive::{Arrival, ReceiveHalf, ReceiveLimits, Upgrade};
use netchannel_vns::send::{ChunkLimits, Form, Grant, SendHalf};
use netchannel_vns::{SlabId, WindowPool};
use netchannel_wire::frame::GrantId;

fn offset(value: u64) -> StreamOffset {
    StreamOffset::new(value)
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(offset(start), offset(end))
}

fn grant(id: u32) -> Grant {
    Grant { id: GrantId(id), log2: 16, address: 0, key: 0, from: offset(0) }
}

const CHUNKS: ChunkLimits = ChunkLimits { bytes: 1 << 16, eager: 4096, bulk_min: 4096 };
const LIMITS: ReceiveLimits =
    ReceiveLimits { eager: 65_536, window_log2: 21, credits_per_window: 4 };

fn pool() -> WindowPool {
    let mut pool = WindowPool::default();
    (0..8).for_each(|slab| pool.add_slab(SlabId(slab)));
    pool
}

/// Sends the next chunk, which must be these bytes.
fn send(half: &mut SendHalf, expected: ByteRange) {
    let chunk = half.next_chunk(CHUNKS).expect("a chunk");
    assert_eq!(chunk.range, expected);
    half.on_sent(&chunk);
}

type SendCase = (&'static str, fn(&mut SendHalf));

/// Each begins with 10_000 bytes written of which 4096 were sent.
const SEND_STATES: [SendCase; 5] = [
    ("Open", |_| {}),
    ("Open, granted", |h| h.on_window(grant(1), offset(1 << 20))),
    ("Finishing", |h| {
        let _ = h.finish();
    }),
    ("Finished", |h| {
        h.finish();
        send(h, range(4096, 8192));
        send(h, range(8192, 10_000));
        h.on_confirmed(range(0, 10_000), false);
        h.on_fin_confirmed();
    }),
    ("Reset", |h| {
        let _ = h.reset();
    }),
];

const SEND_EVENTS: [SendCase; 16] = [
    ("write", |h| {
        let _ = h.write(offset(20_000));
    }),
    ("write back", |h| {
        let _ = h.write(offset(5_000));
    }),
    ("unwrite", |h| h.unwrite(offset(0))),
    ("finish", |h| {
        let _ = h.finish();
    }),
    ("reset", |h| {
        let _ = h.reset();
    }),
    ("chunk sent", |h| {
        if let Some(chunk) = h.next_chunk(CHUNKS) {
            h.on_sent(&chunk);
        }
    }),
    ("confirmed", |h| {
        let _ = h.on_confirmed(range(0, 4096), false);
    }),
    ("all confirmed", |h| {
        let _ = h.on_confirmed(range(0, 10_000), false);
    }),
    ("lost", |h| h.on_lost(range(0, 4096), false)),
    ("REFUSE", |h| {
        let _ = h.on_refused(range(0, 4096));
    }),
    ("REFUSE, acknowledged", |h| {
        h.on_refused(range(0, 4096));
        h.on_confirmed(range(0, 4096), false);
    }),
    ("CREDIT", |h| h.on_credit(offset(1 << 20))),
    ("WINDOW", |h| h.on_window(grant(2), offset(1 << 20))),
    ("RECALL", |h| h.on_recall(GrantId(2))),
    ("STOP", |h| h.on_stop(3)),
    ("FIN confirmed", |h| h.on_fin_confirmed()),
];

#[test]
fn send_states_and_events() {
    let mut table = String::new();
    for (state, prepare) in SEND_STATES {
        for (event, happen) in SEND_EVENTS {
            let mut half = SendHalf::new(offset(65_536));
            half.write(offset(10_000));
            send(&mut half, range(0, 4096));
            prepare(&mut half);
            happen(&mut half);
            let next = half.next_chunk(CHUNKS).map_or("-".to_owned(), |chunk| {
                let form = if matches!(chunk.form, Form::Bulk(_)) { "bulk" } else { "eager" };
                format!("{form} {}..{}", chunk.range.start, chunk.range.end)
            });
            let _ = writeln!(
                table,
                "{state:14} {event:21} -> {:10} confirmed {:5} sendable {:5} backlog {:5} return {:?} next {next}",
                format!("{:?}", half.state()),
                half.confirmed().get(),
                half.sendable(),
                half.backlog(),
                half.returnable().map(|g| g.0),
            );
        }
    }
    insta::assert_snapshot!(table);
}

type ReceiveCase = (&'static str, fn(&mut ReceiveHalf, &mut WindowPool) -> String);

fn data(half: &mut ReceiveHalf, pool: &mut WindowPool, bytes: ByteRange) -> String {
    let mut pieces = Vec::new();
    match half.on_data(bytes, LIMITS, pool, &mut pieces) {
        Ok(Arrival::Place { out_of_order }) => {
            let lengths: Vec<_> = pieces.iter().map(|p| (p.at, p.len)).collect();
            format!("place {lengths:?}{}", if out_of_order { " out of order" } else { "" })
        }
        other => format!("{other:?}"),
    }
}

/// Each begins with 1000 bytes received of which 400 were read.
const RECEIVE_STATES: [ReceiveCase; 7] = [
    ("Open", |_, _| String::new()),
    ("Open, gap", |h, p| data(h, p, range(2000, 3000))),
    ("Open, granted", |h, p| {
        let done = h.upgrade(1 << 17, GrantId(1), LIMITS, p);
        h.credit(LIMITS);
        format!("{done:?}")
    }),
    ("FinalKnown", |h, _| format!("{:?}", h.on_fin(offset(3000)))),
    ("Complete", |h, _| format!("{:?}", h.on_fin(offset(1000)))),
    ("Reset", |h, _| {
        h.on_reset(1);
        String::new()
    }),
    ("stopped", |h, p| format!("{:?}", h.stop(p))),
];

const RECEIVE_EVENTS: [ReceiveCase; 16] = [
    ("DATA", |h, p| data(h, p, range(1000, 3000))),
    ("DATA again", |h, p| data(h, p, range(500, 1000))),
    ("DATA overlapping", |h, p| data(h, p, range(500, 2500))),
    ("DATA above limit", |h, p| data(h, p, range(1 << 30, (1 << 30) + 1))),
    ("DATA above final", |h, p| data(h, p, range(2999, 3001))),
    ("WRITTEN", |h, p| format!("{:?}", h.on_written(range(65_536, 70_000), GrantId(1), p))),
    ("WRITTEN elsewhere", |h, p| format!("{:?}", h.on_written(range(1000, 2000), GrantId(9), p))),
    ("FIN at 3000", |h, _| format!("{:?}", h.on_fin(offset(3000)))),
    ("FIN at 1000", |h, _| format!("{:?}", h.on_fin(offset(1000)))),
    ("FIN at 10", |h, _| format!("{:?}", h.on_fin(offset(10)))),
    ("RESET", |h, _| {
        h.on_reset(2);
        String::new()
    }),
    ("RETURN", |h, p| format!("{}", h.on_return(GrantId(1), p))),
    ("read", |h, p| format!("{}", h.consume(offset(1000), p))),
    ("read too much", |h, p| format!("{}", h.consume(offset(5000), p))),
    ("stop", |h, p| format!("{}", h.stop(p))),
    ("backlog", |h, p| format!("{:?}", h.upgrade(1 << 20, GrantId(2), LIMITS, p))),
];

#[test]
fn receive_states_and_events() {
    let mut table = String::new();
    for (state, prepare) in RECEIVE_STATES {
        for (event, happen) in RECEIVE_EVENTS {
            let mut pool = pool();
            let mut half = ReceiveHalf::new(LIMITS);
            data(&mut half, &mut pool, range(0, 1000));
            half.consume(offset(400), &mut pool);
            prepare(&mut half, &mut pool);
            let outcome = happen(&mut half, &mut pool);
            half.recycle(&mut pool);
            let windows: Vec<_> = half
                .windows()
                .map(|w| (w.from.get(), w.lease.log2, w.grant.map(|g| g.0)))
                .collect();
            let _ = writeln!(
                table,
                "{state:13} {event:17} -> {outcome} | {:?} received {} consumed {} limit {} windows {windows:?}{}",
                half.state(),
                half.received().get(),
                half.consumed().get(),
                half.limit().get(),
                if half.is_done() { " done" } else { "" },
            );
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn a_grant_holds_everything_promised() {
    let mut pool = pool();
    let mut half = ReceiveHalf::new(LIMITS);
    data(&mut half, &mut pool, range(0, 1000));
    assert_eq!(half.upgrade(1 << 21, GrantId(1), LIMITS, &mut pool), Upgrade::Granted);
    let promise = half.credit(LIMITS);
    assert!(promise >= offset(1 << 21));
    assert!(half.consume(offset(1000), &mut pool));
    assert!(half.on_return(GrantId(1), &mut pool), "idle: everything is given back");
    assert_eq!(half.current(), None);
    // The peer may send all of that still, into whatever it is granted.
    data(&mut half, &mut pool, range(1000, 1001));
    assert_eq!(half.upgrade(1 << 16, GrantId(2), LIMITS, &mut pool), Upgrade::Granted);
    let window = half.current().unwrap();
    assert!(promise <= window.from + window.lease.size());
}

#[test]
fn a_stopped_half_gives_its_windows_back_with_the_last_byte() {
    let mut pool = pool();
    let free = pool.free_bytes();
    let mut half = ReceiveHalf::new(LIMITS);
    half.upgrade(1 << 17, GrantId(1), LIMITS, &mut pool);
    half.credit(LIMITS);
    half.on_fin(offset(10_000)).unwrap();
    half.stop(&mut pool);
    assert!(pool.free_bytes() < free, "the peer may still write");
    half.on_written(range(0, 10_000), GrantId(1), &mut pool).unwrap();
    assert!(half.is_done());
    assert_eq!(pool.free_bytes(), free);
}

#[test]
fn bytes_of_many_windows_are_not_announced_at_once() {
    let mut pool = pool();
    let mut half = ReceiveHalf::new(LIMITS);
    half.upgrade(1 << 16, GrantId(1), LIMITS, &mut pool);
    half.credit(LIMITS);
    assert!(half.on_written(range(60_000, 65_536), GrantId(1), &mut pool).is_ok());
    half.on_written(range(0, 60_000), GrantId(1), &mut pool).unwrap();
    half.consume(offset(65_536), &mut pool);
    half.credit(LIMITS);
    half.on_written(range(65_536, 66_000), GrantId(1), &mut pool).unwrap();
    half.consume(offset(66_000), &mut pool);
    half.credit(LIMITS);
    // One WRITE would have run past the end of the window.
    assert!(half.on_written(range(131_000, 131_100), GrantId(1), &mut pool).is_err());
}

#[test]
fn recall_may_overtake_its_window() {
    let mut half = SendHalf::new(offset(65_536));
    half.write(offset(60_000));
    half.on_recall(GrantId(7));
    assert_eq!(half.returnable(), None);
    half.on_window(grant(7), offset(65_536));
    assert_eq!(half.returnable(), Some(GrantId(7)));
    assert_eq!(half.next_chunk(CHUNKS).unwrap().form, Form::Eager);
    half.on_returned();
    // The same window, announced again because its Channel died.
    half.on_window(grant(7), offset(65_536));
    assert_eq!(half.returnable(), None);
    assert_eq!(half.next_chunk(CHUNKS).unwrap().form, Form::Eager);
    half.on_return_lost();
    assert_eq!(half.returnable(), Some(GrantId(7)));
    half.on_window(grant(8), offset(65_536));
    assert!(matches!(half.next_chunk(CHUNKS).unwrap().form, Form::Bulk(_)));
}

#[test]
fn windows_may_overtake_one_another() {
    let mut half = SendHalf::new(offset(65_536));
    half.write(offset(60_000));
    half.on_window(grant(3), offset(65_536));
    half.on_window(grant(2), offset(65_536));
    assert_eq!(half.next_chunk(CHUNKS).unwrap().form, Form::Bulk(grant(3)));
    // Numbers wrap around.
    half.on_window(grant(u32::MAX), offset(65_536));
    assert_eq!(half.next_chunk(CHUNKS).unwrap().form, Form::Bulk(grant(3)));
    half.on_window(grant(u32::MAX / 2), offset(65_536));
    assert_eq!(half.next_chunk(CHUNKS).unwrap().form, Form::Bulk(grant(u32::MAX / 2)));
}

#[test]
fn refused_bytes_wait_for_their_acknowledgement() {
    let mut half = SendHalf::new(offset(65_536));
    half.write(offset(8192));
    send(&mut half, range(0, 4096));
    send(&mut half, range(4096, 8192));
    assert!(half.on_refused(range(4096, 8192)));
    half.on_credit(offset(65_536));
    assert_eq!(half.next_chunk(CHUNKS), None);
    assert!(half.on_confirmed(range(4096, 8192), false));
    assert!(!half.on_confirmed(range(0, 4096), false));
    assert_eq!(half.confirmed(), offset(4096));
    send(&mut half, range(4096, 8192));
    half.on_confirmed(range(4096, 8192), false);
    assert_eq!(half.confirmed(), offset(8192));
}

/// The refusal and the bytes are lost with one Channel: nobody is left to give new credit.
#[test]
fn refused_bytes_that_are_lost_may_be_tried_again() {
    let mut half = SendHalf::new(offset(65_536));
    half.write(offset(4096));
    send(&mut half, range(0, 4096));
    half.on_refused(range(0, 4096));
    half.on_lost(range(0, 4096), false);
    send(&mut half, range(0, 4096));
    half.on_confirmed(range(0, 4096), false);
    assert_eq!(half.confirmed(), offset(4096));
}
