//! Writes the seeds of the fuzz target: one file for each message there is, and a few of several.
//!
//! ```sh
//! cargo run -p netchannel-attach --example fuzz_seeds -- testbed/fuzz/corpus
//! ```

use std::path::PathBuf;

use netchannel_attach::fuzzing::input;
use netchannel_attach::samples;

fn main() -> std::io::Result<()> {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fuzz_seeds CORPUS_DIRECTORY");
        std::process::exit(2);
    };
    let directory = corpus.join("attach");
    std::fs::create_dir_all(&directory)?;
    let seed = |name: &str, packets: &[Vec<u8>]| {
        std::fs::write(directory.join(format!("seed-{name}")), input(packets))
    };
    let hello = samples::hello().encode();
    let requests: Vec<_> = samples::requests().iter().map(|request| request.encode()).collect();
    for (number, request) in requests.iter().enumerate() {
        seed(&format!("request-{number}"), &[hello.clone(), request.clone()])?;
    }
    for (number, event) in samples::events().iter().enumerate() {
        seed(&format!("event-{number}"), &[event.encode()])?;
    }
    for (number, reception) in samples::receptions().iter().enumerate() {
        seed(&format!("reception-{number}"), &[reception.encode()])?;
    }
    seed("nothing", &[Vec::new()])?;
    seed("no-hello", &requests[..1])?;
    seed("hello-twice", &[hello.clone(), hello.clone()])?;
    seed("all", &[vec![hello], requests].concat())
}
