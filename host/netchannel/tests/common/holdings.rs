//! What this process holds, for tests that look for leaks.

use std::time::{Duration, Instant};

/// What a process holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Holdings {
    pub(crate) descriptors: usize,
    pub(crate) mappings: usize,
    pub(crate) threads: usize,
}

impl Holdings {
    pub(crate) fn now() -> Self {
        let entries = |path| std::fs::read_dir(path).unwrap().count();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        Self {
            descriptors: entries("/proc/self/fd"),
            mappings: maps.lines().filter(|line| line.contains("memfd:")).count(),
            threads: entries("/proc/self/task"),
        }
    }

    /// What it holds once that stands still; `between` lets things happen.
    pub(crate) fn settled(limit: Duration, mut between: impl FnMut()) -> Self {
        let end = Instant::now() + limit;
        let (mut last, mut same) = (Self::now(), 0);
        while same < 5 && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(5));
            between();
            let now = Self::now();
            same = if now == last { same + 1 } else { 0 };
            last = now;
        }
        last
    }

    /// Panics if anything is held that was not `before`.
    pub(crate) fn assert_no_more_than(&self, before: &Self) {
        assert!(
            self.descriptors <= before.descriptors
                && self.mappings <= before.mappings
                && self.threads <= before.threads,
            "leaked: {before:?} before, {self:?} after: {}",
            memory_names()
        );
    }
}

/// The shared memory that is mapped, for who looks for a leak.
fn memory_names() -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let names = maps.lines().filter_map(|line| line.split("memfd:").nth(1));
    names.collect::<Vec<_>>().join(", ")
}
