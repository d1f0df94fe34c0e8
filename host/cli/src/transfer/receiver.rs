//! The receiving side of a file.

use std::io::{self, Read, Write};

use blake3::{Hash, Hasher};
use indicatif::ProgressBar;

use super::blocks::{Emptier, Filler, round};
use super::destination::Destination;
use super::format::{DIFFERENT, GiveUp, HEADER, MAX_BLOCK, PREFIX, SAME, given_up, parse_header};
use super::sender::end_of;
use crate::problem::Problem;

/// A file that arrived whole and has its name.
#[derive(Debug, PartialEq)]
pub(crate) struct Received {
    /// Its bytes.
    pub(crate) bytes: u64,
    /// Its checksum.
    pub(crate) checksum: Hash,
}

/// Why a file did not arrive, and what to tell the sender by resetting the stream.
#[derive(Debug)]
pub(crate) struct ReceiveFailure {
    /// What happened.
    pub(crate) problem: Problem,
    /// `None` if the sender knows.
    pub(crate) tell: Option<GiveUp>,
}

impl From<Problem> for ReceiveFailure {
    fn from(problem: Problem) -> Self {
        Self { problem, tell: None }
    }
}

/// Receives a file into `destination`, compares checksums, and tells the sender. The stream is left
/// open.
pub(crate) fn receive(
    stream: &mut (impl Read + Write),
    destination: Destination,
    progress: impl FnOnce(Option<u64>) -> ProgressBar,
) -> Result<Received, ReceiveFailure> {
    let kept = destination.kept();
    let (filler, emptier) = round();
    let writer = std::thread::Builder::new()
        .name("hash and write".into())
        .spawn(move || hash_and_write(destination, &emptier))
        .map_err(|source| Problem::file("start a thread for", "the received file", source))?;
    let arrived = take_blocks(stream, &filler, progress);
    drop(filler);
    // What arrived is written, also where the rest will not come.
    let written = end_of(writer).map_err(cannot_write)?;
    let arrived = arrived.map_err(|failure| failure.with_kept(&kept))?;
    let Some(Arrived { bytes, checksum }) = arrived else {
        return Err(Problem::Foreign("a thread of this side ended early".into()).into());
    };
    let (destination, own) = written;

    let verdict = if own == checksum { SAME } else { DIFFERENT };
    if verdict == SAME {
        destination.complete().map_err(cannot_write)?;
    }
    let told = stream.write_all(&[verdict]).and_then(|()| stream.flush());
    if verdict == DIFFERENT {
        let (sent, received) = (checksum.to_string(), own.to_string());
        return Err(Problem::Mismatch { sent, received, kept }.into());
    }
    if let Err(error) = told {
        tracing::warn!(%error, "the file is whole, but its sender will not hear of it");
    }
    Ok(Received { bytes, checksum })
}

/// What came over the stream.
struct Arrived {
    bytes: u64,
    checksum: Hash,
}

/// Fills blocks from the stream; `None` if nobody takes them any more.
fn take_blocks(
    stream: &mut impl Read,
    blocks: &Filler,
    progress: impl FnOnce(Option<u64>) -> ProgressBar,
) -> Result<Option<Arrived>, ReceiveFailure> {
    let mut head = [0; HEADER];
    stream.read_exact(&mut head).map_err(|error| broken(0, &error))?;
    let length = parse_header(&head).map_err(foreign)?;
    let progress = progress(length);
    let mut bytes = 0;
    loop {
        let mut prefix = [0; PREFIX];
        stream.read_exact(&mut prefix).map_err(|error| broken(bytes, &error))?;
        let len = u32::from_le_bytes(prefix) as usize;
        if len == 0 {
            break;
        }
        if len > MAX_BLOCK {
            return Err(foreign(format!("a block of {len} bytes")));
        }
        let Ok(mut block) = blocks.empty.recv() else { return Ok(None) };
        let mut filled = 0;
        let mut failure = None;
        while filled < len {
            match stream.read(&mut block.room()[filled..len]) {
                Ok(0) => failure = Some(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => failure = Some(error),
            }
            if failure.is_some() {
                break;
            }
        }
        block.set_len(filled);
        bytes += filled as u64;
        progress.set_position(bytes);
        let gone = blocks.full.send(block).is_err();
        if let Some(error) = failure {
            return Err(broken(bytes, &error).into());
        }
        if gone {
            return Ok(None);
        }
    }
    let mut checksum = [0; blake3::OUT_LEN];
    stream.read_exact(&mut checksum).map_err(|error| broken(bytes, &error))?;
    progress.finish_and_clear();
    Ok(Some(Arrived { bytes, checksum: Hash::from_bytes(checksum) }))
}

fn hash_and_write(
    mut destination: Destination,
    blocks: &Emptier,
) -> Result<(Destination, Hash), Problem> {
    let mut hasher = Hasher::new();
    for block in &blocks.full {
        hasher.update(block.bytes());
        destination.write(block.bytes())?;
        // The other thread may have ended already.
        let _ = blocks.empty.send(block);
    }
    Ok((destination, hasher.finalize()))
}

fn broken(bytes: u64, error: &io::Error) -> Problem {
    let reason = match (given_up(error), error.kind()) {
        (Some(reason), _) => format!("the sender gave up: {reason}"),
        (None, io::ErrorKind::UnexpectedEof) => "the sender ended before the end".into(),
        (None, _) => error.to_string(),
    };
    Problem::Broken { bytes, reason, kept: String::new() }
}

fn foreign(reason: String) -> ReceiveFailure {
    ReceiveFailure { problem: Problem::Foreign(reason), tell: Some(GiveUp::Foreign) }
}

fn cannot_write(problem: Problem) -> ReceiveFailure {
    let full = matches!(
        &problem,
        Problem::File { source, .. } if source.kind() == io::ErrorKind::StorageFull
    );
    ReceiveFailure { problem, tell: Some(if full { GiveUp::Full } else { GiveUp::CannotWrite }) }
}

impl ReceiveFailure {
    fn with_kept(mut self, text: &str) -> Self {
        if let Problem::Broken { kept, .. } = &mut self.problem {
            *kept = text.to_owned();
        }
        self
    }
}
