//! An echo server that serves every stream with one thread and plain `epoll(7)`, and clients that check it.
//! `cargo run --release -p netchannel --example epoll -- [STREAMS [BYTES]]`
//!
//! The same descriptors work in mio (`SourceFd`) and in Tokio (`AsyncFd<Pollable>`: `readable().await`, then
//! `try_io` around a `try_` call, which answers `WouldBlock`).
use std::collections::HashMap;
use std::error::Error as StdError;
use std::io::{Read, Write};
use std::os::fd::AsFd;

use clap::Parser;
use netchannel::{Config, Error, Idle, Listener, Pollable, Runtime, Stream, StreamOptions};
use rustix::event::epoll;

type Failure = Box<dyn StdError + Send + Sync>;

/// Epoll's name of the listener; streams count from one.
const LISTENER: u64 = 0;

/// A stream, and what it has to be sent back.
struct Echo {
    stream: Stream,
    _pollable: Pollable,
    waiting: Vec<u8>,
    ended: bool,
}

impl Echo {
    /// Reads and writes until both directions would block. True if the stream is over.
    fn run(&mut self, buffer: &mut [u8]) -> Result<bool, Error> {
        loop {
            if !self.waiting.is_empty() {
                match self.stream.send_half().try_write(&self.waiting) {
                    Ok(count) => drop(self.waiting.drain(..count)),
                    // Nothing more is read meanwhile: the peer is to wait as well.
                    Err(Error::WouldBlock) => return Ok(false),
                    Err(error) => return Err(error),
                }
            } else if self.ended {
                return Ok(true);
            } else {
                match self.stream.receive_half().try_read(buffer) {
                    Ok(0) => self.ended = true,
                    Ok(count) => self.waiting.extend_from_slice(&buffer[..count]),
                    Err(Error::WouldBlock) => return Ok(false),
                    Err(error) => return Err(error),
                }
            }
        }
    }
}

fn watch(set: impl AsFd, pollable: &Pollable, name: u64) -> rustix::io::Result<()> {
    epoll::add(set, pollable, epoll::EventData::new_u64(name), epoll::EventFlags::IN)
}

/// Serves `count` streams to their ends.
fn serve(listener: &Listener, count: u64) -> Result<(), Failure> {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let accepting = listener.pollable()?;
    watch(&set, &accepting, LISTENER)?;
    let mut streams: HashMap<u64, Echo> = HashMap::new();
    let (mut next, mut over) = (LISTENER + 1, 0);
    let mut buffer = vec![0; 64 << 10];
    let mut events = Vec::with_capacity(64);
    while over < count {
        events.clear();
        epoll::wait(&set, rustix::buffer::spare_capacity(&mut events), None)?;
        for event in &events {
            let name = event.data.u64();
            if name == LISTENER {
                loop {
                    match listener.try_accept() {
                        Ok(stream) => {
                            let pollable = stream.pollable()?;
                            watch(&set, &pollable, next)?;
                            let echo = Echo {
                                stream,
                                _pollable: pollable,
                                waiting: Vec::new(),
                                ended: false,
                            };
                            streams.insert(next, echo);
                            next += 1;
                        }
                        Err(Error::WouldBlock) => break,
                        Err(error) => return Err(error.into()),
                    }
                }
            } else if let Some(echo) = streams.get_mut(&name)
                && echo.run(&mut buffer)?
            {
                // The descriptor leaves the set when its last handle is closed.
                streams.remove(&name);
                over += 1;
            }
        }
    }
    Ok(())
}

/// Serves many streams with one thread, and checks that each byte is echoed.
#[derive(Parser)]
struct Options {
    #[arg(default_value_t = 8)]
    streams: u64,
    /// How many each stream sends
    #[arg(default_value_t = 1 << 20)]
    bytes: u64,
}

fn main() -> Result<(), Failure> {
    let Options { streams: count, bytes } = Options::parse();
    let config = || Config { device: "soft".into(), idle: Idle::Sleep, ..Config::default() };
    let server = Runtime::start(config())?;
    let listener = server.listen("127.0.0.1:0".parse()?)?;
    let address = listener.local_addr();
    let serving = std::thread::spawn(move || serve(&listener, count));
    let client = Runtime::start(config())?;
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..count)
            .map(|number| {
                let client = &client;
                scope.spawn(move || -> Result<u64, std::io::Error> {
                    let stream = client.connect(address, &StreamOptions::default())?;
                    let (mut tx, mut rx) = stream.split();
                    let sent = vec![number as u8; bytes as usize];
                    let mut echoed = Vec::new();
                    std::thread::scope(|scope| {
                        scope.spawn(|| {
                            // What goes wrong here shows at the reader.
                            let _ = tx.write_all(&sent);
                            tx.finish();
                        });
                        rx.read_to_end(&mut echoed)
                    })?;
                    assert_eq!(echoed, sent, "stream {number}");
                    Ok(bytes)
                })
            })
            .collect();
        let mut total = 0;
        for client in clients {
            total += client.join().map_err(|_| "a client panicked")??;
        }
        println!("{total} bytes echoed over {count} streams by one thread");
        Ok::<(), Failure>(())
    })?;
    serving.join().map_err(|_| "the server panicked")??;
    Ok(())
}
