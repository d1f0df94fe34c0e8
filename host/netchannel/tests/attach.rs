//! Applications apart from the engine, both in this process: what users see.

mod common;

use std::io::ErrorKind;
use std::time::Duration;

use common::place::Place;
use common::transfers::exchange;
use common::{ANY_PORT, LIMIT, config, start, within};
use netchannel::{AttachServer, Config, Idle, Poller, Runtime};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// An engine that serves, and a runtime that is attached to it.
struct Attached {
    application: Runtime,
    server: AttachServer,
    engine: Runtime,
    _place: Place,
}

impl Attached {
    fn new(engine: Config, application: Config) -> Self {
        let place = Place::new();
        let engine = start(engine);
        let server = engine.serve(place.socket()).unwrap();
        let application = Runtime::attach(server.path(), application).unwrap();
        Self { application, server, engine, _place: place }
    }
}

#[test]
fn streams_are_the_same_with_every_driver() {
    within(LIMIT, "attached streams", || {
        for (poller, idle) in [
            (Poller::Dedicated, Idle::Sleep),
            (Poller::Inline, Idle::Sleep),
            (Poller::Dedicated, Idle::Spin),
        ] {
            let attached =
                Attached::new(Config { poller, idle, ..config() }, Config { idle, ..config() });
            let peer = start(config());
            // The application connects, then the peer does.
            let listener = peer.listen(ANY_PORT.into()).unwrap();
            exchange(&attached.application, &listener, 5 << 20);
            let ours = attached.application.listen(ANY_PORT.into()).unwrap();
            exchange(&peer, &ours, 5 << 20);
            drop(ours);
            attached.application.close().unwrap();
            peer.close().unwrap();
            drop(attached.server);
            attached.engine.close().unwrap();
        }
    });
}

#[test]
fn the_socket_is_for_its_user_alone_and_goes_with_the_server() {
    use std::os::unix::fs::PermissionsExt;
    let attached = Attached::new(Config { poller: Poller::Dedicated, ..config() }, config());
    let path = attached.server.path().to_owned();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = attached.engine.serve(&path).err().unwrap();
    assert!(second.to_string().contains("engine that runs"), "{second}");
    assert!(attached.application.serve(path.with_extension("other")).is_err(), "it has no engine");
    drop(attached.server);
    assert!(!path.exists());
    let error = attached.application.listen(ANY_PORT.into()).err().unwrap();
    assert!(error.to_string().contains("is gone"), "{error}");
}

#[test]
fn an_engine_that_ends_leaves_the_socket_of_another_alone() {
    let place = Place::new();
    let (first, second) = (start(config()), start(config()));
    let older = first.serve(place.socket()).unwrap();
    std::fs::remove_file(place.socket()).unwrap();
    let newer = second.serve(place.socket()).unwrap();
    drop(older);
    drop(Runtime::attach(place.socket(), config()).unwrap());
    drop(newer);
    assert!(!place.socket().exists());
}

/// The refusal and the hanging up come at once, before or after the application's first words.
#[test]
fn who_is_refused_is_told_why() {
    within(LIMIT, "refusals", || {
        let attached = Attached::new(config(), config());
        let path = attached.server.path();
        let connect = || {
            let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
            let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None);
            let socket = socket.unwrap();
            // Waits while more than the engine's backlog are on their way.
            rustix::net::connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
            socket
        };
        // With the one that is there, as many as it takes.
        let crowd: Vec<_> = (0..255).map(|_| connect()).collect();
        let refused = || Runtime::attach(path, config()).err().unwrap();
        while refused().kind() == ErrorKind::WouldBlock {
            // The crowd is still on its way in.
            std::thread::sleep(Duration::from_millis(1));
        }
        for _ in 0..30 {
            let text = refused().to_string();
            assert!(text.contains("it refused") && text.contains("256 applications"), "{text}");
        }
        drop(crowd);
    });
}
