//! Messages of the data path: what is written is read, and nothing else is.

use netchannel_units::{ByteRange, Class, StreamOffset, Weight};
use netchannel_wire::fuzzing::{check_frames, encode};
use netchannel_wire::{
    DATA_OVERHEAD, Frame, FrameKind, GrantId, MAX_DATA, MessageDraft, MessageHeader, MessageWriter,
    NoRoom, StreamId, WireError, parse,
};
use proptest::prelude::*;

/// A frame without a borrow; the bytes of Data are `len` times `fill`.
#[derive(Clone, Debug)]
enum Plan {
    Frame(Frame<'static>),
    Data { stream: StreamId, offset: StreamOffset, backlog: u32, len: usize, fill: u8 },
}

impl Plan {
    fn frame<'a>(&self, bytes: &'a mut Vec<u8>) -> Frame<'a> {
        match *self {
            Plan::Frame(frame) => frame,
            Plan::Data { stream, offset, backlog, len, fill } => {
                bytes.resize(len, fill);
                Frame::Data { stream, offset, backlog, bytes }
            }
        }
    }
}

fn range() -> impl Strategy<Value = ByteRange> {
    (any::<u64>(), any::<u64>())
        .prop_filter("not empty", |(a, b)| a != b)
        .prop_map(|(a, b)| ByteRange { start: offset(a.min(b)), end: offset(a.max(b)) })
}

fn offset(value: u64) -> StreamOffset {
    StreamOffset::new(value)
}

fn plan() -> impl Strategy<Value = Plan> {
    let frame = (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>(), range()).prop_flat_map(
        |(stream, number, a, b, range)| {
            let stream = StreamId(stream);
            let grant = GrantId(number);
            let frame = Just((stream, number));
            let weight = 1..=Weight::MAX;
            prop_oneof![
                (any::<bool>(), weight, any::<u16>()).prop_map(move |(class, weight, service)| {
                    Frame::Open {
                        stream,
                        class: Class::ALL[usize::from(class)],
                        weight: Weight::new(weight).unwrap(),
                        service,
                        limit: offset(a),
                    }
                }),
                frame.prop_map(move |_| Frame::Opened { stream, limit: offset(a) }),
                Just(Frame::Written { stream, grant, range, backlog: number ^ 1 }),
                Just(Frame::Credit { stream, limit: offset(a) }),
                (12u8..=40).prop_map(move |log2_size| Frame::Window {
                    stream,
                    grant,
                    log2_size,
                    address: a >> 1,
                    key: number ^ 2,
                    from: offset(a),
                    limit: offset(b),
                }),
                Just(Frame::Recall { stream, grant }),
                Just(Frame::Return { stream, grant }),
                Just(Frame::Refuse { stream, range }),
                Just(Frame::Fin { stream, final_offset: offset(b) }),
                Just(Frame::Reset { stream, code: number }),
                Just(Frame::Stop { stream, code: number }),
            ]
        },
    );
    let data = (any::<u32>(), 0..u64::MAX - 100_000, any::<u32>(), 0usize..2_000, any::<u8>());
    prop_oneof![
        3 => frame.prop_map(Plan::Frame),
        1 => data.prop_map(|(stream, at, backlog, len, fill)| Plan::Data {
            stream: StreamId(stream), offset: offset(at), backlog, len, fill,
        }),
    ]
}

fn header() -> impl Strategy<Value = MessageHeader> {
    any::<[u32; 3]>().prop_map(|[sequence, acknowledged, credit]| MessageHeader {
        sequence,
        acknowledged,
        credit,
        frames: 0,
    })
}

