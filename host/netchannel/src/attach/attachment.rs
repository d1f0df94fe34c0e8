//! What streams ask of an engine in another process.

use std::net::SocketAddr;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use netchannel_attach::hello::Provider as WireProvider;
use netchannel_attach::{Answer, Means, Operation};
use netchannel_units::{Claim, GroupId, Timestamp};
use netchannel_verbs::device::Provider;

use crate::attach::convert::to_stats;
use crate::attach::link::Link;
use crate::attach::pending::Pending;
use crate::attach::ports::with_port;
use crate::boundary::StreamKey;
use crate::boundary::port::Doorbell;
use crate::boundary::port::PortShared;
use crate::boundary::ready::{ApplicationList, Direction, Target};
use crate::boundary::region::unpack;
use crate::boundary::signal::Signal;
use crate::clock::now;
use crate::config::Config;
use crate::error::Error;
use crate::info::StreamInfo;
use crate::local::LINGER;
use crate::shared::Backlog;
use crate::shared::{Command, StreamSeed};
use crate::stats::Stats;
use crate::sync::{Counter, lock};
use crate::wait::{Waitable, Waited, YIELD_AFTER, sleep, sleep_until, spin_limit};

/// How long who finds its ring full leaves the processor to the engine.
const RING_FULL: Duration = Duration::from_micros(20);
/// How often who closes looks whether everything has arrived.
const LINGER_STEP: Duration = Duration::from_millis(1);

/// An engine in another process.
pub(crate) struct Attachment {
    link: Arc<Link>,
    config: Config,
    copied: Counter,
    wakeups: Counter,
    listener: Mutex<Option<JoinHandle<()>>>,
}

impl Attachment {
    pub(crate) fn open(path: &Path, config: Config) -> Result<Arc<Self>, Error> {
        let link = Link::open(path)?;
        let ears = Arc::clone(&link);
        let thread = std::thread::Builder::new()
            .name("nc-attached".into())
            .spawn(move || ears.listen_to_engine())
            .map_err(Error::system("starting the thread that listens to the engine"))?;
        Ok(Arc::new(Self {
            link,
            config,
            copied: Counter::default(),
            wakeups: Counter::default(),
            listener: Mutex::new(Some(thread)),
        }))
    }

    pub(crate) fn device(&self) -> &str {
        &self.link.welcome.device
    }

    pub(crate) fn reason(&self) -> &str {
        &self.link.welcome.reason
    }

    pub(crate) fn config(&self) -> &Config {
        &self.config
    }

    /// Begins to open a stream.
    pub(crate) fn connect(&self, peer: SocketAddr, claim: Claim) -> Result<Opening, Error> {
        let Claim { class, weight } = claim;
        let pending = self.link.start_asking(Operation::Connect { peer, class, weight }, None)?;
        Ok(Opening { link: Arc::clone(&self.link), pending })
    }

    pub(crate) fn listen(&self, address: SocketAddr) -> Result<(SocketAddr, Arc<Backlog>), Error> {
        self.link.listen(address)
    }

    pub(crate) fn unlisten(&self, address: SocketAddr) {
        self.link.unlisten(address);
    }

    // --- how threads hear of streams that they do not wait for ---

    pub(crate) fn make_signal(&self, stream: StreamKey) -> Result<Arc<Signal>, Error> {
        let (answer, fds) = self.link.ask(Operation::Descriptor { stream: stream.0 })?;
        let (Answer::Descriptor(number), Ok(ends)) = (&answer, <[_; 2]>::try_from(fds)) else {
            return Err(self.link.unexpected(&answer));
        };
        let taken = Signal::from_fds(ends, *number);
        let signal = Arc::new(taken.map_err(Error::shared_memory("taking over a descriptor"))?);
        self.link.add_signal(&signal);
        Ok(signal)
    }

    pub(crate) fn take_list(&self) -> Result<u32, Error> {
        match self.link.ask(Operation::List)?.0 {
            Answer::List(number) => Ok(number),
            other => Err(self.link.unexpected(&other)),
        }
    }

    pub(crate) fn list_ring(&self, list: u32, group: GroupId) -> Result<ApplicationList, Error> {
        let (answer, mut fds) = self.link.ask(Operation::ListRing { list, group: group.0 })?;
        let Some(memory) = fds.pop() else { return Err(self.link.unexpected(&answer)) };
        let end = ApplicationList::adopt(memory)?;
        self.link.add_list(list, end.memory.clone());
        Ok(end)
    }

