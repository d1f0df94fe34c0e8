//! `netchannel demo`: a large file between two processes of this host, beside kernel TCP and this
//! machine's limit.
//!
//! - [`input`]: the file.

mod input;

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use netchannel::Runtime;
use netchannel_workloads::local::LocalServer;
use netchannel_workloads::report::Report;
use netchannel_workloads::rounds::Figure;
use netchannel_workloads::spec::Tool;
use serde::Deserialize;

use crate::arguments::DemoArgs;
use crate::config::Settings;
use crate::output;
use crate::perf::plan::Plan;
use crate::perf::{locally, table};
use crate::problem::Problem;
use crate::quantity::show_bytes;
use crate::send::{self, SendReport};
use input::Workspace;

/// What the receiving process says at the end.
#[derive(Debug, Deserialize)]
struct RecvReport {
    bytes: u64,
    blake3: String,
    placed_out_of_order: u64,
}

/// Moves the file, then measures.
pub(crate) fn run(arguments: &DemoArgs, settings: Settings) -> anyhow::Result<()> {
    // What this process can find out is found before others are started, and has its exit code.
    if let Some(path) = &arguments.input {
        send::open(path)?;
    }
    let runtime = Runtime::start(settings.stack.clone()).context("cannot start NetChannel")?;
    runtime.close().context("cannot close NetChannel")?;
    let workspace = Workspace::new()?;
    let input = match &arguments.input {
        Some(path) => path.clone(),
        None => input::toolchain(&workspace)?,
    };
    let received = workspace.path("received");
    let (sent, got) = transfer(&input, &received, &settings)?;
    let on_disk = checksum(&received)?;
    if sent.blake3 != got.blake3 || sent.blake3 != on_disk || sent.bytes != got.bytes {
        let kept = String::new();
        return Err(Problem::Mismatch { sent: sent.blake3, received: on_disk, kept }.into());
    }
    drop(workspace);
    output::print(&show_transfer(&input, &sent, &got))?;
    if arguments.quick {
        return Ok(());
    }
    let rounds = arguments.rounds as usize;
    let measure = |tool| {
        let plan = Plan { tcp: true, rounds, ..Plan::standard(tool, settings.clone()) };
        locally(&plan, &mut |number, round| {
            output::say(&format!("round {number} of {rounds}: {}", table::round(round)));
        })
    };
    let bandwidth = measure(Tool::Bandwidth)?;
    let latency = measure(Tool::Latency)?;
    Ok(output::print(&show_measurements(&bandwidth, &latency))?)
}

/// Runs `recv` and `send` as two processes.
fn transfer(
    input: &Path,
    received: &Path,
    settings: &Settings,
) -> anyhow::Result<(SendReport, RecvReport)> {
    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let common = || settings.arguments.iter().map(OsString::from);
    let mut recv: Vec<OsString> =
        ["recv", "--with-parent", "--json", "--listen=127.0.0.1:0", "-o"].map(Into::into).into();
    recv.push(received.into());
    recv.extend(common());
    let receiver = LocalServer::start(&program, &recv)?;

    let sender = Command::new(&program)
        .args(["send", "--with-parent", "--json"])
        .args(common())
        .arg("--")
        .arg(input)
        .arg(receiver.address().to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the sending process")?;
    if !sender.status.success() {
        bail!("the sending process failed ({})", sender.status);
    }
    let sent = serde_json::from_slice(&sender.stdout).context("reading the sender's report")?;
    let got = serde_json::from_str(&receiver.wait()?).context("reading the receiver's report")?;
    Ok((sent, got))
}

/// BLAKE3 of a file, read again from the file system.
fn checksum(path: &Path) -> Result<String, Problem> {
    let failed = |source| Problem::file("read", path, source);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path).map_err(failed)?).map_err(failed)?;
    Ok(hasher.finalize().to_string())
}

fn show_transfer(input: &Path, sent: &SendReport, got: &RecvReport) -> String {
    let name = input.file_name().map_or_else(|| input.to_path_buf(), PathBuf::from);
    let rows = [
        ("file", format!("{}, {} ({} bytes)", name.display(), show_bytes(sent.bytes), sent.bytes)),
        ("device", format!("{} ({})", sent.device, sent.reason)),
        ("stream", format!("1, over {} Channels", sent.channels)),
        (
            "time",
            format!(
                "{:.2} s, {:.2} Gb/s, with reading, hashing on both sides, and writing",
                sent.seconds, sent.gbps
            ),
        ),
        ("checksum", format!("equal (BLAKE3 {})", sent.blake3)),
        (
            "out of order",
            format!("{} chunks placed before an earlier byte", got.placed_out_of_order),
        ),
    ]
    .map(|(name, value)| vec![name.to_owned(), value]);
    format!(
        "\nOne file from process to process\n{}\n{}",
        output::left_table(&rows),
        table::channels(&sent.per_channel)
    )
}

fn show_measurements(bandwidth: &Report, latency: &Report) -> String {
    let head = ["", "NetChannel", "kernel TCP", "limit", "to TCP", "to the limit"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let tcp = |report: &Report| Some((report.tcp?, report.ratio?));
    if let (Some((tcp, ratio)), limit) = (tcp(bandwidth), bandwidth.limit_ratio) {
        let row = [bandwidth.netchannel, tcp, bandwidth.limit].map(gbps);
        rows.push(cells("throughput, 1 MiB writes", row, "Gb/s", gbps(ratio), gbps(limit)));
    }
    if let Some((tcp, ratio)) = tcp(latency) {
        for (name, value) in [("64 B half round trip, p50", p50 as fn(Figure) -> f64), ("p99", p99)]
        {
            let row = [latency.netchannel, tcp, latency.limit].map(value);
            rows.push(cells(name, row, "us", value(ratio), value(latency.limit_ratio)));
        }
    }
    format!(
        "\nFrom memory to memory, medians of {} interleaved rounds\n{}\n The limit is what two \
         processes of this machine do without a stack: a bare pipeline with {} copies, and\n a \
         cache line from core to core. Kernel TCP runs cubic, 1 MiB buffers, its best write size, \
         and busy polling.\n",
        bandwidth.rounds.len(),
        output::table(&rows),
        bandwidth.copies
    )
}

fn cells(name: &str, values: [f64; 3], unit: &str, to_tcp: f64, to_limit: f64) -> Vec<String> {
    let mut cells = vec![name.to_owned()];
    cells.extend(values.map(|value| format!("{value:.2} {unit}")));
    cells.extend([to_tcp, to_limit].map(|ratio| format!("{ratio:.2} x")));
    cells
}

fn gbps(figure: Figure) -> f64 {
    match figure {
        Figure::Bandwidth { gbps } => gbps,
        Figure::Latency { .. } => 0.0,
    }
}

fn p50(figure: Figure) -> f64 {
    match figure {
        Figure::Latency { p50_us, .. } => p50_us,
        Figure::Bandwidth { .. } => 0.0,
    }
}

fn p99(figure: Figure) -> f64 {
    match figure {
        Figure::Latency { p99_us, .. } => p99_us,
        Figure::Bandwidth { .. } => 0.0,
    }
}
