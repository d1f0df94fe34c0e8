//! Two runtimes in one process: how fast one stream goes, and how long a small message takes.
//! `cargo run --release -p netchannel --example pair -- [BYTES [DEVICE DEVICE LISTEN]]`, for
//! instance `pair 100000000 rxe_1 rxe_2 10.0.0.1:0`.
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Instant;

use clap::Parser;
use netchannel::{Config, Runtime, StreamOptions};

const ROUNDS: u32 = 2_000;

/// Measures one stream between two runtimes of this process.
#[derive(Parser)]
struct Options {
    /// How many the stream moves
    #[arg(default_value_t = 1 << 30)]
    bytes: usize,
    #[arg(default_value = "soft")]
    server_device: String,
    #[arg(default_value = "soft")]
    client_device: String,
    #[arg(default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse();
    let start =
        |device: &str| Runtime::start(Config { device: device.into(), ..Config::default() });
    let (server, client) = (start(&options.server_device)?, start(&options.client_device)?);
    let listener = server.listen(options.listen)?;
    let address = listener.local_addr();
    let reader = std::thread::spawn(move || -> std::io::Result<usize> {
        let mut stream = listener.accept()?;
        let mut small = [0; 64];
        for _ in 0..ROUNDS {
            stream.read_exact(&mut small)?;
            stream.write_all(&small)?;
        }
        let mut buffer = vec![0; 1 << 20];
        let mut got = 0;
        loop {
            match stream.read(&mut buffer)? {
                0 => return Ok(got),
                n => got += n,
            }
        }
    });
    let mut stream = client.connect(address, &StreamOptions::default())?;
    let mut small = [7; 64];
    let start = Instant::now();
    for _ in 0..ROUNDS {
        stream.write_all(&small)?;
        stream.read_exact(&mut small)?;
    }
    println!(
        "64 B half round trip: {:.0} ns",
        start.elapsed().as_nanos() as f64 / f64::from(2 * ROUNDS)
    );
    let buffer = vec![7; 1 << 20];
    let start = Instant::now();
    let mut left = options.bytes;
    while left > 0 {
        let part = left.min(buffer.len());
        stream.write_all(&buffer[..part])?;
        left -= part;
    }
    stream.close()?;
    let seconds = start.elapsed().as_secs_f64();
    let got = reader.join().map_err(|_| "the reader panicked")??;
    println!("{got} bytes: {:.2} GB/s", got as f64 / seconds / 1e9);
    for (who, stats) in [("client", client.stats()), ("server", server.stats())] {
        println!(
            "{who}: copied {} moved {} polls {} wake-ups {} out of order {}",
            stats.copied_bytes,
            stats.moved_by_posting,
            stats.polls,
            stats.wakeups,
            stats.placed_out_of_order
        );
    }
    Ok(())
}
