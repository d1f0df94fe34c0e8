//! Two fences over a control connection, with failures at any moment.

use std::collections::VecDeque;

use netchannel_channel::fence::{Action, Fence, State};
use netchannel_units::{Duration, Timestamp};
use netchannel_wire::control::ChannelNews;
use proptest::prelude::*;

/// A queue pair as its side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QueuePair {
    None,
    /// Of this epoch, connected or not, in error or not.
    There {
        epoch: u32,
        connected: bool,
        failed: bool,
    },
}

struct Side {
    fence: Fence,
    queue_pair: QueuePair,
    drain: bool,
    /// Reports made and taken, by epoch.
    made: Vec<u64>,
    taken: Vec<u64>,
    inbox: VecDeque<(u32, ChannelNews)>,
    uses: u32,
}

#[derive(Clone, Debug)]
enum Step {
    /// The queue pair of a side fails.
    Fail(usize),
    /// A side has drained, if it was to.
    Drain(usize, u64),
    /// A side makes its queue pair, if it wants to; or cannot.
    Make(usize, bool),
    /// The next message arrives; connecting for it succeeds or not.
    Deliver(usize, bool),
    /// Time passes.
    Wait(u16),
    /// Something went through the Channel.
    Prove(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let side = 0usize..2;
    prop_oneof![
        2 => side.clone().prop_map(Step::Fail),
        6 => (side.clone(), 0u64..50).prop_map(|(side, n)| Step::Drain(side, n)),
        6 => (side.clone(), prop::bool::weighted(0.8)).prop_map(|(side, ok)| Step::Make(side, ok)),
        16 => (side.clone(), prop::bool::weighted(0.9)).prop_map(|(s, ok)| Step::Deliver(s, ok)),
        3 => (0u16..2_000).prop_map(Step::Wait),
        1 => side.prop_map(Step::Prove),
    ]
}

struct World {
    now: Timestamp,
    sides: [Side; 2],
}

impl World {
    fn new() -> Self {
        let now = Timestamp::ZERO;
        let side = || Side {
            fence: Fence::new(now),
            queue_pair: QueuePair::There { epoch: 0, connected: true, failed: false },
            drain: false,
            made: Vec::new(),
            taken: Vec::new(),
            inbox: VecDeque::new(),
            uses: 0,
        };
        Self { now, sides: [side(), side()] }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Fail(side) => self.sides[side].fence.on_failed("cut"),
            Step::Drain(side, received) => {
                let this = &mut self.sides[side];
                if std::mem::take(&mut this.drain) {
                    assert!(matches!(this.queue_pair, QueuePair::There { failed: true, .. }));
                    this.queue_pair = QueuePair::None;
                    this.fence.on_drained(self.now, received);
                }
            }
            Step::Make(side, works) => {
                let this = &mut self.sides[side];
                if this.fence.wants_queue_pair(self.now) {
                    if works {
                        assert_eq!(this.queue_pair, QueuePair::None, "the old one is destroyed");
                        let epoch = this.fence.epoch();
                        this.queue_pair =
                            QueuePair::There { epoch, connected: false, failed: false };
                        this.fence.on_made(epoch.to_le_bytes().to_vec());
                    } else {
                        this.fence.on_make_failed(self.now);
                        let at = this.fence.next_timeout().unwrap();
                        assert!(at > self.now && at - self.now <= Duration::from_secs(1));
                    }
                }
            }
            Step::Deliver(side, works) => {
                if let Some((epoch, news)) = self.sides[side].inbox.pop_front() {
                    self.sides[side].fence.on_news(self.now, epoch, news).unwrap();
                    return self.act(side, works);
                }
            }
            Step::Wait(millis) => {
                self.now = self.now + Duration::from_millis(u64::from(millis));
            }
            Step::Prove(side) => {
                if self.sides[side].fence.state() == State::Up {
                    self.sides[side].fence.on_proved();
                }
            }
        }
        for side in 0..2 {
            self.act(side, true);
        }
    }

