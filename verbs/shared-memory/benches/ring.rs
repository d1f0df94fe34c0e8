//! What a descriptor costs: `cargo bench -p netchannel-shared-memory`.
//!
//! The push or pop of a 32- and a 64-byte descriptor, in batches of 32, within one thread (so that only
//! instructions count, not the way between caches), and between two. Each figure is the median of 15 rounds,
//! and the fastest: shared machines make single rounds slow, never fast.

#[cfg(not(loom))]
fn main() {
    // `cargo test --benches` runs this too: then a short round only shows that it works.
    let rounds = if std::env::args().any(|argument| argument == "--bench") { 15 } else { 1 };
    bench::descriptors::<4>(rounds);
    bench::descriptors::<8>(rounds);
    bench::two_threads(rounds);
}

#[cfg(loom)]
fn main() {}

#[cfg(not(loom))]
mod bench {
    use std::hint::black_box;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use netchannel_shared_memory::memory::SharedMemory;
    use netchannel_shared_memory::ring::{Consumer, Descriptor, MappedRing, Producer, ring_len};

    const CAPACITY: usize = 1024;
    const BATCH: u64 = 32;
    const BATCHES: u64 = 20_000;

    fn sides<T: Descriptor>() -> (Producer<T, MappedRing>, Consumer<T, MappedRing>) {
        let memory = SharedMemory::create("bench", ring_len::<T>(CAPACITY).unwrap()).unwrap();
        let map = || {
            let mapping = memory.map().unwrap();
            mapping.populate().unwrap();
            MappedRing::new::<T>(Arc::new(mapping), 0, CAPACITY).unwrap()
        };
        (Producer::new(map()).unwrap(), Consumer::new(map()).unwrap())
    }

    pub(super) fn descriptors<const WORDS: usize>(rounds: usize) {
        for fenced in [false, true] {
            let mut figures = (Vec::new(), Vec::new());
            for _ in 0..rounds {
                let (push, pop) = round::<WORDS>(fenced);
                figures.0.push(push);
                figures.1.push(pop);
            }
            let how = if fenced { "a fence per batch" } else { "no fence" };
            report(&format!("push {} B, {how}", WORDS * 8), figures.0, BATCH * BATCHES);
            report(&format!("pop  {} B, {how}", WORDS * 8), figures.1, BATCH * BATCHES);
        }
    }

    fn round<const WORDS: usize>(fenced: bool) -> (Duration, Duration) {
        let (mut producer, mut consumer) = sides::<[u64; WORDS]>();
        let (mut pushing, mut popping) = (Duration::ZERO, Duration::ZERO);
        // Time is read once per 16 batches: reading it costs as much as several pushes.
        let many = 16 * BATCH;
        for _ in 0..BATCHES / 16 {
            let start = Instant::now();
            for value in 1..=many {
                producer.push(black_box([value; WORDS])).unwrap();
                if value % BATCH == 0 {
                    if fenced {
                        black_box(producer.flush());
                    } else {
                        producer.publish();
                    }
                }
            }
            let middle = Instant::now();
            for value in 1..=many {
                black_box(consumer.pop().unwrap().unwrap());
                if value % BATCH == 0 {
                    if fenced {
                        black_box(consumer.flush());
                    } else {
                        consumer.release();
                    }
                }
            }
            pushing += middle - start;
            popping += middle.elapsed();
        }
        (pushing, popping)
    }

    /// Yields rather than spins: on a machine with fewer idle cores than two, spinning measures its scheduler.
    pub(super) fn two_threads(rounds: usize) {
        let count = BATCH * BATCHES;
        let figures = (0..rounds).map(|_| {
            let (mut producer, mut consumer) = sides::<[u64; 8]>();
            let start = Instant::now();
            std::thread::scope(|scope| {
                scope.spawn(move || {
                    for value in 0..count {
                        while producer.push([value; 8]).is_err() {
                            producer.publish();
                            std::thread::yield_now();
                        }
                        if value % BATCH == BATCH - 1 {
                            producer.publish();
                        }
                    }
                });
                let mut popped = 0;
                while popped < count {
                    match consumer.pop().unwrap() {
                        Some(value) => {
                            black_box(value);
                            popped += 1;
                            if popped % BATCH == 0 {
                                consumer.release();
                            }
                        }
                        None => {
                            consumer.release();
                            std::thread::yield_now();
                        }
                    }
                }
            });
            start.elapsed()
        });
        report("through, 64 B, two threads", figures.collect(), count);
    }

    fn report(what: &str, mut figures: Vec<Duration>, count: u64) {
        figures.sort();
        let ns = |figure: Duration| figure.as_nanos() as f64 / count as f64;
        let (median, fastest) = (ns(figures[figures.len() / 2]), ns(figures[0]));
        println!("{what:<34} {median:7.2} ns (fastest {fastest:.2})");
    }
}
