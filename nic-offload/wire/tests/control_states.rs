//! Every state against every message, through a real connection.

use std::fmt::Write;

use netchannel_units::{Class, Timestamp};
use netchannel_wire::control::message::Echo;
use netchannel_wire::control::record::{self, MAGIC, PREFIX_LEN};
use netchannel_wire::control::{
    Accept, ChannelEpoch, ChannelMessage, ChannelNews, ChannelOffer, Configuration, Connection,
    ControlEvent, ControlMessage, Farewell, Features, Hello, MessageKind, Reason, Role, SessionId,
    State,
};
use netchannel_wire::fuzzing::{connection, drain};

const NOW: Timestamp = Timestamp::from_nanos(5);

fn configuration() -> Configuration {
    Configuration::new("soft", "soft0")
}

fn offers() -> Vec<ChannelOffer> {
    vec![ChannelOffer { index: 0, class: Class::Latency, endpoint: vec![1, 2], group: 0 }]
}

fn message(kind: MessageKind) -> ControlMessage {
    let Configuration { parameters, .. } = configuration();
    let farewell = Farewell::new(Reason::Busy, "no room");
    match kind {
        MessageKind::Hello => ControlMessage::Hello(Box::new(Hello {
            min_version: 1,
            max_version: 1,
            session: SessionId([3; 16]),
            features: Features::CURRENT,
            parameters,
            channels: offers(),
            authentication: None,
        })),
        MessageKind::Accept => ControlMessage::Accept(Box::new(Accept {
            version: 1,
            features: Features::CURRENT,
            parameters,
            channels: offers(),
        })),
        MessageKind::Refuse => ControlMessage::Refuse(farewell),
        MessageKind::Ready => ControlMessage::Ready,
        MessageKind::Ping => ControlMessage::Ping(Echo { nonce: 9 }),
        MessageKind::Pong => ControlMessage::Pong(Echo { nonce: 9 }),
        MessageKind::Goodbye => ControlMessage::Goodbye(farewell),
        MessageKind::Fence => of_channel(ChannelNews::Fence { cause: "cut".into() }),
        MessageKind::Fenced => of_channel(ChannelNews::Fenced { received: 9 }),
        MessageKind::Renew => of_channel(ChannelNews::Renew { endpoint: vec![1, 2] }),
        MessageKind::Renewed => of_channel(ChannelNews::Renewed),
    }
}

fn of_channel(news: ChannelNews) -> ControlMessage {
    let of = ChannelEpoch { group: 0, channel: 0, epoch: 0 };
    ControlMessage::Channel(ChannelMessage { of, news })
}

fn record(kind: MessageKind) -> Vec<u8> {
    record::encode(&message(kind)).unwrap()
}

/// A message with this number and no fields.
fn bare(number: u32) -> Vec<u8> {
    let mut body = Vec::new();
    minicbor::Encoder::new(&mut body).array(2).unwrap().u32(number).unwrap().map(0).unwrap();
    framed(&body)
}

fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap();
    [&MAGIC[..], &length.to_le_bytes(), body].concat()
}

/// A connection in this state. Established has two, by role.
fn in_state(role: Role, state: State) -> Option<Connection> {
    let mut connection = match (role, state) {
        (_, State::Established) => connection(role, true),
        (Role::Client, _) => {
            let session = SessionId([3; 16]);
            Connection::client(configuration(), session, offers(), NOW).unwrap()
        }
        (Role::Server, _) => Connection::server(configuration(), NOW).unwrap(),
    };
    match (role, state) {
        (Role::Client, State::AwaitAccept)
        | (Role::Server, State::AwaitHello)
        | (_, State::Established) => {}
        (Role::Client, State::Connecting) => {
            connection.receive(NOW, &record(MessageKind::Accept)).unwrap();
        }
        (Role::Server, State::Answering) => {
            connection.receive(NOW, &record(MessageKind::Hello)).unwrap();
        }
        (Role::Server, State::AwaitReady) => {
            connection.receive(NOW, &record(MessageKind::Hello)).unwrap();
            connection.accept(offers()).unwrap();
        }
        (_, State::Closed) => connection.close(Reason::Done, ""),
        _ => return None,
    }
    drain(&mut connection);
    while connection.poll_event().is_some() {}
    assert_eq!(connection.state(), state);
    Some(connection)
}

