//! Ctrl-C and termination: clean up, say so, and end with the usual code. Files that a transfer
//! has begun stay as they are, under their partial name.

use std::sync::Mutex;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::output;

type Cleanup = Box<dyn FnOnce() + Send>;

static CLEANUPS: Mutex<Vec<(u64, Cleanup)>> = Mutex::new(Vec::new());

/// Ends the process on signals from now on.
pub(crate) fn watch() -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("watching for signals")?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            if let Some(signal) = signals.forever().next() {
                for (_, cleanup) in take_all() {
                    cleanup();
                }
                output::say(if signal == SIGINT { "interrupted" } else { "terminated" });
                std::process::exit(128 + signal);
            }
        })
        .context("starting the thread that watches for signals")?;
    Ok(())
}

fn take_all() -> Vec<(u64, Cleanup)> {
    std::mem::take(&mut *cleanups())
}

fn cleanups() -> std::sync::MutexGuard<'static, Vec<(u64, Cleanup)>> {
    // A panic while the list was locked leaves it as good as it was.
    CLEANUPS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Something that happens on a signal, as long as this lives.
pub(crate) struct AtInterrupt(u64);

impl AtInterrupt {
    /// `cleanup` runs on a signal.
    pub(crate) fn new(cleanup: impl FnOnce() + Send + 'static) -> Self {
        let mut list = cleanups();
        let id = list.iter().map(|(id, _)| id + 1).max().unwrap_or(0);
        list.push((id, Box::new(cleanup)));
        Self(id)
    }
}

impl Drop for AtInterrupt {
    fn drop(&mut self) {
        cleanups().retain(|(id, _)| *id != self.0);
    }
}
