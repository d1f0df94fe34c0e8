//! What copying costs by the size of the memory that it goes through, on one core.

use std::fs;
use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Bytes of both buffers together that are tried.
pub const WORKING_SETS: [usize; 8] =
    [16 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20];
/// Bytes of one copy: as much as the stack hands over at once.
const PIECE: usize = 64 << 10;
/// Bytes between two looks at the clock.
const CLOCK_STEP: usize = 1 << 20;

/// The copy bandwidth of one core within a working set.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CopyRate {
    /// Bytes of both buffers together.
    pub working_set: usize,
    /// The cache that holds them, `L1` and so on, or `memory`; absent if the system does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Gigabits (10^9) per second that were copied.
    pub gbps: f64,
}

/// Copies through each of [`WORKING_SETS`] for `each`.
pub fn measure(each: Duration) -> Vec<CopyRate> {
    let caches = caches();
    let rate = |working_set| CopyRate {
        working_set,
        level: level(&caches, working_set),
        gbps: copy_for(working_set, each),
    };
    WORKING_SETS.into_iter().map(rate).collect()
}

fn copy_for(working_set: usize, time: Duration) -> f64 {
    let half = working_set / 2;
    // Touched before the clock starts; the copies below warm the caches in their first round.
    let from = vec![7u8; half];
    let mut to = vec![1u8; half];
    let piece = half.min(PIECE);
    let rounds = (CLOCK_STEP / half).max(1);
    let mut pass = || {
        for _ in 0..rounds {
            for (from, to) in from.chunks(piece).zip(to.chunks_mut(piece)) {
                black_box(to).copy_from_slice(black_box(from));
            }
        }
        (rounds * half) as u64
    };
    pass();
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed() < time {
        bytes += pass();
    }
    bytes as f64 * 8.0 / start.elapsed().as_secs_f64() / 1e9
}

/// Data caches of the first processor, smallest first: level and bytes.
fn caches() -> Vec<(u8, usize)> {
    let Ok(entries) = fs::read_dir("/sys/devices/system/cpu/cpu0/cache") else { return Vec::new() };
    let cache = |entry: fs::DirEntry| {
        let read = |name: &str| fs::read_to_string(entry.path().join(name)).ok();
        let kind = read("type")?;
        let holds_data = matches!(kind.trim(), "Data" | "Unified");
        let size = read("size")?;
        let kib: usize = size.trim().strip_suffix('K')?.parse().ok()?;
        holds_data.then_some((read("level")?.trim().parse().ok()?, kib << 10))
    };
    let mut caches: Vec<_> = entries.flatten().filter_map(cache).collect();
    caches.sort_unstable();
    caches
}

fn level(caches: &[(u8, usize)], working_set: usize) -> Option<String> {
    if caches.is_empty() {
        return None;
    }
    let holds = caches.iter().find(|(_, size)| *size >= working_set);
    Some(holds.map_or("memory".into(), |(level, _)| format!("L{level}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_in_the_smallest_cache_that_holds_it() {
        let caches = [(1, 32 << 10), (2, 1 << 20)];
        assert_eq!(level(&caches, 16 << 10).as_deref(), Some("L1"));
        assert_eq!(level(&caches, 1 << 20).as_deref(), Some("L2"));
        assert_eq!(level(&caches, 2 << 20).as_deref(), Some("memory"));
        assert_eq!(level(&[], 1), None);
    }

    #[test]
    fn bytes_are_copied() {
        assert!(copy_for(1 << 16, Duration::from_millis(1)) > 0.0);
    }
}
