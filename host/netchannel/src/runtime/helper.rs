//! The helper thread: control connections, memory, and the engine when nobody else drives it.
//!
//! It is asleep unless there is something to do. About the engine it is in one of three modes:
//!
//! ```text
//!             nobody drove for 500 us            somebody drives again
//!   Ticking ---------------------------> Watching ---------------------> Ticking
//!      |  nobody drove, but a thread sleeps
//!      +---------------------------------> Parked -- that thread woke --> Ticking
//! ```
//! Watching, it has armed the completion events and sleeps on them: keepalives, credit and
//! acknowledgements go on while the application computes. Parked, it serves the engine's timers.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use netchannel_units::Timestamp;

use crate::config::Poller;
use crate::engine::Drive;
use crate::error::Error;
use crate::runtime::links::Links;
use crate::runtime::owner::HelperMode;
use crate::runtime::{RuntimeInner, now};
use crate::shared::lock;

/// An inline engine that nobody has polled for this long is taken over.
const TICK: Duration = Duration::from_micros(500);

/// What applications ask of the helper.
pub(super) enum HelperCommand {
    /// Accept control connections here.
    Listen(TcpListener),
    /// Stop doing so.
    Unlisten(SocketAddr),
    /// Find or make a session.
    Connect { peer: SocketAddr, reply: Arc<ConnectReply> },
}

/// The answer to [`HelperCommand::Connect`]: the session's slot.
#[derive(Default)]
pub(super) struct ConnectReply {
    answer: Mutex<Option<Result<u32, Error>>>,
    there: Condvar,
}

impl ConnectReply {
    pub(super) fn answer(&self, answer: Result<u32, Error>) {
        lock(&self.answer).get_or_insert(answer);
        self.there.notify_all();
    }

    pub(super) fn wait(&self) -> Result<u32, Error> {
        let mut answer = lock(&self.answer);
        loop {
            if let Some(answer) = answer.take() {
                return answer;
            }
            answer = self.there.wait(answer).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Starts the helper thread.
pub(super) fn spawn(inner: Arc<RuntimeInner>) -> Result<JoinHandle<()>, Error> {
    std::thread::Builder::new()
        .name("nc-helper".into())
        .spawn(move || Helper { links: Links::default(), last_polls: 0, inner }.run())
        .map_err(Error::system("starting the helper thread"))
}

struct Helper {
    inner: Arc<RuntimeInner>,
    links: Links,
    last_polls: u64,
}

impl Helper {
    fn run(mut self) {
        let mut links_timer = None;
        let mut links_ready = true;
        loop {
            // First look what is wanted, then whether to stop: who stops us asks after saying so.
            let wanted = self.inner.shared.helper_looks();
            if self.inner.is_stopping() {
                break;
            }
            if wanted {
                links_ready = true;
                let commands = std::mem::take(&mut *lock(&self.inner.commands));
                for command in commands {
                    self.links.command(&self.inner, command);
                }
                self.make_slabs();
                self.inner.shared.drop_discarded();
            }
            if links_ready || links_timer.is_some_and(|at| now() >= at) {
                links_timer = self.links.run(&self.inner);
            }
            let engine_timer = self.look_after_engine();
            links_ready = self.sleep([links_timer, engine_timer].into_iter().flatten().min());
        }
        self.links.say_goodbye(&self.inner);
        for command in std::mem::take(&mut *lock(&self.inner.commands)) {
            if let HelperCommand::Connect { reply, .. } = command {
                reply.answer(Err(Error::Closed));
            }
        }
    }

    /// Sleeps; returns whether a control connection has something.
    fn sleep(&self, until: Option<Timestamp>) -> bool {
        let wake = &self.inner.shared.helper_wake;
        let mut fds = vec![wake.fd()];
        self.links.add_fds(&mut fds);
        let links = 1..fds.len();
        if self.inner.owner.helper_mode() == HelperMode::Watching {
            // SAFETY: the engine lives as long as `self.inner`.
            fds.extend(self.inner.event_fds.map(|fd| unsafe { BorrowedFd::borrow_raw(fd) }));
        }
        let ready = super::wait::sleep(&fds, until.map(|at| at - now()));
        self.inner.shared.counters.wakeups.add_shared(1);
        if ready[0] {
            let _ = wake.drain();
        }
        ready[links].contains(&true)
    }

    fn make_slabs(&self) {
        let wanted = std::mem::take(&mut *lock(&self.inner.shared.slab_demand));
        for (slot, application) in wanted {
            let made = lock(&self.inner.slab_maker).make(&application);
            match made {
                Ok(slab) => {
                    self.inner.with_engine_quietly(|engine| engine.control().add_slab(slot, slab));
                }
                Err(error) => tracing::warn!(%error, "no memory for receive windows"),
            }
        }
    }

    /// Drives the engine if nobody else does; returns when to look again.
    fn look_after_engine(&mut self) -> Option<Timestamp> {
        let inner = Arc::clone(&self.inner);
        if inner.config.poller == Poller::Dedicated {
            return None;
        }
        match inner.owner.helper_mode() {
            HelperMode::Parked => self.serve_timers(),
            HelperMode::Ticking => {
                let polls = inner.shared.counters.polls.value();
                if polls != self.last_polls || inner.owner.is_taken() {
                    self.last_polls = polls;
                    return Some(now() + TICK);
                }
                if inner.owner.sleepers.load(Ordering::SeqCst) > 0 {
                    self.change(HelperMode::Parked);
                    // A sleeper that woke in between has seen `Ticking` and told nobody.
                    if inner.owner.sleepers.load(Ordering::SeqCst) == 0 {
                        self.change(HelperMode::Ticking);
                        return Some(now() + TICK);
                    }
                    return self.serve_timers();
                }
                self.change(HelperMode::Watching);
                self.watch()
            }
            HelperMode::Watching => self.watch(),
        }
    }

    fn change(&self, mode: HelperMode) {
        self.inner.owner.set_helper_mode(mode);
    }

    /// The sleeper knows the timers of when it fell asleep; who drove since then and went away may
    /// have left earlier ones and acknowledgements that wait for company.
    fn serve_timers(&mut self) -> Option<Timestamp> {
        let Some(mut engine) = self.inner.owner.try_own() else { return Some(now() + TICK) };
        let timer = rest(&mut *engine);
        self.last_polls = self.inner.shared.counters.polls.value();
        timer
    }

    /// One round as the driver: take what there is, arm, look again.
    fn watch(&mut self) -> Option<Timestamp> {
        let inner = Arc::clone(&self.inner);
        let Some(mut engine) = inner.owner.try_own() else {
            self.change(HelperMode::Ticking);
            return Some(now() + TICK);
        };
        let polls = inner.shared.counters.polls.value();
        if polls != self.last_polls && inner.owner.helper_mode() == HelperMode::Ticking {
            self.last_polls = polls;
            return Some(now() + TICK);
        }
        engine.drain_events([true; 2]);
        let timer = rest(&mut *engine);
        self.last_polls = inner.shared.counters.polls.value();
        timer
    }
}

/// Takes and sends everything, so that the next thing to happen is an event or the timer returned.
fn rest(engine: &mut dyn Drive) -> Option<Timestamp> {
    engine.poll(now());
    loop {
        engine.settle(now());
        engine.arm();
        if !engine.poll(now()) {
            return engine.next_timeout();
        }
    }
}
