//! A peer that breaks every rule: it is found out, or does no harm.

mod common;

use common::config;
use netchannel_units::{ByteRange, ChannelId, Class, StreamOffset, Timestamp, Weight};
use netchannel_vns::fuzzing::check_hostile;
use netchannel_vns::streams::{Placement, Role};
use netchannel_vns::{ApplicationId, ProtocolError, SlabId, Streams};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, StreamId};
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::ZERO;
const VIA: ChannelId = ChannelId(0);
const ID: StreamId = StreamId(0);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        check_hostile(&bytes);
    }
}

/// What the fuzz target found worth keeping.
#[test]
fn corpus() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../../testbed/fuzz/corpus/vns");
    let entries = std::fs::read_dir(directory).expect("the corpus is part of the repository");
    let mut files = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        // Shown only if the check fails.
        println!("{}", path.display());
        check_hostile(&std::fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files > 10, "only {files} files in {directory}");
}

fn server(slabs: u32) -> Streams {
    let mut streams = Streams::new(config(Role::Server));
    (0..slabs).for_each(|slab| streams.add_slab(ApplicationId::LOCAL, SlabId(slab)));
    streams
}

fn offset(value: u64) -> StreamOffset {
    StreamOffset::new(value)
}

fn range(start: u64, end: u64) -> ByteRange {
    ByteRange::between(offset(start), offset(end))
}

fn open(streams: &mut Streams, stream: StreamId) {
    let frame = Frame::Open {
        stream,
        class: Class::Latency,
        weight: Weight::default(),
        service: 1,
        limit: offset(u64::MAX),
    };
    streams.on_frame(NOW, VIA, &frame).unwrap();
}

fn data(
    streams: &mut Streams,
    at: u64,
    bytes: &[u8],
    backlog: u32,
) -> Result<Placement, ProtocolError> {
    streams.on_frame(NOW, VIA, &Frame::Data { stream: ID, offset: offset(at), backlog, bytes })
}

#[test]
fn scattered_bytes_are_refused_and_cost_little() {
    let mut streams = server(2);
    open(&mut streams, ID);
    let mut placed = 0;
    for at in 0..30_000 {
        placed += u32::from(data(&mut streams, 2 * at + 1, b"x", 0).unwrap() != Placement::None);
    }
    assert_eq!(placed, 1024);
    // What fills the gaps is welcome.
    for at in 0..1024 {
        assert_ne!(data(&mut streams, 2 * at, b"x", 0).unwrap(), Placement::None);
    }
    assert_eq!(streams.receive_half(ID).unwrap().received(), offset(2048));
}

#[test]
fn scattered_bulk_bytes_end_the_session() {
    let mut streams = server(4);
    open(&mut streams, ID);
    data(&mut streams, 0, b"x", u32::MAX).unwrap();
    while let Some(outgoing) = streams.poll_control() {
        streams.on_control_sent(&outgoing.carried, VIA);
    }
    let window = streams.receive_half(ID).unwrap().current().unwrap();
    let grant = window.grant.unwrap();
    let mut error = None;
    for at in 1..20_000 {
        let frame =
            Frame::Written { stream: ID, grant, range: range(2 * at, 2 * at + 1), backlog: 0 };
        if let Err(found) = streams.on_frame(NOW, VIA, &frame) {
            error = Some((at, found));
            break;
        }
    }
    let (at, error) = error.expect("never refused");
    assert!(at < 5_000);
    assert!(matches!(error, ProtocolError::Unexpected { .. }), "{error}");
}

