//! Peers that break the rules, on the control connection and on the Channels.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use common::{ANY_PORT, LIMIT, Pair, Random, config, receive, send, start, within};
use netchannel::{Error, Stream, StreamOptions, Weight};
use netchannel_units::{Class, Timestamp};
use netchannel_verbs::queue_pair::{ConnectOptions, QueuePairInit, Service};
use netchannel_verbs::work::{SendOperation, Slices};
use netchannel_verbs::{
    Access, CompletionQueue as _, Context, Endpoint, LocalSlice, MemoryRegion, QueuePair,
    SendRequest, WorkCompletion, soft,
};
use netchannel_wire::control::{
    ChannelOffer, Configuration, Connection, ControlEvent, SessionId, State, VersionRange,
};

/// A stream between honest peers of the same server goes on, whatever the others do.
struct Honest {
    pair: Pair,
    streams: Option<(Stream, Stream)>,
}

impl Honest {
    fn new() -> Self {
        let pair = Pair::new();
        let streams = Some(pair.stream());
        Self { pair, streams }
    }

    fn address(&self) -> SocketAddr {
        self.pair.listener.local_addr()
    }

    /// Bytes still flow through the old stream and through a new one, and nothing is left of the
    /// hostile sessions.
    fn goes_on(&mut self) {
        let (mut ours, mut theirs) = self.streams.take().unwrap();
        thread::scope(|scope| {
            scope.spawn(|| send(&mut ours, 1, 100_000, 10_000).unwrap());
            let mut bytes = vec![0; 100_000];
            theirs.read_exact(&mut bytes).unwrap();
            common::check(1, 0, &bytes);
        });
        self.streams = Some((ours, theirs));
        let (mut ours, mut theirs) = self.pair.stream();
        thread::scope(|scope| {
            scope.spawn(move || {
                send(&mut ours, 2, 100_000, 10_000).unwrap();
                ours.close().unwrap();
            });
            assert_eq!(receive(&mut theirs, 2, 10_000).unwrap(), 100_000);
        });
        drop(theirs);
        let end = Instant::now() + Duration::from_secs(10);
        while self.pair.server.stats().sessions != 1 {
            assert!(Instant::now() < end, "{:?}", self.pair.server.stats());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What the server answers before it hangs up.
fn say(address: SocketAddr, bytes: &[u8], then_wait: bool) -> Vec<u8> {
    let mut socket = TcpStream::connect(address).unwrap();
    let _ = socket.write_all(bytes);
    let mut answer = Vec::new();
    if then_wait {
        // A reset after the answer is as good as an end.
        let _ = socket.read_to_end(&mut answer);
    }
    answer
}

fn hello(versions: VersionRange, provider: &str, channels: Vec<ChannelOffer>) -> Vec<u8> {
    let configuration = Configuration { versions, ..Configuration::new(provider, "soft") };
    let now = Timestamp::from_nanos(1);
    let mut client = Connection::client(configuration, SessionId([7; 16]), channels, now).unwrap();
    client.poll_transmit().unwrap().to_vec()
}

/// A Hello with offers that the client's own checks would not let pass.
fn raw_hello(channels: Vec<ChannelOffer>) -> Vec<u8> {
    use netchannel_wire::control::{ControlMessage, record};
    let bytes = hello(VersionRange::CURRENT, "soft", Vec::new());
    let Ok(Some(ControlMessage::Hello(mut hello))) = record::decode(&bytes[record::PREFIX_LEN..])
    else {
        unreachable!("a Hello of our own")
    };
    hello.channels = channels;
    record::encode(&ControlMessage::Hello(hello)).unwrap()
}

/// One test, because it counts what the process holds.
#[test]
fn rubbish_on_the_control_port_disturbs_nobody() {
    within(LIMIT, "rubbish", || {
        let mut honest = Honest::new();
        let address = honest.address();
        honest.goes_on();
        let before = descriptors();
        let mut random = Random(5);
        let offer = |endpoint: Vec<u8>| ChannelOffer {
            index: 0,
            class: Class::Throughput,
            endpoint,
            group: 0,
        };
        let good = hello(VersionRange::CURRENT, "soft", vec![offer(vec![1, 2, 3])]);
        for _ in 0..30 {
            // Random bytes; a good beginning that is cut off; a good beginning with one wrong byte.
            let bytes: Vec<u8> = (0..random.size(5_000)).map(|_| random.next() as u8).collect();
            say(address, &bytes, random.below(2) == 0);
            say(address, &good[..random.below(good.len() as u64) as usize], false);
            let mut wrong = good.clone();
            wrong[random.below(good.len() as u64) as usize] ^= 1 << random.below(8);
            say(address, &wrong, false);
        }
        say(address, b"GET / HTTP/1.1\r\n\r\n", true);
        let old = VersionRange { min: 900, max: 901 };
        let answer = say(address, &hello(old, "soft", Vec::new()), true);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("version") && answer.contains("900"), "{answer}");
        let answer = say(address, &hello(VersionRange::CURRENT, "rdma", Vec::new()), true);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let says = "the client's queue pairs are \"rdma\", the server's \"soft\"";
        assert!(answer.contains(says), "{answer}");
        // Groups and classes that do not fit together, and more Channels than a group may have.
        let with = |index, class, group| ChannelOffer { index, class, endpoint: vec![1], group };
        let (latency, bulk) = (Class::Latency, Class::Throughput);
        let many = (0..65).map(|index| with(index, bulk, 0)).collect();
        for (offers, expected) in [
            (vec![with(0, latency, 1), with(1, bulk, 1)], "another class than its group"),
            (vec![with(0, bulk, 200)], "number of a group"),
            (many, "the client offers 65 Channels in group 0"),
            (Vec::new(), "the client offered no Channels"),
        ] {
            let bytes = raw_hello(offers);
            let answer = say(address, &bytes, true);
            let answer = String::from_utf8_lossy(&answer).into_owned();
            assert!(answer.contains(expected), "{expected}: {answer}");
        }
        let known = hello(VersionRange::CURRENT, "soft", vec![with(0, bulk, 0)]);
        // The class is the byte behind the number of its field, in the offer's map.
        let at = known.windows(5).rposition(|bytes| bytes == [0xA4, 0, 0, 1, 1]).unwrap() + 4;
        let mut unknown = known.clone();
        unknown[at] = 9;
        let answer = say(address, &unknown, true);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.contains("unknown class 9"), "{answer}");
        // An endpoint that is none.
        for endpoint in [vec![0], vec![255; 200], b"\0abstract-socket".to_vec()] {
            let answer =
                say(address, &hello(VersionRange::CURRENT, "soft", vec![offer(endpoint)]), true);
            assert!(!answer.is_empty(), "refused with a reason");
        }
        honest.goes_on();
        let end = Instant::now() + Duration::from_secs(10);
        while descriptors() > before {
            assert!(Instant::now() < end, "{before} descriptors before, {} after", descriptors());
            thread::sleep(Duration::from_millis(5));
        }
        bad_frames();
    });
}

#[test]
fn an_old_peer_and_a_port_in_use_are_clear_errors() {
    within(LIMIT, "errors", || {
        let runtime = start(config());
        let listener = runtime.listen(ANY_PORT.into()).unwrap();
        let error = runtime.listen(listener.local_addr()).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");
        assert!(error.to_string().contains(&listener.local_addr().to_string()), "{error}");
        let error = start(config()).listen(listener.local_addr()).err().unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse, "{error}");

        // Servers that speak something else, another version, or nothing.
        let versions = VersionRange { min: 900, max: 901 };
        type Answer = Box<dyn Fn(TcpStream) + Send>;
        let answers: [(&str, Answer); 3] = [
            ("speak", Box::new(|mut socket| drop(socket.write_all(b"220 smtp ready\r\n")))),
            ("version", Box::new(move |socket| serve_once(socket, versions))),
            ("closed", Box::new(drop)),
        ];
        for (expected, answer) in answers {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = server.local_addr().unwrap();
            let thread = thread::spawn(move || answer(server.accept().unwrap().0));
            let error = runtime.connect(address, &StreamOptions::default()).err().unwrap();
            assert!(matches!(&error, Error::Connect { peer, .. } if *peer == address), "{error}");
            println!("{expected}: {error}");
            thread.join().unwrap();
        }
        assert_eq!(runtime.stats().sessions, 0);
    });
}

