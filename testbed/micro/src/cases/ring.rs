//! The push and the pop of a descriptor of 32 bytes, in batches with a fence for each, within one
//! thread: instructions count, not the way between caches (`netchannel perf limits` shows that).

use std::hint::black_box;
use std::sync::Arc;

use netchannel_shared_memory::memory::SharedMemory;
use netchannel_shared_memory::ring::{Consumer, MappedRing, Producer, ring_len};

use crate::case::{Bench, Case};

/// See the module.
pub const CASES: &[Case] = &[
    Case { name: "ring/push", batch: ROUND, build: || Box::new(Push(Ends::new())) },
    Case { name: "ring/pop", batch: ROUND, build: || Box::new(Pop(Ends::new())) },
];

const CAPACITY: usize = 1024;
/// Descriptors per fence.
const BATCH: u64 = 32;
/// Descriptors per look at the clock.
const ROUND: u64 = 512;

type Words = [u64; 4];

struct Ends {
    producer: Producer<Words, MappedRing>,
    consumer: Consumer<Words, MappedRing>,
}

impl Ends {
    fn new() -> Self {
        let what = "memory for a ring";
        let len = ring_len::<Words>(CAPACITY).expect(what);
        let memory = SharedMemory::create("netchannel-micro", len).expect(what);
        let ring = || {
            let mapping = memory.map().expect(what);
            mapping.populate().expect(what);
            MappedRing::new::<Words>(Arc::new(mapping), 0, CAPACITY).expect(what)
        };
        let producer = Producer::new(ring()).expect(what);
        Self { producer, consumer: Consumer::new(ring()).expect(what) }
    }

    fn push(&mut self) {
        for value in 1..=ROUND {
            self.producer.push(black_box([value; 4])).expect("the ring has room");
            if value % BATCH == 0 {
                black_box(self.producer.flush());
            }
        }
    }

    fn pop(&mut self) {
        for value in 1..=ROUND {
            black_box(self.consumer.pop().expect("a sound ring").expect("as many as were pushed"));
            if value % BATCH == 0 {
                black_box(self.consumer.flush());
            }
        }
    }
}

struct Push(Ends);

impl Bench for Push {
    fn measured(&mut self) {
        self.0.push();
    }
    fn finish(&mut self) {
        self.0.pop();
    }
}

struct Pop(Ends);

impl Bench for Pop {
    fn prepare(&mut self) {
        self.0.push();
    }
    fn measured(&mut self) {
        self.0.pop();
    }
}