    pub(crate) fn drop_list(&self, list: u32) {
        self.link.remove_list(list);
        self.link.tell(Operation::CloseList { list });
    }

    /// Sees to it that a group's engine knows this thread.
    pub(crate) fn meet_group(&self, group: GroupId) -> Result<(), Error> {
        with_port(&self.link, Some(group), |_| ())
    }

    /// Counters of the engine, with what this process's threads copied on top. None if the engine
    /// is gone.
    pub(crate) fn stats(&self) -> Stats {
        let mut stats = match self.link.ask(Operation::Statistics) {
            Ok((Answer::Statistics(statistics), _)) => to_stats(statistics),
            _ => Stats::default(),
        };
        stats.copied_bytes += self.copied.value();
        stats.wakeups += self.wakeups.value();
        stats
    }

    /// Waits until everything written to streams that were let go is confirmed, then hangs up.
    pub(crate) fn close(&self) -> Result<(), Error> {
        let deadline = now() + LINGER;
        let mut left = 1;
        while left > 0 && now() < deadline {
            left = match self.link.ask(Operation::Unfinished)?.0 {
                Answer::Unfinished(count) => count,
                other => return Err(self.link.unexpected(&other)),
            };
            if left > 0 {
                std::thread::sleep(LINGER_STEP);
            }
        }
        self.hang_up();
        crate::local::lost_streams(left as usize)
    }

    fn hang_up(&self) {
        self.link.hang_up();
        if let Some(thread) = lock(&self.listener).take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }

    // --- what streams ask ---

    pub(crate) fn submit(&self, command: Command) {
        let operation = match command {
            Command::Finish(key) => Operation::Finish { stream: key.0 },
            Command::Reset(key, code) => Operation::Reset { stream: key.0, code },
            Command::Stop(key, code) => Operation::Stop { stream: key.0, code },
            Command::Release(key) => Operation::Release { stream: key.0 },
            Command::Watch(watch) => {
                let by = match watch.target {
                    Target::List { list, name } => Means::List(list, name),
                    Target::Descriptor(signal) => match *signal {
                        Signal::Attached { number, .. } => Means::Descriptor(number),
                        Signal::Here(_) | Signal::There(_) => return,
                    },
                };
                let writing = watch.direction == Direction::Write;
                Operation::Watch { stream: watch.stream.0, writing, by }
            }
            // They come about by requests of their own.
            Command::Port(_) | Command::List(_) | Command::Unlist(_) => return,
        };
        self.link.tell(operation);
    }

    /// A stream was let go.
    pub(crate) fn release(&self, seed: &StreamSeed) {
        self.link.memory.drop_cell(seed.cell.place());
        self.submit(Command::Release(seed.key));
    }

    /// Rings at the stream's engine, and wakes it if it sleeps and `at_once`.
    pub(crate) fn ring(&self, doorbell: Doorbell, at_once: bool) -> Result<(), Error> {
        loop {
            let group = doorbell.stream.group();
            let rung = with_port(&self.link, Some(group), |port| {
                let rung = port.ring(doorbell);
                if at_once || !rung {
                    // An engine that is gone is found out by the thread that listens to it.
                    let _ = port.announce(group);
                }
                rung
            })?;
            if rung {
                return Ok(());
            }
            if self.link.is_over() {
                return Err(self.link.error());
            }
            std::thread::sleep(RING_FULL);
        }
    }

    /// The address of a place that stands in a cell.
    pub(crate) fn resolve(&self, place: u64) -> Option<NonNull<u8>> {
        let memory = &self.link.memory;
        memory.regions.resolve(place).or_else(|| {
            // Memory that this process has not seen yet.
            let (region, _) = unpack(place)?;
            let asked = self.link.ask(Operation::Region { number: region.0 });
            let Ok((Answer::Region(len, writable), mut fds)) = asked else { return None };
            if let Err(error) = memory.add(region.0, len, writable, fds.pop()?) {
                tracing::warn!(%error, "memory that the engine passed");
            }
            memory.regions.resolve(place)
        })
    }

    pub(crate) fn largest_window(&self) -> usize {
        self.link.welcome.window as usize
    }

    pub(crate) fn note_copied(&self, bytes: usize) {
        self.copied.add_shared(bytes as u64);
    }

