//! Two threads, real memory ordering, every descriptor checked.
#![cfg(not(loom))]

use std::sync::Arc;
use std::time::Duration;

use netchannel_shared_memory::memory::SharedMemory;
use netchannel_shared_memory::ring::{Consumer, MappedRing, Producer, PushError, ring_len};
use netchannel_shared_memory::wake::Wake;

/// As long as a submission or completion may get.
type Descriptor = [u64; 8];

const COUNT: u64 = 300_000;
/// Nobody sleeps this long unless a wake-up was lost.
const LOST: Option<Duration> = Some(Duration::from_secs(20));

/// Each side maps the memory for itself, as two processes would.
fn sides(capacity: usize) -> (Producer<Descriptor, MappedRing>, Consumer<Descriptor, MappedRing>) {
    let memory =
        SharedMemory::create("threads", ring_len::<Descriptor>(capacity).unwrap()).unwrap();
    let map = || {
        let mapping = Arc::new(memory.map().unwrap());
        MappedRing::new::<Descriptor>(mapping, 0, capacity).unwrap()
    };
    (Producer::new(map()).unwrap(), Consumer::new(map()).unwrap())
}

#[test]
fn polling_sides_lose_and_mix_nothing() {
    let (mut producer, mut consumer) = sides(64);
    let sender = std::thread::spawn(move || {
        for value in 0..COUNT {
            while let Err(error) = producer.push([value; 8]) {
                assert_eq!(error, PushError::Full);
                producer.publish();
                std::thread::yield_now();
            }
            if value % 7 == 0 {
                producer.publish();
            }
        }
        producer.publish();
    });
    let mut expected = 0;
    while expected < COUNT {
        match consumer.pop().unwrap() {
            Some(descriptor) => {
                assert_eq!(descriptor, [expected; 8]);
                expected += 1;
                if expected % 5 == 0 {
                    consumer.release();
                }
            }
            None => {
                consumer.release();
                std::thread::yield_now();
            }
        }
    }
    sender.join().unwrap();
    assert_eq!(consumer.pop(), Ok(None));
}

/// A small ring, so that both sides run into its ends and sleep all the time.
#[test]
fn sleeping_sides_are_always_woken() {
    let (mut producer, mut consumer) = sides(4);
    let (filled, freed) = (Arc::new(Wake::new().unwrap()), Arc::new(Wake::new().unwrap()));
    let (wake_consumer, wake_producer) = (Arc::clone(&filled), Arc::clone(&freed));
    let count = COUNT / 10;
    let sender = std::thread::spawn(move || {
        for value in 0..count {
            while let Err(error) = producer.push([value; 8]) {
                assert_eq!(error, PushError::Full);
                if producer.prepare_sleep().unwrap() {
                    assert!(freed.wait(LOST).unwrap(), "the producer was not woken");
                    freed.drain().unwrap();
                    producer.cancel_sleep();
                }
            }
            if producer.flush() {
                wake_consumer.notify().unwrap();
            }
        }
    });
    let mut expected = 0;
    while expected < count {
        match consumer.pop().unwrap() {
            Some(descriptor) => {
                assert_eq!(descriptor, [expected; 8]);
                expected += 1;
                if consumer.flush() {
                    wake_producer.notify().unwrap();
                }
            }
            None => {
                if consumer.prepare_sleep().unwrap() {
                    assert!(filled.wait(LOST).unwrap(), "the consumer was not woken");
                    filled.drain().unwrap();
                    consumer.cancel_sleep();
                }
            }
        }
    }
    sender.join().unwrap();
}
