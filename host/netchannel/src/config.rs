//! Settings of a runtime.

mod check;

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

pub use netchannel_channel::Controller;
pub use netchannel_scheduler::Policy;
use netchannel_units::{Claim, Class, GroupId, Weight};
use netchannel_verbs::DeviceAttributes;

/// Which device to use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// An RDMA device with an active port if there is one (at [`Config::address`], if that is known),
    /// else the soft NIC.
    #[default]
    Auto,
    /// The device of this name (`soft` is the NIC in memory).
    Named(String),
}

impl From<&str> for DeviceChoice {
    fn from(name: &str) -> Self {
        if name == "auto" { Self::Auto } else { Self::Named(name.to_owned()) }
    }
}

/// Who drives the engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Poller {
    /// The application's threads, inside of their own calls: lowest latency, no extra core.
    #[default]
    Inline,
    /// Polling threads of the runtime: [`Config::polling_cores`].
    Dedicated,
}

/// What who waits does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Polls on (yielding the processor now and then). Where the kernel plays the NIC (SoftRoCE), for a
    /// millisecond in a row: then it arms completion events and sleeps, as it would keep the kernel from
    /// the work that it waits for.
    #[default]
    Spin,
    /// Polls for [`Config::spin_before_sleep`], then arms completion events and sleeps.
    Sleep,
}

macro_rules! named {
    ($type:ident, $what:literal, $($name:literal => $variant:ident),+) => {
        impl FromStr for $type {
            type Err = String;
            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok(Self::$variant),)+
                    other => Err(format!(
                        concat!("unknown ", $what, " `{}`; there are: {}"),
                        other,
                        [$($name),+].join(", ")
                    )),
                }
            }
        }
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self { $(Self::$variant => $name,)+ })
            }
        }
    };
}
named!(Poller, "poller", "inline" => Inline, "dedicated" => Dedicated);
named!(Idle, "idle mode", "spin" => Spin, "sleep" => Sleep);

/// Signs of life between two hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keepalive {
    /// How often the connecting side asks for one.
    pub interval: Duration,
    /// After this long without one the peer is dead, if its host still acknowledges what it is sent.
    pub timeout: Duration,
    /// How long streams wait while there is no path: the peer's host acknowledges nothing, or no
    /// Channel can be made. A host that lost its power looks the same.
    ///
    /// When a path is back, streams whose queue pairs lived go on with the device's next attempt (one
    /// timeout of it). Those whose queue pairs died wait for the control connection: TCP tries seven
    /// times at an even pace (about 200 ms), then at doubling ones, of 1 s at most from Linux 6.15
    /// on, before that so that it takes at most about as long again as the outage; then one round of
    /// messages replaces the Channels. A queue pair that carries nothing although the control
    /// connection works is replaced after two timeouts of the device and a second.
    pub outage: Duration,
}

impl Default for Keepalive {
    /// Two questions a second cost an idle session four wake-ups; three unanswered ones are
    /// death, which is below the two seconds that operators wait. A cable is replugged and a switch
    /// port restarts in less than ten seconds.
    fn default() -> Self {
        Self {
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(1_500),
            outage: Duration::from_secs(10),
        }
    }
}

/// What a network tells the packets of a class by. What it does about them is configured there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathClass {
    /// Traffic class of the IP header: DSCP in the upper six bits.
    pub traffic_class: u8,
    /// Service level (0 to 15) of InfiniBand; RoCE maps it to a priority of Ethernet.
    pub service_level: u8,
}

