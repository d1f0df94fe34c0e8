//! One message of each kind, with a different value in each field: the seeds of the fuzz target.

use std::net::SocketAddr;

use netchannel_units::{Class, Weight};

use crate::event::{Answer, ChannelCounters, Event, Statistics, StreamOffer};
use crate::failure::{Failure, FailureKind};
use crate::hello::{Hello, Provider, Reception, Welcome};
use crate::request::{Means, Operation, Request};

fn peer() -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], 4792))
}

/// A first packet.
pub fn hello() -> Hello {
    Hello::new("samples")
}

/// Its answers.
pub fn receptions() -> [Reception; 2] {
    let welcome = Welcome {
        application: 3,
        device: "soft".into(),
        provider: Provider::Soft,
        reason: "asked for by name".into(),
        groups: 2,
        window: 1 << 20,
        policy: "least-delay".into(),
        ring: 256,
    };
    [Reception::Welcome(welcome), Reception::refusal("another user's")]
}

/// One request of each kind.
pub fn requests() -> Vec<Request> {
    let stream = 0x0102_0304_0506_0708;
    let operations = [
        Operation::Connect { peer: peer(), class: Class::Latency, weight: Weight::default() },
        Operation::Listen { address: "[2001:db8::7]:0".parse().unwrap_or(peer()) },
        Operation::Unlisten { service: 4792 },
        Operation::Finish { stream },
        Operation::Reset { stream, code: 7 },
        Operation::Stop { stream, code: 8 },
        Operation::Release { stream },
        Operation::Port,
        Operation::Ring { port: 5, group: 1 },
        Operation::ClosePort { port: 5 },
        Operation::Region { number: 17 },
        Operation::Statistics,
        Operation::Unfinished,
        Operation::Fate { stream },
        Operation::Descriptor { stream },
        Operation::List,
        Operation::ListRing { list: 6, group: 1 },
        Operation::CloseList { list: 6 },
        Operation::Watch { stream, writing: true, by: Means::Descriptor(1) },
        Operation::Watch { stream, writing: false, by: Means::List(6, 1 << 40) },
    ];
    (1..).zip(operations).map(|(number, operation)| Request { number, operation }).collect()
}

/// One event of each kind.
pub fn events() -> Vec<Event> {
    let offer = StreamOffer {
        stream: 0x0102_0304_0506_0708,
        cell: 2 << 32 | 512,
        peer: peer(),
        channels: 4,
        class: Class::Throughput,
        weight: Weight::from_wire(2).unwrap_or_default(),
    };
    let failure =
        Failure::new(FailureKind::Connect, std::io::ErrorKind::ConnectionRefused, "nobody there")
            .with_peer(peer());
    let counters = ChannelCounters {
        session: 1,
        id: 2,
        class: Some(1),
        completion_time: Some(1_000),
        ..ChannelCounters::default()
    };
    let statistics = Statistics { channels: vec![counters], polls: 9, ..Statistics::default() };
    let answers = [
        Answer::Failed(failure.clone()),
        Answer::Stream(offer.clone()),
        Answer::Listening(peer()),
        Answer::Port(5),
        Answer::Ring,
        Answer::Region(2 << 20, true),
        Answer::Statistics(statistics),
        Answer::Unfinished(12),
        Answer::Descriptor(1),
        Answer::List(6),
        Answer::ListRing,
    ];
    (1..)
        .zip(answers)
        .map(|(number, answer)| Event::Answer(number, answer))
        .chain([
            Event::Incoming(80, offer),
            Event::Forget(17),
            Event::Farewell(failure),
            Event::Region(18, 4096, true),
        ])
        .collect()
}
