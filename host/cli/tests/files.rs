//! `send` and `recv` as two processes.

mod common;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};

use common::{Listening, netchannel, outcome, run};
use netchannel::{Config, Runtime, StreamOptions};

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 31 + i / 257 + i / 65_537) as u8).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Sends its standard input.
fn sender(receiver: &Listening) -> Child {
    let mut command = netchannel(&["send", "--device", "soft", "-", &receiver.address]);
    command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn wait_for_bytes(path: &Path, count: u64) {
    while fs::metadata(path).map_or(0, |metadata| metadata.len()) < count {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

#[test]
fn a_file_arrives_over_several_channels() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    let bytes = content(20_000_003);
    fs::write(&source, &bytes).unwrap();
    let receiver = Listening::recv(&["-o", target.to_str().unwrap()]);
    let (code, output, errors) =
        run(&["send", "--json", "--device", "soft", source.to_str().unwrap(), &receiver.address]);
    assert_eq!(code, 0, "{errors}");
    let (code, _, errors) = receiver.end();
    assert_eq!(code, 0, "{errors}");
    assert!(fs::read(&target).unwrap() == bytes);
    assert_eq!(names(folder.path()), ["source", "target"]);

    let report: serde_json::Value = serde_json::from_str(&output).unwrap();
    assert_eq!(report["bytes"], bytes.len());
    assert_eq!(report["blake3"], blake3::hash(&bytes).to_string());
    let channels = report["per_channel"].as_array().unwrap();
    assert_eq!(channels.len(), 4);
    let sum: u64 = channels.iter().map(|channel| channel["bytes"].as_u64().unwrap()).sum();
    assert_eq!(report["stream_bytes"], sum, "{report}");
    assert!(errors.contains(&blake3::hash(&bytes).to_string()), "{errors}");
}

#[test]
fn from_standard_input_to_standard_output() {
    let bytes = content(3_000_001);
    let receiver = Listening::recv(&[]);
    let mut child = sender(&receiver);
    let mut input = child.stdin.take().unwrap();
    let writer = {
        let bytes = bytes.clone();
        std::thread::spawn(move || input.write_all(&bytes).unwrap())
    };
    let mut receiver = receiver;
    let mut arrived = Vec::new();
    receiver.child.stdout.as_mut().unwrap().read_to_end(&mut arrived).unwrap();
    writer.join().unwrap();
    let (code, _, errors) = outcome(&child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{errors}");
    assert_eq!(receiver.end().0, 0);
    assert!(arrived == bytes);
}

#[test]
fn an_empty_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let receiver = Listening::recv(&["-o", target.to_str().unwrap()]);
    let (code, _, errors) = run(&["send", "--device", "soft", "/dev/null", &receiver.address]);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(receiver.end().0, 0);
    assert_eq!(fs::read(&target).unwrap(), b"");
}

#[test]
fn few_bytes_are_counted_too() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    fs::write(&source, content(100)).unwrap();
    let receiver = Listening::recv(&["-o", target.to_str().unwrap()]);
    let send = ["send", "--json", "--device", "soft", source.to_str().unwrap(), &receiver.address];
    let (code, report, errors) = run(&send);
    assert_eq!(code, 0, "{errors}");
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    let channels = report["per_channel"].as_array().unwrap();
    let number = |channel: &serde_json::Value, name: &str| channel[name].as_u64().unwrap();
    let sum: u64 = channels.iter().map(|channel| number(channel, "bytes")).sum();
    assert_eq!(sum, number(&report, "stream_bytes"), "{report}");
    for channel in channels {
        assert!(number(channel, "wire_bytes") >= number(channel, "bytes"), "{report}");
    }
    assert_eq!(receiver.end().0, 0);
}

#[test]
fn one_file_after_another() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let mut receiver = Listening::recv(&["--keep", "--json", "-o", target.to_str().unwrap()]);
    for _ in 0..3 {
        let (code, _, errors) =
            run(&["send", "--device", "soft", "/etc/passwd", &receiver.address]);
        assert_eq!(code, 0, "{errors}");
    }
    // The sender has its verdict after the file has its name.
    assert_eq!(names(folder.path()), ["target", "target.2", "target.3"]);
    // The first line has the address; each of the others counts one file.
    let lines = BufReader::new(receiver.child.stdout.take().unwrap()).lines().skip(1).take(3);
    let copied: Vec<u64> = lines
        .map(|line| {
            let report: serde_json::Value = serde_json::from_str(&line.unwrap()).unwrap();
            report["copied_bytes"].as_u64().unwrap()
        })
        .collect();
    assert!(copied[2] > 0 && copied[2] < 2 * copied[0], "{copied:?}");
    assert!(receiver.child.try_wait().unwrap().is_none(), "--keep serves on");
    receiver.child.kill().unwrap();
    receiver.child.wait().unwrap();
}

