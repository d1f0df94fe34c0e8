//! The units that cross module borders, as types. No dependencies, no I/O.
//!
//! - [`time`]: points in time and clocks; nothing below the engine reads a clock itself.
//! - [`rate`]: bandwidth and the time that bytes take.
//! - [`stream`]: offsets in a stream, byte ranges, sets of ranges.
//! - [`class`]: traffic classes. [`claim`]: a stream's class and weight.
//! - [`channel`]: names of Channels and of their groups.
#![forbid(unsafe_code)]

pub mod channel;
pub mod claim;
pub mod class;
pub mod rate;
pub mod stream;
pub mod time;

pub use channel::{ChannelId, GroupId};
pub use claim::{Claim, Weight};
pub use class::Class;
pub use rate::Bandwidth;
pub use stream::{ByteRange, RangeSet, StreamOffset};
pub use time::{Duration, Timestamp};