    fn act(&mut self, side: usize, connects: bool) {
        while let Some(action) = self.sides[side].fence.poll_action() {
            match action {
                Action::Drain => {
                    let this = &mut self.sides[side];
                    let QueuePair::There { failed, .. } = &mut this.queue_pair else { panic!() };
                    assert!(!std::mem::replace(failed, true));
                    this.drain = true;
                }
                Action::Say { epoch, news } => {
                    if let ChannelNews::Fenced { received } = news {
                        let this = &mut self.sides[side];
                        assert_eq!(this.queue_pair, QueuePair::None, "says so when it is gone");
                        assert_eq!(this.made.len(), epoch as usize, "one report per queue pair");
                        this.made.push(received);
                    }
                    self.sides[1 - side].inbox.push_back((epoch, news));
                }
                Action::Replay { received } => {
                    let [a, b] = &mut self.sides;
                    let (this, peer) = if side == 0 { (a, b) } else { (b, a) };
                    let epoch = this.taken.len();
                    assert_eq!(this.queue_pair, QueuePair::None);
                    let fenced = match peer.queue_pair {
                        QueuePair::None => true,
                        // The peer may be ahead: then this is another one.
                        QueuePair::There { epoch: newer, .. } => newer as usize > epoch,
                    };
                    assert!(fenced, "replay of {epoch} while the peer still has it");
                    assert_eq!(peer.made[epoch], received, "what the peer reported");
                    this.taken.push(received);
                }
                Action::Connect { endpoint } => {
                    let this = &mut self.sides[side];
                    let QueuePair::There { epoch, connected, .. } = &mut this.queue_pair else {
                        panic!()
                    };
                    assert_eq!(endpoint, epoch.to_le_bytes(), "that of the same epoch");
                    if connects {
                        *connected = true;
                        this.fence.on_connected(self.now);
                    } else {
                        this.fence.on_failed("cannot connect");
                    }
                }
                Action::Use => {
                    let epochs = [0, 1].map(|i| self.sides[i].queue_pair);
                    for queue_pair in epochs {
                        let QueuePair::There { epoch, connected: true, .. } = queue_pair else {
                            // It failed at the peer meanwhile: the news is on its way.
                            continue;
                        };
                        assert_eq!(epoch, self.sides[side].fence.epoch());
                    }
                    self.sides[side].uses += 1;
                }
            }
        }
    }

    /// Lets everything come to rest without another failure.
    fn settle(&mut self) {
        for _ in 0..200 {
            for side in 0..2 {
                self.apply(&Step::Drain(side, 3));
                self.apply(&Step::Make(side, true));
                self.apply(&Step::Deliver(side, true));
            }
            self.apply(&Step::Wait(100));
        }
    }
}

proptest! {
    /// Whatever fails when: no side says anything that the other does not expect, what is replayed is
    /// what was reported, and in the end the Channel is up again on both sides.
    #[test]
    fn they_agree(steps in prop::collection::vec(step(), 0..400)) {
        let mut world = World::new();
        for step in &steps {
            world.apply(step);
        }
        world.settle();
        let [a, b] = &world.sides;
        prop_assert_eq!((a.fence.state(), b.fence.state()), (State::Up, State::Up));
        prop_assert_eq!(a.fence.epoch(), b.fence.epoch());
        prop_assert_eq!(a.taken.len(), a.fence.epoch() as usize);
        prop_assert_eq!(&a.taken, &b.made);
        prop_assert_eq!(&b.taken, &a.made);
        prop_assert!(a.inbox.is_empty() && b.inbox.is_empty());
    }
}

/// A path that fails as soon as it is used is not tried in a loop; one that works is replaced at once.
#[test]
fn attempts_are_spaced() {
    let mut now = Timestamp::ZERO;
    let mut fence = Fence::new(now);
    let mut pauses = Vec::new();
    let mut lose = |fence: &mut Fence, now: &mut Timestamp| {
        let epoch = fence.epoch();
        fence.on_failed("cut");
        fence.on_drained(*now, 0);
        fence.on_news(*now, epoch, ChannelNews::Fenced { received: 0 }).unwrap();
        let at = fence.next_timeout().unwrap();
        pauses.push((at - *now).as_millis());
        *now = at;
        fence.on_made(vec![1]);
        fence.on_news(*now, epoch + 1, ChannelNews::Renew { endpoint: vec![2] }).unwrap();
        fence.on_connected(*now);
        fence.on_news(*now, epoch + 1, ChannelNews::Renewed).unwrap();
        assert_eq!(fence.state(), State::Up);
    };
    for _ in 0..13 {
        lose(&mut fence, &mut now);
    }
    // It carries something, then fails: a new failure.
    fence.on_proved();
    lose(&mut fence, &mut now);
    lose(&mut fence, &mut now);
    // It carried nothing, but lived.
    now = now + Duration::from_secs(1);
    lose(&mut fence, &mut now);
    assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1_000, 1_000, 0, 1, 0]);
}
