//! `netchannel perf isolation`.

use std::ffi::OsString;
use std::path::Path;

use anyhow::Context;
use netchannel_verbs::soft::LinkModel;
use netchannel_workloads::client::Client;
use netchannel_workloads::isolation::{Figures, Isolation};
use netchannel_workloads::local::LocalServer;
use netchannel_workloads::netchannel::NetChannel;
use netchannel_workloads::processors::Halves;
use netchannel_workloads::shaped::{Shape, ShapedNetwork};
use netchannel_workloads::spec::{Amount, Bulk, RunSpec, Stack, Tool};
use netchannel_workloads::tcp::Tcp;
use netchannel_workloads::transport::Transport;
use serde::Serialize;

use crate::arguments::IsolationArgs;
use crate::config::Settings;
use crate::interrupt::AtInterrupt;
use crate::output;
use crate::perf::plan::Plan;

/// Bytes of one write of a bulk stream.
const BULK_SIZE: usize = 10_000_000;

/// The link that all stacks had.
#[derive(Debug, Serialize)]
struct Link {
    /// Gigabits per second; absent without a limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_gbps: Option<f64>,
    /// One-way delay in microseconds.
    delay_us: f64,
    /// Bytes that may wait for it; 0 is no limit.
    queue: u64,
    /// Bytes that wait from which on marks are set; 0 is never.
    ecn_threshold: u64,
    /// Probability that a message is lost.
    loss: f64,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    tool: &'static str,
    link: Link,
    /// Bytes of a message of the latency stream.
    size: usize,
    /// Time from one message to the next, in microseconds.
    interval_us: f64,
    bulk_streams: u16,
    bulk_size: usize,
    duration_s: f64,
    channels: u16,
    latency_channels: u16,
    poller: String,
    idle: String,
    /// Those of each side; absent if they share all.
    #[serde(skip_serializing_if = "Option::is_none")]
    processors: Option<Halves>,
    netchannel: Isolation,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp: Option<Isolation>,
    /// How kernel TCP's link was made, and what of the link it lacks.
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_link: Option<String>,
}

/// Measures.
pub(super) fn run(arguments: &IsolationArgs, settings: Settings) -> anyhow::Result<()> {
    let model = settings.stack.soft.link.unwrap_or_default();
    let rate = model.rate.bits_per_second();
    let rate_gbps = (rate > 0).then_some(rate as f64 / 1e9);
    let bulk = Bulk { streams: arguments.bulk_streams, size: BULK_SIZE };
    let spec = spec(arguments, &settings);
    // What is missing for TCP is better found before NetChannel has run.
    let shaped = arguments.vs.is_some().then(|| Shaped::create(&model)).transpose()?;

    let program = std::env::current_exe().context("cannot find this program's own file")?;
    let halves = match arguments.share_processors {
        true => None,
        false => Halves::of_this_process()?,
    };
    let server = start_server(&program, &server_arguments(&settings), halves.as_ref())?;
    let start = || {
        let transport = NetChannel::start(&settings.stack, &spec.engine)?;
        Ok(Box::new(transport) as Box<dyn Transport>)
    };
    let mut client = Client::connect(server.address())?;
    let netchannel = Isolation::measure(&mut client, &spec, bulk, rate_gbps, &start)?;
    drop(client);
    server.wait()?;

    let tcp = match &shaped {
        Some(shaped) => {
            let server = shaped.server(&program, &settings, halves.as_ref())?;
            Some(tcp(server, &spec, bulk, rate_gbps)?)
        }
        None => None,
    };
    let report = Report {
        tool: "isolation",
        link: Link {
            rate_gbps,
            delay_us: model.delay.as_secs_f64() * 1e6,
            queue: model.queue_bytes,
            ecn_threshold: model.ecn_threshold,
            loss: model.loss,
        },
        size: spec.load.size,
        interval_us: arguments.interval.as_secs_f64() * 1e6,
        bulk_streams: bulk.streams,
        bulk_size: bulk.size,
        duration_s: arguments.duration.as_secs_f64(),
        channels: settings.stack.channels,
        latency_channels: settings.stack.latency_channels,
        poller: settings.stack.poller.to_string(),
        idle: settings.stack.idle.to_string(),
        processors: halves,
        netchannel,
        tcp,
        tcp_link: shaped.map(|shaped| shaped.describe(&model)),
    };
    if arguments.json {
        return output::print_json(&report);
    }
    Ok(output::print(&show(&report))?)
}

fn spec(arguments: &IsolationArgs, settings: &Settings) -> RunSpec {
    let mut spec = Plan::standard(Tool::Latency, settings.clone()).spec;
    (spec.load.size, spec.load.write_size) = (arguments.size, arguments.size);
    spec.load.amount = Amount::Duration(arguments.duration);
    spec.load.interval = arguments.interval;
    spec
}

