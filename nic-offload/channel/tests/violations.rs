//! What a peer can do wrong, and that nothing of a bad header counts.

use netchannel_channel::{AckNeed, Channel, ChannelConfig, ChannelError, Controller, Kind};
use netchannel_units::{Duration, Timestamp};
use netchannel_wire::MessageHeader;
use proptest::prelude::*;

const NOW: Timestamp = Timestamp::from_nanos(1_000);

fn config() -> ChannelConfig {
    ChannelConfig { receive_slots: 8, peer_slots: 4, ..ChannelConfig::default() }
}

/// Two messages sent, the first acknowledged; one received and processed.
fn channel() -> Channel<u32> {
    let mut channel = Channel::new(config(), Controller::default());
    for item in 0..2 {
        channel.on_transmit(NOW, 10, item, Kind::Data);
    }
    let first = MessageHeader { sequence: 0, acknowledged: 1, credit: 5, frames: 1 };
    channel.on_message(NOW, &first).unwrap();
    channel.on_processed(true);
    channel
}

#[test]
fn each_violation_has_its_error() {
    let table = [
        ((0, 1, 5), "message 0 arrived where message 1 was next"),
        ((2, 1, 5), "message 2 arrived where message 1 was next"),
        ((1, 0, 5), "acknowledgement of 0 messages (low 32 bits) is not in 1..=2"),
        ((1, 3, 5), "acknowledgement of 3 messages (low 32 bits) is not in 1..=2"),
        ((1, u32::MAX, 5), "acknowledgement of 4294967295 messages (low 32 bits) is not in 1..=2"),
        ((1, 1, 4), "credit for 4 messages (low 32 bits) is not in 5..=5"),
        ((1, 2, 7), "credit for 7 messages (low 32 bits) is not in 5..=6"),
    ];
    for ((sequence, acknowledged, credit), text) in table {
        let mut channel = channel();
        let header = MessageHeader { sequence, acknowledged, credit, frames: 0 };
        let error = channel.on_message(NOW, &header).unwrap_err();
        assert_eq!(error.to_string(), text);
        let good = MessageHeader { sequence: 1, acknowledged: 2, credit: 6, frames: 0 };
        assert_eq!(channel.on_message(NOW, &good), Ok(()), "a bad header must leave no trace");
    }
}

#[test]
fn a_peer_that_overruns_its_credit_is_caught() {
    let mut channel = Channel::<()>::new(config(), Controller::default());
    for sequence in 0..=8 {
        let header = MessageHeader { sequence, acknowledged: 0, credit: 4, frames: 1 };
        let result = channel.on_message(NOW, &header);
        if sequence < 8 {
            assert_eq!(result, Ok(()));
            channel.on_processed(true); // reposted, but no header has said so yet
        } else {
            assert_eq!(result, Err(ChannelError::Overrun { sequence: 8, credit: 8 }));
        }
    }
}

#[test]
fn sizes_are_checked() {
    for slots in [0, 3, 65_537, u32::MAX] {
        let config = ChannelConfig { peer_slots: slots, ..config() };
        assert_eq!(config.check(), Err(ChannelError::Slots { slots }));
    }
    let config = ChannelConfig { send_queue: 2, ..config() };
    assert_eq!(config.check(), Err(ChannelError::SendQueue { send_queue: 2 }));
}

#[test]
fn a_single_message_is_acknowledged_after_the_delay() {
    let mut channel = channel();
    let due = NOW + Duration::from_micros(20);
    assert_eq!((channel.wants_ack(), channel.next_timeout()), (AckNeed::Soon, Some(due)));
    channel.on_timeout(NOW);
    assert_eq!(channel.wants_ack(), AckNeed::Soon);
    channel.on_timeout(due);
    assert_eq!((channel.wants_ack(), channel.next_timeout()), (AckNeed::Now, None));
    let header = channel.on_transmit(due, 0, 9, Kind::Control);
    assert_eq!((header.acknowledged, header.credit), (1, 9));
    assert_eq!(channel.wants_ack(), AckNeed::None);
    assert_eq!(channel.stats().acks_sent, 1);
}

#[test]
fn a_window_bounds_outstanding_bytes() {
    let mut channel = Channel::new(config(), "fixed:1000".parse().unwrap());
    channel.on_transmit(NOW, 400, (), Kind::Data);
    let second = channel.on_transmit(NOW, 700, (), Kind::Data);
    assert_eq!((channel.outstanding(), channel.window_left()), (1_100, 0));
    channel.on_completion(NOW, second.sequence - 1);
    assert_eq!((channel.outstanding(), channel.window_left()), (700, 300));
    channel.on_completion(NOW, second.sequence - 1); // stale
    channel.on_completion(NOW, second.sequence + 1); // never sent
    assert_eq!((channel.outstanding(), channel.completed()), (700, 1));
    channel.on_completion(NOW, second.sequence);
    assert_eq!((channel.outstanding(), channel.window_left()), (0, 1_000));
}

/// The wrap at 2^32 messages has its test beside the arithmetic; a long run must not drift.
#[test]
fn counts_do_not_drift() {
    let config = ChannelConfig { receive_slots: 4, peer_slots: 4, ..ChannelConfig::default() };
    let mut a = Channel::new(config, Controller::default());
    let mut b = Channel::new(config, Controller::default());
    for round in 0..200_000_u32 {
        let header = a.on_transmit(NOW, 1, round, Kind::Data);
        a.on_completion(NOW, header.sequence);
        b.on_message(NOW, &header).unwrap();
        b.on_processed(true);
        let answer = b.on_transmit(NOW, 1, round, Kind::Data);
        b.on_completion(NOW, answer.sequence);
        a.on_message(NOW, &answer).unwrap();
        a.on_processed(true);
        assert_eq!(a.poll_confirmed(), Some(round));
        assert_eq!(a.poll_confirmed(), None);
        assert_eq!(b.poll_confirmed(), round.checked_sub(1));
    }
    assert_eq!((a.unconfirmed(), b.unconfirmed()), (0, 1));
    assert_eq!(a.stats().bytes_confirmed, 200_000);
}

proptest! {
    /// Whatever arrives, a header is taken over whole or not at all, and never panics.
    #[test]
    fn any_header_is_safe(
        headers in proptest::collection::vec(
            (0..6_u32, 0..6_u32, 0..12_u32, any::<bool>(), any::<u32>()), 0..40),
    ) {
        let mut channel = channel();
        for (sequence, acknowledged, credit, wild, bits) in headers {
            let header = match wild {
                true => MessageHeader { sequence, acknowledged: bits, credit: !bits, frames: 0 },
                false => MessageHeader { sequence, acknowledged, credit, frames: 0 },
            };
            let before = (channel.unconfirmed(), *channel.stats(), channel.may_send(Kind::Data));
            if channel.on_message(NOW, &header).is_err() {
                let after = (channel.unconfirmed(), *channel.stats(), channel.may_send(Kind::Data));
                prop_assert_eq!(before, after);
            } else {
                channel.on_processed(false);
            }
            while channel.poll_confirmed().is_some() {}
            if channel.may_send(Kind::Data) {
                channel.on_transmit(NOW, 1, 0, Kind::Data);
            }
        }
        let lost = channel.fail().count();
        prop_assert_eq!(lost, channel.unconfirmed());
    }
}
