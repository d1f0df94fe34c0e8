//! Replays the corpus of the fuzz targets.

use std::path::PathBuf;

use netchannel_wire::fuzzing::{check_control, check_frames};

/// Runs every file of a target's corpus; an empty corpus is a failure, not a pass.
fn replay(target: &str, check: fn(&[u8])) {
    let directory: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../testbed/fuzz/corpus", target].iter().collect();
    let entries = std::fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files = 0;
    for entry in entries {
        let path = entry.unwrap().path();
        let bytes = std::fs::read(&path).unwrap();
        // Shown only if the check fails.
        println!("{}", path.display());
        check(&bytes);
        files += 1;
    }
    assert!(files > 10, "only {files} files in {}", directory.display());
}

#[test]
fn frames() {
    replay("frames", check_frames);
}

#[test]
fn control() {
    replay("control", check_control);
}