proptest! {
    /// Frames go in until the buffer is full; exactly those come out.
    #[test]
    fn what_is_written_is_read(
        header in header(),
        plans in prop::collection::vec(plan(), 0..40),
        capacity in 16usize..9_000,
    ) {
        let mut buffer = vec![0xEE; capacity];
        let mut draft = MessageDraft::new();
        let mut taken = Vec::new();
        for plan in plans {
            let mut bytes = Vec::new();
            let frame = plan.frame(&mut bytes);
            let room = draft.room(capacity);
            let outcome = draft.push(&mut buffer, &frame);
            prop_assert_eq!(outcome.is_ok(), frame.encoded_len() <= room);
            if outcome.is_ok() {
                prop_assert_eq!(room - draft.room(capacity), frame.encoded_len());
                taken.push(plan);
            } else {
                prop_assert_eq!(draft.room(capacity), room);
            }
        }
        let frames = draft.frames();
        let len = draft.finish(&mut buffer, &header);
        prop_assert_eq!(draft, MessageDraft::new());
        let (read, mut rest) = parse(&buffer[..len]).unwrap();
        prop_assert_eq!(read, MessageHeader { frames, ..header });
        for plan in &taken {
            let mut bytes = Vec::new();
            prop_assert_eq!(rest.next(), Some(Ok(plan.frame(&mut bytes))));
        }
        prop_assert_eq!(rest.next(), None);
        check_frames(&buffer[..len]);
        // One byte less or more is an error.
        let shorter = parse(&buffer[..len - 1]).and_then(|(_, f)| f.collect::<Result<Vec<_>, _>>());
        prop_assert!(shorter.is_err());
        let mut longer = buffer[..len].to_vec();
        longer.push(0);
        let longer = parse(&longer).and_then(|(_, f)| f.collect::<Result<Vec<_>, _>>());
        prop_assert_eq!(longer, Err(WireError::TrailingBytes { count: 1 }));
    }

    /// Damage anywhere: refused, or another message that holds together.
    #[test]
    fn damage_is_no_disaster(
        plans in prop::collection::vec(plan(), 0..6),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        keep in any::<prop::sample::Index>(),
    ) {
        let mut buffer = vec![0; 16_384];
        let mut writer = MessageWriter::new(&mut buffer);
        for plan in plans {
            let mut bytes = Vec::new();
            writer.push(&plan.frame(&mut bytes)).unwrap();
        }
        let len = writer.finish(&MessageHeader::default());
        buffer.truncate(len);
        for (at, value) in damage {
            let at = at.index(len);
            buffer[at] = value;
        }
        check_frames(&buffer);
        check_frames(&buffer[..keep.index(len)]);
    }

    #[test]
    fn noise_is_no_disaster(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_frames(&bytes);
        if let [version, flags, ..] = &mut bytes[..] {
            (*version, *flags) = (1, 0);
        }
        check_frames(&bytes);
    }
}

const STREAM: StreamId = StreamId(6);

/// The outcome of reading one frame with `patch` applied to its bytes (head and body).
fn patched(frame: Frame<'_>, patch: impl FnOnce(&mut Vec<u8>)) -> Result<Frame<'_>, WireError> {
    let mut message = encode(&MessageHeader::default(), &[frame]);
    let mut body = message.split_off(MessageHeader::LEN);
    patch(&mut body);
    message.extend_from_slice(&body);
    let message = Box::leak(message.into_boxed_slice());
    parse(message)?.1.next().expect("one frame")
}

fn window(log2_size: u8, address: u64) -> Frame<'static> {
    let (from, limit) = (offset(0), offset(1 << 20));
    Frame::Window { stream: STREAM, grant: GrantId(1), log2_size, address, key: 3, from, limit }
}

#[test]
fn headers_are_checked() {
    let good = encode(&MessageHeader::default(), &[]);
    for len in 0..16 {
        let expected = WireError::Truncated { field: "message header", needed: 16, available: len };
        assert_eq!(parse(&good[..len]).unwrap_err(), expected);
    }
    let mut version = good.clone();
    version[0] = 2;
    assert_eq!(parse(&version).unwrap_err(), WireError::Version { value: 2 });
    let mut flags = good;
    flags[1] = 0x40;
    let expected = WireError::Reserved { field: "message flags", value: 0x40 };
    assert_eq!(parse(&flags).unwrap_err(), expected);
}

#[test]
fn every_field_is_checked() {
    let weight = Weight::default();
    let (class, limit) = (Class::Latency, offset(65_536));
    let open = Frame::Open { stream: STREAM, class, weight, service: 80, limit };
    let credit = Frame::Credit { stream: STREAM, limit: offset(9) };
    let range = ByteRange::new(offset(5), 10).unwrap();
    let refuse = Frame::Refuse { stream: STREAM, range };
    let written = Frame::Written { stream: STREAM, grant: GrantId(0), range, backlog: 0 };
    let data = Frame::Data { stream: STREAM, offset: offset(7), backlog: 0, bytes: b"abc" };

    assert_eq!(patched(open, |b| b[18] = 2), Err(WireError::Class { value: 2 }));
    assert_eq!(patched(open, |b| b[19] = 15).map(drop), Ok(()));
    assert_eq!(patched(open, |b| b[19] = 16), Err(WireError::Weight { value: 16 }));
    assert_eq!(
        patched(credit, |b| b[1] = 0x80),
        Err(WireError::Reserved { field: "frame flags", value: 0x80 })
    );
    assert_eq!(patched(credit, |b| b[0] = 0), Err(WireError::UnknownKind { kind: 0 }));
    assert_eq!(patched(credit, |b| b[0] = 13), Err(WireError::UnknownKind { kind: 13 }));
    assert_eq!(patched(credit, |b| b[0] = 0x7F), Err(WireError::UnknownKind { kind: 0x7F }));
    assert_eq!(
        patched(credit, |b| b[0] = FrameKind::Refuse.to_wire()),
        Err(WireError::Length { frame: "Refuse", expected: 16, value: 8 })
    );
    assert_eq!(
        patched(credit, |b| b[0] = FrameKind::Data.to_wire()),
        Err(WireError::Length { frame: "Data", expected: 12, value: 8 })
    );
    assert_eq!(
        patched(credit, |b| b[2] = 9),
        Err(WireError::Truncated { field: "frame body", needed: 9, available: 8 })
    );
    assert_eq!(
        patched(credit, |b| b.truncate(7)),
        Err(WireError::Truncated { field: "frame head", needed: 8, available: 7 })
    );
    assert_eq!(
        patched(refuse, |b| b[16] = 5),
        Err(WireError::Range { frame: "Refuse", start: 5, end: 5 })
    );
    assert_eq!(
        patched(written, |b| b[16] = 4),
        Err(WireError::Range { frame: "Written", start: 5, end: 4 })
    );
    let near_the_end = u64::MAX - 2;
    assert_eq!(
        patched(data, |b| b[8..16].copy_from_slice(&near_the_end.to_le_bytes())),
        Err(WireError::Overflow { field: "Data frame", start: near_the_end, len: 3 })
    );
    for size in [0, 11, 41, 255] {
        let outcome = patched(window(12, 0), |b| b[40] = size);
        assert_eq!(outcome, Err(WireError::WindowSize { value: size }));
    }
    assert_eq!(
        patched(window(40, 0), |b| b[43] = 1),
        Err(WireError::Reserved { field: "reserved bytes of a Window frame", value: 1 << 16 })
    );
    let last = window(12, u64::MAX - 4095);
    assert_eq!(patched(last, |_| ()), Ok(last));
    assert_eq!(
        patched(last, |b| b[40] = 13),
        Err(WireError::Overflow {
            field: "memory of a Window frame",
            start: u64::MAX - 4095,
            len: 8192
        })
    );
}