fn serve_once(mut socket: TcpStream, versions: VersionRange) {
    let configuration = Configuration { versions, ..Configuration::new("soft", "soft") };
    let now = Timestamp::from_nanos(1);
    let mut server = Connection::server(configuration, now).unwrap();
    let mut bytes = [0; 4_096];
    while server.state() != State::Closed {
        let count = socket.read(&mut bytes).unwrap();
        let _ = server.receive(now, &bytes[..count]);
    }
    socket.write_all(server.poll_transmit().unwrap()).unwrap();
}

type Region = <soft::Context as Context>::MemoryRegion;
type Queue = <soft::Context as Context>::QueuePair;
type Completions = <soft::Context as Context>::CompletionQueue;

/// A peer that does the handshake by the book and then posts what it likes.
struct Hostile {
    // Declared first, dropped first.
    queue_pair: Queue,
    memory: Region,
    socket: TcpStream,
    completions: Completions,
    _context: soft::Context,
}

impl Hostile {
    fn join(address: SocketAddr) -> Self {
        let context = soft::Context::open(soft::SoftOptions::default()).unwrap();
        let completions = context.create_completion_queue(1_024).unwrap();
        let mut queue_pair = context
            .create_queue_pair(&QueuePairInit {
                service: Service::ReliableConnection,
                send_queue: &completions,
                receive_queue: &completions,
                shared_receive_queue: None,
                send_capacity: 64,
                receive_capacity: 64,
                inline_bytes: 64,
            })
            .unwrap();
        let memory = context.alloc(64 << 10, Access::LOCAL_WRITE).unwrap();
        let offer = ChannelOffer {
            index: 0,
            class: Class::Throughput,
            endpoint: queue_pair.endpoint().0.clone(),
            group: 0,
        };
        let now = Timestamp::from_nanos(1);
        let configuration = Configuration::new("soft", "soft");
        let mut client =
            Connection::client(configuration, SessionId([9; 16]), vec![offer], now).unwrap();
        let mut socket = TcpStream::connect(address).unwrap();
        let mut bytes = [0; 4_096];
        while client.state() != State::Established {
            while let Some(out) = client.poll_transmit() {
                let count = socket.write(out).unwrap();
                client.transmitted(count);
            }
            let count = socket.read(&mut bytes).unwrap();
            client.receive(now, &bytes[..count]).unwrap();
            if let Some(ControlEvent::Accepted(accept)) = client.poll_event() {
                let endpoint = Endpoint(accept.channels[0].endpoint.clone());
                queue_pair.connect(&endpoint, &ConnectOptions::default()).unwrap();
                client.ready(now).unwrap();
                socket.write_all(client.poll_transmit().unwrap()).unwrap();
            }
        }
        Self { queue_pair, memory, socket, completions, _context: context }
    }

