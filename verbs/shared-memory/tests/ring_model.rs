//! The ring against a queue that is obviously right, whatever the order of calls.
#![cfg(not(loom))]

use std::collections::VecDeque;
use std::sync::Arc;

use netchannel_shared_memory::ring::{Consumer, HeapRing, Producer, PushError};
use proptest::prelude::*;

type Descriptor = [u64; 3];

#[derive(Debug, Clone, Copy)]
enum Operation {
    Push,
    Publish,
    ProducerFlush,
    ProducerSleep,
    FreeSlots,
    Pop,
    Release,
    ConsumerFlush,
    ConsumerSleep,
    Available,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => Just(Operation::Push),
        8 => Just(Operation::Pop),
        2 => Just(Operation::Publish),
        2 => Just(Operation::Release),
        2 => Just(Operation::ProducerFlush),
        2 => Just(Operation::ConsumerFlush),
        1 => Just(Operation::ProducerSleep),
        1 => Just(Operation::ConsumerSleep),
        1 => Just(Operation::FreeSlots),
        1 => Just(Operation::Available),
    ]
}

/// What each side must see.
#[derive(Default)]
struct Oracle {
    next: u64,
    unpublished: VecDeque<Descriptor>,
    published: VecDeque<Descriptor>,
    unreleased: usize,
    consumer_asleep: bool,
    producer_asleep: bool,
}

impl Oracle {
    fn in_use(&self) -> usize {
        self.unpublished.len() + self.published.len() + self.unreleased
    }

    fn publish(&mut self) {
        self.published.append(&mut self.unpublished);
    }
}

fn check(capacity: usize, operations: &[Operation]) {
    let ring = HeapRing::new::<Descriptor>(capacity).unwrap();
    let mut producer = Producer::<Descriptor, _>::new(Arc::clone(&ring)).unwrap();
    let mut consumer = Consumer::<Descriptor, _>::new(ring).unwrap();
    let mut oracle = Oracle::default();
    for operation in operations {
        match operation {
            Operation::Push => {
                let value = [oracle.next, !oracle.next, oracle.next << 7];
                if oracle.in_use() == capacity {
                    assert_eq!(producer.push(value), Err(PushError::Full));
                } else {
                    assert_eq!(producer.push(value), Ok(()));
                    oracle.unpublished.push_back(value);
                    oracle.next += 1;
                }
            }
            Operation::Publish => {
                producer.publish();
                oracle.publish();
            }
            Operation::ProducerFlush => {
                assert_eq!(producer.flush(), std::mem::take(&mut oracle.consumer_asleep));
                oracle.publish();
            }
            Operation::ProducerSleep => {
                oracle.producer_asleep = oracle.in_use() == capacity;
                assert_eq!(producer.prepare_sleep(), Ok(oracle.producer_asleep));
            }
            Operation::FreeSlots => {
                assert_eq!(producer.free_slots(), Ok(capacity - oracle.in_use()));
            }
            Operation::Pop => {
                let expected = oracle.published.pop_front();
                assert_eq!(consumer.pop(), Ok(expected));
                oracle.unreleased += usize::from(expected.is_some());
            }
            Operation::Release => {
                consumer.release();
                oracle.unreleased = 0;
            }
            Operation::ConsumerFlush => {
                assert_eq!(consumer.flush(), std::mem::take(&mut oracle.producer_asleep));
                oracle.unreleased = 0;
            }
            Operation::ConsumerSleep => {
                oracle.consumer_asleep = oracle.published.is_empty();
                assert_eq!(consumer.prepare_sleep(), Ok(oracle.consumer_asleep));
            }
            Operation::Available => {
                assert_eq!(consumer.available(), Ok(oracle.published.len()));
            }
        }
        assert_eq!(producer.unpublished(), oracle.unpublished.len());
        assert_eq!(consumer.unreleased(), oracle.unreleased);
    }
}

proptest! {
    #[test]
    fn behaves_like_a_queue(
        exponent in 0u32..5,
        operations in prop::collection::vec(operation(), 0..400),
    ) {
        check(1 << exponent, &operations);
    }
}
