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

use netchannel_verbs::rdma::{self, OpenOptions};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::{Context, Error, conformance};

const USAGE: &str = "\
usage: conformance --device NAME [--peer-device NAME] [--only PART]

  --device NAME       an RDMA device, or `soft` for the NIC in memory
  --peer-device NAME  the other end (default: the same device, opened twice)
  --only PART         only the checks whose name contains PART";

struct Options {
    device: String,
    peer: String,
    only: String,
}

fn main() -> ExitCode {
    let Some(options) = parse(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {error}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut arguments: impl Iterator<Item = String>) -> Option<Options> {
    let (mut device, mut peer, mut only) = (None, None, String::new());
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--device" => device = Some(arguments.next()?),
            "--peer-device" => peer = Some(arguments.next()?),
            "--only" => only = arguments.next()?,
            _ => return None,
        }
    }
    let device = device?;
    Some(Options { peer: peer.unwrap_or_else(|| device.clone()), device, only })
}

fn run(options: &Options) -> Result<bool, Error> {
    if options.device == "soft" {
        let open = || soft::Context::open(SoftOptions::default());
        return Ok(check(&open()?, &open()?, &options.only));
    }
    let open = |name: &str| rdma::Context::open(name, &OpenOptions::default());
    Ok(check(&open(&options.device)?, &open(&options.peer)?, &options.only))
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
