//! Silence, in virtual time: two ends over a wire with a delay, which may break or stop.

use netchannel_units::{Duration, Timestamp};
use netchannel_wire::control::{
    Configuration, Connection, ControlEvent, Path, Reason, Role, SessionId, State,
};
use netchannel_wire::fuzzing::{connection, drain};

/// Each wakes when a timer is due or bytes arrive.
struct World {
    now: Timestamp,
    delay: Duration,
    ends: [Connection; 2],
    /// Deliveries: when, to whom, what.
    wire: Vec<(Timestamp, usize, Vec<u8>)>,
    stopped: [bool; 2],
    wake_ups: [u32; 2],
    events: Vec<(Timestamp, usize, ControlEvent)>,
}

impl World {
    fn established() -> Self {
        Self {
            now: Timestamp::ZERO,
            delay: Duration::from_micros(20),
            ends: [connection(Role::Client, true), connection(Role::Server, true)],
            wire: Vec::new(),
            stopped: [false; 2],
            wake_ups: [0; 2],
            events: Vec::new(),
        }
    }

    fn flush(&mut self, end: usize) {
        let bytes = drain(&mut self.ends[end]);
        if !bytes.is_empty() {
            self.wire.push((self.now + self.delay, 1 - end, bytes));
        }
        while let Some(event) = self.ends[end].poll_event() {
            self.events.push((self.now, end, event));
        }
    }

    /// One end stands still since the moment that is returned, another one for each step.
    fn stopped(victim: usize, step: u32) -> (Self, Timestamp) {
        let stop = seconds(3.0 + 0.013 * f64::from(step));
        let mut world = Self::established();
        world.run_until(stop);
        world.stopped[victim] = true;
        (world, stop)
    }

    fn run_until(&mut self, until: Timestamp) {
        loop {
            let timers = (0..2)
                .filter(|end| !self.stopped[*end])
                .filter_map(|end| self.ends[end].next_timeout());
            let arrivals =
                self.wire.iter().filter(|(_, to, _)| !self.stopped[*to]).map(|(at, ..)| *at);
            let next = timers.chain(arrivals).min().unwrap_or(Timestamp::MAX).max(self.now);
            if next > until {
                self.now = until;
                return;
            }
            self.now = next;
            for end in (0..2).filter(|end| !self.stopped[*end]).collect::<Vec<_>>() {
                self.wake(end);
            }
        }
    }

    /// Reads first, then looks at the clock.
    fn wake(&mut self, end: usize) {
        let now = self.now;
        let (due, later) = self.wire.drain(..).partition(|(at, to, _)| *to == end && *at <= now);
        self.wire = later;
        let timer = self.ends[end].next_timeout().is_some_and(|at| at <= now);
        let due: Vec<_> = due;
        if due.is_empty() && !timer {
            return;
        }
        self.wake_ups[end] += 1;
        for (_, _, bytes) in due {
            self.ends[end].receive(now, &bytes).unwrap();
        }
        self.ends[end].on_timeout(now);
        self.flush(end);
    }
}

fn seconds(seconds: f64) -> Timestamp {
    Timestamp::from_nanos((seconds * 1e9) as u64)
}

#[test]
fn an_idle_session_lives_on_few_wake_ups() {
    let mut world = World::established();
    world.run_until(seconds(60.1));
    assert_eq!(world.events, []);
    // Two questions a second: the client wakes to ask and to hear, the server to answer.
    assert_eq!(world.wake_ups, [240, 120]);
    assert_eq!(world.ends[0].round_trip(), Some(Duration::from_micros(40)));
}

/// Whoever stops at whatever moment, the other knows within the 2 s that the product promises.
#[test]
fn a_stopped_peer_is_dead_within_two_seconds() {
    for victim in [0, 1] {
        for step in 0..50 {
            let (mut world, stop) = World::stopped(victim, step);
            world.run_until(seconds(10.0));
            let [(at, who, ControlEvent::PeerDead { silent, path: Path::Works })] =
                &world.events[..]
            else {
                panic!("{:?}", world.events)
            };
            assert_eq!(*who, 1 - victim);
            assert!(*at - stop <= Duration::from_millis(1_501), "{:?}", *at - stop);
            assert!(*at - stop >= Duration::from_millis(900), "{:?}", *at - stop);
            assert!(*silent >= Duration::from_millis(1_500));
            assert_eq!(world.ends[1 - victim].state(), State::Closed);
        }
    }
}

