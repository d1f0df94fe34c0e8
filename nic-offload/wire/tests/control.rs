//! Two ends of a control connection talk to each other, in virtual time.

use netchannel_units::{Class, Duration, Timestamp};
use netchannel_wire::control::message::{Echo, Undefined};
use netchannel_wire::control::record::{self, PREFIX_LEN};
use netchannel_wire::control::{
    ChannelOffer, Configuration, Connection, ControlError, ControlEvent, ControlMessage, Farewell,
    Features, Hello, Reason, Role, SessionId, State, VersionRange,
};
use netchannel_wire::fuzzing::{check_control, connection, drain};
use proptest::prelude::*;

fn configuration() -> Configuration {
    Configuration::new("soft", "soft0")
}

fn offers(count: u16) -> Vec<ChannelOffer> {
    let class = |index| Class::ALL[usize::from(index % 2)];
    (0..count)
        .map(|index| ChannelOffer {
            index,
            class: class(index),
            endpoint: vec![7; 40],
            group: class(index).to_wire(),
        })
        .collect()
}

fn client(configuration: Configuration) -> Connection {
    Connection::client(configuration, SessionId([1; 16]), offers(4), Timestamp::ZERO).unwrap()
}

fn server(configuration: Configuration) -> Connection {
    Connection::server(configuration, Timestamp::ZERO).unwrap()
}

/// What a Hello of this client leads to at this server.
fn greet(client: &mut Connection, server: &mut Connection) -> Result<(), ControlError> {
    let hello = drain(client);
    server.receive(Timestamp::ZERO, &hello)
}

fn hello_with(change: impl FnOnce(&mut Hello)) -> Vec<u8> {
    let bytes = drain(&mut client(configuration()));
    let Ok(Some(ControlMessage::Hello(mut hello))) = record::decode(&bytes[PREFIX_LEN..]) else {
        panic!("a client says Hello first");
    };
    change(&mut hello);
    record::encode(&ControlMessage::Hello(hello)).unwrap()
}

