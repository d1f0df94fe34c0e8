//! Single failures, step by step: what is fenced, what ends a session, and what is left.

use netchannel_wire::control::{ChannelEpoch, ChannelNews};

use super::failover::{Random, describe, mishear, settle};
use super::*;
use crate::boundary::cell::flags;

/// With every Channel down and no way to make another, streams wait, and end with an error that says
/// so.
#[test]
fn no_path_is_an_error_after_the_outage() {
    let mut world = World::new(9, [fabric(); 4], 0);
    let (ours, _theirs) = world.open();
    world.control_delay = Duration::from_secs(1_000);
    let now = world.now();
    for number in (0..usize::from(CHANNELS)).rev() {
        assert!(world.hosts[0].engine.break_channel(now, number));
    }
    assert!(!world.hosts[0].engine.break_channel(now, 0), "none is up");
    let start = world.now();
    while world.hosts[0].session.failure().is_none() {
        assert!(world.now() - start < Duration::from_secs(11));
        world.clock.fetch_add(1_000_000, Ordering::Relaxed);
        world.step();
        let dead = ours.cell.state().engine.flags.load(Acquire) & flags::DEAD != 0;
        assert_eq!(dead, world.hosts[0].session.failure().is_some());
    }
    assert!(world.now() - start >= Duration::from_secs(10));
    let error = world.hosts[0].session.error();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    let text = error.to_string();
    assert!(text.contains("every path is down") && text.contains("queue pair"), "{text}");
}

/// A peer that does not know the messages ends the session as it always did.
#[test]
fn a_peer_of_an_earlier_version_ends_the_session() {
    let mut world = World::new(9, [fabric(); 4], 0);
    let session = world.hosts[0].engine.sessions[0].as_mut().unwrap();
    session.failover.negotiated = false;
    let now = world.now();
    world.hosts[0].engine.break_channel(now, 1);
    let text = world.hosts[0].session.error().to_string();
    assert!(text.contains("the peer's version cannot replace a Channel"), "{text}");
}

/// What a broken or hostile peer may say of Channels.
#[test]
fn nonsense_about_channels_ends_the_session() {
    let of = |group, channel, epoch| ChannelEpoch { group, channel, epoch };
    let said = |of: ChannelEpoch, news: ChannelNews| {
        let mut world = World::new(9, [fabric(); 4], 0);
        let (host, now) = (&mut world.hosts[0], Timestamp::from_nanos(1_000_000));
        let session = Arc::clone(&host.session);
        let message = ChannelMessage { of, news };
        let known = EngineControl::on_channel_news(&mut host.engine, now, 0, &session, &message);
        (known, session.failure().map(|error| error.kind()))
    };
    // The link ends the session if no engine knows the Channel.
    assert_eq!(said(of(0, 4, 0), ChannelNews::Renewed), (false, None));
    assert_eq!(said(of(1, 0, 0), ChannelNews::Fence { cause: String::new() }), (false, None));
    let invalid = (true, Some(std::io::ErrorKind::InvalidData));
    assert_eq!(said(of(0, 0, 0), ChannelNews::Fenced { received: 0 }), invalid);
    assert_eq!(said(of(0, 0, 1), ChannelNews::Renew { endpoint: vec![1] }), invalid);
    // More messages than were ever sent.
    let mut world = World::new(9, [fabric(); 4], 0);
    let now = world.now();
    world.hosts[0].engine.break_channel(now, 0);
    world.control_delay = Duration::from_secs(1_000);
    for _ in 0..20 {
        world.step();
    }
    let (host, of) = (&mut world.hosts[0], of(0, 0, 0));
    let session = Arc::clone(&host.session);
    let message = ChannelMessage { of, news: ChannelNews::Fenced { received: 1 << 40 } };
    EngineControl::on_channel_news(&mut host.engine, now, 0, &session, &message);
    world.step();
    assert_eq!(session.error().kind(), std::io::ErrorKind::InvalidData);
}

