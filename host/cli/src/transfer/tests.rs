//! Both sides over a socket pair, with good and bad bytes between them.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use indicatif::ProgressBar;

use super::destination::Destination;
use super::format::{GiveUp, MAX_BLOCK, SAME, header};
use super::receiver::{ReceiveFailure, Received, receive};
use super::sender::{SendFailure, send};
use crate::problem::Problem;

fn receive_to(path: &Path, mut stream: UnixStream) -> Result<Received, ReceiveFailure> {
    receive(&mut stream, Destination::open(path).unwrap(), |_| ProgressBar::hidden())
}

/// What becomes of `bytes` on the stream, and of the directory where they should go.
fn receive_bytes(bytes: &[u8]) -> (Result<Received, ReceiveFailure>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let (mut near, far) = UnixStream::pair().unwrap();
    let result = std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive_to(&path, far));
        // The receiver may end early.
        let _ = near.write_all(bytes);
        drop(near);
        receiver.join().unwrap()
    });
    let names = std::fs::read_dir(folder.path()).unwrap();
    (result, names.map(|name| name.unwrap().file_name().into_string().unwrap()).collect())
}

#[test]
fn a_file_arrives_whole() {
    for len in [0, 1, MAX_BLOCK, 3 * MAX_BLOCK + 17] {
        let content: Vec<u8> = (0..len).map(|i| (i * 7 + i / 251) as u8).collect();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let (mut near, far) = UnixStream::pair().unwrap();
        let source = std::io::Cursor::new(content.clone());
        let (sent, received) = std::thread::scope(|scope| {
            let receiver = scope.spawn(|| receive_to(&path, far).unwrap());
            let bar = ProgressBar::hidden();
            let sent = send(&mut near, source, Some(len as u64), &bar).unwrap();
            (sent, receiver.join().unwrap())
        });
        assert_eq!((sent.bytes, sent.checksum), (received.bytes, received.checksum));
        assert_eq!(sent.checksum, blake3::hash(&content));
        assert_eq!(std::fs::read(&path).unwrap(), content);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}

#[test]
fn changed_bytes_are_found_and_kept_apart() {
    let mut bytes = header(Some(5)).to_vec();
    bytes.extend(5u32.to_le_bytes());
    bytes.extend(b"hellO");
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(blake3::hash(b"hello").as_bytes());
    let (result, names) = receive_bytes(&bytes);
    assert!(matches!(result.unwrap_err().problem, Problem::Mismatch { .. }));
    assert_eq!(names, ["file.partial"]);
}

#[test]
fn a_stream_that_ends_early_leaves_what_arrived() {
    let mut bytes = header(None).to_vec();
    bytes.extend(5u32.to_le_bytes());
    bytes.extend(b"hel");
    for len in [0, 10, 16, 18, 23] {
        let (result, names) = receive_bytes(&bytes[..len]);
        let failure = result.unwrap_err();
        let Problem::Broken { bytes, kept, .. } = &failure.problem else { panic!("{failure:?}") };
        assert_eq!(*bytes, len.saturating_sub(20) as u64);
        assert!(kept.contains("file.partial"));
        assert_eq!(names, ["file.partial"]);
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let mut huge = header(None).to_vec();
    huge.extend(u32::MAX.to_le_bytes());
    let mut newer = header(None).to_vec();
    newer[7] = 9;
    for bytes in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), huge, newer] {
        let failure = receive_bytes(&bytes).0.unwrap_err();
        assert!(matches!(failure.problem, Problem::Foreign(_)), "{failure:?}");
        assert_eq!(failure.tell, Some(GiveUp::Foreign));
    }
}

#[test]
fn a_full_file_system_is_told() {
    let (mut near, far) = UnixStream::pair().unwrap();
    let source = std::io::repeat(7).take(10 << 20);
    std::thread::scope(|scope| {
        let receiver = scope.spawn(|| receive_to(Path::new("/dev/full"), far));
        let sent = send(&mut near, source, None, &ProgressBar::hidden());
        assert!(matches!(sent, Err(SendFailure::Stream(Problem::Broken { .. }))), "{sent:?}");
        let failure = receiver.join().unwrap().unwrap_err();
        assert_eq!(failure.tell, Some(GiveUp::Full));
        assert!(failure.problem.to_string().contains("free some space"), "{failure:?}");
    });
}

#[test]
fn a_source_that_fails_is_no_broken_stream() {
    struct Bad;
    impl Read for Bad {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("bad sector"))
        }
    }
    let (mut near, _far) = UnixStream::pair().unwrap();
    let sent = send(&mut near, Bad, None, &ProgressBar::hidden());
    assert!(matches!(sent, Err(SendFailure::Source(_))), "{sent:?}");
}

#[test]
fn a_verdict_of_a_stranger_is_none() {
    for (verdict, foreign) in [(SAME, false), (77, true)] {
        let (mut near, mut far) = UnixStream::pair().unwrap();
        far.write_all(&[verdict]).unwrap();
        let sent = send(&mut near, std::io::empty(), Some(0), &ProgressBar::hidden());
        assert_eq!(matches!(sent, Err(SendFailure::Stream(Problem::Foreign(_)))), foreign);
    }
}
