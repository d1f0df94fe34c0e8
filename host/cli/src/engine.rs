//! `netchannel engine`: an engine for the applications of other processes.

use std::sync::mpsc;

use anyhow::Context;
use netchannel::Runtime;
use netchannel_workloads::child;

use crate::arguments::ServeArgs;
use crate::config::Settings;
use crate::exit;
use crate::interrupt::AtInterrupt;
use crate::output;

/// Serves until it is told to end.
pub(crate) fn run(arguments: &ServeArgs, settings: &Settings) -> anyhow::Result<()> {
    if arguments.with_parent {
        child::end_with_parent()?;
    }
    let runtime = Runtime::start(settings.stack.clone()).context("cannot start NetChannel")?;
    let server = runtime.serve(&arguments.attach).map_err(exit::cannot_serve)?;
    output::say(&format!(
        "serving applications at {}, device {} ({})",
        server.path().display(),
        runtime.device_name(),
        runtime.device_reason()
    ));
    if arguments.json {
        let line = serde_json::json!({ "tool": "engine", "serving": server.path() });
        output::print(&format!("{line}\n"))?;
    }
    // Ends in order on a signal: applications hear of it, and the socket goes.
    let (stop, stopped) = mpsc::channel::<()>();
    let (done, finished) = mpsc::channel::<()>();
    let _at_interrupt = AtInterrupt::new(move || {
        drop(stop);
        let _ = finished.recv();
    });
    let _ = stopped.recv();
    drop(server);
    let closed = runtime.close();
    drop(done);
    closed.context("cannot close NetChannel")?;
    // The thread that watches for signals ends the process.
    loop {
        std::thread::park();
    }
}
