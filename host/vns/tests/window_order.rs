//! Nothing that rests on a window overtakes the WINDOW that names it: neither credit nor the next
//! window. What the peer wrote on the strength of it would land in the window before, whose memory
//! may belong to another stream by then.

use netchannel_units::{ByteRange, ChannelId, Class, StreamOffset, Timestamp, Weight};
use netchannel_vns::streams::{Carried, Control, Outgoing, Role};
use netchannel_vns::{ApplicationId, SlabId, Streams, StreamsConfig};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, StreamId};

const NOW: Timestamp = Timestamp::ZERO;
const VIA: ChannelId = ChannelId(0);
const STREAM: StreamId = StreamId(0);
const EAGER: u64 = 16_384;

/// A receiver with memory, and a stream that its peer opened.
fn receiver() -> Streams {
    let mut streams = Streams::new(StreamsConfig {
        role: Role::Server,
        eager_credit: EAGER,
        peer_eager_credit: EAGER,
        window_log2: 20,
        eager_chunk: 8_000,
        bulk_min: 1_024,
        credits_per_window: 4,
    });
    streams.add_slab(ApplicationId::LOCAL, SlabId(0));
    let limit = StreamOffset::new(EAGER);
    let open = Frame::Open {
        stream: STREAM,
        class: Class::Throughput,
        weight: Weight::default(),
        service: 80,
        limit,
    };
    streams.on_frame(NOW, VIA, &open).unwrap();
    confirm(&mut streams, VIA);
    streams
}

/// A hundred bytes come eagerly, and say how many wait behind them.
fn hear_of(streams: &mut Streams, at: u64, backlog: u32) {
    let bytes = [7; 100];
    let offset = StreamOffset::new(at);
    let data = Frame::Data { stream: STREAM, offset, backlog, bytes: &bytes };
    streams.on_frame(NOW, VIA, &data).unwrap();
}

/// Bytes were written into a window, and the application hears of them and reads them.
fn take_written(streams: &mut Streams, grant: GrantId, from: u64, to: u64) {
    let range = ByteRange::between(StreamOffset::new(from), StreamOffset::new(to));
    let written = Frame::Written { stream: STREAM, grant, range, backlog: 0 };
    streams.on_frame(NOW, VIA, &written).unwrap();
    while streams.poll_touched().is_some() {}
    assert!(streams.consume(NOW, STREAM, range.end));
}

/// Sends everything that is due.
fn send_all(streams: &mut Streams, via: ChannelId) -> Vec<Outgoing> {
    let mut sent = Vec::new();
    while let Some(outgoing) = streams.poll_control() {
        streams.on_control_sent(&outgoing.carried, via);
        sent.push(outgoing);
    }
    sent
}

/// Sends everything that is due, and it arrives.
fn confirm(streams: &mut Streams, via: ChannelId) -> Vec<Outgoing> {
    let sent = send_all(streams, via);
    sent.iter().for_each(|outgoing| streams.on_confirmed(&outgoing.carried));
    sent
}

fn window_in(sent: &[Outgoing]) -> Option<(GrantId, StreamOffset, StreamOffset, Carried)> {
    sent.iter().find_map(|outgoing| match outgoing.frame {
        Control::Window { grant, from, limit, .. } => Some((grant, from, limit, outgoing.carried)),
        Control::Frame(_) => None,
    })
}

fn credits_in(sent: &[Outgoing]) -> Vec<&Outgoing> {
    let is_credit = |o: &&Outgoing| matches!(o.frame, Control::Frame(Frame::Credit { .. }));
    sent.iter().filter(is_credit).collect()
}

/// A stream with a window of 64 KiB that the peer knows and has used to the last byte; the credit for
/// the last of it was lost on the way. Returns the carried credit and what the peer may send up to.
fn used_window(streams: &mut Streams) -> (Carried, u64) {
    hear_of(streams, 0, 60_000);
    let (grant, from, limit, _) = window_in(&confirm(streams, VIA)).unwrap();
    assert_eq!(from, StreamOffset::new(100));
    take_written(streams, grant, 100, 40_000);
    let sent = send_all(streams, VIA);
    let [credit] = credits_in(&sent)[..] else { panic!("{sent:?}") };
    assert!(matches!(credit.frame, Control::Frame(Frame::Credit { limit: l, .. }) if l > limit));
    let limit = streams.receive_half(STREAM).unwrap().limit();
    (credit.carried, limit.get())
}

#[test]
fn credit_that_is_sent_again_waits_for_a_window_on_another_channel() {
    let mut streams = receiver();
    let (credit, limit) = used_window(&mut streams);
    // A larger window begins behind everything that was promised. Its WINDOW is late.
    hear_of(&mut streams, 40_000, 1 << 20);
    let (_, from, _, window) = window_in(&send_all(&mut streams, ChannelId(1))).unwrap();
    assert_eq!(from, StreamOffset::new(limit));

    // The Channel of the credit dies. What is promised by now lies in the window that the peer does not
    // know.
    streams.on_lost(&credit);
    let sent = send_all(&mut streams, ChannelId(2));
    assert!(credits_in(&sent).is_empty(), "{sent:?}");

    // It goes when the WINDOW has arrived, if it says anything then: here it does not.
    streams.on_confirmed(&window);
    let sent = send_all(&mut streams, ChannelId(2));
    assert!(window_in(&sent).is_none(), "{sent:?}");
}

#[test]
fn no_window_is_granted_before_the_peer_knows_the_last() {
    let mut streams = receiver();
    let (credit, limit) = used_window(&mut streams);
    streams.on_confirmed(&credit);
    hear_of(&mut streams, 40_000, 100_000);
    let (grant, from, _, window) = window_in(&send_all(&mut streams, ChannelId(1))).unwrap();
    assert_eq!(from, StreamOffset::new(limit));
    // The peer uses up the window before it; its memory goes to somebody else.
    take_written(&mut streams, GrantId(0), 40_100, 65_536);
    take_written(&mut streams, GrantId(0), 65_536, limit);
    let windows = |streams: &Streams| streams.receive_half(STREAM).unwrap().windows().count();
    assert_eq!(windows(&streams), 1);

    // Bytes that come twice, with a Channel that died, speak of a larger backlog. If the peer heard of
    // the third window and not of the second, it would write the bytes between into the first.
    hear_of(&mut streams, 0, 1 << 20);
    let sent = send_all(&mut streams, ChannelId(2));
    assert!(window_in(&sent).is_none(), "{sent:?}");
    // It is sent again as it was.
    streams.on_lost(&window);
    let (again, .., window) = window_in(&send_all(&mut streams, ChannelId(2))).unwrap();
    assert_eq!(again, grant);

    streams.on_confirmed(&window);
    hear_of(&mut streams, 0, 1 << 20);
    let (third, ..) = window_in(&send_all(&mut streams, ChannelId(2))).unwrap();
    assert_ne!(third, grant);
}
