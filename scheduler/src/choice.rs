//! Which of several Channels with room takes the next bytes.

use core::hint::select_unpredictable;
use core::num::NonZeroU64;

use crate::policy::Policy;
use crate::random::Random;
use crate::room::{Lane, Wish};

/// Every so many choices by delay one goes to the Channels in turn instead. A rate that was
/// measured in bad times is measured again though faster Channels would do.
const PROBE_EVERY: u32 = 1_024;

/// Bytes that look for company: a Channel on which a message is due anyway takes them without a
/// message of their own. More bytes than this are worth one.
const COMPANY_BYTES: u64 = 4_096;

/// Every so many choices company does not count, so that the completion times of all Channels are
/// known where little is sent.
const ALONE_EVERY: u32 = 64;

/// A Channel, and how many bytes it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    /// Its position.
    pub(crate) lane: usize,
    pub(crate) bytes: NonZeroU64,
}

impl Fit {
    /// If it takes any.
    #[inline(always)]
    pub(crate) fn new(lane: usize, bytes: u64) -> Option<Self> {
        Some(Self { lane, bytes: NonZeroU64::new(bytes)? })
    }
}

/// The memory of a policy between choices.
#[derive(Clone, Debug)]
pub(crate) struct Choice {
    policy: Policy,
    random: Random,
    /// Round robin: one past the position chosen last.
    next: usize,
    choices: u32,
    probes: usize,
    /// Positions of the Channels with room; kept to spare an allocation per choice.
    open: Vec<u16>,
}

impl Choice {
    pub(crate) fn new(policy: Policy, seed: u64) -> Self {
        let open = Vec::with_capacity(64);
        Self { policy, random: Random::new(seed), next: 0, choices: 0, probes: 0, open }
    }

    /// A Channel for some of the bytes, if one takes any.
    #[inline(always)]
    pub(crate) fn choose(&mut self, lanes: &[Lane], wish: Wish) -> Option<Fit> {
        if self.policy == Policy::LeastDelay && lanes.len() > 1 {
            self.choices = self.choices.wrapping_add(1);
            // Most often all have room, and then it is not necessary to look at all.
            if wish.bytes > COMPANY_BYTES
                && !self.choices.is_multiple_of(ALONE_EVERY)
                && let Some(found) = self.better_of_two(lanes, wish)
            {
                return Some(found);
            }
        } else if let [only] = lanes {
            return Fit::new(0, wish.fits(only));
        }
        self.choose_at_length(lanes, wish)
    }

    /// The same where there is more to consider.
    #[inline(never)]
    fn choose_at_length(&mut self, lanes: &[Lane], wish: Wish) -> Option<Fit> {
        match self.policy {
            Policy::StaticHash => {
                lanes.iter().enumerate().find_map(|(i, lane)| Fit::new(i, wish.fits(lane)))
            }
            Policy::RoundRobin => {
                let next = self.next.min(lanes.len());
                let mut positions = (next..lanes.len()).chain(0..next);
                let found = positions.find_map(|i| Fit::new(i, wish.fits(&lanes[i])))?;
                self.next = found.lane + 1;
                Some(found)
            }
            Policy::LeastDelay => {
                let alone = self.choices.is_multiple_of(ALONE_EVERY);
                let found = match wish.bytes <= COMPANY_BYTES && !alone {
                    true => company(lanes, wish).or_else(|| self.better_of_two(lanes, wish)),
                    false => None,
                };
                found.or_else(|| self.choose_among_open(lanes, wish))
            }
        }
    }

    /// Of two Channels taken at random the one that would complete the bytes first, if both have
    /// room.
    #[inline(always)]
    fn better_of_two(&mut self, lanes: &[Lane], wish: Wish) -> Option<Fit> {
        let (first, second) = self.random.two_below(lanes.len());
        let (a, b) = (&lanes[first], &lanes[second]);
        let fits = [Fit::new(first, wish.fits(a))?, Fit::new(second, wish.fits(b))?];
        // Without a branch: nobody can predict it.
        Some(select_unpredictable(earlier(b, a, wish.bytes), fits[1], fits[0]))
    }

    /// As [`Self::choose`], by looking at every Channel.
    fn choose_among_open(&mut self, lanes: &[Lane], wish: Wish) -> Option<Fit> {
        self.open.clear();
        let open = (0..lanes.len()).filter(|i| wish.fits(&lanes[*i]) > 0).map(|i| i as u16);
        self.open.extend(open);
        let position = match self.open.len() {
            0 => return None,
            1 => 0,
            count if self.choices.is_multiple_of(PROBE_EVERY) => {
                self.probes = self.probes.wrapping_add(1);
                self.probes % count
            }
            count => {
                let (first, second) = self.random.two_below(count);
                let lane = |position: usize| &lanes[usize::from(self.open[position])];
                if earlier(lane(second), lane(first), wish.bytes) { second } else { first }
            }
        };
        let chosen = usize::from(self.open[position]);
        Fit::new(chosen, wish.fits(&lanes[chosen]))
    }
}

/// A Channel on which a message is due anyway, if it is hardly slower than the fastest and has
/// little to do.
#[inline]
fn company(lanes: &[Lane], wish: Wish) -> Option<Fit> {
    let mut fastest = u64::MAX;
    let mut found = None;
    for (position, lane) in lanes.iter().enumerate() {
        if lane.completion_time > 0 {
            fastest = fastest.min(lane.completion_time);
        }
        if lane.message_due && found.is_none() && lane.outstanding <= COMPANY_BYTES {
            found = Fit::new(position, wish.fits(lane));
        }
    }
    found.filter(|fit: &Fit| lanes[fit.lane].completion_time / 2 <= fastest)
}

/// Whether `bytes` bytes would complete earlier on `a` than on `b`: (outstanding + bytes) / rate,
/// multiplied out. Between a known and an unknown rate the unknown one is taken for equal, so it
/// gets its share and becomes known.
#[inline(always)]
fn earlier(a: &Lane, b: &Lane, bytes: u64) -> bool {
    let work = |lane: &Lane| u128::from(lane.outstanding.saturating_add(bytes));
    let (rate_a, rate_b) = (a.rate.bits_per_second(), b.rate.bits_per_second());
    if rate_a == 0 || rate_b == 0 {
        return work(a) < work(b);
    }
    work(a) * u128::from(rate_b) < work(b) * u128::from(rate_a)
}
