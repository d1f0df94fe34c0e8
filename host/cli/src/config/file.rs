//! The settings file.

use std::path::Path;
use std::time::Duration;

use netchannel::config::Controller;
use netchannel::{Config, DeviceChoice, Idle, Keepalive, PathClass, Policy, Poller};
use netchannel_verbs::rdma::OpenOptions;
use netchannel_verbs::soft::{LinkModel, SoftOptions};
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use crate::problem::Problem;
use crate::quantity;

/// A settings file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct File {
    device: Option<String>,
    pub(super) log: Option<String>,
    channels: Option<u16>,
    latency_channels: Option<u16>,
    groups: Option<u16>,
    policy: Option<String>,
    congestion: Option<String>,
    poller: Option<String>,
    polling_cores: Option<u16>,
    pin: Option<Vec<u16>>,
    idle: Option<String>,
    spin_before_sleep_us: Option<u32>,
    window: Option<Amount>,
    chunk: Option<Amount>,
    gather: Option<Amount>,
    session_memory: Option<Amount>,
    bulk_delay_us: Option<u32>,
    class: ClassFile,
    keepalive: KeepaliveFile,
    rdma: RdmaFile,
    soft: SoftFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct KeepaliveFile {
    interval_ms: Option<u32>,
    timeout_ms: Option<u32>,
    outage_ms: Option<u32>,
}

/// What the network tells classes apart by.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ClassFile {
    latency: PathFile,
    throughput: PathFile,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PathFile {
    traffic_class: u8,
    service_level: u8,
}

impl From<PathFile> for PathClass {
    fn from(file: PathFile) -> Self {
        Self { traffic_class: file.traffic_class, service_level: file.service_level }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RdmaFile {
    port: Option<u8>,
    gid_index: Option<u32>,
    mtu: Option<u32>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SoftFile {
    seed: Option<u64>,
    deferred: bool,
    link: Option<LinkFile>,
    links: Vec<LinkFile>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct LinkFile {
    rate: Option<String>,
    delay_us: u32,
    queue: Option<Amount>,
    ecn_threshold: Option<Amount>,
    loss: f64,
    reorder: f64,
}

/// Bytes, as a number or as in `"64KiB"`.
#[derive(Clone, Copy, Debug)]
struct Amount(u64);

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Amount;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number of bytes such as 65536 or \"64KiB\"")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Amount, E> {
                u64::try_from(value).map(Amount).map_err(|_| E::custom("bytes below zero"))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Amount, E> {
                quantity::bytes(text).map(Amount).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Bytes)
    }
}

impl File {
    pub(super) fn read(path: &Path) -> Result<Self, Problem> {
        let text = std::fs::read_to_string(path).map_err(|error| error.to_string());
        text.and_then(|text| toml::from_str(&text).map_err(|error| error.to_string())).map_err(
            |reason| Problem::Settings { path: path.into(), reason: reason.trim_end().into() },
        )
    }

    /// The settings; an error text names the key.
    pub(super) fn apply(self, idle: Idle, poller: Poller) -> Result<Config, String> {
        let standard = Config::default();
        let milliseconds = |value: Option<u32>, standard| {
            value.map_or(standard, |ms| Duration::from_millis(ms.into()))
        };
        Ok(Config {
            device: self.device.as_deref().map_or(DeviceChoice::Auto, DeviceChoice::from),
            channels: self.channels.unwrap_or(standard.channels),
            latency_channels: self.latency_channels.unwrap_or(standard.latency_channels),
            groups: self.groups.unwrap_or(standard.groups),
            policy: named::<Policy>(self.policy, "policy")?.unwrap_or(standard.policy),
            congestion: named::<Controller>(self.congestion, "congestion")?
                .unwrap_or(standard.congestion),
            poller: named::<Poller>(self.poller, "poller")?.unwrap_or(poller),
            polling_cores: self.polling_cores.unwrap_or(standard.polling_cores),
            pin: self.pin.unwrap_or(standard.pin),
            idle: named::<Idle>(self.idle, "idle")?.unwrap_or(idle),
            spin_before_sleep: self
                .spin_before_sleep_us
                .map_or(standard.spin_before_sleep, |us| Duration::from_micros(us.into())),
            window: fits("window", self.window, standard.window)?,
            chunk: fits("chunk", self.chunk, standard.chunk)?,
            gather: match self.gather {
                Some(amount) => Some(fits("gather", Some(amount), 0)?),
                None => standard.gather,
            },
            session_memory: fits("session_memory", self.session_memory, standard.session_memory)?,
            bulk_delay: self
                .bulk_delay_us
                .map_or(standard.bulk_delay, |us| Duration::from_micros(us.into())),
            latency_path: self.class.latency.into(),
            throughput_path: self.class.throughput.into(),
            keepalive: Keepalive {
                interval: milliseconds(self.keepalive.interval_ms, standard.keepalive.interval),
                timeout: milliseconds(self.keepalive.timeout_ms, standard.keepalive.timeout),
                outage: milliseconds(self.keepalive.outage_ms, standard.keepalive.outage),
            },
            rdma: OpenOptions {
                port: self.rdma.port,
                gid_index: self.rdma.gid_index,
                mtu: self.rdma.mtu,
                ..standard.rdma
            },
            soft: self.soft.options(standard.soft)?,
            address: None,
            attach: None,
        })
    }
}

impl SoftFile {
    fn options(self, standard: SoftOptions) -> Result<SoftOptions, String> {
        let links = self.links.iter().map(|link| link.model("soft.links"));
        let links = links.collect::<Result<_, _>>()?;
        Ok(SoftOptions {
            seed: self.seed.unwrap_or(standard.seed),
            deferred: self.deferred,
            link: self.link.as_ref().map(|link| link.model("soft.link")).transpose()?,
            links,
            ..standard
        })
    }
}

impl LinkFile {
    fn model(&self, section: &str) -> Result<LinkModel, String> {
        for (name, value) in [("loss", self.loss), ("reorder", self.reorder)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(format!("{section}.{name} is {value}, must be from 0 to 1"));
            }
        }
        let rate = self.rate.as_deref().map(quantity::rate).transpose();
        let rate = rate.map_err(|reason| format!("{section}.rate: {reason}"))?;
        Ok(LinkModel {
            rate: rate.unwrap_or_default(),
            delay: Duration::from_micros(self.delay_us.into()),
            queue_bytes: self.queue.map_or(0, |amount| amount.0),
            ecn_threshold: self.ecn_threshold.map_or(0, |amount| amount.0),
            loss: self.loss,
            reorder: self.reorder,
        })
    }
}

fn named<T>(text: Option<String>, key: &str) -> Result<Option<T>, String>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let parse = |text: String| text.parse().map_err(|error: T::Err| format!("{key}: {error}"));
    text.map(parse).transpose()
}

