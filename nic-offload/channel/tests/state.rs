//! Every state with every event, as a table in a snapshot.

use std::fmt::Write;

use netchannel_channel::{Channel, ChannelConfig, Controller, Kind, State};
use netchannel_units::Timestamp;
use netchannel_wire::MessageHeader;

const NOW: Timestamp = Timestamp::from_nanos(1_000_000);

/// Three messages sent, the first acknowledged and completed but not polled; one of the peer's
/// processed and not acknowledged.
fn channel(state: State) -> Channel<&'static str> {
    let mut channel = Channel::new(ChannelConfig::default(), Controller::default());
    for item in ["one", "two", "three"] {
        channel.on_transmit(NOW, 100, item, Kind::Data);
    }
    channel.on_completion(NOW, 0);
    channel.on_message(NOW, &header(0, 1)).unwrap();
    channel.on_processed(true);
    match state {
        State::Open => {}
        State::Receiving => channel.receive_only(),
        State::Failed => drop(channel.fail()),
    }
    channel
}

fn header(sequence: u32, acknowledged: u32) -> MessageHeader {
    MessageHeader { sequence, acknowledged, credit: acknowledged + 64, frames: 1 }
}

fn describe(channel: &Channel<&'static str>) -> String {
    format!(
        "{:?}, may send {}/{}, outstanding {}, unconfirmed {}, ack {:?}, timeout {:?}",
        channel.state(),
        channel.may_send(Kind::Data),
        channel.may_send(Kind::Control),
        channel.outstanding(),
        channel.unconfirmed(),
        channel.wants_ack(),
        channel.next_timeout().map(Timestamp::as_nanos),
    )
}

type Event = fn(&mut Channel<&'static str>) -> String;

/// `on_transmit` is not among them: it is called only if `may_send` says so.
const EVENTS: [(&str, Event); 12] = [
    ("nothing", |_| String::new()),
    ("on_message", |c| format!("{:?}", c.on_message(NOW, &header(1, 2)))),
    ("on_message again", |c| format!("{:?}", c.on_message(NOW, &header(0, 1)))),
    ("on_message, on_processed", |c| {
        let result = c.on_message(NOW, &header(1, 1));
        if result.is_ok() {
            c.on_processed(true);
        }
        format!("{result:?}")
    }),
    ("on_completion", |c| {
        c.on_completion(NOW, 2);
        String::new()
    }),
    ("on_timeout", |c| {
        c.on_timeout(Timestamp::from_nanos(1_020_000));
        String::new()
    }),
    ("poll_confirmed", |c| format!("{:?}, {:?}", c.poll_confirmed(), c.poll_confirmed())),
    ("receive_only", |c| {
        c.receive_only();
        String::new()
    }),
    ("open", |c| {
        c.open();
        String::new()
    }),
    ("on_report", |c| {
        let result = c.on_report(2);
        format!("{result:?}, {:?}, {:?}", c.poll_confirmed(), c.poll_confirmed())
    }),
    ("on_report of too many", |c| format!("{:?}", c.on_report(4))),
    ("fail", |c| format!("{:?}", c.fail().collect::<Vec<_>>())),
];

#[test]
fn every_state_with_every_event() {
    let mut table = String::new();
    for state in [State::Open, State::Receiving, State::Failed] {
        for (name, event) in EVENTS {
            let mut channel = channel(state);
            let answer = event(&mut channel);
            writeln!(table, "{state:?} + {name}: {answer}").unwrap();
            writeln!(table, "    -> {}", describe(&channel)).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}
