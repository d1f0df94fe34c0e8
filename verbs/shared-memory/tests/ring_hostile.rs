//! A peer that writes rubbish into the ring: every call answers with an error or with sane figures, none
//! panics, and no byte outside the ring is touched.
#![cfg(not(loom))]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use netchannel_shared_memory::memory::{Mapping, SharedMemory};
use netchannel_shared_memory::ring::{
    BadRing, Consumer, Corrupt, MappedRing, Producer, PushError, Storage, ring_len,
};
use proptest::prelude::*;

type Descriptor = [u64; 2];

const CAPACITY: usize = 8;
/// The ring lies in the middle of the memory, between two stretches of this byte.
const CANARY: u8 = 0xa5;
const OFFSET: usize = 1024;

fn memory_with_ring() -> (Arc<Mapping>, MappedRing) {
    let memory = SharedMemory::create("hostile", 4096).unwrap();
    let mapping = Arc::new(memory.map().unwrap());
    mapping.copy_in(0, &vec![CANARY; mapping.len()]).unwrap();
    let len = ring_len::<Descriptor>(CAPACITY).unwrap();
    mapping.copy_in(OFFSET, &vec![0; len]).unwrap();
    let ring = MappedRing::new::<Descriptor>(Arc::clone(&mapping), OFFSET, CAPACITY).unwrap();
    (mapping, ring)
}

fn assert_canaries(mapping: &Mapping) {
    let mut bytes = vec![0; mapping.len()];
    mapping.copy_out(0, &mut bytes).unwrap();
    let end = OFFSET + ring_len::<Descriptor>(CAPACITY).unwrap();
    assert!(bytes[..OFFSET].iter().chain(&bytes[end..]).all(|byte| *byte == CANARY));
}

fn use_producer(producer: &mut Producer<Descriptor, MappedRing>) {
    for value in 0..CAPACITY as u64 + 1 {
        if let Err(error) = producer.push([value; 2]) {
            assert!(matches!(error, PushError::Full | PushError::Corrupt(Corrupt)));
        }
    }
    // Asked once: the memory changes from one look to the next.
    if let Ok(free) = producer.free_slots() {
        assert!(free <= CAPACITY);
    }
    assert!(producer.unpublished() <= CAPACITY);
    let _ = producer.prepare_sleep();
    let _ = producer.flush();
}

fn use_consumer(consumer: &mut Consumer<Descriptor, MappedRing>) {
    // Slots that were not released are not believed to be filled again: it ends.
    let mut popped = 0;
    while let Ok(Some(_)) = consumer.pop() {
        popped += 1;
        assert!(popped <= CAPACITY);
    }
    let _ = consumer.available().map(|available| assert!(available <= CAPACITY));
    assert!(consumer.unreleased() <= CAPACITY);
    let _ = consumer.prepare_sleep();
    let _ = consumer.flush();
}

/// Indices near the real ones find more than random ones, which are nearly always out of range.
fn index() -> impl Strategy<Value = u64> {
    prop_oneof![0u64..64, any::<u64>(), (0u64..64).prop_map(|behind| u64::MAX - behind)]
}

proptest! {
    #[test]
    fn rubbish_harms_nobody_outside(
        writes in prop::collection::vec((0usize..4, index()), 1..60),
    ) {
        let (mapping, ring) = memory_with_ring();
        let mut producer = Producer::<Descriptor, _>::new(ring.clone()).unwrap();
        let mut consumer = Consumer::<Descriptor, _>::new(ring.clone()).unwrap();
        for (place, value) in writes {
            let control = ring.control();
            match place {
                0 => control.tail.0.store(value, Ordering::Relaxed),
                1 => control.head.0.store(value, Ordering::Relaxed),
                2 => control.consumer_asleep.0.0.store(value as u32, Ordering::Relaxed),
                _ => control.producer_asleep.0.0.store(value as u32, Ordering::Relaxed),
            }
            use_producer(&mut producer);
            use_consumer(&mut consumer);
            assert_canaries(&mapping);
        }
    }
}

