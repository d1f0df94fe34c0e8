//! Which of several Channels with room takes the next bytes.

use crate::policy::Policy;
use crate::random::Random;
use crate::view::ChannelView;

/// Every so many choices by delay one goes to the Channels in turn instead. A rate that was
/// measured in bad times is measured again though faster Channels would do.
const PROBE_EVERY: u32 = 1_024;

/// The memory of a policy between choices.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    policy: Policy,
    random: Random,
    /// Round robin: the position chosen last.
    last: usize,
    choices: u32,
    probes: usize,
}

impl Choice {
    pub(crate) fn new(policy: Policy, seed: u64) -> Self {
        Self { policy, random: Random::new(seed), last: usize::MAX, choices: 0, probes: 0 }
    }

    /// One of `open`, positions in `views` in rising order and at least one, for `bytes` bytes.
    #[inline]
    pub(crate) fn choose(&mut self, views: &[ChannelView], open: &[u16], bytes: u64) -> usize {
        let position = match self.policy {
            Policy::StaticHash => 0,
            Policy::RoundRobin => {
                let last = self.last;
                let next = open.iter().position(|i| last == usize::MAX || usize::from(*i) > last);
                next.unwrap_or(0)
            }
            Policy::LeastDelay => self.least_delay(views, open, bytes),
        };
        let chosen = usize::from(open[position]);
        self.last = chosen;
        chosen
    }

    #[inline]
    fn least_delay(&mut self, views: &[ChannelView], open: &[u16], bytes: u64) -> usize {
        if open.len() == 1 {
            return 0;
        }
        self.choices = self.choices.wrapping_add(1);
        if self.choices.is_multiple_of(PROBE_EVERY) {
            self.probes = self.probes.wrapping_add(1);
            return self.probes % open.len();
        }
        let first = self.random.below(open.len());
        // Another one: skip `first` by shifting the rest.
        let second = self.random.below(open.len() - 1);
        let second = second + usize::from(second >= first);
        let (a, b) = (&views[usize::from(open[first])], &views[usize::from(open[second])]);
        if earlier(b, a, bytes) { second } else { first }
    }
}

/// Whether `bytes` bytes would complete earlier on `a` than on `b`: (outstanding + bytes) / rate,
/// multiplied out. Between a known and an unknown rate the unknown one is taken for equal, so it
/// gets its share and becomes known.
#[inline]
fn earlier(a: &ChannelView, b: &ChannelView, bytes: u64) -> bool {
    let rates = (a.rate.bits_per_second(), b.rate.bits_per_second());
    let (rate_a, rate_b) = if rates.0 == 0 || rates.1 == 0 { (1, 1) } else { rates };
    let work = |view: &ChannelView| u128::from(view.outstanding.saturating_add(bytes));
    work(a) * u128::from(rate_b) < work(b) * u128::from(rate_a)
}