/// What `recv` makes of `bytes` from a sender of ours that then ends the stream, and the answer.
fn receive_by_hand(bytes: &[u8], end: End) -> (i32, String, Vec<String>, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let receiver = Listening::recv(&["-o", target.to_str().unwrap()]);
    let config = Config { device: "soft".into(), ..Config::default() };
    let runtime = Runtime::start(config).unwrap();
    let address = receiver.address.parse().unwrap();
    let mut stream = runtime.connect(address, &StreamOptions::default()).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    match end {
        End::Finish => {
            stream.finish();
            // It may be reset, which is what the test is about.
            let _ = stream.read_to_end(&mut answer);
            drop(stream);
        }
        End::Reset => stream.reset(1),
    }
    let (code, _, errors) = receiver.end();
    (code, errors, names(folder.path()), answer)
}

enum End {
    Finish,
    Reset,
}

fn file(content: &[u8], checksum: &[u8; 32]) -> Vec<u8> {
    let mut bytes = b"NCFILE\x00\x01".to_vec();
    bytes.extend((content.len() as u64).to_le_bytes());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(content);
    bytes.extend(0u32.to_le_bytes());
    bytes.extend(checksum);
    bytes
}

#[test]
fn changed_bytes_do_not_get_the_name() {
    let bytes = file(b"hellO", blake3::hash(b"hello").as_bytes());
    let (code, errors, names, answer) = receive_by_hand(&bytes, End::Finish);
    assert_eq!(code, 5, "{errors}");
    assert!(errors.contains("checksums differ") && errors.contains("target.partial"), "{errors}");
    assert_eq!((names, answer), (vec!["target.partial".to_owned()], vec![2]));

    let bytes = file(b"hello", blake3::hash(b"hello").as_bytes());
    let (code, errors, names, answer) = receive_by_hand(&bytes, End::Finish);
    assert_eq!((code, names, answer), (0, vec!["target".to_owned()], vec![1]), "{errors}");
}

#[test]
fn a_stream_that_ends_early_leaves_a_partial_file() {
    let whole = file(b"hello", blake3::hash(b"hello").as_bytes());
    for end in [End::Finish, End::Reset] {
        let (code, errors, names, _) = receive_by_hand(&whole[..23], end);
        assert_eq!(code, 5, "{errors}");
        assert!(errors.contains("target.partial"), "{errors}");
        assert_eq!(names, ["target.partial"]);
    }
}

#[test]
fn what_is_no_file_is_refused() {
    let (code, errors, ..) = receive_by_hand(b"GET / HTTP/1.1\r\n\r\n", End::Finish);
    assert_eq!(code, 5, "{errors}");
    assert!(errors.contains("netchannel send"), "{errors}");
}

#[test]
fn a_sender_that_dies() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let receiver = Listening::recv(&["-o", target.to_str().unwrap()]);
    let mut sender = sender(&receiver);
    sender.stdin.as_mut().unwrap().write_all(&content(1_000_000)).unwrap();
    let partial = folder.path().join("target.partial");
    wait_for_bytes(&partial, 1_000_000);
    sender.kill().unwrap();
    sender.wait().unwrap();
    let (code, _, errors) = receiver.end();
    assert_eq!(code, 5, "{errors}");
    assert!(errors.contains("after 1000000 bytes"), "{errors}");
    assert!(fs::read(&partial).unwrap() == content(1_000_000));
}

#[test]
fn a_receiver_that_dies() {
    let receiver = Listening::recv(&["-o", "/dev/null"]);
    let mut sender = sender(&receiver);
    sender.stdin.as_mut().unwrap().write_all(&content(1_000_000)).unwrap();
    let mut receiver = receiver;
    receiver.child.kill().unwrap();
    receiver.child.wait().unwrap();
    // The sender learns of it in the middle of its input, which goes on.
    let mut input = sender.stdin.take().unwrap();
    let bytes = content(1_000_000);
    while input.write_all(&bytes).is_ok() {}
    let (code, _, errors) = outcome(&sender.wait_with_output().unwrap());
    assert!(code == 5 || code == 4, "{code}: {errors}");
}

#[test]
fn a_full_disk_is_said_on_both_sides() {
    let receiver = Listening::recv(&["-o", "/dev/full"]);
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::write(&source, content(30_000_000)).unwrap();
    let (code, _, errors) =
        run(&["send", "--device", "soft", source.to_str().unwrap(), &receiver.address]);
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("its file system is full"), "{errors}");
    let (code, _, errors) = receiver.end();
    assert_eq!(code, 1, "{errors}");
    assert!(errors.contains("No space left") && errors.contains("free some space"), "{errors}");
}

#[test]
fn interrupts_leave_the_partial_file() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    let receiver = Listening::recv(&["-o", target.to_str().unwrap()]);
    let mut sender = sender(&receiver);
    sender.stdin.as_mut().unwrap().write_all(&content(500_000)).unwrap();
    let partial = folder.path().join("target.partial");
    wait_for_bytes(&partial, 500_000);
    for child in [receiver.child.id(), sender.id()] {
        let killed = std::process::Command::new("kill").args(["-INT", &child.to_string()]).status();
        assert!(killed.unwrap().success());
    }
    let (code, _, errors) = receiver.end();
    assert_eq!(code, 130, "{errors}");
    assert!(errors.contains("interrupted"), "{errors}");
    assert_eq!(sender.wait().unwrap().code(), Some(130));
    assert_eq!(names(folder.path()), ["target.partial"]);
}
