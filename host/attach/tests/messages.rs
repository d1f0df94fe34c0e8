//! Messages survive the way there and back; what must not be said is refused; the fuzz corpus.

use std::path::PathBuf;

use netchannel_attach::fuzzing::{check_attach, input};
use netchannel_attach::hearing::State;
use netchannel_attach::hello::{Reception, with_head};
use netchannel_attach::{
    Answer, AttachError, Event, Failure, FailureKind, Heard, Hearing, Hello, MAX_PACKET, Operation,
    Request, VERSION, samples,
};
use proptest::prelude::*;

#[test]
fn every_message_reads_as_it_was_written() {
    for request in samples::requests() {
        assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
    for event in samples::events() {
        assert_eq!(Event::decode(&event.encode()), Ok(event));
    }
    for reception in samples::receptions() {
        assert_eq!(Reception::decode(&reception.encode()), Ok(reception));
    }
    let hello = samples::hello();
    assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
}

#[test]
fn hello_comes_first_and_once() {
    let (hello, request) = (samples::hello(), samples::requests().remove(0));
    let mut hearing = Hearing::default();
    assert_eq!(hearing.on_packet(&hello.encode(), 0), Ok(Heard::Hello(hello.clone())));
    assert_eq!(hearing.on_packet(&request.encode(), 0), Ok(Heard::Request(request.clone())));
    assert!(hearing.on_packet(&hello.encode(), 0).is_err());
    assert_eq!(hearing.state(), State::Over);
    assert!(hearing.on_packet(&request.encode(), 0).is_err(), "over is over");
    let mut hearing = Hearing::default();
    assert!(matches!(hearing.on_packet(&request.encode(), 0), Err(AttachError::Magic { .. })));
}

#[test]
fn other_versions_are_told_apart_from_other_programs() {
    let theirs = VERSION + 1;
    let error = Hello::decode(&with_head(theirs, &"of another shape")).unwrap_err();
    assert_eq!(error, AttachError::Version { theirs, ours: VERSION });
    assert!(error.to_string().contains("one release"), "{error}");
    let error = Hello::decode(b"GET / HTTP/1.1").unwrap_err();
    assert!(error.to_string().contains("does not speak"), "{error}");
    assert!(matches!(Hello::decode(b""), Err(AttachError::Magic { .. })));
}

#[test]
fn applications_send_no_descriptors_and_no_endless_packets() {
    let hello = samples::hello().encode();
    let error = Hearing::default().on_packet(&hello, 1).unwrap_err();
    assert!(matches!(error, AttachError::Descriptors { found: 1, .. }));
    let error = Request::decode(&vec![0; MAX_PACKET + 1]).unwrap_err();
    assert!(matches!(error, AttachError::TooLong { .. }));
    let mut trailing = samples::requests()[0].encode();
    trailing.push(0);
    assert!(matches!(Request::decode(&trailing), Err(AttachError::Malformed { .. })));
    let long = with_head(VERSION, &Hello { name: "x".repeat(1_000) });
    assert!(matches!(Hello::decode(&long), Err(AttachError::OutOfRange { .. })));
}

#[test]
fn texts_are_cut_and_cleaned() {
    let failure = Failure::new(FailureKind::System, std::io::ErrorKind::WouldBlock, "a\x1b[2Jb");
    assert_eq!(failure.text, "a [2Jb");
    assert_eq!(failure.error_kind(), std::io::ErrorKind::Other, "kinds without a number");
    let long = Failure::new(FailureKind::System, std::io::ErrorKind::TimedOut, &"ä".repeat(2_000));
    assert_eq!((long.text.len(), long.error_kind()), (1_024, std::io::ErrorKind::TimedOut));
    let hostile = Failure { text: "x\n".repeat(10), ..failure };
    let packet = Event::Answer(1, Answer::Failed(hostile)).encode();
    let Ok(Event::Answer(1, Answer::Failed(read))) = Event::decode(&packet) else { panic!() };
    assert!(!read.text.contains('\n'));
}

#[test]
fn the_fuzz_corpus_holds() {
    let directory: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../testbed/fuzz/corpus/attach"].iter().collect();
    let mut files = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        // Shown only if the check fails.
        println!("{}", path.display());
        check_attach(&std::fs::read(&path).unwrap());
        files += 1;
    }
    assert!(files > 20, "only {files} files in {}", directory.display());
}

proptest! {
    /// Messages with a few bytes changed: most are refused, none panics.
    #[test]
    fn damaged_messages_are_read_or_refused(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut packets = vec![samples::hello().encode()];
        packets.extend(samples::requests().iter().map(|request| request.encode()));
        packets.extend(samples::events().iter().map(|event| event.encode()));
        let packet = which.get(&packets);
        let mut damaged = packet.clone();
        for (at, byte) in changes {
            let at = at.index(damaged.len());
            damaged[at] = byte;
        }
        check_attach(&input(&[packets[0].clone(), damaged]));
    }

    /// Numbers come back as they are.
    #[test]
    fn any_stream_number_travels(number: u32, stream: u64, code: u32) {
        let request = Request { number, operation: Operation::Reset { stream, code } };
        prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
    }
}
