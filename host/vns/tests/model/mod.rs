//! Two hosts, the Channels between them, and time.

use netchannel_units::{Duration, Timestamp};
use netchannel_vns::{Role, StreamsConfig};

pub mod host;
pub mod network;
pub mod random;
pub mod run;

use host::Host;
use network::{Channel, Fenced, side};
use random::Random;

pub struct Model {
    pub now: Timestamp,
    pub random: Random,
    pub hosts: [Host; 2],
    pub channels: Vec<Channel>,
    fenced: Vec<Fenced>,
    next_channel: u16,
    pub messages: u64,
}

/// What a run is like.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub channels: u16,
    pub slabs_at_start: usize,
    pub max_slabs: usize,
    pub eager_credit: u64,
    pub window_log2: u8,
    pub credits_per_window: u64,
}

impl Model {
    pub fn new(seed: u64, shape: Shape) -> Self {
        let host = |role| {
            let config = StreamsConfig {
                role,
                eager_credit: shape.eager_credit,
                peer_eager_credit: shape.eager_credit,
                window_log2: shape.window_log2,
                eager_chunk: 4096,
                bulk_min: 2048,
                credits_per_window: shape.credits_per_window,
            };
            let mut host = Host::new(config, shape.max_slabs);
            for _ in 0..shape.slabs_at_start {
                host.add_slab();
            }
            host
        };
        Self {
            now: Timestamp::ZERO,
            random: Random::new(seed),
            hosts: [host(Role::Client), host(Role::Server)],
            channels: (0..shape.channels).map(Channel::new).collect(),
            fenced: Vec::new(),
            next_channel: shape.channels,
            messages: 0,
        }
    }

    /// One host does what it has to, or one message arrives.
    pub fn step(&mut self) {
        self.now = self.now + Duration::from_nanos(self.random.below(2_000));
        if self.random.once_in(3) {
            let host = self.random.index(2);
            self.pump(host);
        }
        if !self.fenced.is_empty() && self.random.once_in(8) {
            let (fenced, who) = (self.random.index(self.fenced.len()), self.random.index(2));
            self.replay(fenced, who);
        }
        let channel = self.random.index(self.channels.len());
        let direction = self.random.index(2);
        self.deliver(channel, direction);
    }

    pub fn pump(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        host.look();
        if host.streams.next_timeout().is_some_and(|at| at <= self.now) {
            host.streams.on_timeout(self.now);
        }
        host.pump(&mut self.channels, &mut self.random);
        host.look();
    }

    /// The first message of one direction arrives, or some WRITEs do.
    pub fn deliver(&mut self, channel: usize, from: usize) -> bool {
        let Some(channel) = self.channels.get_mut(channel) else { return false };
        if channel.blocked || channel.stalled || !channel.alive {
            return false;
        }
        let early = self.random.once_in(3);
        let [client, server] = &mut self.hosts;
        let (sender, receiver) = if from == 0 { (client, server) } else { (server, client) };
        let way = &mut channel.directions[from].on_the_way;
        if early && way.len() > 1 {
            // WRITEs go ahead of the messages that announce them, in order.
            let upto = 1 + self.random.index(way.len() - 1);
            for message in way.iter_mut().take(upto) {
                message.writes.drain(..).for_each(|write| receiver.land(&write));
            }
            return true;
        }
        let Some(message) = way.pop_front() else { return false };
        self.messages += 1;
        message.writes.iter().for_each(|write| receiver.land(write));
        for parcel in &message.parcels {
            receiver.on_parcel(self.now, channel.id, parcel);
        }
        channel.directions[from].processed += 1;
        let reverse = &mut channel.directions[1 - from];
        while let Some((number, carried)) = reverse.unacknowledged.front()
            && *number <= message.acknowledged
        {
            carried.iter().for_each(|c| receiver.on_confirmed(c));
            reverse.unacknowledged.pop_front();
        }
        let _ = sender;
        true
    }

    /// A Channel dies and is fenced: some of what is on its way arrives before its queue pairs are destroyed,
    /// the rest is lost. Each side hears of it in its own time.
    pub fn fence(&mut self, at: usize) {
        (self.channels[at].blocked, self.channels[at].stalled) = (false, false);
        for from in 0..2 {
            let arrive = self.random.index(self.channels[at].directions[from].on_the_way.len() + 1);
            for _ in 0..arrive {
                self.deliver(at, from);
            }
        }
        let channel = self.channels.swap_remove(at);
        let mut reports = [0; 2];
        for role in [Role::Client, Role::Server] {
            let receiver = &mut self.hosts[1 - side(role)];
            for message in &channel.directions[side(role)].on_the_way {
                for write in &message.writes {
                    if self.random.once_in(2) {
                        receiver.land(write);
                    }
                }
            }
            // A peer may report less than it has processed.
            let report = channel.report(role, receiver.streams.has_refusals(channel.id));
            reports[side(role)] = if self.random.once_in(4) { 0 } else { report };
        }
        self.fenced.push(Fenced { channel, reports, replayed: [false; 2] });
    }

    /// One side hears that a Channel is fenced. When both have, there is another in its place.
    pub fn replay(&mut self, fenced: usize, who: usize) {
        let Fenced { channel, reports, replayed } = &mut self.fenced[fenced];
        let host = &mut self.hosts[who];
        if !std::mem::replace(&mut replayed[who], true) {
            for (number, carried) in &channel.directions[who].unacknowledged {
                for item in carried {
                    if *number <= reports[who] {
                        host.streams.on_confirmed(item);
                    } else {
                        host.streams.on_lost(item);
                    }
                }
            }
            host.streams.on_channel_lost(channel.id);
        }
        if *replayed == [true; 2] {
            self.fenced.swap_remove(fenced);
            self.channels.push(Channel::new(self.next_channel));
            self.next_channel += 1;
        }
    }

    /// A Channel dies, and both sides hear of it at once.
    pub fn kill(&mut self, at: usize) {
        self.fence(at);
        self.replay_all();
    }

    fn replay_all(&mut self) {
        while !self.fenced.is_empty() {
            let who = self.random.index(2);
            self.replay(0, who);
        }
    }

    /// Runs until nothing is to be said any more. Returns the number of messages it took.
    pub fn settle(&mut self) -> u64 {
        self.channels.iter_mut().for_each(|c| (c.blocked, c.stalled) = (false, false));
        self.replay_all();
        let before = self.messages;
        for _ in 0..200_000 {
            for host in 0..2 {
                self.pump(host);
            }
            let mut moved = false;
            for channel in 0..self.channels.len() {
                for from in 0..2 {
                    while self.deliver(channel, from) {
                        moved = true;
                    }
                }
            }
            if !moved && self.channels.iter().all(Channel::is_quiet) {
                return self.messages - before;
            }
        }
        panic!("they never fall silent");
    }
}
