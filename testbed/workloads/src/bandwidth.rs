//! Bulk bytes one way: the receiver's application counts what it read.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Context, Error, Result};
use crate::spec::{Amount, Load};
use crate::transport::Connection;

/// Bytes between two looks at the clock: a look per 64-byte write would be most of its cost.
const CLOCK_STEP: usize = 64 << 10;

/// Bytes after which every send buffer (2 MiB at most) was gone round.
const FILLED: u64 = 4 << 20;

/// Bytes that an application read, and the time from the start to the end of the streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// Bytes over all streams.
    pub bytes: u64,
    /// Time from the start to the end of the last stream.
    pub elapsed: Duration,
}

impl Moved {
    /// Gigabits (10^9) per second.
    pub fn gbps(&self) -> f64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { self.bytes as f64 * 8.0 / seconds / 1e9 } else { 0.0 }
    }
}

/// Writes on every connection until the load's amount is reached, then finishes and closes them.
/// Returns the bytes of each.
pub fn send(connections: Vec<Box<dyn Connection>>, load: &Load) -> Result<Vec<u64>> {
    let mut sent = per_thread(connections, |connection, stream| {
        Ok(Sent(vec![(stream, send_one(connection, load)?.bytes)]))
    })?;
    sent.0.sort_unstable();
    Ok(sent.0.into_iter().map(|(_, bytes)| bytes).collect())
}

/// Bytes by stream.
struct Sent(Vec<(usize, u64)>);

impl Merge for Sent {
    fn merge(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }
}

/// Writes `buffer` again and again on every connection until `over`, then finishes and closes them.
pub fn send_until(
    connections: Vec<Box<dyn Connection>>,
    buffer: &[u8],
    over: &AtomicBool,
) -> Result<Moved> {
    per_thread(connections, |mut connection, _| {
        let start = Instant::now();
        let mut bytes = 0;
        while !over.load(Ordering::Relaxed) {
            connection.write_all(buffer).context("write to a bulk stream")?;
            bytes += buffer.len() as u64;
        }
        let moved = Moved { bytes, elapsed: start.elapsed() };
        connection.finish().context("finish a bulk stream")?;
        connection.close().context("close a bulk stream")?;
        Ok(moved)
    })
}

/// Reads every connection to its end, then closes it.
pub fn receive(connections: Vec<Box<dyn Connection>>, load: &Load) -> Result<Moved> {
    per_thread(connections, |connection, stream| receive_one(connection, stream, load))
}

/// One thread per connection; the first on the caller's own.
pub(crate) fn per_thread<T: Send + Merge>(
    connections: Vec<Box<dyn Connection>>,
    body: impl Fn(Box<dyn Connection>, usize) -> Result<T> + Sync,
) -> Result<T> {
    std::thread::scope(|scope| {
        let body = &body;
        let mut connections = connections.into_iter().enumerate();
        let first = connections.next().ok_or_else(|| Error::Invalid("no stream".into()))?;
        let others: Vec<_> = connections
            .map(|(stream, connection)| scope.spawn(move || body(connection, stream)))
            .collect();
        let mut result = body(first.1, first.0);
        for other in others {
            let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and_then(|one| Ok(one.merge(other?)));
        }
        result
    })
}

/// Results of several streams into one.
pub(crate) trait Merge {
    /// Both together.
    fn merge(self, other: Self) -> Self;
}

impl Merge for Moved {
    fn merge(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, elapsed: self.elapsed.max(other.elapsed) }
    }
}

fn send_one(mut connection: Box<dyn Connection>, load: &Load) -> Result<Moved> {
    let mut buffer = pattern(load.size);
    let start = Instant::now();
    let mut sent = 0u64;
    let mut position = 0;
    let mut until_clock = CLOCK_STEP;
    loop {
        if load.verify && position == 0 {
            stamp(&mut buffer, sent / load.size as u64);
        }
        let end = load.size.min(position + load.write_size);
        let piece = &buffer[position..end];
        let written = if load.zero_copy {
            // Once every page of the send buffer holds something, only who compares needs it made anew.
            make_in_place(&mut *connection, piece, load.verify || sent < FILLED)
        } else {
            connection.write(piece)
        };
        let written = written.context("write to the stream")?;
        if written == 0 {
            return Err(Error::PeerGone(io::ErrorKind::WriteZero.into()));
        }
        sent += written as u64;
        position = (position + written) % load.size;
        let done = match load.amount {
            Amount::Iterations(count) => sent >= count.saturating_mul(load.size as u64),
            Amount::Duration(duration) => {
                until_clock = until_clock.saturating_sub(written);
                let look = until_clock == 0;
                if look {
                    until_clock = CLOCK_STEP;
                }
                look && start.elapsed() >= duration
            }
        };
        if done {
            break;
        }
    }
    let moved = Moved { bytes: sent, elapsed: start.elapsed() };
    connection.finish().context("finish the stream")?;
    connection.close().context("close the stream")?;
    Ok(moved)
}