#[test]
fn unknown_frames_that_may_be_skipped_are_skipped() {
    let frames = [
        Frame::Credit { stream: STREAM, limit: offset(1) },
        Frame::Reset { stream: STREAM, code: 2 },
        Frame::Credit { stream: STREAM, limit: offset(3) },
    ];
    let mut message = encode(&MessageHeader::default(), &frames);
    message[32] = 0x93;
    message[33] = 0xFF; // What the flags of an unknown kind mean is its own affair.
    check_frames(&message);
    let (header, rest) = parse(&message).unwrap();
    assert_eq!(header.frames, 3);
    assert_eq!(rest.collect::<Result<Vec<_>, _>>().unwrap(), [frames[0], frames[2]]);
    // The last one too.
    message.truncate(44);
    message[2] = 2;
    assert_eq!(parse(&message).unwrap().1.count(), 1);
}

#[test]
fn nothing_follows_an_error() {
    let credit = Frame::Credit { stream: STREAM, limit: offset(1) };
    let mut message = encode(&MessageHeader::default(), &[credit, credit]);
    message[16] = 99;
    let (_, mut frames) = parse(&message).unwrap();
    assert_eq!(frames.next(), Some(Err(WireError::UnknownKind { kind: 99 })));
    assert_eq!(frames.next(), None);
}

#[test]
fn limits_of_a_message() {
    let bytes = vec![1; MAX_DATA + 1];
    let data = |bytes| Frame::Data { stream: STREAM, offset: offset(0), backlog: 0, bytes };
    let mut buffer = vec![0; 3 << 20];
    let mut draft = MessageDraft::new();
    assert_eq!(draft.push(&mut buffer, &data(&bytes)), Err(NoRoom));
    assert_eq!(draft, MessageDraft::new());
    draft.push(&mut buffer, &data(&bytes[1..])).unwrap();
    assert_eq!(draft.len(), MessageHeader::LEN + DATA_OVERHEAD + MAX_DATA);
    let recall = Frame::Recall { stream: STREAM, grant: GrantId(1) };
    while draft.push(&mut buffer, &recall).is_ok() {}
    assert_eq!(draft.frames(), u16::MAX);
    assert_eq!(draft.room(buffer.len()), 0);
    let len = draft.finish(&mut buffer, &MessageHeader::default());
    check_frames(&buffer[..len]);
    // Buffers that do not even hold a header take nothing.
    assert_eq!(MessageDraft::new().room(15), 0);
    assert_eq!(MessageDraft::new().push(&mut [0; 15], &recall), Err(NoRoom));
}

#[test]
fn data_in_place() {
    let mut buffer = [0; 64];
    let mut draft = MessageDraft::new();
    draft.push_data(&mut buffer, STREAM, offset(3), 7, 5).unwrap().copy_from_slice(b"hello");
    let len = draft.finish(&mut buffer, &MessageHeader::default());
    let (_, mut frames) = parse(&buffer[..len]).unwrap();
    let expected = Frame::Data { stream: STREAM, offset: offset(3), backlog: 7, bytes: b"hello" };
    assert_eq!(frames.next(), Some(Ok(expected)));
}

#[test]
fn kinds_agree_with_their_numbers() {
    for kind in FrameKind::ALL {
        assert_eq!(FrameKind::from_wire(kind.to_wire()), Some(kind));
        assert_eq!(kind.to_wire() & FrameKind::IGNORABLE, 0);
        assert_eq!(format!("{kind:?}"), kind.name());
    }
    assert_eq!((0..=255).filter_map(FrameKind::from_wire).count(), FrameKind::ALL.len());
}
