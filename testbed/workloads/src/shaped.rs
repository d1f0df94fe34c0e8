//! A link for kernel TCP with a rate and a delay, inside of this host: a network namespace, a pair
//! of virtual interfaces into it, and a token bucket on each of them. Needs root, `ip` and `tc`.

use std::ffi::OsString;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::error::{Error, Result};

/// Least burst of a token bucket in bytes: two of the largest segments that the kernel hands over
/// at once.
const LEAST_BURST: u64 = 128 << 10;
/// How long the bucket may refill between two looks at it, for rates at which that is more.
const REFILL: Duration = Duration::from_micros(250);
/// Bytes that may wait for the link, if nobody says.
const QUEUE: u64 = 1 << 20;

/// What the link is to be.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Bits per second; 0 is no limit.
    pub bits_per_second: u64,
    /// One-way delay.
    pub delay: Duration,
    /// Bytes that may wait for the link; 0 leaves the choice to this.
    pub queue_bytes: u64,
}

/// The link. It goes when this is dropped.
#[derive(Debug)]
pub struct ShapedNetwork {
    name: String,
    net: u8,
    models_delay: bool,
    /// Held while it is made or taken away: who ends the program in the middle waits for that.
    making: Arc<Mutex<()>>,
}

impl ShapedNetwork {
    /// Says how it will be called: whoever may have to take it away knows before it is there.
    ///
    /// # Errors
    /// Without root.
    pub fn plan() -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err(Error::Invalid(
                "kernel TCP on a link of a given rate needs root: it is a network namespace, made \
                 with `ip` and shaped with `tc`; run this as root, or leave out --vs tcp"
                    .into(),
            ));
        }
        let pid = std::process::id();
        // Benchmarks' own addresses (RFC 2544), so that nothing else is hidden by them.
        let (name, net) = (format!("netchannel-{pid}"), (pid % 250) as u8);
        Ok(Self { name, net, models_delay: true, making: Arc::default() })
    }

    /// Makes the namespace and its link.
    ///
    /// # Errors
    /// Says what is missing: a program, a right, a kernel module.
    pub fn set_up(&mut self, shape: &Shape) -> Result<()> {
        let making = Arc::clone(&self.making);
        let _making = making.lock().unwrap_or_else(PoisonError::into_inner);
        let (name, here, there) = (self.name.clone(), self.interface(), "nc-peer");
        ip(&["netns", "add", &name])?;
        ip(&["link", "add", &here, "type", "veth", "peer", "name", there, "netns", &name])?;
        ip(&["addr", "add", &format!("{}/30", self.address_here()), "dev", &here])?;
        ip(&["link", "set", &here, "up"])?;
        let peer = format!("{}/30", self.address_there());
        ip(&["-n", &name, "addr", "add", &peer, "dev", there])?;
        ip(&["-n", &name, "link", "set", there, "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        let here_delays = self.shape(&[], &here, shape)?;
        let there_delays = self.shape(&["-n", &name], there, shape)?;
        self.models_delay = here_delays && there_delays;
        Ok(())
    }

    /// Shapes what leaves an interface. False if there is no model of a delay.
    fn shape(&self, namespace: &[&str], interface: &str, shape: &Shape) -> Result<bool> {
        let add = |arguments: &[&str]| {
            let all = [namespace, &["qdisc", "add", "dev", interface], arguments].concat();
            run("tc", &all)
        };
        let mut parent = vec!["root"];
        if shape.bits_per_second > 0 {
            let rate = format!("{}bit", shape.bits_per_second);
            let refill = shape.bits_per_second / 8 * REFILL.as_micros() as u64 / 1_000_000;
            let burst = refill.max(LEAST_BURST).to_string();
            let queue = if shape.queue_bytes > 0 { shape.queue_bytes } else { QUEUE };
            let limit = queue.max(LEAST_BURST).to_string();
            let bucket = ["tbf", "rate", &rate, "burst", &burst, "limit", &limit];
            add(&[&["root", "handle", "1:"], &bucket[..]].concat())?;
            parent = vec!["parent", "1:1"];
        }
        if shape.delay.is_zero() {
            return Ok(true);
        }
        let delay = format!("{}ns", shape.delay.as_nanos());
        let model = ["netem", "delay", &delay, "limit", "100000"];
        match add(&[&parent[..], &model[..]].concat()) {
            Ok(()) => Ok(true),
            // The module is not part of every kernel.
            Err(Error::Child { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn interface(&self) -> String {
        format!("nc-here{}", self.net)
    }

    fn address_here(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.net, 1)
    }

    fn address_there(&self) -> Ipv4Addr {
        Ipv4Addr::new(198, 18, self.net, 2)
    }

    /// Where a server in the namespace listens.
    pub fn server_address(&self) -> IpAddr {
        self.address_there().into()
    }

    /// Whether the delay is modelled, not the rate alone.
    pub fn models_delay(&self) -> bool {
        self.models_delay
    }

    /// Program and arguments in front of a command that is to run in the namespace.
    pub fn prefix(&self) -> (&'static str, Vec<OsString>) {
        ("ip", ["netns", "exec", &self.name].map(OsString::from).into())
    }

    /// Takes the namespace away, as dropping does, for who ends without dropping.
    pub fn remover(&self) -> impl FnOnce() + Send + 'static {
        let (name, making) = (self.name.clone(), Arc::clone(&self.making));
        move || {
            let _making = making.lock().unwrap_or_else(PoisonError::into_inner);
            // Fails where it was removed already.
            drop(ip(&["netns", "del", &name]));
        }
    }
}

impl Drop for ShapedNetwork {
    fn drop(&mut self) {
        // With the namespace goes its end of the pair, and with that the other.
        self.remover()();
        let _ = ip(&["link", "del", &self.interface()]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output =
        Command::new(program).args(arguments).output().map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => Error::Invalid(format!(
                "`{program}` is missing, which makes the link for kernel TCP; install the package \
                 iproute2"
            )),
            _ => Error::Io { what: format!("start `{program}`"), source },
        });
    let output = output?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Child {
        role: format!("`{program} {}`", arguments.join(" ")),
        status: output.status.to_string(),
        message: String::from_utf8_lossy(&output.stderr).trim().into(),
    })
}
