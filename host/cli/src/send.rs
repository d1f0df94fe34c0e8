//! `netchannel send`.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use netchannel::{Class, Runtime, Stream, StreamOptions};
use netchannel_workloads::child;
use netchannel_workloads::netchannel::counters;
use netchannel_workloads::transport::Counters;
use serde::{Deserialize, Serialize};

use netchannel_workloads::transport::ChannelBytes;

use crate::arguments::SendArgs;
use crate::config::Settings;
use crate::problem::Problem;
use crate::quantity::show_bytes;
use crate::transfer::destination::STANDARD;
use crate::transfer::format::GiveUp;
use crate::transfer::sender::{SendFailure, Sent, send};
use crate::{output, progress};

/// How long the last confirmations may take to come in after the receiver has said that it has
/// everything.
const SETTLE: Duration = Duration::from_millis(200);

/// What `send --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SendReport {
    /// `send`.
    pub(crate) tool: String,
    /// Bytes of the file.
    pub(crate) bytes: u64,
    /// Time from the first byte to the receiver's verdict.
    pub(crate) seconds: f64,
    /// Gigabits (10^9) per second.
    pub(crate) gbps: f64,
    /// Checksum on both sides.
    pub(crate) blake3: String,
    /// Device.
    pub(crate) device: String,
    /// Why this device.
    pub(crate) reason: String,
    /// Channels of the session.
    pub(crate) channels: u16,
    /// Bytes on the stream: the file, its header, and four bytes for each block.
    pub(crate) stream_bytes: u64,
    /// The same by Channel; sums to `stream_bytes`.
    pub(crate) per_channel: Vec<ChannelBytes>,
    /// Bytes that this side's cores copied.
    pub(crate) copied_bytes: u64,
}

/// Sends one file.
pub(crate) fn run(arguments: &SendArgs, settings: &Settings) -> anyhow::Result<()> {
    if arguments.transfer.with_parent {
        child::end_with_parent()?;
    }
    let (source, length) = open(&arguments.file)?;
    let options = StreamOptions { class: arguments.class, ..StreamOptions::default() };
    let (runtime, mut stream) = arguments.address.reach(|peer| {
        let stack = settings.stack_at(peer.ip(), arguments.transfer.with_parent);
        let runtime = Runtime::start(stack).context("cannot start NetChannel")?;
        output::say(&format!("device {} ({})", runtime.device_name(), runtime.device_reason()));
        let stream = runtime.connect(peer, &options);
        let stream = stream.with_context(|| format!("cannot send to {}", arguments.address))?;
        Ok((runtime, stream))
    })?;

    let bar = progress::bar(length);
    let start = Instant::now();
    let sent = send(&mut stream, source, length, &bar);
    let elapsed = start.elapsed();
    bar.finish_and_clear();
    match sent {
        Ok(sent) => {
            let report = report(&runtime, &stream, &sent, elapsed);
            stream.close().context("cannot close the stream")?;
            runtime.close().context("cannot close NetChannel")?;
            tell(&report, arguments)
        }
        Err(SendFailure::Source(source)) => {
            stream.reset(GiveUp::CannotRead as u32);
            runtime.close().context("cannot close NetChannel")?;
            Err(Problem::file("read", &arguments.file, source).into())
        }
        Err(SendFailure::Stream(problem)) => Err(problem.into()),
    }
}

/// The file to send, and its length where that is known.
pub(crate) fn open(path: &Path) -> Result<(Box<dyn Read + Send>, Option<u64>), Problem> {
    if path == Path::new(STANDARD) {
        return Ok((Box::new(io::stdin()), None));
    }
    let failed = |source| Problem::file("read", path, source);
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(Problem::Usage(format!(
            "{} is a directory; send an archive of it: tar c {0} | netchannel send - ADDR",
            path.display()
        )));
    }
    let length = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), length))
}

fn report(runtime: &Runtime, stream: &Stream, sent: &Sent, elapsed: Duration) -> SendReport {
    let counters = settled(runtime, stream.info().class, sent.stream_bytes);
    let seconds = elapsed.as_secs_f64();
    SendReport {
        tool: "send".into(),
        bytes: sent.bytes,
        seconds,
        gbps: sent.bytes as f64 * 8.0 / seconds / 1e9,
        blake3: sent.checksum.to_string(),
        device: counters.device,
        reason: counters.reason,
        channels: stream.info().channels,
        stream_bytes: sent.stream_bytes,
        per_channel: counters.per_channel,
        copied_bytes: counters.copied_bytes + counters.moved_by_posting,
    }
}

/// The counters, once every byte of the stream is in them.
fn settled(runtime: &Runtime, class: Class, stream_bytes: u64) -> Counters {
    let deadline = Instant::now() + SETTLE;
    loop {
        let now = counters(runtime, class);
        let confirmed: u64 = now.per_channel.iter().map(|channel| channel.bytes).sum();
        if confirmed >= stream_bytes || Instant::now() >= deadline {
            return now;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn tell(report: &SendReport, arguments: &SendArgs) -> anyhow::Result<()> {
    output::say(&format!(
        "sent {} over {} Channels in {:.2} s ({:.2} Gb/s), BLAKE3 {} compared",
        show_bytes(report.bytes),
        report.channels,
        report.seconds,
        report.gbps,
        report.blake3
    ));
    if arguments.json {
        output::print_json(report)?;
    }
    Ok(())
}