#[test]
fn a_pause_is_not_death() {
    for victim in [0, 1] {
        for step in 0..50 {
            let (mut world, stop) = World::stopped(victim, step);
            let pause = Duration::from_millis(900);
            world.run_until(stop + pause);
            world.stopped[victim] = false;
            world.run_until(seconds(10.0));
            assert_eq!(world.events, [], "end {victim} paused at {stop:?}");
        }
    }
}

/// A client that was stopped for long has not asked: its peer gets the time for one more answer.
#[test]
fn who_slept_does_not_call_the_other_dead() {
    let mut client = connection(Role::Client, true);
    client.on_timeout(seconds(30.0));
    assert_eq!(client.poll_event(), None);
    assert!(client.poll_transmit().is_some());
    assert_eq!(client.next_timeout(), Some(seconds(30.5)));
    client.on_timeout(seconds(30.5));
    let silent = Duration::from_millis(30_500);
    let path = Path::Works;
    assert_eq!(client.poll_event(), Some(ControlEvent::PeerDead { silent, path }));
}

#[test]
fn a_handshake_takes_two_seconds_at_most() {
    let configuration = Configuration::new("soft", "soft0");
    let now = Timestamp::ZERO;
    let mut client =
        Connection::client(configuration.clone(), SessionId([1; 16]), Vec::new(), now).unwrap();
    let mut server = Connection::server(configuration, now).unwrap();
    server.receive(now, &drain(&mut client)).unwrap();
    server.poll_event();
    assert_eq!(server.next_timeout(), Some(seconds(2.0)));
    server.on_timeout(seconds(1.999));
    assert_eq!((server.state(), server.poll_event()), (State::Answering, None));
    // The caller did not answer: the client hears why.
    server.on_timeout(seconds(2.0));
    let timeout = ControlEvent::HandshakeTimeout { state: State::Answering };
    assert_eq!(server.poll_event(), Some(timeout));
    client.receive(now, &drain(&mut server)).unwrap();
    let Some(ControlEvent::Refused(words)) = client.poll_event() else { panic!() };
    assert_eq!(words.reason, Reason::Timeout);
}

/// Silence with the path out is an outage: it may take longer, and ends with an error of its own.
#[test]
fn an_outage_is_not_death() {
    for role in [Role::Client, Role::Server] {
        let mut end = connection(role, true);
        let mut asked = 0;
        let (now, dead) = loop {
            let now = end.next_timeout().unwrap();
            // TCP tells from the first unanswered question on.
            let path = if asked > 0 { Path::Out } else { Path::Works };
            end.on_path(now, path);
            end.on_timeout(now);
            asked += usize::from(!drain(&mut end).is_empty());
            if let Some(event) = end.poll_event() {
                break (now, event);
            }
        };
        let silent = Duration::from_secs(10);
        assert_eq!(dead, ControlEvent::PeerDead { silent, path: Path::Out }, "{role:?}");
        assert_eq!(now, seconds(10.0));
        assert_eq!(asked, 2, "one question, and the farewell: the rest would only pile up");
    }
}

/// When bytes get through again the peer's answer may still wait for its transport: it gets as long
/// again as the outage took.
#[test]
fn a_path_that_comes_back_brings_no_death() {
    for role in [Role::Client, Role::Server] {
        let mut end = connection(role, true);
        let run = |end: &mut Connection, until: f64, path: Path| {
            while let Some(at) = end.next_timeout().filter(|at| *at <= seconds(until)) {
                end.on_path(at, path);
                end.on_timeout(at);
                drain(end);
            }
        };
        run(&mut end, 1.2, Path::Works);
        run(&mut end, 4.0, Path::Out);
        run(&mut end, 7.9, Path::Works);
        assert_eq!(end.poll_event(), None, "{role:?}");
        // The peer was stopped as well.
        run(&mut end, 9.0, Path::Works);
        let Some(ControlEvent::PeerDead { path: Path::Works, .. }) = end.poll_event() else {
            panic!("{role:?}")
        };
    }
}

/// A question sent a moment ago proves nothing; the answer comes within the 2 s all the same.
#[test]
fn doubt_is_short() {
    let mut end = connection(Role::Client, true);
    while let Some(at) = end.next_timeout() {
        end.on_path(at, Path::Unknown);
        end.on_timeout(at);
    }
    let silent = Duration::from_millis(1_800);
    assert_eq!(end.poll_event(), Some(ControlEvent::PeerDead { silent, path: Path::Unknown }));
}