/// Sends `piece`, or bytes that its memory holds from before, from the stack's memory.
fn make_in_place(connection: &mut dyn Connection, piece: &[u8], fill: bool) -> io::Result<usize> {
    let mut left = piece;
    connection.send_in_place(piece.len(), &mut |space| {
        let (now, later) = left.split_at(space.len());
        if fill {
            space.copy_from_slice(now);
        }
        left = later;
    })
}

fn receive_one(mut connection: Box<dyn Connection>, stream: usize, load: &Load) -> Result<Moved> {
    // Really touched before the clock starts: the stack pays for its own pages only.
    let mut buffer = vec![1; if load.zero_copy { 0 } else { load.size }];
    let mut expected = load.verify.then(|| pattern(load.size));
    let start = Instant::now();
    let mut bytes = 0u64;
    loop {
        let read = if load.zero_copy {
            use_in_place(&mut *connection, expected.as_deref_mut(), stream, bytes)?
        } else {
            let read = connection.read(&mut buffer).context("read from the stream")?;
            if let Some(expected) = &mut expected {
                check(&buffer[..read], expected, stream, bytes)?;
            }
            read
        };
        if read == 0 {
            break;
        }
        bytes += read as u64;
    }
    let elapsed = start.elapsed();
    connection.close().context("close the stream")?;
    Ok(Moved { bytes, elapsed })
}

/// Takes bytes where they arrived, and compares them where that is wanted.
fn use_in_place(
    connection: &mut dyn Connection,
    expected: Option<&mut [u8]>,
    stream: usize,
    offset: u64,
) -> Result<usize> {
    let mut arrived = expected.map(|expected| Arrived { expected, stream, offset, wrong: None });
    let see = arrived.as_mut().map(|arrived| arrived as &mut dyn io::Write);
    let read = connection.receive_in_place(see);
    match arrived.and_then(|arrived| arrived.wrong) {
        Some(error) => Err(error),
        None => read.context("read from the stream"),
    }
}

/// Compares bytes that are written to it.
struct Arrived<'a> {
    expected: &'a mut [u8],
    stream: usize,
    offset: u64,
    wrong: Option<Error>,
}

impl io::Write for Arrived<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = check(bytes, self.expected, self.stream, self.offset) {
            self.wrong = Some(error);
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.offset += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Numbers a block, so that no block can be taken for another.
fn stamp(block: &mut [u8], number: u64) {
    for (byte, stamp) in block.iter_mut().zip(number.to_le_bytes()) {
        *byte = stamp;
    }
}

/// Compares bytes that arrived from `offset` on with the pattern that repeats in the stream, each
/// time with its number.
fn check(mut arrived: &[u8], expected: &mut [u8], stream: usize, mut offset: u64) -> Result<()> {
    while !arrived.is_empty() {
        stamp(expected, offset / expected.len() as u64);
        let from = (offset % expected.len() as u64) as usize;
        let len = arrived.len().min(expected.len() - from);
        if arrived[..len] != expected[from..from + len] {
            let wrong = (0..len).find(|&i| arrived[i] != expected[from + i]).unwrap_or(0);
            return Err(Error::Corrupted { stream, offset: offset + wrong as u64 });
        }
        arrived = &arrived[len..];
        offset += len as u64;
    }
    Ok(())
}

/// An application's buffer, really filled: no two pages of it are alike.
pub fn pattern(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_is_found_where_it_is() {
        let mut expected = pattern(1000);
        let blocks: Vec<u8> = (0..3)
            .flat_map(|number| {
                stamp(&mut expected, number);
                expected.clone()
            })
            .collect();
        let mut arrived = blocks[500..2300].to_vec();
        assert!(check(&arrived, &mut expected, 0, 500).is_ok());
        // The same block twice.
        assert!(check(&blocks[..1000], &mut expected, 0, 1000).is_err());
        arrived[1234] ^= 1;
        let error = check(&arrived, &mut expected, 7, 500).unwrap_err();
        assert!(matches!(error, Error::Corrupted { stream: 7, offset: 1734 }), "{error}");
    }

    #[test]
    fn rates_are_bits_per_second() {
        let moved = Moved { bytes: 1_000_000_000, elapsed: Duration::from_secs(2) };
        assert_eq!(moved.gbps(), 4.0);
        assert_eq!(Moved::default().gbps(), 0.0);
    }
}
