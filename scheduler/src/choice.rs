//! Which of several Channels with room takes the next bytes.

use core::hint::select_unpredictable;

use netchannel_units::Duration;

use crate::policy::Policy;
use crate::random::Random;
use crate::room::{Lane, Wish};
use crate::view::ChannelView;

/// Every so many choices by delay one goes to the Channels in turn instead. A rate that was
/// measured in bad times is measured again though faster Channels would do.
const PROBE_EVERY: u32 = 1_024;

/// Bytes that look for company: a Channel on which a message is due anyway takes them without a
/// message of their own. More bytes than this are worth one.
const COMPANY_BYTES: u64 = 4_096;

/// Every so many choices company does not count, so that the completion times of all Channels are
/// known where little is sent.
const ALONE_EVERY: u32 = 64;

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

    /// The position of a Channel for some of the bytes and how many, if one takes any.
    #[inline(always)]
    pub(crate) fn choose(&mut self, lanes: &[Lane], wish: Wish<'_>) -> Option<(usize, u64)> {
        if let [only] = lanes {
            return taken(0, wish.fits(only));
        }
        if self.policy == Policy::LeastDelay && lanes.len() > 1 {
            self.choices = self.choices.wrapping_add(1);
            let alone = wish.bytes > COMPANY_BYTES || self.choices.is_multiple_of(ALONE_EVERY);
            // Most often all have room, and then it is not necessary to look at all.
            if alone
                && !self.choices.is_multiple_of(PROBE_EVERY)
                && let Some(found) = self.better_of_two(lanes, wish)
            {
                return Some(found);
            }
        }
        self.choose_at_length(lanes, wish)
    }

    /// The same where there is more to consider.
    #[inline(never)]
    fn choose_at_length(&mut self, lanes: &[Lane], wish: Wish<'_>) -> Option<(usize, u64)> {
        match self.policy {
            Policy::StaticHash => {
                lanes.iter().enumerate().find_map(|(i, lane)| taken(i, wish.fits(lane)))
            }
            Policy::RoundRobin => {
                let next = self.next.min(lanes.len());
                let mut positions = (next..lanes.len()).chain(0..next);
                let found = positions.find_map(|i| taken(i, wish.fits(&lanes[i])))?;
                self.next = found.0 + 1;
                Some(found)
            }
            Policy::LeastDelay => {
                if wish.bytes <= COMPANY_BYTES
                    && lanes.len() > 1
                    && !self.choices.is_multiple_of(ALONE_EVERY)
                {
                    let found = company(lanes, wish);
                    let found = found.or_else(|| self.better_of_two(lanes, wish));
                    if found.is_some() {
                        return found;
                    }
                }
                self.choose_among_open(lanes, wish)
            }
        }
    }

    /// Of two Channels taken at random the one that would complete the bytes first, if both have
    /// room.
    #[inline(always)]
    fn better_of_two(&mut self, lanes: &[Lane], wish: Wish<'_>) -> Option<(usize, u64)> {
        let (first, second) = self.random.two_below(lanes.len());
        let (a, b) = (&lanes[first], &lanes[second]);
        let (bytes_a, bytes_b) = (wish.fits(a), wish.fits(b));
        if bytes_a == 0 || bytes_b == 0 {
            return None;
        }
        // Without a branch: nobody can predict it.
        let second_first = earlier(&b.view, &a.view, wish.bytes);
        Some(select_unpredictable(second_first, (second, bytes_b), (first, bytes_a)))
    }

    /// As [`Self::choose`], by looking at every Channel.
    fn choose_among_open(&mut self, lanes: &[Lane], wish: Wish<'_>) -> Option<(usize, u64)> {
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
                let view = |position: usize| &lanes[usize::from(self.open[position])].view;
                if earlier(view(second), view(first), wish.bytes) { second } else { first }
            }
        };
        let chosen = usize::from(self.open[position]);
        taken(chosen, wish.fits(&lanes[chosen]))
    }
}

/// A choice, if it takes anything.
fn taken(position: usize, bytes: u64) -> Option<(usize, u64)> {
    (bytes > 0).then_some((position, bytes))
}

/// A Channel on which a message is due anyway, if it is hardly slower than the fastest and has
/// little to do.
#[inline]
fn company(lanes: &[Lane], wish: Wish<'_>) -> Option<(usize, u64)> {
    let mut fastest = Duration::MAX;
    let mut found = None;
    for (position, lane) in lanes.iter().enumerate() {
        let view = &lane.view;
        if view.completion_time > Duration::ZERO {
            fastest = fastest.min(view.completion_time);
        }
        if view.message_due && found.is_none() && view.outstanding <= COMPANY_BYTES {
            found = taken(position, wish.fits(lane));
        }
    }
    found.filter(|(position, _)| lanes[*position].view.completion_time / 2 <= fastest)
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
