//! NetChannel: streams over shared RDMA Channels, in user space.
//!
//! A [`Runtime`] opens a device. [`Runtime::listen`] and [`Runtime::connect`] give [`Stream`]s,
//! which are [`std::io::Read`] and [`std::io::Write`]; their bytes travel over the few Channels
//! that two hosts share.
//!
//! ```
//! use std::io::{Read, Write};
//! use netchannel::{Config, Runtime, StreamOptions};
//!
//! let runtime = Runtime::start(Config { device: "soft".into(), ..Config::default() })?;
//! let listener = runtime.listen("127.0.0.1:0".parse()?)?;
//! let address = listener.local_addr();
//! let server = std::thread::spawn(move || -> std::io::Result<String> {
//!     let mut text = String::new();
//!     listener.accept()?.read_to_string(&mut text)?;
//!     Ok(text)
//! });
//! let client = Runtime::start(Config { device: "soft".into(), ..Config::default() })?;
//! let mut stream = client.connect(address, &StreamOptions::default())?;
//! stream.write_all(b"hello")?;
//! stream.close()?;
//! assert_eq!(server.join().unwrap()?, "hello");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - [`config`]: settings. [`device`]: which device, and why. [`error`], [`stats`].
//! - [`stream`], [`listener`], [`runtime`]: what applications call.
//! - [`ready_list`]: one thread that serves many streams.
//!
//! Below them, from the applications down to the device (each knows only what stands after it):
//!
//! - `reach`: what streams ask of their engine, wherever it is.
//! - `attach`: an engine in another process, and serving other processes.
//! - `local`: an engine in this process: its threads, who drives it when, its sessions.
//! - `engine`: streams, scheduler and Channels of a Channel group, one step at a time; no thread.
//! - `shared`: what engines, threads and applications share.
//! - `boundary`: what both sides of a stream hold: cells, ports, regions.
//! - `wait`, `clock`, `sync`, `info`: small things.
//! - `bench`: two engines in one thread, for benchmarks.

pub mod config;
pub mod device;
pub mod error;
pub mod listener;
pub mod runtime;
pub mod stats;
pub mod stream;

mod attach;
/// For this project's own benchmarks.
#[cfg(any(test, feature = "bench"))]
#[doc(hidden)]
pub mod bench;
mod boundary;
mod clock;
mod engine;
mod info;
mod local;
mod reach;
pub mod ready_list;
mod shared;
mod sync;
mod wait;

pub use attach::server::AttachServer;
pub use config::{Config, DeviceChoice, Idle, Keepalive, PathClass, Policy, Poller, StreamOptions};
pub use device::{DeviceList, devices};
pub use error::Error;
pub use info::StreamInfo;
pub use listener::Listener;
pub use netchannel_driver::{PlanRow, Worker, offload_plan};
pub use netchannel_units::{Bandwidth, Class, Weight};
pub use netchannel_verbs::DeviceAttributes;
pub use netchannel_verbs::device::Provider;
pub use ready_list::{Event, Interest, ReadyList, Registration};
pub use runtime::{Connecting, PollerReport, Runtime};
pub use stats::{BulkStats, ChannelStats, CoreStats, GroupStats, Stats};
pub use stream::{Chunk, Pollable, ReceiveHalf, Reservation, SendHalf, Stream};
