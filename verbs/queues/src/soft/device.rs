//! What all objects of an opened device share.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use netchannel_shared_memory::wake::Wake;
use netchannel_units::Bandwidth;

use super::completion_queue::Completions;
use super::connection::Shared;
use super::datagram;
use super::link::{Link, LinkModel};
use super::lock::SpinLock;
use super::neighbours::Question;
use super::options::SoftOptions;
use super::protocol::Token;
use super::random::Random;
use super::region::RegionTable;
use super::service::name_of;
use crate::context::AsyncEvent;
use crate::device::{
    Capabilities, DeviceAttributes, Gid, LinkLayer, Mover, PathEntropy, PortAttributes, Provider,
    WhyNot,
};
use crate::error::Error;

/// Largest message: the RDMA standard's 1 GiB.
pub(super) const MAX_MESSAGE: u32 = 1 << 30;
/// Requests per queue; a queue's private entries are a few hundred bytes each.
pub(super) const MAX_WORK_REQUESTS: u32 = 1 << 14;
const MAX_COMPLETIONS: u32 = 1 << 22;
const MAX_QUEUE_PAIRS: u32 = 1 << 14;
/// Queue pair numbers have 24 bits, as on the wire of RoCE.
const NUMBERS: u32 = (1 << 24) - 1;

/// The shared part of a device: no thread, so that objects may keep it.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) attributes: DeviceAttributes,
    pub(super) options: SoftOptions,
    /// Address of its port.
    pub(super) gid: [u8; 16],
    /// Abstract name of the socket of the service thread.
    pub(super) name: Vec<u8>,
    pub(super) regions: RegionTable,
    queue_pairs: Mutex<QueuePairs>,
    /// For the service thread, which is woken for them.
    questions: Mutex<Vec<Question>>,
    pub(super) service_wake: Wake,
    completion_queues: Mutex<Vec<Weak<Completions>>>,
    events: Mutex<VecDeque<AsyncEvent>>,
    pub(super) event_wake: Wake,
    next_number: AtomicU32,
    random: Mutex<Random>,
    /// The link of the port, and how many queue pairs took one of their own.
    port_link: Option<Arc<SpinLock<Link>>>,
    links_taken: AtomicUsize,
    /// Sources that were changed before their request was executed (deferred mode).
    pub(super) violations: AtomicU64,
}

/// All queue pairs, by number.
#[derive(Debug, Default)]
struct QueuePairs {
    connections: HashMap<u32, Weak<Shared>>,
    datagrams: HashMap<u32, Weak<datagram::Shared>>,
}

