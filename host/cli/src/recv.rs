//! `netchannel recv`.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use netchannel::{Listener, Runtime, Stream};
use netchannel_workloads::{child, local};
use serde_json::json;

use crate::arguments::RecvArgs;
use crate::config::Settings;
use crate::exit;
use crate::problem::Problem;
use crate::quantity::show_bytes;
use crate::transfer::destination::{Destination, STANDARD};
use crate::transfer::receiver::{ReceiveFailure, Received, receive};
use crate::{output, progress};

/// Receives one file, or one after another.
pub(crate) fn run(arguments: &RecvArgs, settings: &Settings) -> anyhow::Result<()> {
    if arguments.transfer.with_parent {
        child::end_with_parent()?;
    }
    if arguments.json && arguments.output == Path::new(STANDARD) {
        let text = "--json and the file would both go to standard output; name a file with -o";
        return Err(Problem::Usage(text.into()).into());
    }
    Destination::check(&arguments.output)?;
    let address = arguments.listen.resolve().map_err(Problem::for_own_address)?;
    let stack = settings.stack_at(address.ip(), arguments.transfer.with_parent);
    let runtime = Runtime::start(stack).context("cannot start NetChannel")?;
    let listener =
        runtime.listen(address).map_err(|error| exit::cannot_listen(&arguments.listen, error))?;
    output::say(&format!(
        "listening on {}, device {} ({})",
        listener.local_addr(),
        runtime.device_name(),
        runtime.device_reason()
    ));
    if arguments.json {
        local::announce(listener.local_addr())?;
    }
    let result = serve(arguments, &listener, &runtime);
    drop(listener);
    result.and_then(|()| runtime.close().context("cannot close NetChannel"))
}

fn serve(arguments: &RecvArgs, listener: &Listener, runtime: &Runtime) -> anyhow::Result<()> {
    for number in 1.. {
        let stream = listener.accept().context("cannot accept a stream")?;
        let path = numbered(&arguments.output, number);
        let result = one(stream, &path, arguments.json, runtime);
        match result {
            Err(error) if arguments.keep => output::say(&exit::sentence(&error)),
            other if !arguments.keep => return other,
            _ => {}
        }
    }
    Ok(())
}

/// The name of the file with this number: the first has none.
fn numbered(path: &Path, number: u32) -> PathBuf {
    if number == 1 || path == Path::new(STANDARD) || (path.exists() && !path.is_file()) {
        return path.into();
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

fn one(mut stream: Stream, path: &Path, as_json: bool, runtime: &Runtime) -> anyhow::Result<()> {
    let peer = stream.info().peer;
    let before = runtime.stats();
    let start = Instant::now();
    let received = Destination::open(path)
        .map_err(ReceiveFailure::from)
        .and_then(|destination| receive(&mut stream, destination, progress::bar));
    let Received { bytes, checksum } = match received {
        Ok(received) => received,
        Err(ReceiveFailure { problem, tell }) => {
            match tell {
                Some(reason) => stream.reset(reason as u32),
                None => end(stream),
            }
            return Err(problem.into());
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let gbps = bytes as f64 * 8.0 / seconds / 1e9;
    output::say(&format!(
        "received {} from {peer} in {seconds:.2} s ({gbps:.2} Gb/s), BLAKE3 {checksum} \
         compared",
        show_bytes(bytes)
    ));
    end(stream);
    if as_json {
        let stats = runtime.stats();
        let result = json!({
            "tool": "recv",
            "file": path,
            "bytes": bytes,
            "seconds": seconds,
            "gbps": gbps,
            "blake3": checksum.to_string(),
            "copied_bytes": stats.copied_bytes - before.copied_bytes,
            "placed_out_of_order": stats.placed_out_of_order - before.placed_out_of_order,
        });
        output::print(&format!("{result}\n"))?;
    }
    Ok(())
}

/// Lets the sender have the verdict and go first: it still has counters to read, which end with the
/// session.
fn end(mut stream: Stream) {
    stream.finish();
    let mut rest = [0; 64];
    while matches!(stream.read(&mut rest), Ok(read) if read > 0) {}
    if let Err(error) = stream.close() {
        tracing::debug!(%error, "closing");
    }
}
