//! What a stream asks of the stack: its class, and its part of what the class gets.

use core::fmt;
use core::str::FromStr;

use crate::class::Class;

/// A stream's part of what its class gets: streams that always have bytes share in proportion to their
/// weights.
///
/// ```
/// use netchannel_units::Weight;
/// assert_eq!(Weight::new(3).map(Weight::get), Some(3));
/// assert_eq!(Weight::new(17), None);
/// assert_eq!(Weight::default().get(), 1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u8);

impl Weight {
    /// The largest: beyond that the others would wait for many chunks.
    pub const MAX: u8 = 16;

    /// From 1 to [`MAX`](Self::MAX).
    pub const fn new(weight: u8) -> Option<Self> {
        match weight {
            1..=Self::MAX => Some(Self(weight)),
            _ => None,
        }
    }

    /// How much.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// As it stands on the wire: one less, so that zero is the usual weight.
    pub const fn to_wire(self) -> u8 {
        self.0 - 1
    }

    /// From the wire, if there is such a weight.
    pub const fn from_wire(value: u8) -> Option<Self> {
        if value < Self::MAX { Self::new(value + 1) } else { None }
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(1)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Weight {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let weight = text.trim().parse().ok().and_then(Self::new);
        weight.ok_or_else(|| format!("`{text}` is no weight; weights are from 1 to {}", Self::MAX))
    }
}

/// A class and a weight in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Claim {
    /// What kind of bytes.
    pub class: Class,
    /// How much of them beside others.
    pub weight: Weight,
}

impl From<Class> for Claim {
    /// With the usual weight.
    fn from(class: Class) -> Self {
        Self { class, weight: Weight::default() }
    }
}
