//! `netchannel perf limits`.

use netchannel_workloads::child::Launcher;
use netchannel_workloads::limits::{self, Limits};
use netchannel_workloads::rounds::Figure;

use super::CHILD;
use crate::arguments::LimitsArgs;
use crate::output;
use crate::quantity::show_binary;

/// Measures what this machine can do without a stack.
pub(super) fn run(arguments: &LimitsArgs) -> anyhow::Result<()> {
    let launcher = Launcher::this_program(&[CHILD])?;
    let limits = limits::measure(&launcher, arguments.size, arguments.window, arguments.duration)?;
    if arguments.json {
        return output::print_json(&limits);
    }
    Ok(output::print(&show(&limits))?)
}

fn show(limits: &Limits) -> String {
    let mut text = format!("{}, {} processors\n\n", limits.processor, limits.processors);
    let head = |cells: [&str; 3]| vec![cells.map(String::from).to_vec()];
    let mut rows = head(["Copy on one core", "in", "Gb/s"]);
    rows.extend(limits.copy.iter().map(|rate| {
        let level = rate.level.as_deref().unwrap_or("?");
        vec![show_binary(rate.working_set as u64), level.into(), format!("{:.1}", rate.gbps)]
    }));
    text += &output::table(&rows);
    let mut rows = head(["Pipeline of two processes", "chunk", "Gb/s"]);
    rows.extend(limits.pipeline.iter().map(|rate| {
        let copies =
            format!("{} {}", rate.copies, if rate.copies == 1 { "copy" } else { "copies" });
        vec![copies, show_binary(rate.chunk as u64), format!("{:.1}", rate.gbps)]
    }));
    text += &format!("\n{}", output::table(&rows));
    if let Figure::Latency { p50_us, p99_us, p999_us } = limits.core_to_core {
        let mut rows = vec![["Core to core, half a round trip", "ns"].map(String::from).to_vec()];
        for (name, us) in [("50%", p50_us), ("99%", p99_us), ("99.9%", p999_us)] {
            rows.push(vec![name.into(), format!("{:.0}", us * 1e3)]);
        }
        text += &format!("\n{}", output::table(&rows));
    }
    text
}
