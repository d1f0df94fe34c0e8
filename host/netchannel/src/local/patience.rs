//! How long a thread polls before it sleeps.
//!
//! A wake-up by a completion event costs several system calls and a switch of tasks. With a NIC that
//! answers in microseconds a short fixed time of polling catches what will come soon. Where a
//! processor plays the NIC a round trip takes longer than any such time, and the wake-up as much
//! again: there each thread polls for as long as its waits have been worth it lately, as host kernels
//! do for guests that halt (`halt_poll_ns` of KVM).
//!
//! Nor may anybody spin for ever there: the processor that it keeps busy is one that would move the bytes
//! that it waits for. Yielding does not help for long, because the scheduler shares time out evenly among
//! all who always want it, the kernel's threads included. So after a while even who is to spin sleeps.

use std::cell::Cell;
use std::time::Duration;

use netchannel_verbs::DeviceAttributes;

use crate::config::{Config, Idle};

/// The most that is worth it, as KVM has it by default.
const LONGEST: Duration = Duration::from_micros(200);
/// What even who is to spin takes for long: ten round trips of an emulated guest.
const LONG: Duration = Duration::from_millis(1);
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

/// How long threads poll before they sleep, at least and at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    shortest: Duration,
    longest: Duration,
}

impl Bounds {
    /// For threads that use this device; `None` if they never sleep.
    pub(crate) fn new(device: &DeviceAttributes, config: &Config) -> Option<Self> {
        let shortest = config.spin_before_sleep;
        let (shortest, longest) = match (config.idle, device.is_played_by_kernel()) {
            (Idle::Spin, false) => return None,
            (Idle::Spin, true) => (LONG, LONG),
            (Idle::Sleep, false) => (shortest, shortest),
            (Idle::Sleep, true) => (shortest, shortest.max(LONGEST)),
        };
        Some(Self { shortest, longest })
    }

    /// For who has no experience to go by.
    pub(crate) fn shortest(self) -> Duration {
        self.shortest
    }
}

impl Patience {
    /// How long this thread polls before it sleeps.
    pub(crate) fn of_thread(bounds: Bounds) -> Duration {
        let spin = PATIENCE.get().map_or(bounds.longest, |patience| patience.spin);
        spin.clamp(bounds.shortest, bounds.longest)
    }

    /// Polling was in vain: the thread slept, and waited for `waited` in all.
    pub(crate) fn on_slept(bounds: Bounds, waited: Duration) {
        let before = PATIENCE.get().unwrap_or(Self { spin: bounds.longest, near: 0 });
        PATIENCE.set(Some(before.after_sleep(bounds, waited)));
    }

    fn after_sleep(self, bounds: Bounds, waited: Duration) -> Self {
        let near = if waited <= NEAR { self.near + 1 } else { self.near };
        if near >= PROBE_EVERY {
            return Self { spin: bounds.longest, near: 0 };
        }
        Self { spin: (self.spin / 2).max(bounds.shortest), near }
    }
}

#[cfg(test)]
mod tests {
    use netchannel_verbs::{Mover, soft};

    use super::*;

    const SHORT: Duration = Duration::from_micros(10);

    fn after(waits: &[Duration]) -> Duration {
        let start = Patience { spin: LONGEST, near: 0 };
        let bounds = Bounds { shortest: SHORT, longest: LONGEST };
        waits.iter().fold(start, |p, waited| p.after_sleep(bounds, *waited)).spin
    }

    #[test]
    fn nobody_spins_for_ever_where_the_kernel_plays_the_nic() {
        let bounds = |mover, idle| {
            let device = DeviceAttributes { mover, ..soft::attributes() };
            Bounds::new(&device, &Config { idle, spin_before_sleep: SHORT, ..Config::default() })
                .map(|bounds| (bounds.shortest, bounds.longest))
        };
        assert_eq!(bounds(Mover::Nic, Idle::Spin), None);
        assert_eq!(bounds(Mover::Kernel, Idle::Spin), Some((LONG, LONG)));
        assert_eq!(bounds(Mover::Nic, Idle::Sleep), Some((SHORT, SHORT)));
        assert_eq!(bounds(Mover::Kernel, Idle::Sleep), Some((SHORT, LONGEST)));
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
