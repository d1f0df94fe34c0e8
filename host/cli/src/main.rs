//! The `netchannel` command.
//!
//! - [`arguments`]: what may be written on the command line. [`config`]: settings from arguments
//!   and files. [`address`], [`quantity`], [`link`]: how addresses, amounts and links are
//!   written.
//! - [`devices`], [`demo`], [`recv`], [`send`], [`perf`], [`engine`]: the subcommands.
//! - [`transfer`]: how a file travels. [`progress`]: the bar.
//! - [`problem`]: what may go wrong. [`exit`]: exit codes. [`interrupt`]: Ctrl-C. [`output`]: printing.
#![forbid(unsafe_code)]

mod address;
mod arguments;
mod config;
mod demo;
mod devices;
mod engine;
mod exit;
mod interrupt;
mod link;
mod output;
mod perf;
mod problem;
mod progress;
mod quantity;
mod recv;
mod send;
mod transfer;

use std::process::ExitCode;

use clap::Parser;

use arguments::{Cli, Command};
use config::Settings;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let settings = cli.config.clone();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error, settings.as_deref()),
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // Children of runs do nothing else, and above all nothing that costs time.
    if let Command::Child { task } = &cli.command {
        output::print(&netchannel_workloads::child::run(task)?)?;
        return Ok(());
    }
    let settings = Settings::resolve(&cli)?;
    output::log(&settings.log)?;
    interrupt::watch()?;
    match cli.command {
        Command::Devices(arguments) => devices::run(&arguments, cli.device.as_deref()),
        Command::Demo(arguments) => demo::run(&arguments, settings),
        Command::Recv(arguments) => recv::run(&arguments, &settings),
        Command::Send(arguments) => send::run(&arguments, &settings),
        Command::Engine(arguments) => engine::run(&arguments, &settings),
        Command::Perf(arguments) => perf::run(&arguments.tool, settings),
        Command::Child { .. } => Ok(()),
    }
}
