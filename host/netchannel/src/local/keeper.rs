//! What streams ask of an engine of their own process; how its threads begin and end.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use netchannel_units::GroupId;
use netchannel_verbs::{Context, DeviceAttributes};

use crate::boundary::StreamKey;
use crate::boundary::port::{Doorbell, What};
use crate::clock::now;
use crate::config::Config;
use crate::engine::settings::largest_chunk;
use crate::engine::{Engine, Loan};
use crate::error::Error;
use crate::info::StreamInfo;
use crate::local::cores::Cores;
use crate::local::group::Group;
use crate::local::inner::lost_streams;
use crate::local::{RuntimeInner, helper, patience};
use crate::shared::{GroupShared, PortBudget, Shared, StreamSeed};
use crate::sync::lock;

/// Keeps the threads of a runtime running; the last clone ends them.
pub(crate) struct Keeper {
    pub(crate) inner: Arc<RuntimeInner>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Keeper {
    /// Makes the engines of a device and starts the threads that the configuration asks for.
    pub(crate) fn start<C: Context>(
        context: C,
        reason: String,
        mut config: Config,
    ) -> Result<Arc<Self>, Error> {
        let shared = Arc::new(Shared::new()?);
        let device = context.attributes().clone();
        config.window = config.window_on(&device);
        if let Some(budget) = PortBudget::new(&device, &config) {
            let _ = shared.budget.set(budget);
        }
        let groups = config
            .classes()
            .map(|(id, class)| {
                let shared = GroupShared::new(id, class, Arc::clone(&shared));
                let engine = Engine::new(context.clone(), config.clone(), Arc::clone(&shared))?;
                Ok(Group::new(Box::new(engine), shared))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let cores = Cores::new(groups.len(), config.idle)?;
        let inner = Arc::new(RuntimeInner {
            groups,
            shared,
            patience: patience::Bounds::new(&device, &config),
            gathered: gathered(&device, &config),
            config,
            device,
            reason,
            device_events: Box::new(context.clone()),
            slab_maker: Mutex::new(Box::new(context)),
            commands: Mutex::default(),
            dialed: Mutex::default(),
            cores,
            next_port: AtomicU32::new(1),
            list_numbers: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let threads = vec![helper::spawn(Arc::clone(&inner))?];
        let keeper = Arc::new(Self { inner, threads: Mutex::new(threads) });
        let inner = &keeper.inner;
        inner.set_poller(inner.config.poller, inner.config.polling_cores.into())?;
        Ok(keeper)
    }

    /// Waits for what was written, then ends sessions and threads. Does nothing a second time.
    pub(crate) fn shut_down(&self) -> Result<(), Error> {
        let threads = std::mem::take(&mut *lock(&self.threads));
        if threads.is_empty() {
            return Ok(());
        }
        let lost = self.inner.linger();
        // Peers that wait for the confirmation of their last bytes get it before the goodbye.
        for group in &self.inner.groups {
            self.inner.with_engine(group, |engine| engine.settle(now()));
        }
        self.inner.stop.store(true, Ordering::Release);
        self.inner.shared.ask_helper();
        self.inner.cores.stop();
        for server in lock(&self.inner.shared.servers).iter() {
            if let Err(error) = server.notify() {
                tracing::warn!(%error, "cannot wake the attach server");
            }
        }
        for thread in threads {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
        // Who waits to accept learns that nothing will come; what nobody accepted ends with the
        // engine.
        let listeners = std::mem::take(&mut *lock(&self.inner.shared.listeners));
        for backlog in listeners.values() {
            backlog.close();
        }
        lost_streams(lost)
    }

    /// Where a stream lives.
    fn home(&self, stream: StreamKey) -> &Group {
        self.inner.group(stream.group())
    }

    /// Puts a doorbell into the ring of the stream's engine. False if the ring is full.
    fn ring_bell(self: &Arc<Self>, doorbell: Doorbell) -> Result<bool, Error> {
        self.with_port_at(doorbell.stream.group(), |port| port.ring(doorbell))
    }

    /// Tells the engine to look at a stream's cell: at once, if this thread may drive it.
    pub(crate) fn ring(self: &Arc<Self>, doorbell: Doorbell) -> Result<(), Error> {
        let group = self.home(doorbell.stream);
        if let Some(mut engine) = group.try_drive() {
            engine.serve(now(), doorbell);
            group.let_go(engine);
            return Ok(());
        }
        while !self.ring_bell(doorbell)? {
            // Full: somebody has to take what is in it.
            self.inner.with_engine(group, |_| ());
        }
        if !self.inner.wake_driver(group) {
            if let Some(mut engine) = group.owner.call() {
                engine.poll(now());
                group.release(engine);
            }
            group.tell_helper();
        }
        Ok(())
    }

    /// A little was read of a stream: its engine's next pass may take that along.
    pub(crate) fn note_read(self: &Arc<Self>, stream: StreamKey) -> Result<(), Error> {
        let Some(other) = self.home(stream).shared.last_read.leave(stream) else { return Ok(()) };
        let doorbell = Doorbell { stream: other, what: What::Consumed };
        match self.ring_bell(doorbell)? {
            true => Ok(()),
            false => self.ring(doorbell),
        }
    }

    /// As [`ring`](Self::ring), for what the next pass may take along; the helper makes one if nobody does.
    pub(crate) fn ring_later(self: &Arc<Self>, doorbell: Doorbell) -> Result<(), Error> {
        if !self.ring_bell(doorbell)? {
            return self.ring(doorbell);
        }
        self.home(doorbell.stream).tell_helper();
        Ok(())
    }

    /// One pass of every engine that is for applications' threads to drive and that nobody does.
    pub(crate) fn drive_all(&self) {
        self.inner.groups.iter().for_each(|group| self.drive_group(group.id()));
    }

    /// The same of a group's engine.
    pub(crate) fn drive_group(&self, group: GroupId) {
        let group = self.inner.group(group);
        if let Some(mut engine) = group.try_drive() {
            engine.poll(now());
            group.let_go(engine);
        }
    }

    /// Writes straight from the caller's buffer, if the device can and this thread may drive:
    /// returns how many bytes were taken.
    pub(crate) fn write_direct(&self, loan: Loan<'_>) -> Option<usize> {
        if !self.inner.device.moves_bytes_while_posting() {
            return None;
        }
        let group = self.home(loan.stream);
        let mut engine = group.try_drive()?;
        let taken = engine.write_direct(&now, loan);
        group.let_go(engine);
        taken
    }

    /// How a stream travels.
    pub(crate) fn info(&self, seed: &StreamSeed) -> StreamInfo {
        let inner = &self.inner;
        StreamInfo {
            peer: seed.session.peer,
            device: inner.device.name.clone(),
            provider: inner.device.provider,
            channels: seed.channels(),
            class: seed.claim.class,
            weight: seed.claim.weight,
            policy: inner.config.policy,
            reason: inner.reason.clone(),
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Err(error) = self.shut_down() {
            tracing::warn!(%error, "closing");
        }
    }
}

/// Where the kernel plays the NIC posting is work of the thread that posts: it is never busy with earlier
/// bytes when the next are written, and each write would leave as a message of its own. So a chunk is
/// gathered while earlier bytes are unconfirmed.
fn gathered(device: &DeviceAttributes, config: &Config) -> u64 {
    match config.gather {
        _ if !device.is_played_by_kernel() => 0,
        Some(bytes) => bytes as u64,
        None => largest_chunk(config, device),
    }
}

#[cfg(test)]
mod tests {
    use netchannel_verbs::{Mover, soft};

    use super::*;

    #[test]
    fn writes_gather_where_the_kernel_plays_the_nic() {
        let on = |mover, gather| {
            let device = DeviceAttributes { mover, ..soft::attributes() };
            gathered(&device, &Config { gather, ..Config::default() })
        };
        assert_eq!(on(Mover::Kernel, None), 512 << 10);
        assert_eq!(on(Mover::Kernel, Some(9_000)), 9_000);
        assert_eq!(on(Mover::Kernel, Some(0)), 0);
        assert_eq!(on(Mover::Nic, Some(9_000)), 0, "the scheduler sees to it");
        assert_eq!(on(Mover::Poster, None), 0);
    }
}
