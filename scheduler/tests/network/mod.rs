//! A network in virtual time: Channels of the real crate over ports that serve bytes at a rate, in
//! order, and complete a latency later. An engine polls at uneven intervals.

use std::collections::VecDeque;

use netchannel_channel::{AckNeed, Channel, ChannelConfig, Controller, Kind, MessageHeader};
use netchannel_scheduler::{Assignment, ChannelId, ChannelView, Scheduler};
use netchannel_units::{Bandwidth, Duration, Timestamp};

/// One Channel and both of its ends.
pub(crate) struct Link {
    pub(crate) channel: Channel<Timestamp>,
    peer: Channel<()>,
    port: usize,
    flight: VecDeque<(Timestamp, MessageHeader)>,
    /// Bytes assigned.
    pub(crate) bytes: u64,
    pub(crate) assignments: u64,
    /// Longest time from assignment to confirmation since the last [`Network::forget`].
    pub(crate) longest: Duration,
    pub(crate) most_outstanding: u64,
}

pub(crate) struct Port {
    pub(crate) rate: Bandwidth,
    free: Timestamp,
}

pub(crate) struct Network {
    pub(crate) now: Timestamp,
    pub(crate) links: Vec<Link>,
    pub(crate) ports: Vec<Port>,
    latency: Duration,
    random: u64,
}

impl Network {
    /// Channel `i` goes over port `channels[i]`; rates of the ports in Gb/s.
    pub(crate) fn new(ports: &[u64], channels: &[usize], seed: u64) -> Self {
        let config = ChannelConfig::default();
        let link = |port: &usize| Link {
            channel: Channel::new(config, Controller::default()),
            peer: Channel::new(config, Controller::default()),
            port: *port,
            flight: VecDeque::new(),
            bytes: 0,
            assignments: 0,
            longest: Duration::ZERO,
            most_outstanding: 0,
        };
        let port = |gbps: &u64| Port { rate: Bandwidth::from_gbps(*gbps), free: Timestamp::ZERO };
        Self {
            now: Timestamp::from_nanos(1),
            links: channels.iter().map(link).collect(),
            ports: ports.iter().map(port).collect(),
            latency: Duration::from_micros(3),
            random: seed | 1,
        }
    }

    /// One poll pass: completions and acknowledgements in, assignments out. `on_assigned` tells
    /// the scheduler what is left.
    pub(crate) fn pass(
        &mut self,
        scheduler: &mut Scheduler,
        mut on_assigned: impl FnMut(&mut Scheduler, Assignment),
    ) {
        // Passes take 0.5 to 1.5 us.
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        self.now = self.now + Duration::from_nanos(500 + (self.random >> 33) % 1_000);
        for link in &mut self.links {
            link.receive(self.now);
        }
        scheduler.look(self.links.iter().enumerate().map(|(i, link)| link.view(i)));
        while let Some(assignment) = scheduler.next() {
            let i = usize::from(assignment.channel.0);
            let link = &mut self.links[i];
            let port = &mut self.ports[link.port];
            link.send(self.now, assignment.bytes, port, self.latency);
            if !link.view(i).usable {
                scheduler.on_refused(assignment.channel, 0, false);
            }
            on_assigned(scheduler, assignment);
        }
    }

    /// Passes until `time` from now, with one stream that always has bytes.
    pub(crate) fn saturate(&mut self, scheduler: &mut Scheduler, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.pass(scheduler, |_, _| ());
        }
    }

    /// Starts the statistics anew.
    pub(crate) fn forget(&mut self) {
        for link in &mut self.links {
            link.bytes = 0;
            link.assignments = 0;
            link.longest = Duration::ZERO;
            link.most_outstanding = 0;
        }
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.links.iter().map(|link| link.bytes).sum()
    }
}

impl Link {
    fn view(&self, i: usize) -> ChannelView {
        ChannelView {
            usable: self.channel.may_send(Kind::Data),
            outstanding: self.channel.outstanding(),
            window_left: self.channel.window_left(),
            rate: self.channel.rate(),
            ..ChannelView::new(ChannelId(i as u16))
        }
    }

    fn send(&mut self, now: Timestamp, bytes: u64, port: &mut Port, latency: Duration) {
        let header = self.channel.on_transmit(now, bytes, now, Kind::Data);
        port.free = port.free.max(now) + port.rate.time_for(bytes);
        self.flight.push_back((port.free + latency, header));
        self.bytes += bytes;
        self.assignments += 1;
        self.most_outstanding = self.most_outstanding.max(self.channel.outstanding());
    }

    fn receive(&mut self, now: Timestamp) {
        while let Some((_, header)) = self.flight.pop_front_if(|(done, _)| *done <= now) {
            self.channel.on_completion(now, header.sequence);
            self.peer.on_message(now, &header).expect("in order");
            self.peer.on_processed(true);
        }
        if self.peer.wants_ack() != AckNeed::None {
            let ack = self.peer.on_transmit(now, 0, (), Kind::Control);
            self.peer.on_completion(now, ack.sequence);
            self.channel.on_message(now, &ack).expect("in order");
            self.channel.on_processed(false);
            while let Some(sent) = self.channel.poll_confirmed() {
                self.longest = self.longest.max(now - sent);
            }
            while self.peer.poll_confirmed().is_some() {}
        }
    }
}
