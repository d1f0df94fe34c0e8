//! What both halves of a stream share.

use std::sync::Arc;
use std::sync::atomic::Ordering::Acquire;

use crate::cell::{ApplicationSide, EngineSide};
use crate::config::Poller;
use crate::error::Error;
use crate::port::{Doorbell, What};
use crate::runtime::{Keeper, now};
use crate::shared::{Command, StreamSeed};
use crate::stream::StreamInfo;

/// What both halves share; the last one to go releases the stream.
pub(super) struct Shared {
    pub(super) keeper: Arc<Keeper>,
    pub(super) seed: StreamSeed,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.keeper.inner.submit(Command::Release(self.seed.key));
    }
}

impl Shared {
    pub(super) fn engine(&self) -> &EngineSide {
        &self.seed.cell.state().engine
    }

    pub(super) fn application(&self) -> &ApplicationSide {
        &self.seed.cell.state().application
    }

    pub(super) fn flags(&self) -> u32 {
        self.engine().flags.load(Acquire)
    }

    /// Tells the engine to look at the cell: at once, if this thread may drive it.
    pub(super) fn ring(&self, what: What) -> Result<(), Error> {
        let inner = &self.keeper.inner;
        let doorbell = Doorbell { stream: self.seed.key, what };
        if inner.config.poller == Poller::Inline
            && let Some(mut engine) = inner.owner.try_own()
        {
            engine.doorbell(doorbell);
            engine.poll(now());
            inner.let_go(engine);
            return Ok(());
        }
        while !self.keeper.with_port(|port| port.ring(doorbell))? {
            // Full: somebody has to take what is in it.
            inner.wake_driver();
            inner.with_engine(|_| ());
        }
        match inner.config.poller {
            Poller::Dedicated => inner.wake_driver(),
            // Whoever drives takes it in its next pass; if this one was its last, it is ours.
            Poller::Inline => inner.with_engine(|_| ()),
        }
        Ok(())
    }

    pub(super) fn info(&self) -> StreamInfo {
        let inner = &self.keeper.inner;
        StreamInfo {
            peer: self.seed.session.peer,
            device: inner.device.name.clone(),
            provider: inner.device.provider,
            channels: self.seed.session.channels,
            class: self.seed.class,
            policy: inner.config.policy,
            reason: inner.reason.clone(),
        }
    }
}
