//! Bytes that prefer a window wait for one instead of being copied, and for nothing else.

mod common;

use common::frame_of;
use netchannel_units::{ChannelId, Class, StreamOffset, Timestamp};
use netchannel_vns::streams::{Outgoing, Role};
use netchannel_vns::{ApplicationId, Chunk, Form, SlabId, Streams, StreamsConfig};
use netchannel_wire::StreamId;

const NOW: Timestamp = Timestamp::ZERO;
const VIA: ChannelId = ChannelId(0);

fn config(role: Role) -> StreamsConfig {
    StreamsConfig {
        role,
        eager_credit: 16_384,
        peer_eager_credit: 16_384,
        window_log2: 20,
        eager_chunk: 8_000,
        bulk_min: 1_024,
        credits_per_window: 4,
    }
}

/// Moves the control frames of one side to the other; what they carried is returned.
fn exchange(from: &mut Streams, to: &mut Streams) -> Vec<Outgoing> {
    let mut moved = Vec::new();
    while let Some(outgoing) = from.poll_control() {
        to.on_frame(NOW, VIA, &frame_of(&outgoing.frame)).unwrap();
        from.on_control_sent(&outgoing.carried, VIA);
        moved.push(outgoing);
    }
    moved
}

fn confirm(of: &mut Streams, moved: &[Outgoing]) {
    for outgoing in moved {
        of.on_confirmed(&outgoing.carried);
    }
}

fn next_chunk(of: &mut Streams, id: StreamId) -> Option<Chunk> {
    of.sending(id)?.next_chunk(1 << 20)
}

/// A stream with `bytes` written that prefers a window, after its first frames reached the peer.
fn start(memory: bool, bytes: u64) -> (Streams, Streams, StreamId, Vec<Outgoing>) {
    let mut client = Streams::new(config(Role::Client));
    let mut server = Streams::new(config(Role::Server));
    if memory {
        server.add_slab(ApplicationId::LOCAL, SlabId(0));
    }
    let id = client.open(80, Class::Throughput).unwrap();
    client.prefer_window(id);
    client.write(id, StreamOffset::new(bytes)).unwrap();
    let moved = exchange(&mut client, &mut server);
    (client, server, id, moved)
}

#[test]
fn many_bytes_wait_for_the_window_and_all_go_into_it() {
    let (mut client, mut server, id, moved) = start(true, 300_000);
    assert_eq!(next_chunk(&mut client, id), None, "nothing goes eagerly");
    let answers = exchange(&mut server, &mut client);
    confirm(&mut client, &moved);
    confirm(&mut server, &answers);
    let chunk = next_chunk(&mut client, id).unwrap();
    assert!(matches!(chunk.form, Form::Bulk(_)), "{chunk:?}");
    assert_eq!(chunk.range.len(), 300_000);
}

#[test]
fn few_bytes_go_at_once() {
    let (mut client, _, id, _) = start(true, 8_000);
    assert!(matches!(next_chunk(&mut client, id).unwrap().form, Form::Eager));
}

#[test]
fn a_peer_without_memory_gets_the_bytes_all_the_same() {
    let (mut client, mut server, id, moved) = start(false, 300_000);
    assert_eq!(next_chunk(&mut client, id), None);
    exchange(&mut server, &mut client);
    confirm(&mut client, &moved);
    // Once more, because a window may come through a Channel that is later.
    assert_eq!(next_chunk(&mut client, id), None);
    let moved = exchange(&mut client, &mut server);
    exchange(&mut server, &mut client);
    confirm(&mut client, &moved);
    assert!(matches!(next_chunk(&mut client, id).unwrap().form, Form::Eager));
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let (mut client, mut server, id, moved) = start(true, 300_000);
    for outgoing in &moved {
        client.on_lost(&outgoing.carried);
    }
    assert_eq!(next_chunk(&mut client, id), None);
    let moved = exchange(&mut client, &mut server);
    assert!(!moved.is_empty());
    exchange(&mut server, &mut client);
    confirm(&mut client, &moved);
    assert!(matches!(next_chunk(&mut client, id).unwrap().form, Form::Bulk(_)));
}
