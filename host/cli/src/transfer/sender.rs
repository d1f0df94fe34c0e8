//! The sending side of a file.

use std::io::{self, Read, Write};
use std::thread::JoinHandle;

use blake3::{Hash, Hasher};
use indicatif::ProgressBar;

use super::blocks::{Filler, round};
use super::format::{DIFFERENT, HEADER, PREFIX, SAME, given_up, header};
use crate::problem::Problem;

/// A file that the receiver has, whole.
#[derive(Debug, PartialEq)]
pub(crate) struct Sent {
    /// Its bytes.
    pub(crate) bytes: u64,
    /// Bytes on the stream.
    pub(crate) stream_bytes: u64,
    /// Its checksum.
    pub(crate) checksum: Hash,
}

/// Why a file was not sent.
#[derive(Debug)]
pub(crate) enum SendFailure {
    /// The source cannot be read.
    Source(io::Error),
    /// Anything about the stream or the receiver.
    Stream(Problem),
}

/// Sends all of `source` and waits for the receiver's verdict. The stream is left open.
pub(crate) fn send(
    stream: &mut (impl Read + Write),
    source: impl Read + Send + 'static,
    length: Option<u64>,
    progress: &ProgressBar,
) -> Result<Sent, SendFailure> {
    let (filler, emptier) = round();
    let reader = std::thread::Builder::new()
        .name("read and hash".into())
        .spawn(move || read_and_hash(source, &filler))
        .map_err(SendFailure::Source)?;
    let mut bytes = 0;
    let mut stream_bytes = HEADER as u64;
    let broken = |bytes: u64| move |error: io::Error| SendFailure::Stream(broken(bytes, &error));
    stream.write_all(&header(length)).map_err(broken(0))?;
    for block in &emptier.full {
        // The reader is not waited for on failure: it may be stuck in a pipe.
        stream.write_all(block.with_prefix()).map_err(broken(bytes))?;
        bytes += block.bytes().len() as u64;
        stream_bytes += block.with_prefix().len() as u64;
        progress.set_position(bytes);
        // The reader may have ended already.
        let _ = emptier.empty.send(block);
    }
    let checksum = end_of(reader).map_err(SendFailure::Source)?;
    let mut end = [0; PREFIX + blake3::OUT_LEN];
    end[PREFIX..].copy_from_slice(checksum.as_bytes());
    stream.write_all(&end).map_err(broken(bytes))?;
    stream_bytes += end.len() as u64;
    stream.flush().map_err(broken(bytes))?;
    verdict(stream, bytes, checksum).map_err(SendFailure::Stream)?;
    Ok(Sent { bytes, stream_bytes, checksum })
}

fn verdict(stream: &mut impl Read, bytes: u64, checksum: Hash) -> Result<(), Problem> {
    let mut verdict = [0];
    stream.read_exact(&mut verdict).map_err(|error| broken(bytes, &error))?;
    match verdict[0] {
        SAME => Ok(()),
        DIFFERENT => Err(Problem::Mismatch {
            sent: checksum.to_string(),
            received: "another".into(),
            kept: String::new(),
        }),
        other => Err(Problem::Foreign(format!("its verdict is {other}"))),
    }
}

fn broken(bytes: u64, error: &io::Error) -> Problem {
    match given_up(error) {
        Some(reason) => Problem::Refused(reason.into()),
        None => {
            let reason = match error.kind() {
                io::ErrorKind::UnexpectedEof => "the receiver ended without a verdict".into(),
                _ => error.to_string(),
            };
            Problem::Broken { bytes, reason, kept: String::new() }
        }
    }
}

fn read_and_hash(mut source: impl Read, blocks: &Filler) -> io::Result<Hash> {
    let mut hasher = Hasher::new();
    for mut block in &blocks.empty {
        let read = loop {
            match source.read(block.room()) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other?,
            }
        };
        if read == 0 {
            break;
        }
        block.set_len(read);
        hasher.update(block.bytes());
        if blocks.full.send(block).is_err() {
            break;
        }
    }
    Ok(hasher.finalize())
}

/// The result of a thread; its panic goes on here.
pub(super) fn end_of<T>(thread: JoinHandle<T>) -> T {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}