fn last_words(connection: &mut Connection) -> Farewell {
    let bytes = drain(connection);
    match record::decode(&bytes[PREFIX_LEN..]) {
        Ok(Some(ControlMessage::Refuse(words) | ControlMessage::Goodbye(words))) => words,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_session_is_made_and_ended() {
    let now = Timestamp::ZERO;
    let mut theirs = configuration();
    theirs.parameters.keepalive = Duration::from_millis(300);
    theirs.parameters.slots = 17;
    theirs.features = Features(u64::MAX);
    let (mut client, mut server) = (client(configuration()), server(theirs));

    greet(&mut client, &mut server).unwrap();
    let Some(ControlEvent::PeerHello(hello)) = server.poll_event() else { panic!() };
    assert_eq!(hello.channels, offers(4));
    server.accept(offers(3)).unwrap();
    client.receive(now, &drain(&mut server)).unwrap();
    let Some(ControlEvent::Accepted(accept)) = client.poll_event() else { panic!() };
    assert_eq!((accept.version, accept.features), (1, Features::CURRENT));
    assert_eq!(accept.channels, offers(3));
    let negotiated = client.negotiated().unwrap();
    assert_eq!(negotiated.keepalive, Duration::from_millis(300));
    assert_eq!(negotiated.peer.slots, 17);
    assert_eq!(server.negotiated().unwrap().keepalive, Duration::from_millis(300));

    client.ready(now).unwrap();
    server.receive(now, &drain(&mut client)).unwrap();
    assert_eq!(server.poll_event(), Some(ControlEvent::Ready));
    assert_eq!((client.state(), server.state()), (State::Established, State::Established));

    server.close(Reason::Shutdown, "the host goes down");
    server.close(Reason::Done, "said only once");
    client.receive(now, &drain(&mut server)).unwrap();
    let words = Farewell { reason: Reason::Shutdown, text: "the host goes down".into() };
    assert_eq!(client.poll_event(), Some(ControlEvent::Goodbye(words)));
    assert_eq!((client.state(), server.state()), (State::Closed, State::Closed));
    assert_eq!(client.poll_transmit(), None);
    assert_eq!((client.next_timeout(), server.next_timeout()), (None, None));
    client.on_disconnect();
    assert_eq!(client.poll_event(), None);
}

#[test]
fn a_refusal_reaches_the_client() {
    let (mut client, mut server) = (client(configuration()), server(configuration()));
    greet(&mut client, &mut server).unwrap();
    let long = "ä".repeat(200) + "\n";
    server.refuse(Reason::Busy, &long).unwrap();
    client.receive(Timestamp::ZERO, &drain(&mut server)).unwrap();
    let words = Farewell { reason: Reason::Busy, text: "ä".repeat(128) };
    assert_eq!(client.poll_event(), Some(ControlEvent::Refused(words)));
    assert_eq!(client.state(), State::Closed);
}

#[test]
fn versions_are_negotiated_or_both_ranges_named() {
    let range = |min, max| VersionRange { min, max };
    assert_eq!(range(1, 3).highest_common(range(2, 9)), Some(3));
    assert_eq!(range(2, 9).highest_common(range(1, 3)), Some(3));
    assert_eq!(range(1, 1).highest_common(range(2, 3)), None);
    assert_eq!(range(3, 2).highest_common(range(1, 9)), None);

    let newer = Configuration { versions: range(2, 3), ..configuration() };
    let (mut client, mut server) = (client(newer), server(configuration()));
    let error = greet(&mut client, &mut server).unwrap_err();
    let words = last_words(&mut server);
    assert_eq!(words.reason, Reason::Version);
    assert_eq!(
        words.text,
        "no common version: the server speaks version 1, the client versions 2 to 3"
    );
    assert_eq!(error, ControlError::Refused { reason: words.reason, text: words.text });
}

#[test]
fn what_a_hello_must_not_say() {
    let refusal = |change: fn(&mut Hello)| {
        let mut server = server(configuration());
        server.receive(Timestamp::ZERO, &hello_with(change)).unwrap_err();
        assert_eq!((server.state(), server.poll_event()), (State::Closed, None));
        let words = last_words(&mut server);
        format!("{:?}: {}", words.reason, words.text)
    };
    let refusals = [
        refusal(|h| h.authentication = Some(Undefined)),
        refusal(|h| h.parameters.provider = "rdma".into()),
        refusal(|h| h.parameters.provider = String::new()),
        refusal(|h| h.parameters.device = "d".repeat(65)),
        refusal(|h| h.parameters.host_name = Some("h".repeat(256))),
        refusal(|h| h.parameters.keepalive = Duration::from_millis(49)),
        refusal(|h| h.parameters.keepalive = Duration::from_millis(751)),
        refusal(|h| h.parameters.death_timeout = Duration::from_secs(601)),
        refusal(|h| h.parameters.slots = 2),
        refusal(|h| h.parameters.slot_bytes = 255),
        refusal(|h| h.channels[3].index = 1),
        refusal(|h| h.channels[0].endpoint.clear()),
        refusal(|h| h.channels[0].endpoint = vec![0; 257]),
        refusal(|h| h.channels = offers(257)),
    ];
    insta::assert_snapshot!(refusals.join("\n"));
}

#[test]
fn a_server_takes_only_what_was_offered() {
    let (mut client, mut server) = (client(configuration()), server(configuration()));
    greet(&mut client, &mut server).unwrap();
    let error = server.accept(offers(5)).unwrap_err();
    assert_eq!(error, ControlError::NotOffered { what: "channel", value: 4 });
    let mut other_class = offers(1);
    other_class[0].class = Class::Throughput;
    server.accept(other_class).unwrap_err();
    assert_eq!((server.state(), server.poll_transmit()), (State::Answering, None));
    server.accept(offers(1)).unwrap();

    // A client holds it to that.
    let accept = drain(&mut server);
    let Ok(Some(ControlMessage::Accept(accept))) = record::decode(&accept[PREFIX_LEN..]) else {
        panic!()
    };
    let judged = |change: fn(&mut netchannel_wire::control::Accept)| {
        let mut accept = accept.clone();
        change(&mut accept);
        let record = record::encode(&ControlMessage::Accept(accept)).unwrap();
        let mut client = self::client(configuration());
        client.receive(Timestamp::ZERO, &record).map_err(|error| error.to_string())
    };
    assert_eq!(judged(|_| ()), Ok(()));
    let errors = [
        judged(|a| a.version = 2),
        judged(|a| a.features = Features(1 << 63)),
        judged(|a| a.channels = offers(6)),
        judged(|a| a.parameters.provider = "rdma".into()),
        judged(|a| a.parameters.slots = 0),
    ];
    insta::assert_debug_snapshot!(errors);
}

#[test]
fn unknown_fields_are_skipped_and_missing_ones_named() {
    // A Ping of a later version: field 0 is the nonce, 1 and 7 are news.
    let mut body = Vec::new();
    let mut e = minicbor::Encoder::new(&mut body);
    e.array(2).unwrap().u32(5).unwrap().map(3).unwrap();
    e.u8(0).unwrap().u64(77).unwrap();
    e.u8(1).unwrap().array(2).unwrap().str("more").unwrap().map(0).unwrap();
    e.u8(7).unwrap().bytes(b"and more").unwrap();
    assert_eq!(record::decode(&body), Ok(Some(ControlMessage::Ping(Echo { nonce: 77 }))));

    let error = record::decode(&[0x82, 5, 0xA0]).unwrap_err();
    assert!(error.to_string().contains("Ping"), "{error}");
    let error = record::decode(&[0x82, 4, 0xA0, 0]).unwrap_err();
    assert!(error.to_string().contains("1 bytes follow"), "{error}");
}

#[test]
fn a_stranger_is_named_by_its_first_bytes() {
    let mut server = server(configuration());
    let error = server.receive(Timestamp::ZERO, b"SSH-2.0-OpenSSH").unwrap_err();
    assert_eq!(
        error.to_string(),
        "this does not speak the NetChannel control protocol: it starts with 53 53 48 2d 32 2e 30 2d"
    );
    // It is not answered in a protocol that it does not speak.
    assert_eq!((server.state(), server.poll_transmit()), (State::Closed, None));
}

#[test]
fn a_record_of_any_length_is_not_waited_for() {
    let mut server = server(configuration());
    let error = server.receive(Timestamp::ZERO, b"NCC1\x01\x00\x01\x00").unwrap_err();
    assert_eq!(error, ControlError::RecordLength { length: 65_537, max: 65_536 });
}

#[test]
fn a_hello_that_is_too_long_is_not_sent() {
    let mut channels = offers(256);
    for offer in &mut channels {
        offer.endpoint = vec![0; 256];
    }
    let error = Connection::client(configuration(), SessionId([1; 16]), channels, Timestamp::ZERO);
    assert!(matches!(error, Err(ControlError::RecordLength { .. })));
}

#[test]
fn who_asks_without_listening_is_not_kept_for() {
    let mut server = connection(Role::Server, true);
    let ping = record::encode(&ControlMessage::Ping(Echo { nonce: u64::MAX })).unwrap();
    server.receive(Timestamp::ZERO, &ping.repeat(10_000)).unwrap();
    assert!(server.poll_transmit().unwrap().len() < 1_100);
    // Once it listens, it is answered again.
    drain(&mut server);
    server.receive(Timestamp::ZERO, &ping).unwrap();
    assert!(server.poll_transmit().is_some());
}

#[test]
fn partial_writes() {
    let mut client = client(configuration());
    let all = client.poll_transmit().unwrap().to_vec();
    let mut written = Vec::new();
    while let Some(rest) = client.poll_transmit() {
        let count = rest.len().min(7);
        written.extend_from_slice(&rest[..count]);
        client.transmitted(count);
    }
    assert_eq!(written, all);
}

#[test]
fn the_end_of_the_stream_says_where_it_was() {
    let mut server = server(configuration());
    server.receive(Timestamp::ZERO, &hello_with(|_| ())[..33]).unwrap();
    server.on_disconnect();
    let expected = ControlEvent::Disconnected { state: State::AwaitHello, partial: 33 };
    assert_eq!(server.poll_event(), Some(expected));
}

proptest! {
    /// A handshake cut into any pieces gives the same events as one in whole records.
    #[test]
    fn pieces_do_not_matter(cuts in prop::collection::vec(1usize..50, 1..60)) {
        let (mut client, mut server) = (client(configuration()), server(configuration()));
        let mut cuts = cuts.iter().copied().cycle();
        let mut events = Vec::new();
        for turn in 0..6 {
            let (from, to) = if turn % 2 == 0 {
                (&mut client, &mut server)
            } else {
                (&mut server, &mut client)
            };
            while let Some(bytes) = from.poll_transmit() {
                let count = bytes.len().min(cuts.next().unwrap());
                let piece = bytes[..count].to_vec();
                from.transmitted(count);
                to.receive(Timestamp::ZERO, &piece).unwrap();
            }
            while let Some(event) = to.poll_event() {
                match &event {
                    ControlEvent::PeerHello(hello) => to.accept(hello.channels.clone()).unwrap(),
                    ControlEvent::Accepted(_) => to.ready(Timestamp::ZERO).unwrap(),
                    ControlEvent::Ready => to.close(Reason::Done, "enough"),
                    _ => {}
                }
                events.push(event);
            }
        }
        let names: Vec<_> = events.iter().map(|event| match event {
            ControlEvent::PeerHello(hello) => format!("hello {}", hello.channels.len()),
            ControlEvent::Accepted(accept) => format!("accepted {}", accept.channels.len()),
            ControlEvent::Ready => "ready".into(),
            ControlEvent::Goodbye(words) => words.text.clone(),
            other => format!("{other:?}"),
        }).collect();
        prop_assert_eq!(names, ["hello 4", "accepted 4", "ready", "enough"]);
    }

    #[test]
    fn damage_is_no_disaster(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        keep in any::<prop::sample::Index>(),
        body_only in any::<bool>(),
    ) {
        let ping = record::encode(&ControlMessage::Ping(Echo { nonce: 3 })).unwrap();
        let mut bytes = [hello_with(|_| ()), ping].concat();
        if body_only {
            bytes.drain(..PREFIX_LEN);
        }
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        check_control(&bytes);
        check_control(&bytes[..keep.index(bytes.len())]);
    }

    #[test]
    fn noise_is_no_disaster(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_control(&bytes);
        check_control(&[b"NCC1", &bytes[..]].concat());
    }
}
