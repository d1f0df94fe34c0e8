//! What a shared memory promises, and what is refused as one.
#![cfg(not(loom))]

use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use netchannel_shared_memory::Error;
use netchannel_shared_memory::memory::{OutOfBounds, SharedMemory};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;

fn page() -> usize {
    rustix::param::page_size()
}

#[test]
fn lengths_are_whole_pages() {
    assert_eq!(SharedMemory::create("one", 1).unwrap().len(), page());
    assert_eq!(SharedMemory::create("page", page()).unwrap().len(), page());
    assert_eq!(SharedMemory::create("more", page() + 1).unwrap().len(), 2 * page());
    assert_eq!(SharedMemory::create("none", 0).unwrap_err(), Error::BadLength { len: 0 });
    let len = usize::MAX;
    assert_eq!(SharedMemory::create("all", len).unwrap_err(), Error::BadLength { len });
}

#[test]
fn the_size_is_sealed() {
    let memory = SharedMemory::create("sealed", 2 * page()).unwrap();
    for size in [0, page() as u64, 3 * page() as u64] {
        assert_eq!(rustix::fs::ftruncate(memory.fd(), size), Err(Errno::PERM));
    }
    assert_eq!(rustix::fs::fcntl_add_seals(memory.fd(), SealFlags::WRITE), Err(Errno::PERM));
    let flags = rustix::io::fcntl_getfd(memory.fd()).unwrap();
    assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn two_mappings_are_one_memory() {
    let memory = SharedMemory::create("shared", page()).unwrap();
    let (a, b) = (memory.map().unwrap(), memory.map().unwrap());
    assert_ne!(a.as_ptr(), b.as_ptr());
    a.copy_in(100, b"hello").unwrap();
    let mut bytes = [0xff; 7];
    b.copy_out(99, &mut bytes).unwrap();
    assert_eq!(&bytes, b"\0hello\0");

    b.at::<AtomicU64>(8).unwrap().store(7, Ordering::Relaxed);
    assert_eq!(a.load_u64(8, Ordering::Relaxed), Some(7));
    assert_eq!(a.slice_at::<AtomicU64>(0, 2).unwrap()[1].load(Ordering::Relaxed), 7);
    a.populate().unwrap();
    assert_eq!(b.load_u64(8, Ordering::Relaxed), Some(7), "populating keeps the content");
}

#[test]
fn nothing_outside_is_reached() {
    let memory = SharedMemory::create("bounds", page()).unwrap();
    let (mapping, mapped) = (memory.map().unwrap(), page());
    for (offset, len) in [(mapped, 1), (mapped - 1, 2), (usize::MAX, 1), (usize::MAX, 2)] {
        let expected = Err(OutOfBounds { offset, len, mapped });
        assert_eq!(mapping.copy_in(offset, &vec![0; len]), expected);
        assert_eq!(mapping.copy_out(offset, &mut vec![0; len]), expected);
    }
    assert_eq!(mapping.copy_in(mapped, &[]), Ok(()));
    assert!(mapping.at::<AtomicU32>(mapped - 4).is_some());
    assert!(mapping.at::<AtomicU32>(mapped - 3).is_none());
    assert!(mapping.at::<AtomicU32>(mapped).is_none());
    assert!(mapping.at::<AtomicU64>(4).is_none(), "not aligned");
    assert!(mapping.at::<[AtomicU64; 4]>(mapped - 24).is_none());
    assert!(mapping.slice_at::<AtomicU64>(0, page() / 8).is_some());
    assert!(mapping.slice_at::<AtomicU64>(8, page() / 8).is_none());
    assert!(mapping.slice_at::<AtomicU64>(0, usize::MAX / 4).is_none());
    assert_eq!(mapping.load_u32(2, Ordering::Relaxed), None);
}

#[test]
fn a_read_only_mapping_is_never_written() {
    let memory = SharedMemory::create("read-only", page()).unwrap();
    let mapping = memory.map_read_only().unwrap();
    assert!(!mapping.is_writable());
    assert!(mapping.copy_in(0, &[1]).is_err());
    assert!(mapping.at::<AtomicU32>(0).is_none());
    assert!(mapping.slice_at::<AtomicU32>(0, 1).is_none());
    assert_eq!(mapping.load_u32(0, Ordering::Relaxed), Some(0));
    mapping.populate().unwrap();
}

#[test]
fn a_read_only_descriptor_gives_no_writable_mapping() {
    let memory = SharedMemory::create("source", page()).unwrap();
    let received = SharedMemory::from_fd(memory.read_only_fd().unwrap(), page()).unwrap();
    assert_eq!(received.map().unwrap_err().errno(), Some(Errno::ACCESS));
    memory.map().unwrap().copy_in(0, b"x").unwrap();
    let mut byte = [0];
    received.map_read_only().unwrap().copy_out(0, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

#[test]
fn a_sole_writer_stays_the_only_one() {
    let (memory, writer) = SharedMemory::create_with_sole_writer("sole", page()).unwrap();
    assert_eq!(memory.map().unwrap_err().errno(), Some(Errno::PERM));
    assert_eq!(rustix::io::write(memory.fd(), b"x"), Err(Errno::PERM));
    let received =
        SharedMemory::from_fd(memory.fd().try_clone_to_owned().unwrap(), page()).unwrap();
    assert!(received.map().is_err());
    writer.copy_in(0, b"x").unwrap();
    let mut byte = [0];
    received.map_read_only().unwrap().copy_out(0, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
}

fn memfd(flags: MemfdFlags, len: usize, seals: SealFlags) -> OwnedFd {
    let fd = rustix::fs::memfd_create("peer", flags | MemfdFlags::CLOEXEC).unwrap();
    rustix::fs::ftruncate(&fd, len as u64).unwrap();
    rustix::fs::fcntl_add_seals(&fd, seals).unwrap();
    fd
}

#[test]
fn what_is_not_a_sealed_memfd_is_refused() {
    let sealing = MemfdFlags::ALLOW_SEALING;
    let size = SealFlags::SHRINK | SealFlags::GROW;
    for seals in [SealFlags::SHRINK, size, SealFlags::GROW | SealFlags::SEAL, SealFlags::SEAL] {
        let refused = SharedMemory::from_fd(memfd(sealing, page(), seals), page());
        assert_eq!(refused.unwrap_err(), Error::NotSealed { found: seals.bits() });
    }
    let sealed = size | SealFlags::SEAL;
    SharedMemory::from_fd(memfd(sealing, page(), sealed), page()).unwrap();
    for (found, announced) in [(page(), page() + 1), (2 * page(), page()), (page() - 1, page())] {
        let refused = SharedMemory::from_fd(memfd(sealing, found, sealed), announced);
        assert!(matches!(refused.unwrap_err(), Error::WrongSize { .. }));
    }

    let (pipe, _) = rustix::pipe::pipe().unwrap();
    assert_eq!(SharedMemory::from_fd(pipe, page()).unwrap_err(), Error::NotSharedMemory);
    let zero =
        rustix::fs::open("/dev/zero", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).unwrap();
    assert_eq!(SharedMemory::from_fd(zero, page()).unwrap_err(), Error::NotSharedMemory);
    let mut file = std::fs::File::from(temporary_file());
    file.write_all(&vec![0; page()]).unwrap();
    assert!(SharedMemory::from_fd(file.into(), page()).is_err());
}

fn temporary_file() -> OwnedFd {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    rustix::fs::open(std::env::temp_dir(), flags, Mode::RUSR | Mode::WUSR).unwrap()
}

/// Touching one whose pool is empty kills the process that touches it.
#[test]
fn memfds_of_huge_pages_are_refused() {
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB;
    let Ok(fd) = rustix::fs::memfd_create("huge", flags | MemfdFlags::CLOEXEC) else {
        eprintln!("skipped: this kernel has no memfds of 2 MiB pages, so no peer can send one");
        return;
    };
    let len = 2 << 20;
    rustix::fs::ftruncate(&fd, len as u64).unwrap();
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(fd.as_fd(), seals).unwrap();
    assert_eq!(SharedMemory::from_fd(fd, len).unwrap_err(), Error::NotSharedMemory);
}
