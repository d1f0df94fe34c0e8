//! A seeded generator.

/// Marsaglia's xorshift with Vigna's multiplier (xorshift64*: "An experimental exploration of
/// Marsaglia's xorshift generators, scrambled", ACM TOMS 42(4), 2016).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        // Zero is the one state without a successor.
        Self(mix(seed).max(1))
    }

    /// 32 random bits: the better half.
    pub(crate) fn next(&mut self) -> u32 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) as u32
    }

    /// A number below `n`, by multiplication (Lemire, "Fast random integer generation in an
    /// interval", ACM TOMACS 29(1), 2019; the bias is below n / 2^32).
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.next()) * n as u64) >> 32) as usize
    }
}

/// Steele's finaliser of SplitMix64: every bit of the result depends on every bit of `value`.
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_comes_equally_often() {
        for seed in [0, 1, u64::MAX] {
            let mut random = Random::new(seed);
            let mut seen = [0_u32; 7];
            for _ in 0..70_000 {
                seen[random.below(7)] += 1;
            }
            assert!(seen.iter().all(|n| (9_500..10_500).contains(n)), "{seen:?}");
        }
    }
}
