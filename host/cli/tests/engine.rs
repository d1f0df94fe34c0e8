//! `engine`, and the other commands attached to it.

mod common;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use common::{Listening, netchannel, run};
use rustix::process::{Pid, Signal, kill_process};

/// An engine that serves, killed when the test ends.
struct Engine {
    child: Child,
    socket: PathBuf,
    _folder: tempfile::TempDir,
}

impl Engine {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("engine");
        let arguments =
            ["engine", "--json", "--device", "soft", "--attach", socket.to_str().unwrap()];
        let mut command = netchannel(&arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (said["tool"].as_str(), said["serving"].as_str()),
            (Some("engine"), socket.to_str())
        );
        Self { child, socket, _folder: folder }
    }

    fn path(&self) -> &str {
        self.socket.to_str().unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn file(folder: &Path, bytes: usize) -> PathBuf {
    let path = folder.join("source");
    fs::write(&path, (0..bytes).map(|i| (i * 7 + i / 251) as u8).collect::<Vec<_>>()).unwrap();
    path
}

#[test]
fn a_file_goes_out_and_one_comes_in_through_an_engine_elsewhere() {
    let engine = Engine::start();
    let folder = tempfile::tempdir().unwrap();
    let source = file(folder.path(), 5_000_003);
    let source_text = source.to_str().unwrap();
    let target = folder.path().join("target");
    let output = ["-o", target.to_str().unwrap()];

    let receiver = Listening::recv(&output);
    let attached = ["send", "--attach", engine.path(), "--json", source_text, &receiver.address];
    let (code, report, errors) = run(&attached);
    assert_eq!(code, 0, "{errors}");
    assert_eq!(receiver.end().0, 0);
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        (report["bytes"].as_u64(), report["device"].as_str()),
        (Some(5_000_003), Some("soft"))
    );

    let receiver = Listening::recv(&[&output[..], &["--attach", engine.path()]].concat());
    let (code, _, errors) = run(&["send", "--device", "soft", source_text, &receiver.address]);
    assert_eq!(code, 0, "{errors}");
    let (code, _, errors) = receiver.end();
    assert_eq!(code, 0, "{errors}");
    assert!(fs::read(&target).unwrap() == fs::read(&source).unwrap());
}

#[test]
fn measurements_through_an_engine_elsewhere() {
    let engine = Engine::start();
    for tool in ["bw", "lat"] {
        let arguments = [
            "perf",
            tool,
            "--local",
            "--attach",
            engine.path(),
            "--device",
            "soft",
            "-n",
            "50",
            "--idle",
            "sleep",
            "--rounds",
            "2",
            "--json",
        ];
        let (code, report, errors) = run(&arguments);
        assert_eq!(code, 0, "{errors}");
        assert!(errors.contains("the client, is attached") && errors.contains("own"), "{errors}");
        let report: serde_json::Value = serde_json::from_str(&report).unwrap();
        let channels = report["per_channel"].as_array().unwrap();
        let sum: u64 = channels.iter().map(|channel| channel["bytes"].as_u64().unwrap()).sum();
        // Both runs go through one engine, and each is counted once.
        let (runs, size) = (2 * 50, report["size"].as_u64().unwrap());
        let warm_up = if tool == "lat" { 2 * runs * size } else { 0 };
        assert!((runs * size..=runs * size + warm_up).contains(&sum), "{report}");
    }
}

#[test]
fn an_engine_ends_in_order_and_says_so_to_its_applications() {
    let mut engine = Engine::start();
    let receiver = Listening::recv_attached(engine.path(), &["-o", "/dev/null"]);
    kill_process(Pid::from_child(&engine.child), Signal::TERM).unwrap();
    assert_eq!(engine.child.wait().unwrap().code(), Some(143));
    assert!(!engine.socket.exists(), "the socket is left");
    let (code, _, errors) = receiver.end();
    assert_eq!(code, 5, "{errors}");
    assert!(errors.contains("is gone") && errors.contains("closed"), "{errors}");
}

#[test]
fn an_engine_that_ends_in_the_middle_of_a_transfer_leaves_nobody_waiting() {
    let mut engine = Engine::start();
    let receiver = Listening::recv_attached(engine.path(), &["-o", "/dev/null"]);
    let endless = fs::File::open("/dev/zero").unwrap();
    let child = netchannel(&["send", "--attach", engine.path(), "-", &receiver.address])
        .stdin(endless)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let sender = Listening { child, address: String::new() };
    // Bytes are on their way by then; if they are not, it is the test above.
    std::thread::sleep(Duration::from_millis(300));
    kill_process(Pid::from_child(&engine.child), Signal::TERM).unwrap();
    assert_eq!(engine.child.wait().unwrap().code(), Some(143));
    for end in [sender, receiver] {
        let (code, _, errors) = end.end();
        assert_eq!(code, 5, "{errors}");
        // The other application may have left first, and its half of the stream with it.
        let known = errors.contains("is gone") || errors.contains("dropped the stream");
        assert!(known, "{errors}");
    }
}

#[test]
fn no_engine_to_attach_to() {
    let folder = tempfile::tempdir().unwrap();
    let (missing, no_socket) = (folder.path().join("missing"), file(folder.path(), 1));
    for (path, says) in [(&missing, "is the engine running?"), (&no_socket, "no socket")] {
        let path = path.to_str().unwrap();
        let (code, _, errors) = run(&["send", "--attach", path, "/dev/null", "127.0.0.1:9"]);
        assert_eq!(code, 4, "{errors}");
        assert!(errors.contains(path) && errors.contains(says), "{errors}");
    }
    let (code, _, errors) =
        run(&["engine", "--device", "soft", "--attach", no_socket.to_str().unwrap()]);
    assert_eq!(code, 6, "{errors}");
    assert!(errors.contains("exists and is no socket"), "{errors}");
    let engine = Engine::start();
    let (code, _, errors) = run(&["engine", "--device", "soft", "--attach", engine.path()]);
    assert_eq!(code, 6, "{errors}");
    assert!(errors.contains("engine that runs"), "{errors}");
}
