//! How a Channel is chosen for the bytes of a stream.

use core::error::Error;
use core::fmt;
use core::str::FromStr;

/// Which Channel takes the bytes of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// A stream stays on one Channel, by its key and the seed, and waits for it: what one queue
    /// pair per connection does. A baseline.
    StaticHash,
    /// Usable Channels in turn. A baseline.
    RoundRobin,
    /// Of two Channels with room taken at random, the one that would complete the bytes first
    /// (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10),
    /// 2001). A Channel has room while its outstanding bytes take less than the target delay.
    #[default]
    LeastDelay,
}

impl Policy {
    /// Every policy.
    pub const ALL: [Self; 3] = [Self::StaticHash, Self::RoundRobin, Self::LeastDelay];
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::StaticHash => "hash",
            Self::RoundRobin => "round-robin",
            Self::LeastDelay => "least-delay",
        })
    }
}

/// A name that is no policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPolicy {
    name: String,
}

impl fmt::Display for UnknownPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no policy {:?}: use \"hash\", \"round-robin\" or \"least-delay\"", self.name)
    }
}

impl Error for UnknownPolicy {}

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|policy| policy.to_string() == name);
        found.ok_or_else(|| UnknownPolicy { name: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let error = "fastest".parse::<Policy>().unwrap_err();
        assert!(error.to_string().contains("least-delay"), "{error}");
    }
}
