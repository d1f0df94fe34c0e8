//! Writes the seeds of the fuzz targets: one file for each message there is, and a few of several.
//!
//! ```sh
//! cargo run -p netchannel-wire --example fuzz_seeds -- testbed/fuzz/corpus
//! ```

use std::path::{Path, PathBuf};

use netchannel_wire::control::record::{self, PREFIX_LEN};
use netchannel_wire::fuzzing::encode;
use netchannel_wire::{Frame, samples};

fn main() -> std::io::Result<()> {
    let Some(corpus) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: fuzz_seeds CORPUS_DIRECTORY");
        std::process::exit(2);
    };
    frames(&corpus.join("frames"))?;
    control(&corpus.join("control"))
}

fn frames(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let frames = samples::frames();
    let seed = |name: &str, frames: &[Frame<'_>]| {
        std::fs::write(directory.join(name), encode(&samples::HEADER, frames))
    };
    seed("seed-empty", &[])?;
    seed("seed-all", &frames)?;
    for frame in frames {
        seed(&format!("seed-{}", frame.kind().name().to_lowercase()), &[frame])?;
    }
    let mut ignorable = encode(&samples::HEADER, &frames[6..9]);
    ignorable[16] = 0x90;
    std::fs::write(directory.join("seed-ignorable"), ignorable)
}

/// Each as a record, and as what follows the prefix, which the target reads as well.
fn control(directory: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let messages = samples::control_messages();
    let mut all = Vec::new();
    for message in messages.iter().chain([&samples::full_hello()]) {
        let record = record::encode(message).map_err(std::io::Error::other)?;
        let name = format!("{:?}", message.kind()).to_lowercase();
        std::fs::write(directory.join(format!("seed-{name}")), &record)?;
        std::fs::write(directory.join(format!("seed-{name}-body")), &record[PREFIX_LEN..])?;
        all.extend_from_slice(&record);
    }
    let first = |count: usize| {
        let records: Result<Vec<_>, _> = messages[..count].iter().map(record::encode).collect();
        records.map(|records| records.concat()).map_err(std::io::Error::other)
    };
    std::fs::write(directory.join("seed-hello-accept"), first(2)?)?;
    std::fs::write(directory.join("seed-all"), all)
}
