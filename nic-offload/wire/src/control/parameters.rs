//! What each side says of itself in the handshake.

use core::fmt;
use core::ops::RangeInclusive;

use minicbor::{Decode, Encode};
use netchannel_units::Duration;

use super::error::ControlError;

/// Versions of the protocol that a side speaks: control records and messages of the data path
/// together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VersionRange {
    /// The lowest.
    pub min: u16,
    /// The highest.
    pub max: u16,
}

impl VersionRange {
    /// What this crate speaks.
    pub const CURRENT: Self = Self { min: 1, max: 1 };

    /// The highest version that both speak.
    pub fn highest_common(self, other: Self) -> Option<u16> {
        let version = self.max.min(other.max);
        (version >= self.min.max(other.min)).then_some(version)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max {
            write!(f, "version {}", self.min)
        } else {
            write!(f, "versions {} to {}", self.min, self.max)
        }
    }
}

/// Optional parts of the protocol. A session uses what both sides have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct Features(#[n(0)] pub u64);

impl Features {
    /// Grants windows and takes WRITEs into them (frames Window, Written, Recall, Return).
    pub const BULK: Self = Self(1 << 0);
    /// Channels can be added to and taken from a session (reserved; not in version 1).
    pub const ELASTIC: Self = Self(1 << 1);
    /// Streams outlive their Channels (messages Fence, Fenced, Renew, Renewed).
    pub const FAILOVER: Self = Self(1 << 2);
    /// What this crate implements.
    pub const CURRENT: Self = Self(Self::BULK.0 | Self::FAILOVER.0);

    /// What both have.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether everything in `other` is here.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// One side of a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Parameters {
    /// Whose queue pairs these are: "soft", "rdma". Both sides must say the same.
    #[n(0)]
    pub provider: String,
    /// Name of the device.
    #[n(1)]
    pub device: String,
    /// The connecting side asks for a sign of life this often; the smaller of the two holds.
    #[cbor(n(2), with = "millis")]
    pub keepalive: Duration,
    /// This side takes its peer for dead after so long without a byte from it. At least twice
    /// `keepalive`.
    #[cbor(n(3), with = "millis")]
    pub death_timeout: Duration,
    /// Receive slots per Channel: messages that the peer may have in flight at first.
    #[n(4)]
    pub slots: u32,
    /// Bytes of a slot: the longest message that this side takes.
    #[n(5)]
    pub slot_bytes: u32,
    /// Eager bytes that this side takes on each stream that the peer opens, before it has said so
    /// in an Opened or Credit frame.
    #[n(6)]
    pub initial_credit: u64,
    /// For people: the host's name.
    #[n(7)]
    pub host_name: Option<String>,
    /// For people: the number of the process.
    #[n(8)]
    pub process: Option<u32>,
}

impl Default for Parameters {
    /// The timing of a session, and sizes for small messages; no provider and no device.
    ///
    /// One side asks every 500 ms and the other answers: an idle session wakes the asking process
    /// four times a second and the answering one twice. Three unanswered questions are death, so
    /// that a peer that stops is known as dead within 2 s.
    fn default() -> Self {
        Self {
            provider: String::new(),
            device: String::new(),
            keepalive: Duration::from_millis(500),
            death_timeout: Duration::from_millis(1_500),
            slots: 64,
            slot_bytes: 8_192,
            initial_credit: 65_536,
            host_name: None,
            process: None,
        }
    }
}

/// Bytes of provider and device names.
const NAME: RangeInclusive<u64> = 1..=64;
/// Bytes of a host name (`HOST_NAME_MAX` of Linux is 64, of POSIX 255).
const HOST_NAME: RangeInclusive<u64> = 0..=255;
/// Milliseconds. Shorter ones cost wake-ups and take a busy machine for a dead one.
const KEEPALIVE: RangeInclusive<u64> = 50..=60_000;
/// Milliseconds.
const DEATH_TIMEOUT: RangeInclusive<u64> = 100..=600_000;
/// Two slots are reserved for control and two are the least that data can work with; more than the
/// most would let a peer make this side keep too much.
const SLOTS: RangeInclusive<u64> = 4..=1 << 16;
/// Bytes.
const SLOT_BYTES: RangeInclusive<u64> = 256..=1 << 24;

impl Parameters {
    /// Whether every value is in range.
    ///
    /// # Errors
    /// [`ControlError::OutOfRange`] with the first that is not.
    pub fn check(&self) -> Result<(), ControlError> {
        let host_name = self.host_name.as_deref().unwrap_or("");
        let keepalive = whole_millis(self.keepalive);
        let death = whole_millis(self.death_timeout);
        in_range("length of the provider name", self.provider.len() as u64, NAME)?;
        in_range("length of the device name", self.device.len() as u64, NAME)?;
        in_range("length of the host name", host_name.len() as u64, HOST_NAME)?;
        in_range("keepalive in ms", keepalive, KEEPALIVE)?;
        in_range("death timeout in ms", death, DEATH_TIMEOUT)?;
        in_range("keepalive in ms (at most half the death timeout)", keepalive, 0..=death / 2)?;
        in_range("slots", u64::from(self.slots), SLOTS)?;
        in_range("slot bytes", u64::from(self.slot_bytes), SLOT_BYTES)
    }
}

pub(super) fn in_range(
    field: &'static str,
    value: u64,
    range: RangeInclusive<u64>,
) -> Result<(), ControlError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(ControlError::OutOfRange { field, value, min: *range.start(), max: *range.end() })
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Durations on the wire: whole milliseconds.
mod millis {
    use minicbor::{Decoder, Encoder};
    use netchannel_units::Duration;

    pub(super) fn encode<C, W: minicbor::encode::Write>(
        value: &Duration,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u64(super::whole_millis(*value))?.ok()
    }

    pub(super) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Duration, minicbor::decode::Error> {
        d.u64().map(Duration::from_millis)
    }
}
