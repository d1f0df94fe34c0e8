//! A case: something that is done many times, in batches of which a part is measured.

use std::time::{Duration, Instant};

/// One run of a case. A batch is `prepare`, `measured`, `finish`; only the middle one counts.
pub trait Bench {
    /// Puts things in place.
    fn prepare(&mut self) {}
    /// What is measured: a batch of operations.
    fn measured(&mut self);
    /// Clears up.
    fn finish(&mut self) {}
}

impl<F: FnMut()> Bench for F {
    fn measured(&mut self) {
        self();
    }
}

/// A named case.
pub struct Case {
    /// Name, `layer/what`.
    pub name: &'static str,
    /// Operations per batch.
    pub batch: u64,
    /// Makes a run.
    pub build: fn() -> Box<dyn Bench>,
}

/// Batches before anything counts: memory is touched, caches are warm.
const WARM_UP: u64 = 64;

impl Case {
    /// A run that is warm.
    pub fn warm(&self) -> Box<dyn Bench> {
        let mut bench = (self.build)();
        (0..WARM_UP).for_each(|_| {
            one_batch(&mut *bench);
        });
        bench
    }

    /// Time of `operations` operations, as far as it was measured. The clock is read once per batch.
    pub fn time(&self, bench: &mut dyn Bench, operations: u64) -> Duration {
        let batches = operations.div_ceil(self.batch);
        let mut total = Duration::ZERO;
        for _ in 0..batches {
            bench.prepare();
            let start = Instant::now();
            measured_region(bench);
            total += start.elapsed();
            bench.finish();
        }
        let done = batches * self.batch;
        Duration::from_nanos((total.as_nanos() * u128::from(operations) / u128::from(done)) as u64)
    }
}

/// One batch.
pub fn one_batch(bench: &mut dyn Bench) {
    bench.prepare();
    measured_region(bench);
    bench.finish();
}

/// What callgrind looks at: its name is on [`crate::instructions`]'s command line.
#[inline(never)]
pub fn measured_region(bench: &mut dyn Bench) {
    bench.measured();
}