pub(super) fn shared_link(model: LinkModel, seed: u64) -> Arc<SpinLock<Link>> {
    Arc::new(SpinLock::new(Link::new(model, seed)))
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Device {
    pub(super) fn new(options: SoftOptions, gid: [u8; 16]) -> Result<Self, Error> {
        let mut random = Random::new(options.seed);
        let port_link = options.link.map(|model| shared_link(model, random.next()));
        let wake = || Wake::new().map_err(super::shared_memory_failed("making an eventfd"));
        let mut attributes = attributes(&options);
        attributes.port.gid = Some(Gid { index: 0, value: gid });
        Ok(Self {
            attributes,
            gid,
            name: name_of(&gid),
            regions: RegionTable::new(random.next())?,
            queue_pairs: Mutex::default(),
            questions: Mutex::default(),
            service_wake: wake()?,
            completion_queues: Mutex::default(),
            events: Mutex::default(),
            event_wake: wake()?,
            next_number: AtomicU32::new(random.next() as u32),
            port_link,
            links_taken: AtomicUsize::new(0),
            random: Mutex::new(random),
            violations: AtomicU64::new(0),
            options,
        })
    }

    /// A queue pair number that is not in use.
    pub(super) fn new_number(&self) -> u32 {
        let taken = locked(&self.queue_pairs);
        loop {
            let number = self.next_number.fetch_add(1, Ordering::Relaxed) & NUMBERS;
            let is_taken =
                taken.connections.contains_key(&number) || taken.datagrams.contains_key(&number);
            // 0 and 1 are the special queue pairs of InfiniBand.
            if number > 1 && !is_taken {
                return number;
            }
        }
    }

    pub(super) fn new_seed(&self) -> u64 {
        locked(&self.random).next()
    }

    /// The link of a new queue pair.
    pub(super) fn new_link(&self) -> Option<Arc<SpinLock<Link>>> {
        let links = &self.options.links;
        if links.is_empty() {
            return self.port_link.clone();
        }
        let index = self.links_taken.fetch_add(1, Ordering::Relaxed) % links.len();
        Some(shared_link(links[index], self.new_seed()))
    }

    pub(super) fn add_queue_pair(&self, queue_pair: &Arc<Shared>) {
        let mut queue_pairs = locked(&self.queue_pairs);
        queue_pairs.connections.insert(queue_pair.number, Arc::downgrade(queue_pair));
    }

    pub(super) fn add_datagrams(&self, queue_pair: &Arc<datagram::Shared>) {
        let mut queue_pairs = locked(&self.queue_pairs);
        queue_pairs.datagrams.insert(queue_pair.number, Arc::downgrade(queue_pair));
    }

    pub(super) fn remove_queue_pair(&self, number: u32) {
        let mut queue_pairs = locked(&self.queue_pairs);
        queue_pairs.connections.remove(&number);
        queue_pairs.datagrams.remove(&number);
    }

    /// The queue pair for datagrams of this number.
    pub(super) fn datagrams(&self, number: u32) -> Option<Arc<datagram::Shared>> {
        locked(&self.queue_pairs).datagrams.get(&number)?.upgrade()
    }

    /// Has the service thread ask for the ring from `source` to `key`.
    pub(super) fn resolve(&self, source: &datagram::Shared, key: &datagram::Key) {
        locked(&self.questions).push(Question { source: source.number, key: *key });
        // It fails only for a descriptor that is not an eventfd, and ours is one.
        let _ = self.service_wake.notify();
    }

    pub(super) fn take_questions(&self) -> Vec<Question> {
        std::mem::take(&mut locked(&self.questions))
    }

    /// The queue pair of this number, if the token proves that its bearer may know it.
    pub(super) fn queue_pair(&self, number: u32, token: &Token) -> Option<Arc<Shared>> {
        let queue_pair = locked(&self.queue_pairs).connections.get(&number)?.upgrade()?;
        (queue_pair.token == *token).then_some(queue_pair)
    }

    pub(super) fn add_completion_queue(&self, queue: &Arc<Completions>) {
        let mut queues = locked(&self.completion_queues);
        queues.retain(|queue| queue.strong_count() > 0);
        queues.push(Arc::downgrade(queue));
    }

    /// Wakes every sleeper: something changed that they shall look at.
    pub(super) fn wake_all(&self) {
        fence(Ordering::SeqCst);
        for queue in locked(&self.completion_queues).iter().filter_map(Weak::upgrade) {
            queue.alarm.notify_if_armed();
        }
    }

    pub(super) fn raise(&self, event: AsyncEvent) {
        locked(&self.events).push_back(event);
        // It fails only for a descriptor that is not an eventfd, and ours is one.
        let _ = self.event_wake.notify();
    }

    pub(super) fn next_event(&self) -> Option<AsyncEvent> {
        let mut events = locked(&self.events);
        let event = events.pop_front();
        if events.is_empty() {
            let _ = self.event_wake.drain();
        }
        event
    }
}

/// What a device opened with these options is and can do.
pub(super) fn attributes(options: &SoftOptions) -> DeviceAttributes {
    DeviceAttributes {
        name: options.name.clone(),
        provider: Provider::Soft,
        description: if options.deferred {
            format!("NIC in memory, deferred execution, seed {}", options.seed)
        } else {
            "NIC in memory".into()
        },
        max_queue_pairs: MAX_QUEUE_PAIRS,
        max_work_requests: MAX_WORK_REQUESTS,
        max_completions: MAX_COMPLETIONS,
        max_shared_receives: MAX_WORK_REQUESTS,
        max_slices: crate::work::MAX_SLICES as u32,
        max_region: 1 << 40,
        max_message: MAX_MESSAGE,
        max_inline: options.inline_limit(),
        mover: match options.inline_limit() {
            u32::MAX => Mover::Poster,
            _ => Mover::Nic,
        },
        capabilities: Capabilities {
            shared_receive_queue: true,
            unreliable_datagram: true,
            ..Capabilities::default()
        },
        rate_limit: Err(WhyNot::OtherDevice("the soft NIC paces no queue pair of its own")),
        path_entropy: PathEntropy::NoNetwork,
        mlx5: Err(WhyNot::OtherDevice("memory is no NIC")),
        port: PortAttributes {
            number: 1,
            active: true,
            mtu: 4096,
            rate: options.link.map_or(Bandwidth::ZERO, |link| link.rate),
            link_layer: LinkLayer::Memory,
            gid: None,
            reason: "the memory of this host is the only port".into(),
            interface: None,
        },
    }
}