/// As many queue pairs, slots and windows after a thousand failovers as before.
#[test]
fn nothing_is_left_of_a_thousand_dead_queue_pairs() {
    let mut world = World::new(10, [fabric(); 4], 0);
    let mut lost = 0;
    while lost < 1_000 {
        let now = world.now();
        for host in &mut world.hosts {
            lost += u32::from(host.engine.break_channel(now, lost as usize));
        }
        for _ in 0..60 {
            world.step();
        }
        // Idle queue pairs prove nothing, so that pauses grow; time passes.
        world.clock.fetch_add(1_000_000_000, Ordering::Relaxed);
    }
    settle(&mut world);
    let fenced = world.hosts[0].shared.counters.failovers.value();
    assert!(fenced >= 1_000, "{fenced}");
}

/// A stream of one direction to its end, while `meanwhile` happens in every step.
fn carry(world: &mut World, total: u64, mut meanwhile: impl FnMut(&mut World)) {
    let (ours, theirs) = world.open();
    let bytes: Vec<u8> = (0..total).map(pattern).collect();
    let (mut written, mut consumed) = (0, 0);
    let limit = world.now() + Duration::from_secs(60);
    while consumed < total {
        assert!(world.now() < limit, "stuck at {consumed} of {total}: {}", describe(world));
        let end = bytes.len().min(written + (64 << 10));
        written += world.write_buffered(0, &ours, written as u64, &bytes[written..end]);
        meanwhile(world);
        world.step();
        world.read(1, &theirs, &mut consumed, |offset, byte| {
            assert_eq!(byte, pattern(offset), "byte {offset}");
        });
    }
}

fn fences(world: &World) -> [u64; 2] {
    world.hosts.each_ref().map(|host| host.shared.counters.failovers.value())
}

/// A device that delivers a message twice, or not at all, costs a Channel and no stream.
#[test]
fn messages_that_come_twice_or_never_end_a_channel_and_no_stream() {
    for (seed, twice) in [(1, true), (2, false), (3, true), (4, false)] {
        let mut world = World::new(seed, [fabric(); 4], 0);
        let mut random = Random(seed);
        let mut steps = 0;
        carry(&mut world, 4 << 20, |world| {
            steps += 1;
            if steps % 50 == 0 {
                mishear(world, steps / 50 % 2, &mut random, twice);
            }
            if steps > 10_000 {
                // What never came may have been the last of its Channel.
                world.clock.fetch_add(1_000_000, Ordering::Relaxed);
            }
        });
        let [ours, theirs] = fences(&world);
        assert!(ours > 0 && theirs > 0, "{ours} and {theirs} fences");
        settle(&mut world);
    }
}

/// Nothing says that a queue pair failed, and nothing comes through it: the Channel is fenced when its
/// peer has owed an acknowledgement for too long, and its stream goes on.
#[test]
fn a_silent_channel_is_fenced() {
    let patience = Config::default().keepalive.timeout;
    let took = silent_channel(false);
    assert!(took >= patience && took < 2 * patience, "{took:?}");
    // The path works, as the control connection shows: the device has had its chance.
    let took = silent_channel(true);
    assert!(took >= Duration::from_secs(1) && took < patience, "{took:?}");
}

/// How long a stream takes over a queue pair that says nothing and three others.
fn silent_channel(hears: bool) -> Duration {
    // The fifth queue pair, which takes the place of the fourth, has the first link again.
    let silent = LinkModel { delay: Duration::from_secs(1_000), ..fabric() };
    let mut world = World::new(12, [fabric(), fabric(), fabric(), silent], 0);
    world.hears = hears;
    let start = world.now();
    carry(&mut world, 4 << 20, |world| {
        if fences(world) == [0, 0] {
            world.clock.fetch_add(20_000, Ordering::Relaxed);
        }
    });
    assert_eq!(fences(&world), [1, 1]);
    let took = world.now() - start;
    assert!(world.hosts[0].shared.counters.replayed_bytes.value() > 0, "nothing was lost");
    settle(&mut world);
    carry(&mut world, 4 << 20, |_| {});
    assert_eq!(fences(&world), [1, 1], "the new queue pair is well");
    took
}
