//! Results for people, in perftest's columns.

use netchannel_workloads::polling::CoreLoad;
use netchannel_workloads::report::{Failover, Polls, Report, StreamBytes};
use netchannel_workloads::rounds::{Figure, Round};
use netchannel_workloads::transport::ChannelBytes;

use crate::output;
use crate::quantity::show_bytes;

/// One round in one line.
pub(crate) fn round(round: &Round) -> String {
    let tcp = round.tcp.map_or(String::new(), |tcp| format!(", TCP {}", short(&tcp)));
    format!("NetChannel {}{tcp}, limit {}", short(&round.netchannel), short(&round.limit))
}

fn short(figure: &Figure) -> String {
    match figure {
        Figure::Bandwidth { gbps } => format!("{gbps:.2} Gb/s"),
        Figure::Latency { p50_us, p99_us, .. } => format!("{p50_us:.2} us (99% {p99_us:.2})"),
    }
}

/// A whole report.
pub(crate) fn show(report: &Report) -> String {
    let mut text = format!(
        "Device {} ({}), {} Channels, {} streams, {}, {} poller, {} when idle\n\n",
        report.device,
        report.reason,
        report.channels,
        report.streams,
        report.policy,
        report.poller,
        report.idle
    );
    text += &output::table(&rows(report));
    text += &format!(
        "\nMedians of {} rounds; ratios are medians of the ratios within rounds. The limit is {}.\n\n",
        report.rounds.len(),
        limit(report)
    );
    if let Some(time) = report.processor_seconds_per_gb {
        let tcp = time.tcp.map_or(String::new(), |tcp| format!(", kernel TCP {tcp:.3}"));
        text += &format!(
            "Processor time of both processes, seconds per GB: NetChannel {:.3}{tcp}.\n\n",
            time.netchannel
        );
    }
    text += &polls(&report.polling);
    text += &streams(&report.per_stream);
    text += &channels(&report.per_channel);
    if let Some(failover) = &report.failover {
        text += &broken(failover);
    }
    text
}

/// Which cores polled on each side, and why these.
fn polls(polls: &Polls) -> String {
    let mut text = String::new();
    for (side, polling) in [("client", &polls.client), ("server", &polls.server)] {
        let Some(polling) = polling.as_ref().filter(|polling| !polling.cores.is_empty()) else {
            continue;
        };
        let cores: Vec<_> = polling.cores.iter().map(core).collect();
        let (cores, moves) = (cores.join(", "), polling.moves);
        text += &format!(
            "Polling cores of the {side}: {cores}; groups moved {moves} times; {}.\n",
            polling.reason
        );
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

fn core(core: &CoreLoad) -> String {
    let place =
        core.processor.map_or("any processor".into(), |number| format!("processor {number}"));
    format!("{} ({place}, {:.2} s busy)", core.number, core.busy_s)
}

/// What became of the Channels that were broken.
fn broken(failover: &Failover) -> String {
    if failover.broken == 0 {
        return format!(
            "\nNo Channel was broken: the run ended before the first {} s were over. Every byte was \
             compared.\n",
            failover.every_s
        );
    }
    format!(
        "\nA Channel was broken every {} s: {} in all, {} queue pairs fenced, {} sent again.\nGap at \
         the receiver: half of them below {:.0} us, the longest {:.0} us. Every byte was compared, \
         and every Channel replaced.\n",
        failover.every_s,
        failover.broken,
        failover.failovers,
        show_bytes(failover.replayed_bytes),
        failover.gap_p50_us,
        failover.gap_max_us
    )
}

fn limit(report: &Report) -> String {
    match report.netchannel {
        Figure::Bandwidth { .. } => {
            format!("a bare pipeline of two processes with {} copies", report.copies)
        }
        Figure::Latency { .. } => "a cache line from core to core".into(),
    }
}

/// One row per stack.
pub(crate) fn rows(report: &Report) -> Vec<Vec<String>> {
    let head = match report.netchannel {
        Figure::Bandwidth { .. } => {
            ["", "#bytes", "BW median[Gb/sec]", "MsgRate[Mpps]", "NetChannel is"]
                .map(String::from)
                .to_vec()
        }
        Figure::Latency { .. } => {
            ["", "#bytes", "t_typical[usec]", "99%[usec]", "99.9%[usec]", "NetChannel is"]
                .map(String::from)
                .to_vec()
        }
    };
    let mut rows = vec![head, row(report, "NetChannel", &report.netchannel, None)];
    if let Some(tcp) = &report.tcp {
        rows.push(row(report, "kernel TCP", tcp, report.ratio.as_ref()));
    }
    rows.push(row(report, "limit", &report.limit, Some(&report.limit_ratio)));
    rows
}

fn row(report: &Report, name: &str, figure: &Figure, ratio: Option<&Figure>) -> Vec<String> {
    let mut cells = vec![name.to_owned(), report.size.to_string()];
    match figure {
        Figure::Bandwidth { gbps } => {
            let messages = gbps * 1e9 / 8.0 / report.size as f64 / 1e6;
            cells.extend([format!("{gbps:.2}"), format!("{messages:.4}")]);
        }
        Figure::Latency { p50_us, p99_us, p999_us } => {
            cells.extend([p50_us, p99_us, p999_us].map(|us| format!("{us:.2}")));
        }
    }
    if let Some(ratio) = ratio {
        let (Figure::Bandwidth { gbps: times } | Figure::Latency { p50_us: times, .. }) = ratio;
        cells.push(format!("{times:.2} x"));
    }
    cells
}

/// What each stream got, where they have weights.
fn streams(streams: &[StreamBytes]) -> String {
    if streams.is_empty() {
        return String::new();
    }
    let total: u64 = streams.iter().map(|stream| stream.bytes).sum();
    let weights: u64 = streams.iter().map(|stream| u64::from(stream.weight)).sum();
    let head = ["Stream", "weight", "bytes written", "share", "by weight"].map(String::from);
    let mut rows = vec![head.to_vec()];
    let percent = |part: u64, all: u64| format!("{:.1} %", part as f64 * 100.0 / all.max(1) as f64);
    rows.extend(streams.iter().enumerate().map(|(number, stream)| {
        vec![
            number.to_string(),
            stream.weight.to_string(),
            stream.bytes.to_string(),
            percent(stream.bytes, total),
            percent(stream.weight.into(), weights),
        ]
    }));
    output::table(&rows) + "\n"
}

/// What each Channel carried.
pub(crate) fn channels(channels: &[ChannelBytes]) -> String {
    let total: u64 = channels.iter().map(|channel| channel.bytes).sum();
    let head = ["Channel", "stream bytes", "share", "bytes sent", "messages"].map(String::from);
    let mut rows = vec![head.to_vec()];
    rows.extend(channels.iter().map(|channel| {
        let share = channel.bytes as f64 * 100.0 / total.max(1) as f64;
        vec![
            channel.channel.to_string(),
            channel.bytes.to_string(),
            format!("{share:.1} %"),
            show_bytes(channel.wire_bytes),
            channel.messages.to_string(),
        ]
    }));
    rows.push(vec!["all".into(), total.to_string(), "100.0 %".into()]);
    output::table(&rows)
}
