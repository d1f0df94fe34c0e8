//! NetChannel under a workload.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use netchannel::{
    ChannelStats, Class, Config, Error as StackError, Listener, Runtime, Stats, Stream,
    StreamOptions, Weight,
};

use crate::error::{Error, Result};
use crate::faults::{Failures, Faults};
use crate::polling::Polling;
use crate::spec::EngineSettings;
use crate::transport::{ACCEPT_TIMEOUT, ChannelBytes, Connection, Counters, Transport, drain};

/// One side of a run over NetChannel: a runtime of its own, so that no run sees another's
/// sessions.
pub struct NetChannel {
    runtime: Runtime,
    options: StreamOptions,
    listener: Option<Listener>,
    /// What an engine of another process had counted before.
    before: Counters,
    faults: Option<Faults>,
    broken: u64,
}

impl NetChannel {
    /// Starts a runtime with what `settings` say about the engine and `config` about the device.
    pub fn start(config: &Config, settings: &EngineSettings) -> Result<Self> {
        let options = StreamOptions { class: settings.class()?, ..StreamOptions::default() };
        let runtime = Runtime::start(settings.apply(config)?)
            .map_err(|source| Error::Stack { what: "cannot start NetChannel", source })?;
        let before = counters(&runtime, options.class);
        Ok(Self { runtime, options, listener: None, before, faults: None, broken: 0 })
    }
}

impl NetChannel {
    fn open(&self, address: SocketAddr, options: &StreamOptions) -> Result<Box<dyn Connection>> {
        match self.runtime.connect(address, options) {
            Ok(stream) => Ok(Box::new(stream)),
            Err(source) => Err(Error::Stack { what: "cannot open a stream", source }),
        }
    }
}

impl Transport for NetChannel {
    fn listen(&mut self, ip: IpAddr) -> Result<SocketAddr> {
        let listener = self
            .runtime
            .listen(SocketAddr::new(ip, 0))
            .map_err(|source| Error::Stack { what: "cannot listen", source })?;
        let address = listener.local_addr();
        self.listener = Some(listener);
        Ok(address)
    }

    fn accept(&mut self) -> Result<Box<dyn Connection>> {
        let listener =
            self.listener.as_ref().ok_or_else(|| Error::Invalid("accept before listen".into()))?;
        match listener.accept_timeout(ACCEPT_TIMEOUT) {
            Ok(Some(stream)) => Ok(Box::new(stream)),
            Ok(None) => {
                Err(Error::TimedOut { what: "waiting for a stream".into(), limit: ACCEPT_TIMEOUT })
            }
            Err(source) => Err(Error::Stack { what: "cannot accept a stream", source }),
        }
    }

    fn connect(&mut self, address: SocketAddr) -> Result<Box<dyn Connection>> {
        self.open(address, &self.options)
    }

    fn connect_weighted(
        &mut self,
        address: SocketAddr,
        weight: Weight,
    ) -> Result<Box<dyn Connection>> {
        self.open(address, &StreamOptions { weight, ..self.options })
    }

    fn connect_bulk(&mut self, address: SocketAddr) -> Result<Box<dyn Connection>> {
        self.open(address, &StreamOptions { class: Class::Throughput, ..StreamOptions::default() })
    }

    fn counters(&self) -> Counters {
        let mut counters = counters(&self.runtime, self.options.class);
        counters.subtract(&self.before);
        counters.failures.broken = self.broken;
        counters
    }

    fn start_faults(&mut self, first: Duration, period: Duration) {
        self.faults = Some(Faults::start(&self.runtime, self.options.class, first, period));
    }

    fn stop_faults(&mut self) -> Result<()> {
        if let Some(faults) = self.faults.take() {
            self.broken += faults.stop()?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self.listener);
        self.runtime
            .close()
            .map_err(|source| Error::Stack { what: "cannot close NetChannel", source })
    }
}