    fn send(&mut self, message: &[u8]) {
        let place = self.memory.as_ptr();
        // SAFETY: the region is larger than any message here, and no request is outstanding.
        unsafe { std::ptr::copy_nonoverlapping(message.as_ptr(), place.as_ptr(), message.len()) };
        let request = SendRequest {
            id: 1,
            operation: SendOperation::Send,
            local: Slices::one(LocalSlice {
                address: place.as_ptr() as u64,
                length: message.len() as u32,
                local_key: self.memory.local_key(),
            }),
            signaled: true,
            inline: false,
            solicited: false,
        };
        // SAFETY: the region lives as long as the queue pair, and is not written again.
        unsafe { self.queue_pair.post_send(&[request]) }.unwrap();
        // The server's NIC may still be about to meet this one: until then the message waits here.
        let end = Instant::now() + LIMIT;
        while self.completions.poll(&mut [WorkCompletion::default()]).unwrap() == 0 {
            assert!(Instant::now() < end, "the message is not taken");
            thread::yield_now();
        }
    }

    /// What the server says before it hangs up.
    fn last_words(mut self) -> String {
        self.socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut words = Vec::new();
        let _ = self.socket.read_to_end(&mut words);
        String::from_utf8_lossy(&words).into_owned()
    }
}