    /// Why the session of a stream is over.
    pub(crate) fn session_error(&self, seed: &StreamSeed) -> Error {
        if self.link.is_over() {
            return self.link.error();
        }
        if seed.session.failure().is_none() {
            let asked = self.link.ask(Operation::Fate { stream: seed.key.0 });
            seed.session.fail(asked.err().unwrap_or(Error::Closed));
        }
        seed.session.error()
    }

    /// Whether the engine is gone.
    pub(crate) fn is_over(&self) -> bool {
        self.link.is_over()
    }

    /// Why nothing comes any more.
    pub(crate) fn error(&self) -> Error {
        self.link.error()
    }

    pub(crate) fn info(&self, seed: &StreamSeed) -> StreamInfo {
        let welcome = &self.link.welcome;
        StreamInfo {
            peer: seed.session.peer,
            device: welcome.device.clone(),
            provider: match welcome.provider {
                WireProvider::Soft => Provider::Soft,
                WireProvider::Rdma => Provider::Rdma,
            },
            channels: seed.channels(),
            class: seed.claim.class,
            weight: seed.claim.weight,
            policy: welcome.policy.parse().unwrap_or_default(),
            reason: format!("{} (attached to {})", welcome.reason, self.link.path.display()),
        }
    }

    /// Waits until `what` is ready, at most until `deadline`.
    pub(crate) fn wait(
        &self,
        what: &dyn Waitable,
        deadline: Option<Timestamp>,
    ) -> Result<Waited, Error> {
        let what = &OrGone { what, link: &self.link };
        if self.spin(what, deadline) {
            return Ok(Waited::Ready);
        }
        // The engine that it waits for must know whom to wake.
        let port = with_port(&self.link, what.group(), |port| Arc::clone(&port.shared))?;
        Ok(sleep_until(what, &port, deadline, || {
            sleep(&port.wake.fds().collect::<Vec<_>>(), deadline.map(|at| at - now()));
            self.wakeups.add_shared(1);
            if port.wake.drain().is_err() && !self.link.is_over() && !what.is_ready() {
                // The engine is gone; the thread that listens to it is about to say so.
                std::thread::sleep(YIELD_AFTER);
            }
        }))
    }

    /// Looks again and again: for a short while before sleeping, or until the deadline.
    fn spin(&self, what: &dyn Waitable, deadline: Option<Timestamp>) -> bool {
        let start = now();
        let until = spin_limit(&self.config, start, deadline);
        let mut yielded = start;
        loop {
            for _ in 0..16 {
                if what.is_ready() {
                    return true;
                }
                std::hint::spin_loop();
            }
            let time = now();
            if until.is_some_and(|at| time >= at) {
                return false;
            }
            if time - yielded >= YIELD_AFTER {
                yielded = time;
                std::thread::yield_now();
            }
        }
    }
}

/// Something to wait for, or that the engine is gone: then whoever waits finds out why.
struct OrGone<'a> {
    what: &'a dyn Waitable,
    link: &'a Link,
}

impl Waitable for OrGone<'_> {
    fn is_ready(&self) -> bool {
        self.what.is_ready() || self.link.is_over()
    }
    fn set_waiter(&self, port: Option<&Arc<PortShared>>) {
        self.what.set_waiter(port);
    }
    fn group(&self) -> Option<GroupId> {
        self.what.group()
    }
}

/// A stream that the engine was asked for. Dropped, it is let go as soon as it comes.
pub(crate) struct Opening {
    link: Arc<Link>,
    pending: Arc<Pending>,
}

impl Opening {
    /// The stream, if it is there or comes by `deadline` (none: some time).
    pub(crate) fn wait(&self, deadline: Option<Timestamp>) -> Result<Option<StreamSeed>, Error> {
        let timeout = deadline.map_or(Duration::MAX, |at| at.saturating_since(now()));
        match self.pending.wait_for(&self.link, timeout)? {
            Some((Answer::Stream(offer), _)) => self.link.seed(&offer).map(Some),
            Some((other, _)) => Err(self.link.unexpected(&other)),
            None => Ok(None),
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(Answer::Stream(offer)) = self.pending.abandon()
            && let Err(error) = self.link.let_go(&offer)
        {
            tracing::debug!(%error, "a stream that nobody waits for");
        }
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        self.hang_up();
    }
}
