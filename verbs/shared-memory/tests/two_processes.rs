//! Memory, a ring and wake-ups between two processes that share nothing else.
//!
//! The only test of its binary: it counts the descriptors of the process, and it starts the binary again
//! as the other process, which gets one socket, its standard input.
#![cfg(not(loom))]

use std::error::Error;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use netchannel_shared_memory::memory::SharedMemory;
use netchannel_shared_memory::passing::{receive_with_fds_within, send_with_fds_within};
use netchannel_shared_memory::ring::{Consumer, MappedRing, Producer, PushError, ring_len};
use netchannel_shared_memory::wake::{SocketWake, Wake};
use rustix::fs::SealFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

type Descriptor = [u64; 4];

/// Tells the second process that it is the second.
const ROLE: &str = "NETCHANNEL_TEST_SECOND_PROCESS";
const CAPACITY: usize = 16;
const COUNT: u64 = 5_000;
/// Starting a process on a busy machine may take long; only a hang takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

#[test]
fn two_processes_share_memory_rings_and_wake_ups() {
    if std::env::var_os(ROLE).is_some() {
        second_process().unwrap();
        return;
    }
    let before = open_descriptors();
    first_process().unwrap();
    assert_eq!(open_descriptors(), before, "descriptors are left over");
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn first_process() -> Result<(), Box<dyn Error>> {
    let (here, there) = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--exact", "two_processes_share_memory_rings_and_wake_ups", "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::from(there))
        .stdout(Stdio::null())
        .spawn()?;

    let ring_memory = SharedMemory::create("ring", ring_len::<Descriptor>(CAPACITY).unwrap())?;
    let source = SharedMemory::create("source", 4096)?;
    source.map()?.copy_in(0, b"payload")?;
    let (sole, _writer) = SharedMemory::create_with_sole_writer("sole", 4096)?;
    let filled = Wake::new()?;
    let (freed, freed_there) = SocketWake::pair()?;
    let read_only = source.read_only_fd()?;
    let fds = [ring_memory.fd(), read_only.as_fd(), sole.fd(), filled.fd(), freed_there.fd()];
    send_with_fds_within(here.as_fd(), b"descriptors", &fds, PATIENCE)?;
    drop(freed_there);

    let mapping = Arc::new(ring_memory.map()?);
    let mut producer = Producer::new(MappedRing::new::<Descriptor>(mapping, 0, CAPACITY)?)?;
    for value in 0..COUNT {
        while let Err(error) = producer.push([value; 4]) {
            assert_eq!(error, PushError::Full);
            if producer.flush() {
                filled.notify()?;
            }
            if producer.prepare_sleep()? {
                assert!(freed.wait(Some(PATIENCE))?, "the producer was not woken");
                freed.drain()?;
                producer.cancel_sleep();
            }
        }
    }
    if producer.flush() {
        filled.notify()?;
    }
    assert!(child.wait()?.success());
    Ok(())
}

fn second_process() -> Result<(), Box<dyn Error>> {
    let before = open_descriptors();
    let socket = std::io::stdin();
    let mut message = [0; 64];
    let (len, fds) = receive_with_fds_within(socket.as_fd(), &mut message, 5, PATIENCE)?;
    assert_eq!(&message[..len], b"descriptors");
    assert_eq!(open_descriptors(), before + 5);
    let [ring, source, sole, filled, freed] =
        <[OwnedFd; 5]>::try_from(fds).map_err(|fds| format!("{} descriptors", fds.len()))?;

    let ring = SharedMemory::from_fd(ring, ring_len::<Descriptor>(CAPACITY).unwrap())?;
    check_seals(&ring);
    check_read_only(&SharedMemory::from_fd(source, 4096)?)?;
    let sole = SharedMemory::from_fd(sole, 4096)?;
    assert_eq!(sole.map().unwrap_err().errno(), Some(Errno::PERM));
    // Not even by opening it again, whoever we are.
    let again = sole.read_only_fd()?;
    assert!(SharedMemory::from_fd(again, 4096)?.map().is_err());

    consume(&ring, &Wake::from_fd(filled)?, &SocketWake::from_fd(freed)?)?;
    drop((ring, sole));
    assert_eq!(open_descriptors(), before, "descriptors are left over in the second process");
    Ok(())
}

fn check_seals(memory: &SharedMemory) {
    assert_eq!(rustix::fs::ftruncate(memory.fd(), 0), Err(Errno::PERM));
    assert_eq!(rustix::fs::ftruncate(memory.fd(), 1 << 20), Err(Errno::PERM));
    let more = SealFlags::FUTURE_WRITE;
    assert_eq!(rustix::fs::fcntl_add_seals(memory.fd(), more), Err(Errno::PERM));
}

fn check_read_only(source: &SharedMemory) -> Result<(), Box<dyn Error>> {
    assert_eq!(source.map().unwrap_err().errno(), Some(Errno::ACCESS));
    assert_eq!(rustix::io::write(source.fd(), b"x"), Err(Errno::BADF));
    let mut bytes = [0; 7];
    source.map_read_only()?.copy_out(0, &mut bytes)?;
    assert_eq!(&bytes, b"payload");
    Ok(())
}

fn consume(ring: &SharedMemory, filled: &Wake, freed: &SocketWake) -> Result<(), Box<dyn Error>> {
    let mapping = Arc::new(ring.map()?);
    let mut consumer =
        Consumer::<Descriptor, _>::new(MappedRing::new::<Descriptor>(mapping, 0, CAPACITY)?)?;
    let mut expected = 0;
    while expected < COUNT {
        while let Some(descriptor) = consumer.pop()? {
            assert_eq!(descriptor, [expected; 4]);
            expected += 1;
        }
        if consumer.flush() {
            freed.notify()?;
        }
        if expected < COUNT && consumer.prepare_sleep()? {
            assert!(filled.wait(Some(PATIENCE))?, "the consumer was not woken");
            filled.drain()?;
            consumer.cancel_sleep();
        }
    }
    Ok(())
}
