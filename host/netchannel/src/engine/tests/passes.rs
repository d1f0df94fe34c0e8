//! What a pass does for who waits, and what it leaves to the next one.

use super::*;
use crate::engine::pass::Passed;
use crate::wait::CellWait;

/// A stream that has carried some bytes each way.
fn used() -> (World, StreamSeed, StreamSeed, u64) {
    let mut world = World::new(5, [fabric(); 4], 0);
    let (ours, theirs) = world.open();
    let (mut back, mut consumed, mut answered) = (0, 0, 0);
    while back == 0 {
        back = world.write_buffered(1, &theirs, 0, &[1; 64]);
        world.step();
    }
    assert_eq!(world.write(0, &ours, &[2; 64]), 64);
    while consumed < 64 || answered < 64 {
        world.step();
        world.read(1, &theirs, &mut consumed, |_, byte| assert_eq!(byte, 2));
        world.read(0, &ours, &mut answered, |_, byte| assert_eq!(byte, 1));
    }
    for _ in 0..200 {
        world.step();
    }
    (world, ours, theirs, consumed)
}

impl World {
    /// Host 1 waits for `stream`, and for nothing else.
    fn wait_at_host_1(&mut self, stream: &StreamSeed) {
        let state = stream.cell.state();
        let ready = || state.is_readable();
        let (word, group) = (&state.application.read_waiter, GroupId(1));
        let what = CellWait { word, ready, group };
        for _ in 0..1_000 {
            self.clock.fetch_add(STEP, Ordering::Relaxed);
            let now = self.now();
            self.hosts[0].engine.poll(now);
            if self.hosts[1].engine.poll_for(now, &what) == Passed::Ready {
                return;
            }
        }
        panic!("nothing came");
    }

    fn posted_by_host_1(&self) -> u64 {
        self.hosts[1].engine.channels().iter().map(|c| c.stats.messages_posted).sum()
    }

    fn host_1_has_left_something(&self) -> bool {
        self.hosts[1].engine.sessions[0].as_ref().unwrap().attention
    }
}

#[test]
fn an_answer_to_a_little_leaves_at_once_and_alone() {
    let (mut world, ours, theirs, mut consumed) = used();
    let before = world.posted_by_host_1();
    assert_eq!(world.write(0, &ours, &[3; 64]), 64);
    world.wait_at_host_1(&theirs);
    assert_eq!(world.posted_by_host_1(), before, "sent before the application read");
    assert!(world.host_1_has_left_something());

    world.read(1, &theirs, &mut consumed, |_, byte| assert_eq!(byte, 3));
    assert_eq!(consumed, 128);
    let polls = world.hosts[1].shared.counters.polls.value();
    assert_eq!(world.write_buffered(1, &theirs, 64, &[4; 64]), 64);
    let (now, doorbell) = (world.now(), Doorbell { stream: theirs.key, what: What::Written });
    world.hosts[1].engine.serve(now, doorbell);
    assert_eq!(world.posted_by_host_1(), before + 1, "one message, with the acknowledgement");
    assert_eq!(world.hosts[1].shared.counters.polls.value(), polls, "looked before it answered");
    assert!(!world.host_1_has_left_something());

    // The next one is not an answer: it looks first.
    world.hosts[1].engine.serve(now, doorbell);
    assert_eq!(world.hosts[1].shared.counters.polls.value(), polls + 1);
}

#[test]
fn what_arrived_shows_when_it_is_much_too() {
    let (mut world, ours, theirs, mut consumed) = used();
    let much = vec![5; 8 << 10];
    assert_eq!(world.write(0, &ours, &much), much.len());
    while consumed < 64 + much.len() as u64 {
        world.wait_at_host_1(&theirs);
        assert!(!world.host_1_has_left_something(), "credit and acknowledgements wait");
        world.read(1, &theirs, &mut consumed, |_, byte| assert_eq!(byte, 5));
    }
}

#[test]
fn who_sleeps_is_woken_before_who_waits_goes_on() {
    let (mut world, ours, theirs, _) = used();
    theirs.cell.state().application.read_waiter.store(77, Relaxed);
    assert_eq!(world.write(0, &ours, &[3; 64]), 64);
    world.wait_at_host_1(&theirs);
    assert_eq!(theirs.cell.state().application.read_waiter.load(Relaxed), 0);
}
