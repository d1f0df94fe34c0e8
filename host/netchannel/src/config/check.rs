//! Which values settings may have. They are named as in a settings file (docs/settings.md).

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::{Config, WINDOW};
use crate::error::Error;

/// Fewer bytes than a page per message are all overhead.
const LEAST_CHUNK: usize = 4 << 10;
/// Path MTUs of RDMA.
const MTUS: [u32; 5] = [256, 512, 1024, 2048, 4096];
/// Milliseconds; more signs of life cost wake-ups and take a busy machine for a dead one. The control
/// protocol has the same bounds.
const KEEPALIVE_INTERVAL: RangeInclusive<u128> = 50..=60_000;
/// Milliseconds.
const KEEPALIVE_TIMEOUT: RangeInclusive<u128> = 100..=600_000;
/// Microseconds. Who polls for a second does not sleep.
const SPIN: RangeInclusive<u128> = 0..=1_000_000;
/// Microseconds.
const BULK_DELAY: RangeInclusive<u128> = 0..=1_000_000;

type Checked = Result<(), Error>;

impl Config {
    /// Whether every value is in range.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first that is not, and its range.
    pub fn check(&self) -> Result<(), Error> {
        self.check_channels()?;
        self.check_memory()?;
        within("spin_before_sleep_us", self.spin_before_sleep.as_micros(), SPIN)?;
        within("bulk_delay_us", self.bulk_delay.as_micros(), BULK_DELAY)?;
        for (name, path) in [("latency", self.latency_path), ("throughput", self.throughput_path)] {
            within(&format!("class.{name}.service_level"), path.service_level, 0..=15)?;
        }
        self.check_keepalive()?;
        self.check_rdma()
    }

    fn check_channels(&self) -> Checked {
        within("channels", self.channels, 1..=64)?;
        within("latency_channels", self.latency_channels, 1..=8)?;
        if !(1..=16.min(self.channels)).contains(&self.groups) {
            return wrong(format!(
                "groups is {}, must be 1 to 16 and at most channels, which is {}",
                self.groups, self.channels
            ));
        }
        within("polling_cores", self.polling_cores, 1..=16)?;
        match self.pin.iter().find(|processor| **processor >= 1_024) {
            Some(processor) => {
                wrong(format!("pin names processor {processor}, must be below 1024"))
            }
            None => Ok(()),
        }
    }

    fn check_memory(&self) -> Checked {
        let Self { window, chunk, session_memory, .. } = *self;
        if window != 0 && !(window.is_power_of_two() && (1 << 16..=1 << 21).contains(&window)) {
            return wrong(format!(
                "window is {window} bytes, must be a power of two from 65536 to 2097152, or 0 \
                 (chosen by device)"
            ));
        }
        let window = if window == 0 { WINDOW } else { window };
        if chunk != 0 && !(LEAST_CHUNK..=window).contains(&chunk) {
            return wrong(format!(
                "chunk is {chunk} bytes, must be 0 (chosen by device) or from {LEAST_CHUNK} to the \
                 window, which is {window}"
            ));
        }
        if let Some(gather) = self.gather.filter(|gather| *gather > window) {
            return wrong(format!(
                "gather is {gather} bytes, must be at most the window, which is {window}"
            ));
        }
        if session_memory < 2 << 20 {
            return wrong(format!(
                "session_memory is {session_memory} bytes, must be at least 2097152"
            ));
        }
        Ok(())
    }

    fn check_keepalive(&self) -> Checked {
        let millis = |time: Duration| time.as_millis();
        let interval = millis(self.keepalive.interval);
        let timeout = millis(self.keepalive.timeout);
        let outage = millis(self.keepalive.outage);
        within("keepalive.interval_ms", interval, KEEPALIVE_INTERVAL)?;
        within("keepalive.timeout_ms", timeout, KEEPALIVE_TIMEOUT)?;
        if timeout < interval * 2 {
            return wrong(format!(
                "keepalive.timeout_ms is {timeout}, must be at least twice keepalive.interval_ms, which \
                 is {interval}"
            ));
        }
        if outage < timeout {
            return wrong(format!(
                "keepalive.outage_ms is {outage}, must not be below keepalive.timeout_ms, which is \
                 {timeout}"
            ));
        }
        Ok(())
    }