/// What a runtime counted since its start, over the sessions that are alive, on the Channels of a
/// class and all others that carried something.
pub fn counters(runtime: &Runtime, class: Class) -> Counters {
    let stats = runtime.stats();
    Counters {
        device: runtime.device_name().to_owned(),
        reason: runtime.device_reason().to_owned(),
        window: runtime.window(),
        per_channel: per_channel(&stats, class),
        copied_bytes: stats.copied_bytes,
        moved_by_posting: stats.moved_by_posting,
        placed_out_of_order: stats.placed_out_of_order,
        wakeups: stats.wakeups,
        polling: Polling::of(runtime, &stats).map(Box::new),
        failures: Failures {
            broken: 0,
            failovers: stats.failovers,
            replayed_bytes: stats.replayed_bytes,
            gaps_ns: stats.failover_gaps.iter().map(|gap| gap.as_nanos() as u64).collect(),
        },
    }
}

/// Sums over sessions, by the number of the Channel.
fn per_channel(stats: &Stats, class: Class) -> Vec<ChannelBytes> {
    let mut sums: Vec<ChannelBytes> = Vec::new();
    let counts = |channel: &&ChannelStats| channel.class == Some(class) || channel.bytes_sent > 0;
    for channel in stats.channels.iter().filter(counts) {
        let one = ChannelBytes {
            channel: channel.id,
            bytes: channel.bytes_sent,
            wire_bytes: channel.bytes_completed,
            messages: channel.messages_sent,
        };
        match sums.iter_mut().find(|sum| sum.channel == one.channel) {
            Some(sum) => sum.add(&one),
            None => sums.push(one),
        }
    }
    sums.sort_by_key(|sum| sum.channel);
    sums
}

impl Counters {
    /// Takes off what was counted before the run.
    fn subtract(&mut self, before: &Self) {
        for channel in &mut self.per_channel {
            let same = |other: &&ChannelBytes| other.channel == channel.channel;
            // A session that has ended since then takes its counts along.
            if let Some(before) = before.per_channel.iter().find(same) {
                channel.bytes = channel.bytes.saturating_sub(before.bytes);
                channel.wire_bytes = channel.wire_bytes.saturating_sub(before.wire_bytes);
                channel.messages = channel.messages.saturating_sub(before.messages);
            }
        }
        self.copied_bytes -= before.copied_bytes.min(self.copied_bytes);
        self.placed_out_of_order -= before.placed_out_of_order.min(self.placed_out_of_order);
        self.wakeups -= before.wakeups.min(self.wakeups);
        let (now, then) = (&mut self.failures, &before.failures);
        now.failovers -= then.failovers.min(now.failovers);
        now.replayed_bytes -= then.replayed_bytes.min(now.replayed_bytes);
        now.gaps_ns.drain(..then.gaps_ns.len().min(now.gaps_ns.len()));
    }
}

impl ChannelBytes {
    /// Adds what the same Channel carried in another run or session.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.wire_bytes += other.wire_bytes;
        self.messages += other.messages;
    }
}

impl Connection for Stream {
    fn finish(&mut self) -> io::Result<()> {
        Stream::finish(self);
        Ok(())
    }

    fn send_in_place(&mut self, len: usize, make: &mut dyn FnMut(&mut [u8])) -> io::Result<usize> {
        let mut space = self.send_half().reserve(len)?;
        let (first, second) = space.as_mut_slices();
        make(first);
        make(second);
        let len = space.len();
        space.commit(len)?;
        Ok(len)
    }

    fn receive_in_place(&mut self, see: Option<&mut dyn Write>) -> io::Result<usize> {
        let Some(mut chunk) = self.receive_half().borrow()? else { return Ok(0) };
        match see {
            Some(see) => chunk.copy_into(see),
            None => {
                let len = chunk.len();
                chunk.release(len)?;
                Ok(len)
            }
        }
    }

    /// Reads to the end first: a stream that is closed with its peer's end unread tells the peer
    /// that it reads no more, which would be an error over there.
    fn close(mut self: Box<Self>) -> io::Result<()> {
        Stream::finish(&mut self);
        drain(&mut *self)?;
        Stream::close(*self).map_err(StackError::into)
    }
}
