//! `netchannel-micro`: the table of budgets. `scripts/bench-micro` is the command for people.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use netchannel_micro::budget::{Measured, Table};
use netchannel_micro::{cases, instructions, time};

#[derive(Parser)]
#[command(about = "What the pieces of the stack cost, beside the budgets of the design")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Counts instructions and prints the table.
    Table {
        /// Criterion's folder of results.
        #[arg(long)]
        criterion: PathBuf,
        /// Time alone, without callgrind.
        #[arg(long)]
        no_instructions: bool,
        /// JSON instead of Markdown.
        #[arg(long)]
        json: bool,
        /// Also JSON into this file.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Runs a case so many batches, for callgrind.
    Run {
        /// Name of the case.
        case: String,
        /// Batches.
        batches: u64,
    },
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Table { criterion, no_instructions, json, out } => {
            let table = table(&criterion, !no_instructions)?;
            let text = serde_json::to_string_pretty(&table)?;
            if let Some(out) = out {
                std::fs::write(&out, &text)
                    .with_context(|| format!("cannot write {}", out.display()))?;
            }
            println!("{}", if json { text } else { table.text() });
        }
        Command::Run { case, batches } => {
            let cases = cases::all();
            let found = cases.iter().find(|known| known.name == case);
            let case = found.with_context(|| format!("there is no case {case}"))?;
            instructions::run(case, batches);
        }
    }
    Ok(())
}

fn table(criterion: &std::path::Path, count: bool) -> anyhow::Result<Table> {
    let measure = |case: &netchannel_micro::case::Case| {
        let counted = if count { Some(instructions::count(case)?) } else { None };
        Ok(Measured {
            name: case.name.into(),
            nanoseconds: time::read(criterion, case.name)?,
            instructions: counted.map(|counted| counted.instructions),
            allocations: counted.map(|counted| counted.allocations),
        })
    };
    let cases = cases::all().iter().map(measure).collect::<anyhow::Result<_>>()?;
    Ok(Table::new(machine(), cases))
}

/// The processor's name.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(": ")).map(|(_, name)| name.trim());
    name.unwrap_or("unknown processor").to_owned()
}
