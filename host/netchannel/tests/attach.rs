//! Applications apart from the engine, both in this process: what users see.

mod common;

use std::thread;

use common::place::Place;
use common::{ANY_PORT, LIMIT, config, connect, receive, send, start, within};
use netchannel::{AttachServer, Config, Idle, Listener, Poller, Runtime};

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

/// Moves a pattern from one end to the other and another back.
fn exchange(from: &Runtime, to: &Listener, total: u64) {
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = to.accept().unwrap();
            assert_eq!(receive(&mut stream, 7, 1 << 20).unwrap(), total);
            send(&mut stream, 8, total, 1 << 20).unwrap();
            stream.close().unwrap();
        });
        let mut stream = connect(from, to);
        send(&mut stream, 7, total, 1 << 20).unwrap();
        stream.finish();
        assert_eq!(receive(&mut stream, 8, 1 << 20).unwrap(), total);
        stream.close().unwrap();
    });
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