/// Messages that no honest peer sends.
fn bad_messages() -> Vec<Vec<u8>> {
    use netchannel_units::StreamOffset;
    use netchannel_wire::frame::{GrantId, MessageHeader};
    use netchannel_wire::{Frame, MessageDraft, StreamId};
    let id = StreamId(0);
    let open_of = |stream| Frame::Open {
        stream,
        class: Class::Throughput,
        weight: Weight::default(),
        service: 1,
        limit: StreamOffset::new(1 << 14),
    };
    let open = open_of(id);
    let at = StreamOffset::new;
    let range = netchannel_units::ByteRange::between(at(0), at(4_096));
    let data = |stream, offset| Frame::Data { stream, offset, backlog: 0, bytes: b"boo" };
    let header = MessageHeader { sequence: 0, acknowledged: 0, credit: 64, frames: 0 };
    let message = |header: &MessageHeader, frames: &[Frame<'_>]| {
        let mut buffer = vec![0; 8_192];
        let mut draft = MessageDraft::new();
        for frame in frames {
            draft.push(&mut buffer, frame).unwrap();
        }
        let length = draft.finish(&mut buffer, header);
        buffer.truncate(length);
        buffer
    };
    let bulk = Frame::Written { stream: id, grant: GrantId(3), range, backlog: 0 };
    let good = message(&header, &[open, data(id, at(0))]);
    // The encoder would not write such an offset.
    let mut past_the_end = message(&header, &[open, data(id, at(0x1234_5678_9ABC))]);
    let offset = 0x1234_5678_9ABC_u64.to_le_bytes();
    let place = past_the_end.windows(8).position(|bytes| bytes == offset).unwrap();
    past_the_end[place..place + 8].copy_from_slice(&(u64::MAX - 1).to_le_bytes());
    let mut cut = good.clone();
    cut.truncate(good.len() - 2);
    vec![
        vec![0xFF; 500],
        Vec::from([0; 3]),
        cut,
        message(&header, &[data(StreamId(40), at(0))]),
        message(&header, &[open, data(id, at(1 << 40))]),
        past_the_end,
        message(&header, &[open, bulk]),
        message(&header, &[open_of(StreamId(1))]),
        message(&header, &[open, Frame::Fin { stream: id, final_offset: at(1) }, data(id, at(0))]),
        message(&MessageHeader { sequence: 5, ..header }, &[open]),
        message(&MessageHeader { acknowledged: 5, ..header }, &[open]),
        message(&MessageHeader { credit: 1 << 30, ..header }, &[open]),
        // Longer than a receive slot.
        vec![7; 20_000],
    ]
}

fn bad_frames() {
    let mut honest = Honest::new();
    let address = honest.address();
    // Once to warm up.
    let mut before = usize::MAX;
    for round in 0..2 {
        for (number, message) in bad_messages().into_iter().enumerate() {
            let mut peer = Hostile::join(address);
            peer.send(&message);
            let words = peer.last_words();
            println!("bad message {number}: {}", words.escape_debug());
            // A reason that its reader understands, to whom the peer is somebody else.
            // Some cost the Channel alone; then it is silence that ends the session.
            let (broken, silent) =
                ("the client broke the protocol", "nothing came from the client");
            assert!(words.contains(broken) || words.contains(silent), "message {number}: {words}");
            assert!(!words.contains("the peer"), "message {number}: {words}");
        }
        // A peer that connects, and goes without a word.
        drop(Hostile::join(address));
        honest.goes_on();
        if round == 0 {
            before = descriptors();
        }
    }
    let end = Instant::now() + Duration::from_secs(10);
    while descriptors() > before {
        assert!(Instant::now() < end, "{before} descriptors before, {} after", descriptors());
        thread::sleep(Duration::from_millis(5));
    }
}