#[test]
fn windows_for_streams_that_are_gone_are_not_hoarded() {
    let mut streams = server(0);
    open(&mut streams, ID);
    streams.refuse(ID, 1);
    let reset = Frame::Reset { stream: ID, code: 1 };
    streams.on_frame(NOW, VIA, &reset).unwrap();
    let mut sent = Vec::new();
    while let Some(outgoing) = streams.poll_control() {
        streams.on_control_sent(&outgoing.carried, VIA);
        sent.push(outgoing.carried);
    }
    sent.iter().for_each(|carried| streams.on_confirmed(carried));
    assert!(streams.is_empty());
    let flood = (0..1_000_000).find_map(|grant| {
        let frame = Frame::Window {
            stream: ID,
            grant: GrantId(grant),
            log2_size: 20,
            address: 0,
            key: 0,
            from: offset(0),
            limit: offset(0),
        };
        streams.on_frame(NOW, VIA, &frame).err()
    });
    assert!(flood.is_some());
    assert!(streams.owing() < 100_000);
}

#[test]
fn refusals_that_nobody_lets_us_send_are_bounded() {
    let mut streams = server(0);
    for id in 0..8 {
        open(&mut streams, StreamId(2 * id));
    }
    let flood = (0..1_000_000u64).find_map(|n| {
        let frame = Frame::Data {
            stream: StreamId(2 * (n % 8) as u32),
            offset: offset(7 * n % 65_000),
            backlog: 0,
            bytes: b"x",
        };
        streams.on_frame(NOW, ChannelId((n % 5) as u16), &frame).err()
    });
    assert!(flood.is_some());
    assert!(streams.owing() < 100_000);
}

#[test]
fn numbers_near_the_end_of_the_space() {
    let mut streams = server(4);
    open(&mut streams, ID);
    assert!(data(&mut streams, u64::MAX - 1, b"xy", 0).is_err());
    assert!(data(&mut streams, u64::MAX, b"", 0).is_err());
    // A limit of 2^64 - 1 is a promise like any other.
    streams.write(ID, offset(u64::MAX)).unwrap();
    let sending = streams.sending(ID).unwrap();
    let chunk = sending.next_chunk(u64::MAX).unwrap();
    assert_eq!(chunk.range, range(0, 4096));
    assert_eq!(sending.backlog_hint(&chunk), u32::MAX);
    for (log2_size, address) in [(64, 0), (255, 0), (20, u64::MAX - 5)] {
        let frame = Frame::Window {
            stream: ID,
            grant: GrantId(0),
            log2_size,
            address,
            key: 0,
            from: offset(0),
            limit: offset(u64::MAX),
        };
        assert!(streams.on_frame(NOW, VIA, &frame).is_err(), "{log2_size} {address:#x}");
    }
    let fin = Frame::Fin { stream: ID, final_offset: offset(u64::MAX) };
    streams.on_frame(NOW, VIA, &fin).unwrap();
    data(&mut streams, 0, b"x", u32::MAX).unwrap();
}

#[test]
fn streams_that_nobody_opened() {
    let mut streams = server(1);
    let ours = streams.open(1, Class::Latency).unwrap();
    let unknown = |streams: &mut Streams, stream| {
        let credit = Frame::Credit { stream, limit: offset(1) };
        matches!(streams.on_frame(NOW, VIA, &credit), Err(ProtocolError::UnknownStream(_)))
    };
    // Our own, before the peer can know it.
    assert!(unknown(&mut streams, ours));
    assert!(unknown(&mut streams, StreamId(3)));
    assert!(unknown(&mut streams, StreamId(0)));
    let opened = Frame::Opened { stream: ours, limit: offset(1) };
    assert!(streams.on_frame(NOW, VIA, &opened).is_err());
    open(&mut streams, ID);
    // Twice is once: its Channel may have died.
    open(&mut streams, ID);
    assert_eq!(streams.len(), 2);
    let opened = Frame::Opened { stream: ID, limit: offset(1) };
    assert!(streams.on_frame(NOW, VIA, &opened).is_err());
    for stream in [StreamId(1), StreamId(u32::MAX - 1)] {
        let frame = Frame::Open {
            stream,
            class: Class::Latency,
            weight: Weight::default(),
            service: 1,
            limit: offset(1),
        };
        let found = streams.on_frame(NOW, VIA, &frame);
        assert!(matches!(found, Err(ProtocolError::BadStreamNumber(_))), "{found:?}");
    }
}
