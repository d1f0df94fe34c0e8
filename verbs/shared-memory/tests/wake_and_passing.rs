//! Wake-ups, and messages with descriptors: what peers do wrong must neither block nor leak.
#![cfg(not(loom))]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use netchannel_shared_memory::Error;
use netchannel_shared_memory::passing::{
    MAX_DESCRIPTORS, receive_with_fds, receive_with_fds_within, send_with_fds, send_with_fds_within,
};
use netchannel_shared_memory::wake::{SocketWake, Wake};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

const SHORT: Duration = Duration::from_millis(20);

/// Blocking ones, as a careless caller would make them.
fn sockets(kind: SocketType) -> (OwnedFd, OwnedFd) {
    rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

#[test]
fn a_wake_up_is_sticky_and_taken_once() {
    let wake = Wake::new().unwrap();
    assert!(!wake.drain().unwrap());
    assert!(!wake.wait(Some(SHORT)).unwrap());
    wake.notify().unwrap();
    wake.try_clone().unwrap().notify().unwrap();
    assert!(wake.wait(None).unwrap());
    assert!(wake.drain().unwrap());
    assert!(!wake.drain().unwrap());
}

#[test]
fn a_full_eventfd_is_a_signalled_one() {
    let wake = Wake::new().unwrap();
    rustix::io::write(wake.fd(), &(u64::MAX - 1).to_ne_bytes()).unwrap();
    wake.notify().unwrap();
    assert!(wake.drain().unwrap());
}

#[test]
fn only_eventfds_are_taken_for_one() {
    let flags = rustix::event::EventfdFlags::empty();
    let blocking = rustix::event::eventfd(0, flags).unwrap();
    assert!(!Wake::from_fd(blocking).unwrap().drain().unwrap(), "made non-blocking");
    let (pipe, _) = rustix::pipe::pipe().unwrap();
    assert_eq!(Wake::from_fd(pipe).unwrap_err(), Error::NotEventfd);
    assert!(SocketWake::from_fd(Wake::new().unwrap().fd().try_clone_to_owned().unwrap()).is_err());
    assert!(SocketWake::from_fd(sockets(SocketType::DGRAM).0).is_err());
}

#[test]
fn a_peer_that_does_not_read_its_wake_ups_does_not_block() {
    let (here, there) = SocketWake::pair().unwrap();
    rustix::io::ioctl_fionbio(there.fd(), false).unwrap();
    rustix::io::ioctl_fionbio(here.fd(), false).unwrap();
    // Far more than a socket buffers.
    for _ in 0..20_000 {
        here.notify().unwrap();
    }
    assert!(there.wait(None).unwrap());
    while there.drain().unwrap() {}
    assert!(!there.wait(Some(SHORT)).unwrap());

    drop(there);
    assert_eq!(here.notify().unwrap_err().errno(), Some(Errno::PIPE));
    assert!(here.wait(None).unwrap(), "its end shows");
    assert_eq!(here.drain().unwrap_err().errno(), Some(Errno::CONNRESET));
}

#[test]
fn descriptors_travel_with_their_bytes() {
    for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
        let (here, there) = sockets(kind);
        let wake = Wake::new().unwrap();
        send_with_fds(here.as_fd(), b"two", &[wake.fd(), wake.fd()]).unwrap();
        let mut buffer = [0; 16];
        let (len, fds) = receive_with_fds(there.as_fd(), &mut buffer, 2).unwrap();
        assert_eq!((&buffer[..len], fds.len()), (&b"two"[..], 2));
        for fd in fds {
            let flags = rustix::io::fcntl_getfd(&fd).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            Wake::from_fd(fd).unwrap().notify().unwrap();
            assert!(wake.drain().unwrap());
        }
        send_with_fds(here.as_fd(), b"none", &[]).unwrap();
        let (len, fds) = receive_with_fds(there.as_fd(), &mut buffer, 0).unwrap();
        assert_eq!((&buffer[..len], fds.len()), (&b"none"[..], 0));
        drop(here);
        assert_eq!(receive_with_fds(there.as_fd(), &mut buffer, 0).unwrap().0, 0, "the end");
    }
}

#[test]
fn the_most_descriptors_a_message_can_carry_arrive() {
    let (here, there) = sockets(SocketType::STREAM);
    let wake = Wake::new().unwrap();
    let fds: Vec<BorrowedFd<'_>> = vec![wake.fd(); MAX_DESCRIPTORS + 1];
    let too_many = send_with_fds(here.as_fd(), b"x", &fds).unwrap_err();
    assert!(matches!(too_many, Error::TooManyDescriptors { .. }));
    send_with_fds(here.as_fd(), b"x", &fds[1..]).unwrap();
    let (_, received) = receive_with_fds(there.as_fd(), &mut [0], MAX_DESCRIPTORS).unwrap();
    assert_eq!(received.len(), MAX_DESCRIPTORS);
}

#[test]
fn more_than_agreed_is_an_error() {
    let (here, there) = sockets(SocketType::SEQPACKET);
    let wake = Wake::new().unwrap();
    send_with_fds(here.as_fd(), b"x", &[wake.fd(); 3]).unwrap();
    assert_eq!(
        receive_with_fds(there.as_fd(), &mut [0; 8], 2).unwrap_err(),
        Error::TooManyDescriptors { found: 3, limit: 2 }
    );
    send_with_fds(here.as_fd(), &[7; 100], &[wake.fd()]).unwrap();
    assert_eq!(
        receive_with_fds(there.as_fd(), &mut [0; 8], 2).unwrap_err(),
        Error::Truncated { what: "bytes" }
    );
    assert_eq!(send_with_fds(here.as_fd(), &[], &[]).unwrap_err(), Error::EmptyMessage);
}

#[test]
fn a_silent_or_stuck_peer_costs_a_bounded_time() {
    for kind in [SocketType::STREAM, SocketType::SEQPACKET, SocketType::DGRAM] {
        let (here, there) = sockets(kind);
        let started = Instant::now();
        let silent = receive_with_fds_within(there.as_fd(), &mut [0; 8], 0, SHORT).unwrap_err();
        assert!(matches!(silent, Error::TimedOut { .. }));
        assert!(started.elapsed() >= SHORT);
        // Until its buffer is full.
        let stuck = (0..10_000)
            .find_map(|_| send_with_fds_within(here.as_fd(), &[7; 4096], &[], SHORT).err())
            .expect("a socket does not buffer 40 MB");
        assert!(matches!(stuck, Error::TimedOut { .. }), "{stuck}");
        let at_once = send_with_fds_within(here.as_fd(), &[7; 4096], &[], Duration::ZERO);
        assert!(matches!(at_once.unwrap_err(), Error::TimedOut { .. }));
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_peer_that_is_gone_is_an_error_and_no_signal() {
    let (here, there) = sockets(SocketType::STREAM);
    drop(there);
    assert_eq!(send_with_fds(here.as_fd(), b"x", &[]).unwrap_err().errno(), Some(Errno::PIPE));
}