#[test]
fn impossible_indices_are_reported() {
    let (_, ring) = memory_with_ring();
    let mut producer = Producer::<Descriptor, _>::new(ring.clone()).unwrap();
    let mut consumer = Consumer::<Descriptor, _>::new(ring.clone()).unwrap();
    let control = ring.control();

    control.tail.0.store(CAPACITY as u64 + 1, Ordering::Relaxed);
    assert_eq!(consumer.pop(), Err(Corrupt), "more descriptors than slots");
    control.tail.0.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(consumer.pop(), Err(Corrupt), "behind the start");
    control.tail.0.store(5, Ordering::Relaxed);
    assert_eq!(consumer.available(), Ok(5));
    control.tail.0.store(4, Ordering::Relaxed);
    assert_eq!(consumer.available(), Err(Corrupt), "went back");
    assert_eq!(consumer.prepare_sleep(), Err(Corrupt));

    control.head.0.store(1, Ordering::Relaxed);
    assert_eq!(producer.free_slots(), Err(Corrupt), "released what was never pushed");
    control.head.0.store(0, Ordering::Relaxed);
    for value in 0..CAPACITY as u64 {
        producer.push([value; 2]).unwrap();
    }
    control.head.0.store(1, Ordering::Relaxed);
    assert_eq!(producer.free_slots(), Err(Corrupt), "released what was not published");
    producer.publish();
    control.head.0.store(3, Ordering::Relaxed);
    assert_eq!(producer.free_slots(), Ok(3));
    control.head.0.store(2, Ordering::Relaxed);
    assert_eq!(producer.free_slots(), Err(Corrupt), "went back");
    assert_eq!(producer.prepare_sleep(), Err(Corrupt));
    assert_eq!(control.producer_asleep.0.0.load(Ordering::Relaxed), 0);
}

#[test]
fn a_peer_that_scribbles_all_the_time_harms_nobody_outside() {
    let (mapping, ring) = memory_with_ring();
    let stop = Arc::new(AtomicBool::new(false));
    let vandal = std::thread::spawn({
        let (ring, stop) = (ring.clone(), Arc::clone(&stop));
        move || {
            // xorshift64: any rubbish will do.
            let mut state = 0x9e37_79b9_7f4a_7c15u64;
            while !stop.load(Ordering::Relaxed) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let control = ring.control();
                control.tail.0.store(state % 16, Ordering::Relaxed);
                control.head.0.store(state % 13, Ordering::Relaxed);
                control.consumer_asleep.0.0.store(state as u32, Ordering::Relaxed);
                ring.words()[state as usize % ring.words().len()].store(state, Ordering::Relaxed);
            }
        }
    });
    for _ in 0..20_000 {
        use_producer(&mut Producer::new(ring.clone()).unwrap());
        use_consumer(&mut Consumer::new(ring.clone()).unwrap());
    }
    stop.store(true, Ordering::Relaxed);
    vandal.join().unwrap();
    assert_canaries(&mapping);
}

#[test]
fn rings_that_do_not_fit_are_refused() {
    let (mapping, _) = memory_with_ring();
    let place = |offset, capacity| {
        MappedRing::new::<Descriptor>(Arc::clone(&mapping), offset, capacity).map(|_| ())
    };
    assert_eq!(place(0, 3), Err(BadRing::Capacity { capacity: 3 }));
    assert_eq!(place(0, 0), Err(BadRing::Capacity { capacity: 0 }));
    assert!(matches!(place(64, 8), Err(BadRing::Place { offset: 64, .. })), "not aligned");
    assert!(matches!(place(0, 256), Err(BadRing::Place { .. })), "too long");
    assert!(matches!(place(usize::MAX - 127, 8), Err(BadRing::Place { .. })), "wraps around");

    let memory = SharedMemory::create("read-only", 4096).unwrap();
    let read_only = Arc::new(memory.map_read_only().unwrap());
    assert!(matches!(MappedRing::new::<Descriptor>(read_only, 0, 8), Err(BadRing::Place { .. })));
    // The other type needs more words per slot than there are.
    let (_, ring) = memory_with_ring();
    assert!(matches!(Producer::<[u64; 3], _>::new(ring), Err(BadRing::Capacity { .. })));
}
