//! Applications that keep to nothing: they harm themselves alone.

mod common;

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::thread;
use std::time::{Duration, Instant};

use common::place::Place;
use common::transfers::exchange;
use common::{ANY_PORT, LIMIT, Random, config, start, within};
use netchannel::{AttachServer, Class, Config, Listener, Poller, ReadyList, Runtime, Weight};
use netchannel_attach::hello::{Reception, with_head};
use netchannel_attach::{
    Answer, Event, FailureKind, Hello, MAX_DESCRIPTORS, MAX_PACKET, Means, Operation, Request,
    StreamOffer, VERSION,
};
use netchannel_shared_memory::memory::{Mapping, SharedMemory};
use netchannel_shared_memory::passing::{receive_with_fds_within, send_with_fds_within};
use netchannel_shared_memory::wake::SocketWake;
use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Far above what an answer takes.
const SOON: Duration = Duration::from_secs(20);

/// An engine, an honest application, and the host that it talks to.
struct World {
    honest: Runtime,
    server: AttachServer,
    engine: Runtime,
    listener: Listener,
    peer: Runtime,
    _place: Place,
}

impl World {
    fn new(poller: Poller) -> Self {
        let place = Place::new();
        let engine = start(Config { poller, ..config() });
        let server = engine.serve(place.socket()).unwrap();
        let honest = Runtime::attach(server.path(), config()).unwrap();
        let peer = start(config());
        let listener = peer.listen(ANY_PORT.into()).unwrap();
        Self { honest, server, engine, listener, peer, _place: place }
    }

