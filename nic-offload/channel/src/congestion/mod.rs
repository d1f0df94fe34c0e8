//! Congestion control: how many bytes may be outstanding and how fast they leave.
//!
//! A new algorithm is a file here that implements [`CongestionControl`], and a line in the list at
//! the end of this file.
//!
//! - [`off`]: none; the default.
//! - [`fixed`]: a constant window.

use core::fmt;
use core::str::FromStr;

use netchannel_units::{Bandwidth, Duration, Timestamp};
use thiserror::Error;

pub mod fixed;
pub mod off;

pub use fixed::Fixed;
pub use off::Off;

/// Bytes that left the queue of the NIC for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckBatch {
    /// When that was seen.
    pub now: Timestamp,
    /// How many.
    pub bytes: u64,
    /// Bytes still outstanding.
    pub outstanding: u64,
    /// Completion time without this side's own queueing, where it could be told.
    pub completion_time: Option<Duration>,
}

/// Bytes that are known to be lost. On a reliable queue pair that is its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LossBatch {
    /// When that was seen.
    pub now: Timestamp,
    /// How many.
    pub bytes: u64,
}

/// One algorithm. Inputs come in batches, because completions and acknowledgements do.
pub trait CongestionControl {
    /// `bytes` bytes leave; `outstanding` includes them.
    fn on_transmit(&mut self, _now: Timestamp, _bytes: u64, _outstanding: u64) {}
    /// Bytes arrived.
    fn on_acks(&mut self, _batch: &AckBatch) {}
    /// Bytes were lost.
    fn on_loss(&mut self, _batch: &LossBatch) {}
    /// The time of [`Self::next_timeout`] has come.
    fn on_timeout(&mut self, _now: Timestamp) {}
    /// When [`Self::on_timeout`] is wanted.
    fn next_timeout(&self) -> Option<Timestamp> {
        None
    }
    /// Most bytes outstanding; `u64::MAX` is no bound.
    fn window(&self) -> u64;
    /// How fast bytes leave; `None` is as fast as the queue takes them.
    fn pacing_rate(&self) -> Option<Bandwidth> {
        None
    }
}

/// A name that is no algorithm.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no congestion control {name:?}: use \"off\" or \"fixed:BYTES\", as in \"fixed:1MiB\"")]
pub struct UnknownController {
    name: String,
}

impl FromStr for Controller {
    type Err = UnknownController;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let unknown = || UnknownController { name: name.to_owned() };
        match name.split_once(':') {
            None if name == "off" => Ok(Self::Off(Off)),
            Some(("fixed", bytes)) => {
                let bytes = parse_bytes(bytes).filter(|b| *b > 0).ok_or_else(unknown)?;
                Ok(Self::Fixed(Fixed::new(bytes)))
            }
            _ => Err(unknown()),
        }
    }
}

/// A number of bytes with an optional binary suffix.
fn parse_bytes(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off(_) => f.write_str("off"),
            Self::Fixed(fixed) => write!(f, "fixed:{}", fixed.window()),
        }
    }
}

impl Default for Controller {
    fn default() -> Self {
        Self::Off(Off)
    }
}

/// Makes the enum and hands each call on to the algorithm; one line per algorithm below.
macro_rules! controllers {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// The algorithm of a Channel, chosen by name at run time.
        ///
        /// ```
        /// use netchannel_channel::{CongestionControl, Controller};
        /// let control: Controller = "fixed:1MiB".parse()?;
        /// assert_eq!(control.window(), 1 << 20);
        /// # Ok::<(), netchannel_channel::congestion::UnknownController>(())
        /// ```
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum Controller {
            $($(#[$doc])* $name($name),)*
        }

        impl CongestionControl for Controller {
            fn on_transmit(&mut self, now: Timestamp, bytes: u64, outstanding: u64) {
                match self { $(Self::$name(c) => c.on_transmit(now, bytes, outstanding),)* }
            }
            fn on_acks(&mut self, batch: &AckBatch) {
                match self { $(Self::$name(c) => c.on_acks(batch),)* }
            }
            fn on_loss(&mut self, batch: &LossBatch) {
                match self { $(Self::$name(c) => c.on_loss(batch),)* }
            }
            fn on_timeout(&mut self, now: Timestamp) {
                match self { $(Self::$name(c) => c.on_timeout(now),)* }
            }
            fn next_timeout(&self) -> Option<Timestamp> {
                match self { $(Self::$name(c) => c.next_timeout(),)* }
            }
            fn window(&self) -> u64 {
                match self { $(Self::$name(c) => c.window(),)* }
            }
            fn pacing_rate(&self) -> Option<Bandwidth> {
                match self { $(Self::$name(c) => c.pacing_rate(),)* }
            }
        }
    };
}

controllers! {
    /// See [`off`].
    Off,
    /// See [`fixed`].
    Fixed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for name in ["off", "fixed:1", "fixed:1048576"] {
            let control: Controller = name.parse().unwrap();
            assert_eq!(control.to_string(), name);
        }
        assert_eq!("fixed:64KiB".parse::<Controller>().unwrap().window(), 65_536);
    }

    #[test]
    fn unknown_names_say_what_there_is() {
        for name in ["", "on", "fixed", "fixed:", "fixed:0", "fixed:1MB", "fixed:-1", "off:1"] {
            let error = name.parse::<Controller>().unwrap_err();
            assert!(error.to_string().contains("fixed:BYTES"), "{error}");
        }
        assert!("fixed:99999999999999999GiB".parse::<Controller>().is_err());
    }
}
