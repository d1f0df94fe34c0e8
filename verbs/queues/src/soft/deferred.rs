//! Deferred execution: what a real NIC does and a synchronous copy hides.
//!
//! Requests that are not inline are executed some polls later, in random steps; their sources are
//! summed when they are posted, and if the sum is another one when they are executed, the caller
//! reused the memory too early: it delivers poison instead and is counted. Completions are held
//! back at random too, and slots of the send queue are free only when a completion was polled.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use super::device::Device;
use super::random::Random;
use crate::work::{LocalSlice, WorkCompletion};

/// What the peer gets instead of bytes that were changed too early.
const POISON: u8 = 0xdb;
/// Requests that one poll executes, at most.
const STEP: u64 = 4;

/// The chance of one queue pair in deferred mode.
#[derive(Clone, Debug)]
pub(super) struct Deferral {
    random: Random,
}

impl Deferral {
    pub(super) fn new(seed: u64) -> Self {
        Self { random: Random::new(seed) }
    }

    /// How many requests to execute in this poll.
    pub(super) fn step(&mut self) -> usize {
        self.random.below(STEP) as usize
    }

    /// How many of `count` completions to hand out in this poll.
    pub(super) fn release(&mut self, count: usize) -> usize {
        self.random.below(count as u64 + 1) as usize
    }
}

/// Hands out the completions that may be seen in this poll, as many as `out` takes; returns how many.
#[inline]
pub(super) fn take_visible<T>(
    waiting: &mut VecDeque<T>,
    deferral: Option<&mut Deferral>,
    out: &mut [WorkCompletion],
    mut completion: impl FnMut(T) -> WorkCompletion,
) -> usize {
    let mut count = waiting.len();
    if let Some(deferral) = deferral {
        count = deferral.release(count);
    }
    let count = count.min(out.len());
    for (place, one) in out.iter_mut().zip(waiting.drain(..count)) {
        *place = completion(one);
    }
    count
}

/// A sum over the bytes of the slices (FNV-1a with words).
///
/// # Safety
/// The slices are readable.
pub(super) unsafe fn checksum(slices: &[LocalSlice]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325u64;
    for slice in slices {
        let start = slice.address as usize as *const u8;
        let length = slice.length as usize;
        let words = length / 8;
        for i in 0..length.div_ceil(8) {
            let mut word = [0u8; 8];
            let n = if i < words { 8 } else { length % 8 };
            // SAFETY: `8 * i + n <= length` bytes, readable by the caller's word; copied out raw, since
            // a caller that breaks the rules may write to them now.
            unsafe { std::ptr::copy_nonoverlapping(start.add(8 * i), word.as_mut_ptr(), n) };
            sum = (sum ^ u64::from_ne_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    sum
}

/// Counts a source that was changed too early; what to deliver instead.
#[cold]
pub(super) fn poison(device: &Device, id: u64, length: usize) -> Box<[u8]> {
    device.violations.fetch_add(1, Ordering::Relaxed);
    tracing::error!(request = id, "its source was changed before it was executed");
    vec![POISON; length].into_boxed_slice()
}