fn said(connection: &mut Connection) -> Vec<String> {
    let bytes = drain(connection);
    let mut rest = &bytes[..];
    let mut said = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(rest[4..PREFIX_LEN].try_into().unwrap()) as usize;
        let (now, later) = rest.split_at(PREFIX_LEN + length);
        let message = record::decode(&now[PREFIX_LEN..]).unwrap().unwrap();
        said.push(match message {
            ControlMessage::Refuse(f) => format!("Refuse ({})", f.reason),
            ControlMessage::Goodbye(f) => format!("Goodbye ({})", f.reason),
            other => format!("{:?}", other.kind()),
        });
        rest = later;
    }
    said
}

fn name(event: &ControlEvent) -> String {
    let debug = format!("{event:?}");
    debug.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

#[test]
fn every_state_against_every_message() {
    let mut inputs: Vec<(String, Vec<u8>)> =
        MessageKind::ALL.iter().map(|kind| (format!("{kind:?}"), record(*kind))).collect();
    inputs.push(("Authenticate (reserved)".into(), bare(35)));
    inputs.push(("99 (unknown)".into(), bare(99)));
    inputs.push(("200 (ignorable)".into(), bare(200)));
    inputs.push(("not CBOR".into(), framed(b"\xff\xff")));
    inputs.push(("not ours".into(), b"GET / HTTP/1.1\r\n".to_vec()));

    let mut table = String::new();
    for role in [Role::Client, Role::Server] {
        for state in State::ALL {
            if in_state(role, state).is_none() {
                continue;
            }
            writeln!(table, "{role:?} {state:?}").unwrap();
            for (input, bytes) in &inputs {
                let mut connection = in_state(role, state).unwrap();
                let error = connection.receive(NOW, bytes).err();
                let mut outcome = match connection.state() {
                    next if next == state => "stays".to_owned(),
                    next => format!("{next:?}"),
                };
                while let Some(event) = connection.poll_event() {
                    write!(outcome, "; event {}", name(&event)).unwrap();
                }
                for message in said(&mut connection) {
                    write!(outcome, "; says {message}").unwrap();
                }
                if let Some(error) = error {
                    write!(outcome, "; error: {error}").unwrap();
                }
                writeln!(table, "  {input:16} -> {outcome}").unwrap();
            }
        }
    }
    insta::assert_snapshot!(table);
}

#[test]
fn the_callers_decisions_at_the_wrong_time_do_nothing() {
    for role in [Role::Client, Role::Server] {
        for state in State::ALL {
            let Some(mut connection) = in_state(role, state) else { continue };
            assert_eq!(connection.accept(offers()).is_ok(), state == State::Answering);
            let mut connection = in_state(role, state).unwrap();
            assert_eq!(connection.refuse(Reason::Busy, "").is_ok(), state == State::Answering);
            let mut connection = in_state(role, state).unwrap();
            assert_eq!(connection.ready(NOW).is_ok(), state == State::Connecting);
            let mut connection = in_state(role, state).unwrap();
            let of = ChannelEpoch { group: 0, channel: 0, epoch: 0 };
            let said = connection.say(ChannelMessage::fence(of, "cut"));
            assert_eq!(said.is_ok(), state == State::Established);
        }
    }
}

#[test]
fn numbers_have_one_meaning() {
    for kind in MessageKind::ALL {
        assert_eq!(MessageKind::from_wire(kind.to_wire()), Some(kind));
        assert!(kind.to_wire() < MessageKind::IGNORABLE);
    }
    for (number, _) in MessageKind::RESERVED {
        assert_eq!(MessageKind::from_wire(number), None);
        assert!(number < MessageKind::IGNORABLE);
    }
    for reason in Reason::ALL {
        assert_eq!(Reason::from_wire(reason.to_wire()), reason);
    }
    assert_eq!(Reason::from_wire(999), Reason::Unknown(999));
}
