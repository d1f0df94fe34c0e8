//! What the threads of a runtime do with what they share: whom they wake, and how it ends.

use std::any::Any;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;

use netchannel_units::{Class, GroupId};

use crate::boundary::application::Application;
use crate::clock::now;
use crate::config::Idle;
use crate::engine::Drive;
use crate::error::Error;
use crate::local::RuntimeInner;
use crate::local::commands::HelperCommand;
use crate::local::group::Group;
use crate::shared::{Command, SessionPart, SessionShared, SlabRoom};
use crate::sync::lock;

/// How long closing waits for what was written to be confirmed.
pub(crate) const LINGER: Duration = Duration::from_secs(5);

/// What closing says of streams whose bytes were not all taken.
pub(crate) fn lost_streams(count: usize) -> Result<(), Error> {
    if count == 0 {
        return Ok(());
    }
    let source = std::io::Error::new(
        std::io::ErrorKind::TimedOut,
        format!("{count} streams had bytes that their peers did not take within 5 s"),
    );
    Err(Error::system("closing the runtime")(source))
}

impl RuntimeInner {
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Gives the helper thread something to do. False if the runtime was closed.
    pub(crate) fn command(&self, command: HelperCommand) -> bool {
        let mut commands = lock(&self.commands);
        // Under the lock: what is pushed before the helper ends is answered by it.
        if self.is_stopping() {
            return false;
        }
        commands.push(command);
        drop(commands);
        self.shared.ask_helper();
        true
    }

    pub(crate) fn group(&self, id: GroupId) -> &Group {
        &self.groups[usize::from(id.0)]
    }

    /// The part of a session for a new stream: of its class if there is one, with the fewest
    /// streams.
    pub(super) fn part_for(
        &self,
        session: &SessionShared,
        class: Class,
    ) -> Result<SessionPart, Error> {
        let parts = session.parts().iter();
        let streams = |part: &SessionPart| self.group(part.group).shared.counters.streams.value();
        let best = parts.min_by_key(|part| (part.class != class, streams(part)));
        best.copied().ok_or_else(|| session.error())
    }

    /// A slab of an application's receive windows. Not for polling cores: it takes time.
    pub(super) fn make_slab(
        &self,
        application: &Arc<Application>,
        room: SlabRoom,
    ) -> Result<Box<dyn Any + Send>, Error> {
        lock(&self.slab_maker).make(application, room)
    }

    /// Runs `f` on an engine, waiting for whoever drives it now: for set-up.
    pub(crate) fn with_engine<R>(&self, group: &Group, f: impl FnOnce(&mut dyn Drive) -> R) -> R {
        let mut engine = group.owner.own();
        let result = f(&mut *engine);
        engine.poll(now());
        group.let_go(engine);
        // The dedicated poller sleeps by timers that it knew.
        self.wake_driver(group);
        result
    }

    pub(crate) fn stop_listening(&self, address: SocketAddr) {
        self.command(HelperCommand::Unlisten(address));
    }

    /// Gives the command to its stream's engine and sees to it that it is taken.
    pub(crate) fn submit(&self, command: Command) {
        let Some(stream) = command.stream() else { return };
        let group = self.group(stream.group());
        group.shared.inbox.push(command);
        self.nudge(group);
    }

    /// Sees to it that the inbox is emptied soon.
    pub(super) fn nudge(&self, group: &Group) {
        while group.shared.inbox.has_any() {
            if self.wake_driver(group) {
                return;
            }
            let mut engine = group.owner.own();
            engine.poll(now());
            group.let_go(engine);
        }
    }

    /// Wakes the polling core of a group if it sleeps; false if the group has none. Call after
    /// queueing work.
    pub(crate) fn wake_driver(&self, group: &Group) -> bool {
        fence(Ordering::SeqCst);
        let core = group.core();
        core.into_iter().for_each(|core| self.cores.wake(core));
        core.is_some()
    }

    pub(super) fn wake_drivers(&self) {
        for group in &self.groups {
            self.wake_driver(group);
        }
    }

    /// Drives until no stream is left that its application let go; returns how many are.
    pub(super) fn linger(&self) -> usize {
        let deadline = now() + LINGER;
        loop {
            let unfinished =
                |group| self.with_engine(group, |engine| engine.control().unfinished());
            let left = self.groups.iter().map(unfinished).sum();
            if left == 0 || now() >= deadline {
                return left;
            }
            if self.config.idle == Idle::Sleep || self.cores.count() > 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    }
}