    /// Nothing is left of streams, and the honest application goes on.
    fn check(&self) {
        exchange(&self.honest, &self.listener, 300_000);
        let end = Instant::now() + SOON;
        while self.engine.stats().streams > 0 || self.peer.stats().streams > 0 {
            assert!(Instant::now() < end, "streams of the hostile application are not forgotten");
            // Those that it opened and that nobody took.
            while self.listener.accept_timeout(Duration::ZERO).unwrap().is_some() {}
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// An application that speaks for itself.
struct Raw {
    socket: OwnedFd,
    number: u32,
    /// Memory that the engine passed.
    memory: Vec<Mapping>,
}

impl Raw {
    fn new(path: &Path) -> Self {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
        rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        Self { socket, number: 0, memory: Vec::new() }
    }

    /// One that said hello.
    fn attached(path: &Path) -> Self {
        let raw = Self::new(path);
        raw.send(&Hello::new("hostile").encode());
        let (packet, _) = raw.hear().unwrap();
        assert!(matches!(Reception::decode(&packet), Ok(Reception::Welcome(_))));
        raw
    }

    /// Fails where the engine has hung up, which those who wait for that find out by hearing.
    fn send(&self, packet: &[u8]) {
        let _ = send_with_fds_within(self.socket.as_fd(), packet, &[], SOON);
    }

    /// `None` if the engine hung up.
    fn hear(&self) -> Option<(Vec<u8>, Option<OwnedFd>)> {
        let mut packet = vec![0; MAX_PACKET];
        match receive_with_fds_within(self.socket.as_fd(), &mut packet, MAX_DESCRIPTORS, SOON) {
            Ok((0, _)) => None,
            Ok((length, mut fds)) => Some((packet[..length].to_vec(), fds.pop())),
            Err(error) if error.errno().is_some() => None,
            Err(error) => panic!("the engine neither answers nor hangs up: {error}"),
        }
    }

    fn hangs_up(&self) -> bool {
        while let Some((packet, _)) = self.hear() {
            assert!(Event::decode(&packet).is_ok());
        }
        true
    }

    fn ask(&mut self, operation: Operation) -> Option<(Answer, Option<OwnedFd>)> {
        self.number += 1;
        let number = self.number;
        self.send(&Request { number, operation }.encode());
        loop {
            let (packet, fd) = self.hear()?;
            match Event::decode(&packet).unwrap() {
                Event::Answer(of, answer) if of == number => return Some((answer, fd)),
                Event::Region(_, len, true) => self.map(len, fd.unwrap()),
                _ => {}
            }
        }
    }

    fn map(&mut self, len: u64, fd: OwnedFd) {
        let memory = SharedMemory::from_fd(fd, len as usize).unwrap();
        self.memory.push(memory.map().unwrap());
    }

    /// Takes all memory there is: a cell's, a ring's, and what regions it can name.
    fn take_everything(&mut self, listener: &Listener) -> Option<SocketWake> {
        let peer = listener.local_addr();
        let opened = self
            .ask(Operation::Connect { peer, class: Class::Throughput, weight: Weight::default() })?
            .0;
        let Answer::Stream(StreamOffer { stream, .. }) = opened else { panic!("{opened:?}") };
        self.hear_of(stream)?;
        let (Answer::Port(port), fd) = self.ask(Operation::Port)? else { panic!("no port") };
        let wake = SocketWake::from_fd(fd?).unwrap();
        for group in 0..2 {
            if let (Answer::Ring, Some(fd)) = self.ask(Operation::Ring { port, group })? {
                let len = rustix::fs::fstat(&fd).unwrap().st_size;
                self.map(len as u64, fd);
            }
        }
        for number in 0..8 {
            match self.ask(Operation::Region { number })? {
                (Answer::Region(len, true), Some(fd)) => self.map(len, fd),
                (Answer::Region(len, false), Some(fd)) => {
                    let memory = SharedMemory::from_fd(fd, len as usize).unwrap();
                    assert!(memory.map().is_err(), "receive windows are for reading only");
                }
                (Answer::Failed(failure), _) => assert_eq!(failure.kind, FailureKind::Unknown),
                other => panic!("{other:?}"),
            }
        }
        Some(wake)
    }

    /// Wants to hear of its stream in every way there is, and takes the memory of that.
    fn hear_of(&mut self, stream: u64) -> Option<()> {
        let (Answer::List(list), _) = self.ask(Operation::List)? else { panic!("no list") };
        for group in 0..2 {
            let (answer, fd) = self.ask(Operation::ListRing { list, group })?;
            assert_eq!(answer, Answer::ListRing);
            let fd = fd?;
            let len = rustix::fs::fstat(&fd).unwrap().st_size;
            self.map(len as u64, fd);
        }
        let (answer, _) = self.ask(Operation::Descriptor { stream })?;
        assert_eq!(answer, Answer::Descriptor(0));
        for writing in [false, true] {
            for by in [Means::Descriptor(0), Means::List(list, 7), Means::List(list + 1, 7)] {
                let operation = Operation::Watch { stream, writing, by };
                self.send(&Request { number: 0, operation }.encode());
            }
        }
        Some(())
    }

    /// Writes anything anywhere, and rings.
    fn scribble(&self, random: &mut Random, wake: &SocketWake) {
        for mapping in &self.memory {
            // Most of what is in use lies in front.
            let words = (mapping.len() as u64 / 8).min(1 << random.below(15));
            for _ in 0..random.below(64) {
                let value = match random.below(4) {
                    0 => random.next(),
                    1 => random.below(8),
                    2 => random.below(1 << 22),
                    _ => random.below(4) << 56 | random.below(4) << 32 | random.below(16),
                };
                let at = random.below(words) as usize * 8;
                mapping.at::<AtomicU64>(at).unwrap().store(value, Relaxed);
            }
        }
        let _ = wake.notify();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    /// All shared memory is overwritten all the time, while another application moves bytes.
    #[test]
    fn who_scribbles_harms_nobody_else(seed: u64, dedicated: bool) {
        within(LIMIT, "scribbling", move || {
            let world = World::new(if dedicated { Poller::Dedicated } else { Poller::Inline });
            let mut raw = Raw::attached(world.server.path());
            let wake = raw.take_everything(&world.listener).expect("a conversation");
            assert!(raw.memory.len() >= 5, "cells, two rings, two rings of a list");
            // Its stream is the first that the peer has.
            drop(world.listener.accept_timeout(SOON).unwrap());
            thread::scope(|scope| {
                let honest = scope.spawn(|| exchange(&world.honest, &world.listener, 2 << 20));
                let mut random = Random(seed);
                while !honest.is_finished() {
                    raw.scribble(&mut random, &wake);
                    thread::yield_now();
                }
            });
            drop((raw, wake));
            world.check();
        });
    }

    /// Requests about everything that may be another's, and packets that are none.
    #[test]
    fn who_says_anything_harms_nobody_else(seed: u64) {
        within(LIMIT, "saying anything", move || {
            let world = World::new(Poller::Dedicated);
            let mut random = Random(seed);
            thread::scope(|scope| {
                let honest = scope.spawn(|| exchange(&world.honest, &world.listener, 2 << 20));
                while !honest.is_finished() {
                    let raw = Raw::attached(world.server.path());
                    for _ in 0..random.below(50) {
                        raw.send(&anything(&mut random));
                    }
                }
            });
            world.check();
        });
    }
}

fn anything(random: &mut Random) -> Vec<u8> {
    let stream = random.below(3) << 56 | random.below(3) << 32 | random.below(8);
    let (code, port) = (random.below(3) as u32, random.below(6) as u32);
    let list = random.below(4) as u32;
    let operation = match random.below(17) {
        0 => Operation::Finish { stream },
        1 => Operation::Reset { stream, code },
        2 => Operation::Stop { stream, code },
        3 => Operation::Release { stream },
        4 => Operation::Port,
        5 => Operation::Ring { port, group: random.below(5) as u8 },
        6 => Operation::ClosePort { port },
        7 => Operation::Region { number: random.below(20) as u32 },
        8 => Operation::Unlisten { service: random.next() as u16 },
        9 => Operation::Listen { address: ANY_PORT.into() },
        10 => Operation::Fate { stream },
        11 => Operation::Descriptor { stream },
        12 => Operation::List,
        13 => Operation::ListRing { list, group: random.below(5) as u8 },
        14 => Operation::CloseList { list },
        15 => {
            let (number, name) = (random.below(4) as u8, random.next());
            let by = if code == 0 { Means::Descriptor(number) } else { Means::List(list, name) };
            Operation::Watch { stream, writing: port > 2, by }
        }
        _ => return (0..random.below(100)).map(|_| random.next() as u8).collect(),
    };
    Request { number: 1, operation }.encode()
}

#[test]
fn wrong_first_words_are_answered_and_end_it() {
    within(LIMIT, "first words", || {
        let world = World::new(Poller::Dedicated);
        let later = with_head(VERSION + 1, &"a hello of the future");
        for (packet, says) in [(&b"GET / HTTP/1.1"[..], "does not speak"), (&later, "one release")]
        {
            let raw = Raw::new(world.server.path());
            raw.send(packet);
            let (answer, _) = raw.hear().expect("an answer");
            let Ok(Reception::Refusal(text)) = Reception::decode(&answer) else { panic!() };
            assert!(text.contains(says), "{text}");
            assert!(raw.hear().is_none(), "the conversation goes on");
        }
        let raw = Raw::attached(world.server.path());
        let hello = Hello::new("again").encode();
        raw.send(&hello);
        assert!(raw.hangs_up(), "hello twice");
        world.check();
    });
}

#[test]
fn an_application_has_what_it_may_have_and_no_more() {
    within(LIMIT, "limits", || {
        let world = World::new(Poller::Dedicated);
        let mut raw = Raw::attached(world.server.path());
        let mut ports = 0;
        let failure = loop {
            match raw.ask(Operation::Port).unwrap().0 {
                Answer::Port(_) => ports += 1,
                Answer::Failed(failure) => break failure,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!((ports, failure.kind), (256, FailureKind::Limit), "{failure:?}");
        let mut lists = 0;
        while let Answer::List(_) = raw.ask(Operation::List).unwrap().0 {
            lists += 1;
        }
        assert_eq!(lists, 256);
        // What it may not have is free for others.
        drop(ReadyList::new(&world.honest).unwrap());
        for operation in [
            Operation::Ring { port: 1 << 30, group: 0 },
            Operation::Region { number: 1 << 30 },
            Operation::Fate { stream: 1 },
            Operation::Descriptor { stream: 1 },
            Operation::ListRing { list: 1 << 30, group: 0 },
        ] {
            let Some((Answer::Failed(failure), None)) = raw.ask(operation) else { panic!() };
            assert_eq!(failure.kind, FailureKind::Unknown);
        }
        drop(raw);
        world.check();
    });
}

#[test]
fn who_does_not_read_is_dropped() {
    within(LIMIT, "deafness", || {
        let world = World::new(Poller::Dedicated);
        let raw = Raw::attached(world.server.path());
        let request = Request { number: 1, operation: Operation::Statistics }.encode();
        let end = Instant::now() + SOON;
        // Its requests are taken until the engine has had enough.
        while send_with_fds_within(raw.socket.as_fd(), &request, &[], SOON).is_ok() {
            assert!(Instant::now() < end, "the engine keeps answers for ever");
        }
        world.check();
    });
}
