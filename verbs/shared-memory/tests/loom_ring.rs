//! Every interleaving that loom can find, on the ring code that ships:
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release -p netchannel-shared-memory --test loom_ring
//! ```
//! The rings are tiny: one slot already wraps at every descriptor, and two let a batch form.
#![cfg(loom)]

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::Notify;
use loom::thread;
use netchannel_shared_memory::ring::{Consumer, Descriptor, HeapRing, Producer, PushError};

/// Two words with the same content: a slot read while it is written shows.
type Pair = [u64; 2];

type Sender<T> = Producer<T, Arc<HeapRing>>;
type Receiver<T> = Consumer<T, Arc<HeapRing>>;

fn sides<T: Descriptor>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    let ring = HeapRing::new::<T>(capacity).unwrap();
    (Producer::new(Arc::clone(&ring)).unwrap(), Consumer::new(ring).unwrap())
}

#[test]
fn descriptors_arrive_whole_and_in_order() {
    loom::model(|| {
        let (mut producer, mut consumer) = sides::<Pair>(2);
        let sender = thread::spawn(move || {
            producer.push([1; 2]).unwrap();
            producer.publish();
            producer.push([2; 2]).unwrap();
            producer.publish();
        });
        let mut expected = 1;
        while expected <= 2 {
            match consumer.pop().unwrap() {
                Some(pair) => {
                    assert_eq!(pair, [expected; 2]);
                    expected += 1;
                }
                None => thread::yield_now(),
            }
        }
        sender.join().unwrap();
    });
}

#[test]
fn unpublished_descriptors_are_not_seen() {
    loom::model(|| {
        let (mut producer, mut consumer) = sides::<Pair>(2);
        let sender = thread::spawn(move || {
            producer.push([1; 2]).unwrap();
            producer.push([2; 2]).unwrap();
            producer.publish();
        });
        // Both or neither: they are published by one store.
        assert!(matches!(consumer.available(), Ok(0 | 2)));
        sender.join().unwrap();
        assert_eq!(consumer.available(), Ok(2));
    });
}

/// Four descriptors through one or two slots: full, released, and full again.
fn wraps_around(capacity: usize, count: u64) {
    let (mut producer, mut consumer) = sides::<Pair>(capacity);
    let sender = thread::spawn(move || {
        for value in 1..=count {
            while let Err(error) = producer.push([value; 2]) {
                assert_eq!(error, PushError::Full);
                thread::yield_now();
            }
            producer.publish();
        }
    });
    for value in 1..=count {
        let pair = loop {
            match consumer.pop().unwrap() {
                Some(pair) => break pair,
                None => thread::yield_now(),
            }
        };
        assert_eq!(pair, [value; 2]);
        consumer.release();
    }
    sender.join().unwrap();
}

#[test]
fn one_slot_is_used_again_only_after_its_release() {
    loom::model(|| wraps_around(1, 3));
}

#[test]
fn two_slots_wrap_around() {
    loom::model(|| wraps_around(2, 3));
}

struct Payload(UnsafeCell<u64>);

// SAFETY: loom checks at every access that nobody else is at it.
unsafe impl Sync for Payload {}

/// Plain memory that each slot stands for, as payload buffers are: loom reports a write that does not come
/// after the last read. (The slots themselves would not show a release that comes too early, because
/// loom never runs a load after a later store.)
#[test]
fn a_release_hands_over_what_the_slot_stands_for() {
    loom::model(|| {
        let (mut producer, mut consumer) = sides::<u64>(1);
        let payload = Arc::new(Payload(UnsafeCell::new(0)));
        let buffer = Arc::clone(&payload);
        let sender = thread::spawn(move || {
            for value in 1..=2 {
                while producer.free_slots().unwrap() == 0 {
                    thread::yield_now();
                }
                // SAFETY: loom checks that nobody else is at it.
                buffer.0.with_mut(|buffer| unsafe { *buffer = value });
                producer.push(value).unwrap();
                producer.publish();
            }
        });
        for value in 1..=2 {
            while consumer.pop().unwrap().is_none() {
                thread::yield_now();
            }
            // SAFETY: loom checks that nobody writes meanwhile.
            assert_eq!(payload.0.with(|payload| unsafe { *payload }), value);
            consumer.release();
        }
        sender.join().unwrap();
    });
}

// One word suffices here, and keeps the number of interleavings down: what is modelled is the sleeping.

/// Pops one descriptor, asleep while there is none. A lost wake-up is a deadlock, which loom reports.
fn pop_asleep(consumer: &mut Receiver<u64>, wake: &Notify) -> u64 {
    loop {
        if let Some(value) = consumer.pop().unwrap() {
            return value;
        }
        if consumer.prepare_sleep().unwrap() {
            wake.wait();
            consumer.cancel_sleep();
        }
    }
}

/// Pushes one descriptor, asleep while there is no room.
fn push_asleep(producer: &mut Sender<u64>, wake: &Notify, value: u64) {
    while let Err(error) = producer.push(value) {
        assert_eq!(error, PushError::Full);
        if producer.prepare_sleep().unwrap() {
            wake.wait();
            producer.cancel_sleep();
        }
    }
}

#[test]
fn no_wake_up_of_the_consumer_is_lost() {
    loom::model(|| {
        let (mut producer, mut consumer) = sides::<u64>(2);
        let wake = Arc::new(Notify::new());
        let waker = Arc::clone(&wake);
        let sender = thread::spawn(move || {
            for value in 1..=2 {
                producer.push(value).unwrap();
                if producer.flush() {
                    waker.notify();
                }
            }
        });
        for value in 1..=2 {
            assert_eq!(pop_asleep(&mut consumer, &wake), value);
        }
        sender.join().unwrap();
    });
}

#[test]
fn no_wake_up_of_the_producer_is_lost() {
    loom::model(|| {
        let (mut producer, mut consumer) = sides::<u64>(1);
        let wake = Arc::new(Notify::new());
        let waker = Arc::clone(&wake);
        producer.push(1).unwrap();
        producer.publish();
        let receiver = thread::spawn(move || {
            for value in 1..=2 {
                let popped = loop {
                    match consumer.pop().unwrap() {
                        Some(value) => break value,
                        None => thread::yield_now(),
                    }
                };
                assert_eq!(popped, value);
                if consumer.flush() {
                    waker.notify();
                }
            }
        });
        push_asleep(&mut producer, &wake, 2);
        producer.publish();
        receiver.join().unwrap();
    });
}

#[test]
fn both_sides_sleep_and_wake_each_other() {
    // All interleavings would take minutes; those with up to three forced switches of thread take seconds.
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (mut producer, mut consumer) = sides::<u64>(1);
        let (filled, freed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (wake_consumer, wake_producer) = (Arc::clone(&filled), Arc::clone(&freed));
        let sender = thread::spawn(move || {
            for value in 1..=2 {
                push_asleep(&mut producer, &freed, value);
                if producer.flush() {
                    wake_consumer.notify();
                }
            }
        });
        for value in 1..=2 {
            assert_eq!(pop_asleep(&mut consumer, &filled), value);
            if consumer.flush() {
                wake_producer.notify();
            }
        }
        sender.join().unwrap();
    });
}
