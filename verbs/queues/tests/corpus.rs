//! Replays the corpus of the fuzz target `queues`.

use std::path::PathBuf;

use netchannel_verbs::fuzzing::check_queues;

#[test]
fn queues() {
    let directory: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "../../testbed/fuzz/corpus/queues"].iter().collect();
    let mut count = 0;
    for entry in std::fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        check_queues(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count > 0, "no corpus in {}", directory.display());
}