fn fits(key: &str, amount: Option<Amount>, standard: usize) -> Result<usize, String> {
    let too_large = |Amount(bytes)| format!("{key} is {bytes} bytes, more than any memory has");
    amount.map_or(Ok(standard), |amount| usize::try_from(amount.0).map_err(|_| too_large(amount)))
}

#[cfg(test)]
mod tests {
    use netchannel::Bandwidth;

    use super::*;

    fn read(text: &str) -> Result<Config, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        file.apply(Idle::Sleep, Poller::Inline)
    }

    #[test]
    fn everything_may_stand_in_a_file() {
        let config = read(
            r#"
            device = "soft"
            channels = 8
            latency_channels = 2
            groups = 3
            policy = "round-robin"
            congestion = "fixed:1MiB"
            poller = "dedicated"
            polling_cores = 2
            pin = [2, 3]
            idle = "spin"
            window = "512KiB"
            chunk = 65536
            bulk_delay_us = 20
            class.latency = { traffic_class = 184, service_level = 5 }
            gather = "32KiB"
            keepalive = { interval_ms = 100, timeout_ms = 900, outage_ms = 20000 }
            rdma = { port = 2, gid_index = 3, mtu = 1024 }
            [soft]
            seed = 7
            link = { rate = "2gbit", delay_us = 5, loss = 0.01 }
            "#,
        )
        .unwrap();
        assert_eq!(config.device, DeviceChoice::Named("soft".into()));
        assert_eq!((config.channels, config.window, config.chunk), (8, 512 << 10, 64 << 10));
        assert_eq!(config.gather, Some(32 << 10));
        assert_eq!((config.latency_channels, config.groups), (2, 3));
        assert_eq!(config.bulk_delay, Duration::from_micros(20));
        assert_eq!(config.latency_path, PathClass { traffic_class: 184, service_level: 5 });
        assert_eq!(config.throughput_path, PathClass::default());
        assert_eq!((config.polling_cores, config.pin), (2, vec![2, 3]));
        assert_eq!((config.policy, config.poller), (Policy::RoundRobin, Poller::Dedicated));
        assert_eq!(config.congestion.to_string(), "fixed:1048576");
        assert_eq!(config.keepalive.timeout, Duration::from_millis(900));
        assert_eq!(config.keepalive.outage, Duration::from_secs(20));
        assert_eq!(config.rdma.mtu, Some(1024));
        let link = config.soft.link.unwrap();
        assert_eq!((link.rate, link.delay), (Bandwidth::from_gbps(2), Duration::from_micros(5)));
    }

    #[test]
    fn an_empty_file_leaves_the_standard_settings() {
        let config = read("").unwrap();
        assert_eq!((config.channels, config.idle), (Config::default().channels, Idle::Sleep));
    }

    #[test]
    fn the_page_about_settings_has_the_defaults() {
        let page = include_str!("../../../../docs/settings.md");
        let file = page.split("```toml").nth(1).unwrap().split("```").next().unwrap();
        let said = read(file).unwrap();
        assert_eq!(format!("{said:?}"), format!("{:?}", read("").unwrap()));
        // What is commented out is right but for its value.
        let all: Vec<_> =
            file.lines().map(|line| line.strip_prefix("# ").unwrap_or(line)).collect();
        read(&all.join("\n")).unwrap();
    }

    #[test]
    fn mistakes_are_named() {
        for (text, wrong) in [
            ("chanels = 4", "unknown field `chanels`"),
            ("[rdma]\nspeed = 1", "unknown field `speed`"),
            ("channels = \"many\"", "invalid type"),
            ("policy = \"luck\"", "policy: no policy \"luck\""),
            ("window = \"big\"", "no number of bytes"),
            ("window = -5", "below zero"),
            ("[soft]\nlink = { loss = 2.0 }", "soft.link.loss is 2"),
            ("[soft]\nlink = { rate = \"fast\" }", "soft.link.rate: `fast` is no rate"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }
}
