//! What the tests of the library share.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod child;
pub(crate) mod holdings;
pub(crate) mod in_place;
pub(crate) mod place;
pub(crate) mod transfers;
pub(crate) mod waiting;

use std::io::{self, Read, Write};
use std::sync::mpsc;
use std::time::Duration;

use netchannel::{Config, Idle, Listener, Runtime, Stream, StreamOptions};

/// Every address here is on loopback with a port of the system's choice.
pub(crate) const ANY_PORT: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

/// The NIC in memory, and threads that sleep when they have nothing to do: the test machine has
/// few cores.
pub(crate) fn config() -> Config {
    Config { device: "soft".into(), idle: Idle::Sleep, ..Config::default() }
}

/// Two runtimes and a listener of the first.
pub(crate) struct Pair {
    pub(crate) server: Runtime,
    pub(crate) client: Runtime,
    pub(crate) listener: Listener,
}

impl Pair {
    pub(crate) fn new() -> Self {
        Self::of(config(), config())
    }

    pub(crate) fn of(server: Config, client: Config) -> Self {
        let (server, client) = (start(server), start(client));
        let listener = server.listen(ANY_PORT.into()).unwrap();
        Self { server, client, listener }
    }

    /// A stream from the client: the client's end, the server's end.
    pub(crate) fn stream(&self) -> (Stream, Stream) {
        let ours = connect(&self.client, &self.listener);
        (ours, self.listener.accept().unwrap())
    }
}

pub(crate) fn start(config: Config) -> Runtime {
    Runtime::start(config).unwrap()
}

pub(crate) fn connect(runtime: &Runtime, listener: &Listener) -> Stream {
    runtime.connect(listener.local_addr(), &StreamOptions::default()).unwrap()
}

/// Fails the test, with every other thread still there to be looked at, if `work` hangs.
pub(crate) fn within<T: Send + 'static>(
    limit: Duration,
    what: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (done, outcome) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let _ = done.send(work());
    });
    match outcome.recv_timeout(limit) {
        Ok(value) => value,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what}: not done after {limit:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => match thread.join() {
            Err(panic) => std::panic::resume_unwind(panic),
            Ok(()) => unreachable!("the work was done"),
        },
    }
}

/// Far above what anything here takes, even on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// Numbers by chance (splitmix64, Steele et al., OOPSLA 2014).
#[derive(Clone)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// From 1 to `most`, of every order of magnitude alike.
    pub(crate) fn size(&mut self, most: u64) -> usize {
        let bits = self.below(u64::from(64 - most.leading_zeros())) + 1;
        (self.below(1 << bits) + 1).min(most) as usize
    }
}

/// Byte `offset` of the stream `seed`: every byte is known, so is its place.
fn byte(seed: u64, offset: u64) -> u8 {
    let word = (offset >> 3).wrapping_add(seed << 32).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (word >> (8 * (offset & 7))) as u8 ^ (word >> 56) as u8
}

pub(crate) fn fill(seed: u64, offset: u64, out: &mut [u8]) {
    for (i, b) in out.iter_mut().enumerate() {
        *b = byte(seed, offset + i as u64);
    }
}

/// Panics at the first byte that is not the one written there.
pub(crate) fn check(seed: u64, offset: u64, bytes: &[u8]) {
    for (i, b) in bytes.iter().enumerate() {
        let at = offset + i as u64;
        assert_eq!(*b, byte(seed, at), "byte {at} of stream {seed}");
    }
}

/// Writes `total` bytes in pieces of random sizes up to `piece`.
pub(crate) fn send(to: &mut impl Write, seed: u64, total: u64, piece: u64) -> io::Result<()> {
    let mut random = Random(seed);
    let mut buffer = vec![0; piece as usize];
    let mut offset = 0;
    while offset < total {
        let len = random.size(piece).min((total - offset) as usize);
        fill(seed, offset, &mut buffer[..len]);
        to.write_all(&buffer[..len])?;
        // A synchronous write may be forgotten by its caller.
        buffer[..len].fill(0xEE);
        offset += len as u64;
    }
    Ok(())
}

/// Reads to the end in pieces of random sizes up to `piece`, checks every byte, returns how many
/// there were.
pub(crate) fn receive(from: &mut impl Read, seed: u64, piece: u64) -> io::Result<u64> {
    let mut random = Random(!seed);
    let mut buffer = vec![0; piece as usize];
    let mut offset = 0;
    loop {
        let len = random.size(piece);
        match from.read(&mut buffer[..len])? {
            0 => return Ok(offset),
            count => {
                check(seed, offset, &buffer[..count]);
                offset += count as u64;
            }
        }
    }
}
