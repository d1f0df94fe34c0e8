//! What must hold for any bytes from the network: shared by the fuzz targets in `testbed/fuzz` and
//! by the tests that replay their corpus.

use netchannel_units::{Class, Duration, Timestamp};

use crate::control::record::{self, MAX_RECORD, PREFIX_LEN};
use crate::control::{
    ChannelOffer, Configuration, Connection, ControlError, ControlEvent, Role, SessionId, State,
};
use crate::encode::MessageWriter;
use crate::frame::{Frame, MessageHeader};

/// Any bytes are either refused, or a message that encodes to the same bytes again (less the
/// frames that were skipped).
///
/// # Panics
/// If that does not hold.
pub fn check_frames(bytes: &[u8]) {
    let Ok((header, frames)) = crate::parse(bytes) else { return };
    let Ok(read) = frames.collect::<Result<Vec<_>, _>>() else { return };
    assert!(read.len() <= usize::from(header.frames));
    let again = encode(&header, &read);
    if read.len() == usize::from(header.frames) {
        assert_eq!(again, bytes, "{header:?} {read:?}");
        return;
    }
    assert!(again.len() < bytes.len());
    let (_, frames) = crate::parse(&again).expect("our own message");
    assert_eq!(frames.collect::<Result<Vec<_>, _>>().as_ref(), Ok(&read));
}

/// The message of these frames.
///
/// # Panics
/// If a frame does not fit a buffer of the length that the frames claim.
pub fn encode(header: &MessageHeader, frames: &[Frame<'_>]) -> Vec<u8> {
    let len: usize = frames.iter().map(Frame::encoded_len).sum();
    let mut buffer = vec![0xEE; MessageHeader::LEN + len];
    let mut writer = MessageWriter::new(&mut buffer);
    for frame in frames {
        let before = writer.room();
        writer.push(frame).expect("encoded_len holds");
        assert_eq!(before - writer.room(), frame.encoded_len());
    }
    assert_eq!(writer.room(), 0);
    assert_eq!(writer.finish(header), MessageHeader::LEN + len);
    buffer
}

/// Any bytes at any time, cut anyhow, are read or refused; the connection keeps little, says
/// little, and comes to an end. What is read encodes to what reads the same.
///
/// # Panics
/// If that does not hold.
pub fn check_control(bytes: &[u8]) {
    check_body(bytes);
    let cut = bytes.first().map_or(0, |first| usize::from(*first) % (bytes.len() + 1));
    for role in [Role::Client, Role::Server] {
        for established in [false, true] {
            let whole = hear(connection(role, established), &[bytes]);
            let (front, back) = bytes.split_at(cut);
            let cut = hear(connection(role, established), &[front, back]);
            assert_eq!(whole, cut);
        }
    }
    let bytewise: Vec<&[u8]> = bytes.chunks(1).collect();
    let whole = hear(connection(Role::Server, false), &[bytes]);
    assert_eq!(whole, hear(connection(Role::Server, false), &bytewise));
}

/// The bytes as what follows the prefix of a record.
fn check_body(bytes: &[u8]) {
    let Ok(Some(message)) = record::decode(bytes) else { return };
    match record::encode(&message) {
        Ok(again) => assert_eq!(record::decode(&again[PREFIX_LEN..]), Ok(Some(message))),
        Err(error) => assert!(matches!(error, ControlError::RecordLength { .. }), "{error}"),
    }
}

fn offers() -> Vec<ChannelOffer> {
    [Class::Latency, Class::Throughput]
        .into_iter()
        .zip(0..)
        .map(|(class, index)| {
            let group = class.to_wire();
            ChannelOffer { index, class, endpoint: vec![0xAB; 12], group }
        })
        .collect()
}

/// One end, fresh or after a handshake, with nothing left to say.
///
/// # Panics
/// If the handshake fails.
pub fn connection(role: Role, established: bool) -> Connection {
    let now = Timestamp::ZERO;
    let configuration = Configuration::new("soft", "soft0");
    let session = SessionId([0x5A; 16]);
    let mut client = Connection::client(configuration.clone(), session, offers(), now)
        .expect("a sound configuration");
    let mut server = Connection::server(configuration, now).expect("a sound configuration");
    if established {
        let carry = |from: &mut Connection, to: &mut Connection| {
            let bytes = drain(from);
            to.receive(now, &bytes).expect("our own words");
        };
        carry(&mut client, &mut server);
        server.accept(offers()).expect("offered");
        carry(&mut server, &mut client);
        client.ready(now).expect("accepted");
        carry(&mut client, &mut server);
        assert_eq!((client.state(), server.state()), (State::Established, State::Established));
    }
    let mut chosen = match role {
        Role::Client => client,
        Role::Server => server,
    };
    drain(&mut chosen);
    while chosen.poll_event().is_some() {}
    chosen
}

/// Takes everything that the connection has to say.
pub fn drain(connection: &mut Connection) -> Vec<u8> {
    let bytes = connection.poll_transmit().unwrap_or_default().to_vec();
    connection.transmitted(bytes.len());
    bytes
}

type Heard = (Option<ControlError>, Vec<ControlEvent>, Vec<u8>, State);

/// What comes of `pieces`. A Hello is accepted and an Accept followed by Ready once all has come,
/// so that the outcome does not depend on the cut.
fn hear(mut connection: Connection, pieces: &[&[u8]]) -> Heard {
    let now = Timestamp::from_nanos(1_000);
    let error = pieces.iter().find_map(|piece| connection.receive(now, piece).err());
    let mut events: Vec<_> = core::iter::from_fn(|| connection.poll_event()).collect();
    let of_channels = |event: &&ControlEvent| matches!(event, ControlEvent::Channel(_));
    assert!(events.iter().filter(|event| !of_channels(event)).count() <= 3, "{events:?}");
    match connection.state() {
        State::Answering => connection.accept(offers_of(&events)).expect("what was offered"),
        State::Connecting => connection.ready(now).expect("accepted"),
        _ => {}
    }
    assert!(error.is_none() || connection.state() == State::Closed);
    let said = drain(&mut connection);
    assert!(said.len() <= PREFIX_LEN + MAX_RECORD as usize + 2_048, "{} bytes", said.len());
    let state = connection.state();
    // Left alone it ends, and says so once.
    let mut now = now;
    while let Some(next) = connection.next_timeout() {
        assert!(next > now, "{next:?} is not later than {now:?}");
        assert!(next - now <= Duration::from_secs(700));
        now = next;
        connection.on_timeout(now);
    }
    assert_eq!(connection.state(), State::Closed);
    connection.on_disconnect();
    events.extend(core::iter::from_fn(|| connection.poll_event()));
    (error, events, said, state)
}

fn offers_of(events: &[ControlEvent]) -> Vec<ChannelOffer> {
    let hello = events.iter().find_map(|event| match event {
        ControlEvent::PeerHello(hello) => Some(hello),
        _ => None,
    });
    hello.map(|hello| hello.channels.clone()).unwrap_or_default()
}