/// Settings of a runtime.
///
/// ```
/// use netchannel::{Config, Idle};
/// let config = Config { channels: 8, idle: Idle::Sleep, ..Config::default() };
/// assert_eq!(config.channels, 8);
/// ```
#[derive(Clone, Debug)]
pub struct Config {
    /// Which device.
    pub device: DeviceChoice,
    /// Channels per session for throughput streams (1 to 64), spread over the throughput groups.
    pub channels: u16,
    /// Channels per session for latency streams (1 to 8): a group of their own.
    pub latency_channels: u16,
    /// Groups of throughput Channels (1 to 16, at most `channels`). A group is what one core can
    /// poll; a stream stays in one, so that one stream goes over `channels / groups` Channels.
    pub groups: u16,
    /// How streams are spread over Channels.
    pub policy: Policy,
    /// Congestion control of each Channel.
    pub congestion: Controller,
    /// Who drives the engines.
    pub poller: Poller,
    /// Polling cores with [`Poller::Dedicated`] (1 to 16): threads that each poll some of the groups.
    /// No more than there are groups; spinning ones leave one processor to others.
    pub polling_cores: u16,
    /// Processors that polling cores are bound to, in turn; empty: wherever the system puts them.
    pub pin: Vec<u16>,
    /// What who waits does.
    pub idle: Idle,
    /// How long to poll before sleeping, with [`Idle::Sleep`].
    pub spin_before_sleep: Duration,
    /// Largest receive window and send buffer of a stream in bytes: a power of two from 64 KiB to
    /// 2 MiB; 0 chooses by device.
    pub window: usize,
    /// Most bytes of one chunk, from 4 KiB to the window; 0 chooses by device.
    pub chunk: usize,
    /// Bulk bytes outstanding at a port of known rate are bounded by what it carries in this time, so
    /// that latency messages do not wait longer for them; zero is no bound.
    pub bulk_delay: Duration,
    /// Network priority of latency Channels.
    pub latency_path: PathClass,
    /// Network priority of throughput Channels.
    pub throughput_path: PathClass,
    /// While the Channels are busy, fewer bytes than this wait for more, so that small writes travel in
    /// few messages; streams of class `latency` never wait. 0 is never, and `None` chooses by device:
    /// half a chunk. The NIC in memory is never busy (what is posted has left): nothing waits there. On SoftRoCE a
    /// stream's writes gather so many (by default a whole chunk) while earlier bytes are unconfirmed; they leave
    /// earlier when the application waits, or after some milliseconds.
    pub gather: Option<usize>,
    /// Most bytes of receive windows per session, over all its groups and applications. Each group may
    /// have 2 MiB for each application in any case.
    pub session_memory: usize,
    /// Signs of life.
    pub keepalive: Keepalive,
    /// The address that will be listened on or connected to, if that is known before: a device is chosen
    /// that serves it, and of that device the GID. Between addresses of this host's own loopback that is
    /// the soft NIC.
    pub address: Option<IpAddr>,
    /// What to open on an RDMA device instead of what would be chosen.
    pub rdma: netchannel_verbs::rdma::OpenOptions,
    /// Settings of the soft NIC (its name is chosen by the runtime).
    pub soft: netchannel_verbs::soft::SoftOptions,
    /// Socket of an engine in another process, to use instead of one's own: see
    /// [`Runtime::attach`](crate::Runtime::attach).
    pub attach: Option<PathBuf>,
}

/// Bytes of a window where none is set: it and the send buffer of a fast stream stay in a processor's cache.
const WINDOW: usize = 1 << 20;

impl Default for Config {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            channels: 4,
            latency_channels: 1,
            groups: 1,
            policy: Policy::LeastDelay,
            congestion: Controller::default(),
            poller: Poller::Inline,
            polling_cores: 1,
            pin: Vec::new(),
            idle: Idle::Spin,
            spin_before_sleep: Duration::from_micros(10),
            window: 0,
            chunk: 0,
            bulk_delay: Duration::from_micros(50),
            latency_path: PathClass::default(),
            throughput_path: PathClass::default(),
            gather: None,
            session_memory: 64 << 20,
            keepalive: Keepalive::default(),
            address: None,
            rdma: Default::default(),
            soft: Default::default(),
            attach: None,
        }
    }
}

impl Config {
    /// Bytes of the largest window on this device.
    pub(crate) fn window_on(&self, device: &DeviceAttributes) -> usize {
        match self.window {
            // Credit is a message there, with an acknowledgement and the packets of both: half as many of them,
            // and no chunk waits for one.
            0 if device.is_played_by_kernel() => 2 << 20,
            0 => WINDOW,
            bytes => bytes,
        }
    }

    /// The classes of the groups of a runtime, in order of precedence.
    pub(crate) fn classes(&self) -> impl Iterator<Item = (GroupId, Class)> {
        let throughput = (1..=self.groups).map(|id| (GroupId(id as u8), Class::Throughput));
        std::iter::once((GroupId(0), Class::Latency)).chain(throughput)
    }

    pub(crate) fn path_of(&self, class: Class) -> PathClass {
        match class {
            Class::Latency => self.latency_path,
            Class::Throughput => self.throughput_path,
        }
    }

    /// Channels per session of a group.
    pub(crate) fn channels_of(&self, group: GroupId) -> u16 {
        match u16::from(group.0) {
            0 => self.latency_channels,
            // The first groups have one more if they cannot be equal.
            number => {
                self.channels / self.groups + u16::from(number <= self.channels % self.groups)
            }
        }
    }
}

/// Settings of a stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct StreamOptions {
    /// What the stream asks of the stack.
    pub class: Class,
    /// Its part of what the class gets, in both directions: streams that always have bytes share in
    /// proportion to their weights.
    pub weight: Weight,
}

impl StreamOptions {
    pub(crate) fn claim(&self) -> Claim {
        Claim { class: self.class, weight: self.weight }
    }
}

#[cfg(test)]
mod tests {
    use netchannel_verbs::{Mover, soft};

    use super::*;

    #[test]
    fn a_window_that_is_not_given_follows_the_device() {
        let on = |mover, window| {
            let device = DeviceAttributes { mover, ..soft::attributes() };
            Config { window, ..Config::default() }.window_on(&device)
        };
        assert!(Config::default().check().is_ok());
        assert_eq!(on(Mover::Poster, 0), 1 << 20);
        assert_eq!(on(Mover::Nic, 0), 1 << 20);
        assert_eq!(on(Mover::Kernel, 0), 2 << 20);
        assert_eq!(on(Mover::Kernel, 1 << 17), 1 << 17);
    }
}