fn server_arguments(settings: &Settings) -> Vec<OsString> {
    let fixed = ["perf", "bw", "--with-parent", "--port=0"].map(Into::into);
    fixed.into_iter().chain(settings.arguments.iter().map(Into::into)).collect()
}

fn start_server(
    program: &Path,
    arguments: &[OsString],
    halves: Option<&Halves>,
) -> anyhow::Result<LocalServer> {
    let start = || LocalServer::start(program, arguments);
    Ok(halves.map_or_else(start, |halves| halves.start_there(start))?)
}

/// Measures kernel TCP against a server at the other end of its link.
fn tcp(
    server: LocalServer,
    spec: &RunSpec,
    bulk: Bulk,
    rate_gbps: Option<f64>,
) -> anyhow::Result<Isolation> {
    let spec = RunSpec { stack: Stack::Tcp, ..spec.clone() };
    let start = || Ok(Box::new(Tcp::new(spec.tcp.clone(), None)) as Box<dyn Transport>);
    let mut client = Client::connect(server.address())?;
    let measured = Isolation::measure(&mut client, &spec, bulk, rate_gbps, &start)?;
    drop(client);
    server.wait()?;
    Ok(measured)
}

/// Kernel TCP's link, which goes when this does, or when a signal ends the program.
struct Shaped {
    network: ShapedNetwork,
    _cleanup: AtInterrupt,
}

impl Shaped {
    fn create(model: &LinkModel) -> anyhow::Result<Self> {
        let shape = Shape {
            bits_per_second: model.rate.bits_per_second(),
            delay: model.delay,
            queue_bytes: model.queue_bytes,
        };
        let mut network = ShapedNetwork::plan()?;
        let cleanup = AtInterrupt::new(network.remover());
        network.set_up(&shape)?;
        Ok(Self { network, _cleanup: cleanup })
    }

    fn server(
        &self,
        program: &Path,
        settings: &Settings,
        halves: Option<&Halves>,
    ) -> anyhow::Result<LocalServer> {
        let (runner, mut arguments) = self.network.prefix();
        arguments.push(program.into());
        arguments.extend(server_arguments(settings));
        arguments.push(format!("--bind={}", self.network.server_address()).into());
        start_server(Path::new(runner), &arguments, halves)
    }

    fn describe(&self, model: &LinkModel) -> String {
        let mut text = "a pair of virtual interfaces with a token bucket each, which lets short \
                        bursts through at once"
            .to_owned();
        if !self.network.models_delay() {
            text += &format!(
                ", without the delay of {:.1} us, for which this kernel has no model (netem)",
                model.delay.as_secs_f64() * 1e6
            );
        }
        if model.loss > 0.0 || model.reorder > 0.0 || model.ecn_threshold > 0 {
            text += ", without loss, reordering and ECN marks";
        }
        text
    }
}

fn show(report: &Report) -> String {
    let rate = report.link.rate_gbps.map_or("no limit".into(), |rate| format!("{rate} Gb/s"));
    let mut text = format!(
        "Link: {rate}, {} us of delay; messages of {} bytes, {} us apart; {} bulk streams of {} \
         byte writes. NetChannel: poller {}, idle {}.\n\n",
        report.link.delay_us,
        report.size,
        report.interval_us,
        report.bulk_streams,
        report.bulk_size,
        report.poller,
        report.idle
    );
    let head = ["", "t_typical[usec]", "99%[usec]", "99.9%[usec]", "bulk[Gb/sec]"];
    let mut rows = vec![head.map(String::from).to_vec()];
    let stacks = [("NetChannel", Some(report.netchannel)), ("kernel TCP", report.tcp)];
    for (name, stack) in stacks.iter().filter_map(|(name, stack)| Some((name, (*stack)?))) {
        rows.push(row(format!("{name}, alone"), &stack.alone));
        rows.push(row(format!("{name}, beside bulk"), &stack.beside));
    }
    text += &output::table(&rows);
    text += "\n";
    for (name, stack) in stacks.iter().filter_map(|(name, stack)| Some((name, (*stack)?))) {
        let share = stack.bulk_share.map_or(String::new(), |share| {
            let all = stack.link_share.unwrap_or(share);
            format!(
                "; bulk streams got {:.1} % of the link, all {:.1} %",
                share * 100.0,
                all * 100.0
            )
        });
        text += &format!(
            "{name}: the 99 % value beside bulk streams is {:.2} x that alone{share}.\n",
            stack.p99_ratio
        );
    }
    if let Some(link) = &report.tcp_link {
        text += &format!("Kernel TCP's link: {link}.\n");
    }
    text
}

fn row(name: String, figures: &Figures) -> Vec<String> {
    let Figures { p50_us, p99_us, p999_us, bulk_gbps, .. } = figures;
    let values = [p50_us, p99_us, p999_us].map(|us| format!("{us:.2}"));
    [vec![name], values.to_vec(), vec![format!("{bulk_gbps:.3}")]].concat()
}
