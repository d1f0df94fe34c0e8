//! One message of each kind, with a different value in each field: the examples of `docs/wire.md`
//! and the seeds of the fuzz targets.

use netchannel_units::{ByteRange, Class, Duration, StreamOffset, Weight};

use crate::control::message::{Echo, Undefined};
use crate::control::{
    Accept, ChannelEpoch, ChannelMessage, ChannelNews, ChannelOffer, ControlMessage, Farewell,
    Features, Hello, Parameters, Reason, SessionId,
};
use crate::frame::{Frame, GrantId, MessageHeader, StreamId};

/// A message header (`frames` is filled in by whoever encodes it).
pub const HEADER: MessageHeader = MessageHeader {
    sequence: 0x0102_0304,
    acknowledged: 0x0506_0708,
    credit: 0x1112_1314,
    frames: 2,
};

const STREAM: StreamId = StreamId(0x2122_2324);
const GRANT: GrantId = GrantId(0x3132_3334);
const OFFSET: StreamOffset = StreamOffset::new(0x4142_4344_4546_4748);
const RANGE: ByteRange = ByteRange { start: OFFSET, end: StreamOffset::new(0x5152_5354_5556_5758) };
const BACKLOG: u32 = 0x6162_6364;

/// Every frame, by number.
pub fn frames() -> [Frame<'static>; 12] {
    let (stream, grant, range, backlog) = (STREAM, GRANT, RANGE, BACKLOG);
    let weight = Weight::from_wire(2).unwrap_or_default();
    [
        Frame::Open { stream, class: Class::Throughput, weight, service: 0x1F90, limit: OFFSET },
        Frame::Opened { stream, limit: OFFSET },
        Frame::Data { stream, offset: OFFSET, backlog, bytes: b"hello" },
        Frame::Written { stream, grant, range, backlog },
        Frame::Credit { stream, limit: OFFSET },
        Frame::Window {
            stream,
            grant,
            log2_size: 21,
            address: 0x7172_7374_7576_7778,
            key: 0x8182_8384,
            from: range.start,
            limit: range.end,
        },
        Frame::Recall { stream, grant },
        Frame::Return { stream, grant },
        Frame::Refuse { stream, range },
        Frame::Fin { stream, final_offset: OFFSET },
        Frame::Reset { stream, code: crate::frame::reset::CANCELLED },
        Frame::Stop { stream, code: 0x0000_2A2B },
    ]
}

/// Parameters with every field.
pub fn parameters() -> Parameters {
    Parameters {
        provider: "soft".into(),
        device: "soft0".into(),
        keepalive: Duration::from_millis(500),
        death_timeout: Duration::from_millis(1_500),
        slots: 64,
        slot_bytes: 8_192,
        initial_credit: 65_536,
        host_name: Some("alpha".into()),
        process: Some(4_242),
    }
}

/// One Channel.
pub fn channel() -> ChannelOffer {
    ChannelOffer {
        index: 3,
        class: Class::Throughput,
        endpoint: vec![0xE0, 0xE1, 0xE2, 0xE3],
        group: 2,
    }
}

/// Every control message, by number.
pub fn control_messages() -> [ControlMessage; 11] {
    let session = SessionId([
        0xA0, 0xA1, 0xA2, 0xA3, 0xA4, 0xA5, 0xA6, 0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAC, 0xAD, 0xAE,
        0xAF,
    ]);
    let hello = Hello {
        min_version: 1,
        max_version: 1,
        session,
        features: Features::CURRENT,
        parameters: parameters(),
        channels: vec![channel()],
        authentication: None,
    };
    let accept = Accept {
        version: 1,
        features: Features::CURRENT,
        parameters: parameters(),
        channels: vec![channel()],
    };
    [
        ControlMessage::Hello(Box::new(hello)),
        ControlMessage::Accept(Box::new(accept)),
        ControlMessage::Refuse(Farewell::new(Reason::Busy, "too many sessions")),
        ControlMessage::Ready,
        ControlMessage::Ping(Echo { nonce: 7 }),
        ControlMessage::Pong(Echo { nonce: 7 }),
        ControlMessage::Goodbye(Farewell::new(Reason::Shutdown, "stopping")),
        of_channel(ChannelNews::Fence { cause: "RetryExceeded".into() }),
        of_channel(ChannelNews::Fenced { received: 1_000 }),
        of_channel(ChannelNews::Renew { endpoint: vec![0xE0, 0xE1, 0xE2, 0xE3] }),
        of_channel(ChannelNews::Renewed),
    ]
}

fn of_channel(news: ChannelNews) -> ControlMessage {
    let of = ChannelEpoch { group: 1, channel: 3, epoch: 2 };
    ControlMessage::Channel(ChannelMessage { of, news })
}

/// The Hello of [`control_messages`] with every field that there is, the undefined ones too.
pub fn full_hello() -> ControlMessage {
    let [hello, ..] = control_messages();
    match hello {
        ControlMessage::Hello(mut hello) => {
            hello.authentication = Some(Undefined);
            ControlMessage::Hello(hello)
        }
        other => other,
    }
}
