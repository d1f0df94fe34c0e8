//! Streams of several applications in one session: memory of one is never memory of another.

mod common;

use common::config;
use netchannel_units::{ChannelId, Class, StreamOffset, Timestamp, Weight};
use netchannel_vns::streams::{Control, Role};
use netchannel_vns::{ApplicationId, Placement, SlabId, Streams};
use netchannel_wire::{Frame, StreamId};

const VIA: ChannelId = ChannelId(0);
const NOW: Timestamp = Timestamp::ZERO;
const FIRST: ApplicationId = ApplicationId(1);
const SECOND: ApplicationId = ApplicationId(2);

fn server() -> Streams {
    Streams::new(config(Role::Server))
}

/// The peer opens stream `number`, which becomes `application`'s.
fn open(streams: &mut Streams, number: u32, application: ApplicationId) -> StreamId {
    let stream = StreamId(number);
    let limit = StreamOffset::new(65_536);
    let frame = Frame::Open {
        stream,
        class: Class::Throughput,
        weight: Weight::default(),
        service: 1,
        limit,
    };
    streams.on_frame(NOW, VIA, &frame).unwrap();
    assert_eq!(streams.poll_incoming().unwrap().stream, stream);
    assert!(streams.assign(stream, application));
    stream
}

fn data(streams: &mut Streams, stream: StreamId, offset: u64) -> Placement {
    let offset = StreamOffset::new(offset);
    let frame = Frame::Data { stream, offset, backlog: 0, bytes: &[7; 100] };
    streams.on_frame(NOW, VIA, &frame).unwrap()
}

/// Everything that the server sends is confirmed at once; returns the frames.
fn settle(streams: &mut Streams) -> Vec<Frame<'static>> {
    let mut frames = Vec::new();
    while let Some(outgoing) = streams.poll_control() {
        streams.on_control_sent(&outgoing.carried, VIA);
        streams.on_confirmed(&outgoing.carried);
        if let Control::Frame(frame) = outgoing.frame {
            frames.push(frame);
        }
    }
    while streams.poll_touched().is_some() {}
    frames
}

#[test]
fn bytes_lie_in_slabs_of_their_application() {
    let mut streams = server();
    streams.add_slab(FIRST, SlabId(0));
    streams.add_slab(SECOND, SlabId(1));
    for (number, application, slab) in [(0, FIRST, SlabId(0)), (2, SECOND, SlabId(1))] {
        let stream = open(&mut streams, number, application);
        assert!(matches!(data(&mut streams, stream, 0), Placement::Copy { .. }));
        assert!(streams.pieces().iter().all(|piece| piece.lease.slab == slab));
        assert!(!streams.assign(stream, ApplicationId::LOCAL), "its bytes lie where they lie");
    }
}

#[test]
fn who_has_no_memory_left_holds_up_nobody_else() {
    let mut streams = server();
    let poor = open(&mut streams, 0, FIRST);
    assert_eq!(data(&mut streams, poor, 0), Placement::None, "refused");
    assert_eq!(streams.take_slab_demand(), Some(FIRST));
    assert_eq!(streams.take_slab_demand(), None);
    let refusals = settle(&mut streams);
    assert!(refusals.iter().any(|frame| matches!(frame, Frame::Refuse { .. })));

    // The second is refused later and has memory sooner: it is fed although the first waits.
    let rich = open(&mut streams, 2, SECOND);
    assert_eq!(data(&mut streams, rich, 0), Placement::None);
    settle(&mut streams);
    streams.add_slab(SECOND, SlabId(0));
    let credited = settle(&mut streams);
    let credit = |id| move |frame: &Frame<'_>| matches!(frame, Frame::Credit { stream, .. } if *stream == id);
    assert!(credited.iter().any(credit(rich)), "{credited:?}");
    assert!(!credited.iter().any(credit(poor)), "{credited:?}");
    assert!(matches!(data(&mut streams, rich, 0), Placement::Copy { .. }));
}

#[test]
fn an_application_is_forgotten_when_its_last_window_is_back() {
    let mut streams = server();
    streams.add_slab(FIRST, SlabId(0));
    let stream = open(&mut streams, 0, FIRST);
    data(&mut streams, stream, 0);
    assert!(!streams.close_application(FIRST));
    streams.reset(stream, 1);
    streams.release(stream, 1);
    settle(&mut streams);
    assert!(!streams.close_application(FIRST), "the peer may still send");
    let fin = Frame::Fin { stream, final_offset: StreamOffset::new(100) };
    streams.on_frame(NOW, VIA, &fin).unwrap();
    settle(&mut streams);
    assert_eq!(streams.poll_closed(), Some(stream));
    assert_eq!(streams.pool(FIRST).unwrap().free_bytes(), 2 << 20);
    assert!(streams.close_application(FIRST));
    assert!(streams.pool(FIRST).is_none());

    // Its place goes to the next one, without its slabs.
    streams.add_slab(SECOND, SlabId(1));
    assert_eq!(streams.pool(SECOND).unwrap().slabs(), 1);
}

#[test]
fn a_slab_is_asked_for_once_however_many_messages_come_without_it() {
    let mut streams = server();
    for number in 0..8 {
        let stream = open(&mut streams, 2 * number, FIRST);
        assert_eq!(data(&mut streams, stream, 0), Placement::None, "refused");
        assert_eq!(streams.take_slab_demand(), (number == 0).then_some(FIRST));
    }
    // There is none: whoever is refused next asks again.
    streams.on_slab_denied(FIRST);
    settle(&mut streams);
    let stream = open(&mut streams, 100, FIRST);
    data(&mut streams, stream, 0);
    assert_eq!(streams.take_slab_demand(), Some(FIRST));
    streams.add_slab(FIRST, SlabId(0));
    assert_eq!(streams.take_slab_demand(), None);
}
