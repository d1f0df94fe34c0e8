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

    /// Two different numbers below `n`, which is two or more and below 2^32. By multiplication
    /// (Lemire, "Fast random integer generation in an interval", ACM TOMACS 29(1), 2019; the bias
    /// is below n / 2^32).
    #[inline(always)]
    pub(crate) fn two_below(&mut self, n: usize) -> (usize, usize) {
        // The step to the next state follows the output, so that nobody waits for it.
        let bits = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D);
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let below = |bits: u64, n: usize| ((bits * n as u64) >> 32) as usize;
        let first = below(bits >> 32, n);
        // Another one: skip `first` by shifting the rest.
        let second = below(bits & 0xFFFF_FFFF, n - 1);
        (first, second + usize::from(second >= first))
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
    fn every_pair_comes_equally_often() {
        for seed in [0, 1, u64::MAX] {
            let mut random = Random::new(seed);
            let mut seen = [[0_u32; 4]; 4];
            for _ in 0..120_000 {
                let (first, second) = random.two_below(4);
                seen[first][second] += 1;
            }
            for (i, row) in seen.iter().enumerate() {
                for (j, count) in row.iter().enumerate() {
                    let expected = if i == j { 0..1 } else { 9_600..10_400 };
                    assert!(expected.contains(count), "{seen:?}");
                }
            }
        }
    }
}
