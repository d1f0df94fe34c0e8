//! Runs the conformance suite on a device, or between two devices of this host.
//!
//! ```text
//! conformance --device rxe_1 --peer-device rxe_2
//! conformance --device soft --only send
//! ```
//!
//! Exit status: 0 if every check passed, 1 if one failed or a device could not be opened, 2 for
//! wrong usage.

use std::process::ExitCode;

use clap::Parser;
use netchannel_verbs::rdma::{self, OpenOptions};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::{Context, Error, conformance};

/// Runs the conformance suite on a device, or between two devices of this host.
#[derive(Parser)]
struct Options {
    /// An RDMA device, or `soft` for the NIC in memory
    #[arg(long, value_name = "NAME")]
    device: String,
    /// The other end [default: the same device, opened twice]
    #[arg(long, value_name = "NAME")]
    peer_device: Option<String>,
    /// Only the checks whose name contains this
    #[arg(long, value_name = "PART", default_value = "", hide_default_value = true)]
    only: String,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<bool, Error> {
    if options.device == "soft" {
        let open = || soft::Context::open(SoftOptions::default());
        return Ok(check(&open()?, &open()?, &options.only));
    }
    let open = |name: &str| rdma::Context::open(name, &OpenOptions::default());
    Ok(check(
        &open(&options.device)?,
        &open(options.peer_device.as_ref().unwrap_or(&options.device))?,
        &options.only,
    ))
}

fn check<C: Context>(a: &C, b: &C, only: &str) -> bool {
    for attributes in [a.attributes(), b.attributes()] {
        let (name, reason) = (&attributes.name, &attributes.port.reason);
        println!("{name}: {}; {reason}", attributes.description);
    }
    let report = conformance::run_matching(a, b, only, |outcome| println!("{outcome}"));
    let (all, failed) = (report.outcomes.len(), report.failures());
    println!("{} passed, {failed} failed", all - failed);
    report.passed()
}