    fn check_rdma(&self) -> Checked {
        if self.rdma.port == Some(0) {
            return wrong("rdma.port is 0, must be 1 to 255".into());
        }
        // Connections name a GID by 8 bits.
        within("rdma.gid_index", self.rdma.gid_index.unwrap_or(0), 0..=255)?;
        match self.rdma.mtu.filter(|mtu| !MTUS.contains(mtu)) {
            Some(mtu) => wrong(format!("rdma.mtu is {mtu}, must be 256, 512, 1024, 2048 or 4096")),
            None => Ok(()),
        }
    }
}

fn wrong(reason: String) -> Checked {
    Err(Error::Config { reason })
}

fn within<T: PartialOrd + Display>(name: &str, value: T, range: RangeInclusive<T>) -> Checked {
    if range.contains(&value) {
        return Ok(());
    }
    wrong(format!("{name} is {value}, must be {} to {}", range.start(), range.end()))
}

#[cfg(test)]
mod tests {
    use netchannel_verbs::rdma::OpenOptions;

    use super::*;
    use crate::config::{Keepalive, PathClass};

    #[test]
    fn each_value_out_of_range_is_named_with_its_range() {
        let millis = Duration::from_millis;
        let config = Config::default;
        let keepalive = |interval, timeout, outage| Config {
            keepalive: Keepalive {
                interval: millis(interval),
                timeout: millis(timeout),
                outage: millis(outage),
            },
            ..Config::default()
        };
        let rdma = |port, gid_index, mtu| Config {
            rdma: OpenOptions { port, gid_index, mtu, ..OpenOptions::default() },
            ..Config::default()
        };
        let path = PathClass { service_level: 16, ..PathClass::default() };
        for (settings, says) in [
            (Config { channels: 0, ..config() }, "channels is 0, must be 1 to 64"),
            (Config { latency_channels: 9, ..config() }, "latency_channels is 9, must be 1 to 8"),
            (Config { groups: 5, ..config() }, "groups is 5, must be 1 to 16 and at most channels"),
            (Config { polling_cores: 17, ..config() }, "polling_cores is 17, must be 1 to 16"),
            (Config { pin: vec![0, 1024], ..config() }, "pin names processor 1024"),
            (
                Config { window: 65_537, ..config() },
                "window is 65537 bytes, must be a power of two",
            ),
            (
                Config { chunk: 3, ..config() },
                "chunk is 3 bytes, must be 0 (chosen by device) or from",
            ),
            (Config { chunk: 2 << 20, ..config() }, "to the window, which is 1048576"),
            (
                Config { gather: Some(2 << 20), ..config() },
                "gather is 2097152 bytes, must be at most",
            ),
            (
                Config { session_memory: 1, ..config() },
                "session_memory is 1 bytes, must be at least",
            ),
            (
                Config { spin_before_sleep: Duration::from_secs(2), ..config() },
                "spin_before_sleep_us is 2000000, must be 0 to 1000000",
            ),
            (
                Config { bulk_delay: Duration::from_secs(2), ..config() },
                "bulk_delay_us is 2000000, must be 0 to 1000000",
            ),
            (Config { latency_path: path, ..config() }, "class.latency.service_level is 16"),
            (Config { throughput_path: path, ..config() }, "class.throughput.service_level is 16"),
            (keepalive(0, 1_500, 10_000), "keepalive.interval_ms is 0, must be 50 to 60000"),
            (keepalive(50, 99, 10_000), "keepalive.timeout_ms is 99, must be 100 to 600000"),
            (keepalive(500, 999, 10_000), "keepalive.timeout_ms is 999, must be at least twice"),
            (keepalive(500, 1_500, 1_499), "keepalive.outage_ms is 1499, must not be below"),
            (rdma(Some(0), None, None), "rdma.port is 0, must be 1 to 255"),
            (rdma(None, Some(256), None), "rdma.gid_index is 256, must be 0 to 255"),
            (
                rdma(None, None, Some(1500)),
                "rdma.mtu is 1500, must be 256, 512, 1024, 2048 or 4096",
            ),
        ] {
            let error = settings.check().unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
        rdma(Some(1), Some(3), Some(1024)).check().unwrap();
        Config { chunk: 4096, gather: Some(0), ..config() }.check().unwrap();
    }
}
