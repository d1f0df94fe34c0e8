//! How long a thread polls before it sleeps.
//!
//! A wake-up by a completion event costs several system calls and a switch of tasks. With a NIC that
//! answers in microseconds a short fixed time of polling catches what will come soon. Where a
//! processor plays the NIC a round trip takes longer than any such time, and the wake-up as much
//! again: there each thread polls for as long as its waits have been worth it lately, as host kernels
//! do for guests that halt (`halt_poll_ns` of KVM).

use std::cell::Cell;
use std::time::Duration;

use netchannel_verbs::DeviceAttributes;

use crate::config::{Config, Idle};

/// The most that is worth it, as KVM has it by default.
const LONGEST: Duration = Duration::from_micros(200);
/// A wait of at most this could have been shorter without sleep.
const NEAR: Duration = Duration::from_millis(1);
/// After so many of those the thread polls for long again, to see.
const PROBE_EVERY: u32 = 16;

/// A thread's experience.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patience {
    spin: Duration,
    near: u32,
}

thread_local! {
    static PATIENCE: Cell<Option<Patience>> = const { Cell::new(None) };
}

/// How long threads that use this device may poll at most.
pub(crate) fn longest_spin(device: &DeviceAttributes, config: &Config) -> Duration {
    match device.is_played_by_kernel() {
        true => config.spin_before_sleep.max(LONGEST),
        false => config.spin_before_sleep,
    }
}

impl Patience {
    /// How long this thread polls before it sleeps; `None` if it never sleeps.
    pub(crate) fn of_thread(config: &Config, longest: Duration) -> Option<Duration> {
        let spin = PATIENCE.get().map_or(longest, |patience| patience.spin);
        (config.idle == Idle::Sleep).then(|| spin.clamp(config.spin_before_sleep, longest))
    }

    /// Polling was in vain: the thread slept, and waited for `waited` in all.
    pub(crate) fn on_slept(config: &Config, longest: Duration, waited: Duration) {
        let before = PATIENCE.get().unwrap_or(Self { spin: longest, near: 0 });
        let after = before.after_sleep(config.spin_before_sleep, longest, waited);
        PATIENCE.set(Some(after));
    }

    fn after_sleep(self, shortest: Duration, longest: Duration, waited: Duration) -> Self {
        let near = if waited <= NEAR { self.near + 1 } else { self.near };
        if near >= PROBE_EVERY {
            return Self { spin: longest, near: 0 };
        }
        Self { spin: (self.spin / 2).max(shortest), near }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_micros(10);

    fn after(waits: &[Duration]) -> Duration {
        let start = Patience { spin: LONGEST, near: 0 };
        waits.iter().fold(start, |p, waited| p.after_sleep(SHORT, LONGEST, *waited)).spin
    }

    #[test]
    fn long_waits_make_it_short() {
        assert_eq!(after(&[Duration::from_secs(1)]), LONGEST / 2);
        assert_eq!(after(&[Duration::from_secs(1); 100]), SHORT);
    }

    #[test]
    fn near_ones_are_tried_again() {
        let near = Duration::from_micros(400);
        assert_eq!(after(&[near; PROBE_EVERY as usize - 1]), SHORT);
        assert_eq!(after(&[near; PROBE_EVERY as usize]), LONGEST);
    }
}
