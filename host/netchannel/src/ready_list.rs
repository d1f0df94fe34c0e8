//! Ready lists: one thread that serves many streams. `slots`: which.

mod slots;

use std::cell::RefCell;
use std::ops::BitOr;
use std::sync::Arc;
use std::sync::atomic::Ordering::{AcqRel, Relaxed};
use std::time::Duration;

use netchannel_units::GroupId;

use crate::boundary::port::PortShared;
use crate::boundary::ready::{ApplicationList, DIRECTIONS, Direction, Target, Watch, bits};
use crate::clock::now;
use crate::error::Error;
use crate::listener::Listener;
use crate::reach::Reach;
use crate::ready_list::slots::Slots;
use crate::runtime::Runtime;
use crate::shared::Backlog;
use crate::shared::Command;
use crate::stream::{ReceiveHalf, SendHalf, Shared, Stream};
use crate::wait::{Waitable, Waited};

/// Directions of a stream that an application wants to hear of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(u8);

impl Interest {
    /// Something to read: bytes, the end, an error.
    pub const READ: Self = Self(1);
    /// Something to write: room, an error; or everything is [finished](SendHalf::is_finished).
    pub const WRITE: Self = Self(2);

    fn has(self, direction: Direction) -> bool {
        self.0 & (1 << direction as u8) != 0
    }
}

impl BitOr for Interest {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Something that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What was given when it was registered.
    pub token: u64,
    /// Reading is worth trying, or accepting.
    pub is_readable: bool,
    /// Writing is worth trying.
    pub is_writable: bool,
}

/// Names a registration of a [`ReadyList`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registration(u64);

/// Tells one thread which of its streams are ready.
///
/// **Level-triggered**: a stream is told of at every [`wait`](Self::wait) as long as it is ready in a direction of
/// interest. A wait costs what the ready streams cost, however many are registered: the engine puts what becomes
/// ready into a ring that this list shares with it. A ring that overflows loses nothing: the next wait looks at every
/// stream, once.
///
/// Waiting drives an inline engine, as every call that waits. A stream that is dropped leaves the list by itself. A
/// direction of a stream is in one list at a time: registering it again moves it.
///
/// ```
/// use std::io::Write;
/// use netchannel::{Config, Error, Interest, ReadyList, Runtime, StreamOptions};
///
/// # let config = || Config { device: "soft".into(), ..Config::default() };
/// let server = Runtime::start(config())?;
/// let listener = server.listen("127.0.0.1:0".parse()?)?;
/// # let address = listener.local_addr();
/// # let client = std::thread::spawn(move || -> Result<(), netchannel::Error> {
/// #     let mut stream = Runtime::start(config())?.connect(address, &StreamOptions::default())?;
/// #     stream.write_all(b"hello").unwrap();
/// #     stream.close()
/// # });
/// let mut list = ReadyList::new(&server)?;
/// list.register_listener(&listener, 0);
/// let mut streams = Vec::new();
/// let mut text = Vec::new();
/// 'serving: loop {
///     for event in list.wait(None)?.to_vec() {
///         if event.token == 0 {
///             let stream = listener.try_accept()?;
///             list.register(&stream, 1 + streams.len() as u64, Interest::READ)?;
///             streams.push(stream);
///             continue;
///         }
///         let mut bytes = [0; 64];
///         match streams[event.token as usize - 1].receive_half().try_read(&mut bytes) {
///             Ok(0) => break 'serving,
///             Ok(count) => text.extend_from_slice(&bytes[..count]),
///             Err(Error::WouldBlock) => {}
///             Err(error) => return Err(error.into()),
///         }
///     }
/// }
/// assert_eq!(text, b"hello");
/// # drop(streams);
/// # client.join().unwrap()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct ReadyList {
    reach: Reach,
    number: u32,
    /// By group; those that have a stream in the list.
    groups: Vec<Option<RefCell<ApplicationList>>>,
    slots: Slots,
    listeners: Vec<(Arc<Backlog>, u64)>,
    events: Vec<Event>,
}

impl ReadyList {
    /// A list without streams, for streams of `runtime`.
    ///
    /// # Errors
    /// [`Error::NoMemory`] if there are thousands already.
    pub fn new(runtime: &Runtime) -> Result<Self, Error> {
        let reach = runtime.reach.clone();
        let number = reach.take_list()?;
        Ok(Self {
            reach,
            number,
            groups: Vec::new(),
            slots: Slots::default(),
            listeners: Vec::new(),
            events: Vec::new(),
        })
    }

    /// Tells of a stream from now on, as `token`.
    ///
    /// # Errors
    /// [`Error::Config`] if the stream is another runtime's; [`Error::SharedMemory`] if a ring cannot be made.
    pub fn register(
        &mut self,
        stream: &Stream,
        token: u64,
        interest: Interest,
    ) -> Result<Registration, Error> {
        self.add(stream.shared(), token, interest)
    }

    /// Tells of a reading direction from now on, as `token`.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_reader(
        &mut self,
        half: &ReceiveHalf,
        token: u64,
    ) -> Result<Registration, Error> {
        self.add(half.shared(), token, Interest::READ)
    }

    /// Tells of a writing direction from now on, as `token`.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn register_writer(&mut self, half: &SendHalf, token: u64) -> Result<Registration, Error> {
        self.add(half.shared(), token, Interest::WRITE)
    }

    /// Tells when a listener has streams to accept, as `token`, until the listener is dropped. They are few, so every
    /// wait looks at all of them.
    pub fn register_listener(&mut self, listener: &Listener, token: u64) {
        self.listeners.push((Arc::clone(listener.backlog()), token));
    }

    /// Changes what a registration is interested in. Does nothing if it is over.
    ///
    /// # Errors
    /// As [`register`](Self::register).
    pub fn reregister(
        &mut self,
        registration: Registration,
        interest: Interest,
    ) -> Result<(), Error> {
        let Some(index) = self.slots.find(registration.0) else { return Ok(()) };
        let Some(stream) = self.slots[index].stream.upgrade() else { return Ok(()) };
        disarm(&stream, self.slots[index].interest);
        self.slots[index].interest = interest;
        self.watch(&stream, registration.0, interest)?;
        self.slots.look_again(index);
        Ok(())
    }

    /// Ends a registration.
    pub fn deregister(&mut self, registration: Registration) {
        let Some(index) = self.slots.find(registration.0) else { return };
        if let Some(stream) = self.slots[index].stream.upgrade() {
            disarm(&stream, self.slots[index].interest);
        }
        self.slots.vacate(index);
    }

    /// Streams that are ready; waits until there is one, or until `timeout` is over: then there may be none.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] if this thread cannot be given a port.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<&[Event], Error> {
        let deadline = timeout.map(|timeout| now() + timeout);
        loop {
            self.drive();
            self.collect();
            if !self.events.is_empty() {
                break;
            }
            for group in self.met() {
                // Its engine must know whom to wake.
                self.reach.meet(group)?;
            }
            if self.reach.wait(&News(self), deadline)? == Waited::TimedOut {
                self.collect();
                break;
            }
        }
        Ok(&self.events)
    }

    fn add(
        &mut self,
        stream: &Arc<Shared>,
        token: u64,
        interest: Interest,
    ) -> Result<Registration, Error> {
        if !stream.reach().is(&self.reach) {
            let reason = "a ready list takes streams of its own runtime only".into();
            return Err(Error::Config { reason });
        }
        let (index, name) = self.slots.add(stream, token, interest);
        if let Err(error) = self.watch(stream, name, interest) {
            self.slots.vacate(index);
            return Err(error);
        }
        self.slots.look_again(index);
        Ok(Registration(name))
    }

    /// Has the engine put the stream into the ring.
    fn watch(&mut self, stream: &Shared, name: u64, interest: Interest) -> Result<(), Error> {
        let key = stream.key();
        self.meet(key.group())?;
        for direction in DIRECTIONS.into_iter().filter(|d| interest.has(*d)) {
            let target = Target::List { list: self.number, name };
            self.reach.submit(Command::Watch(Watch { stream: key, direction, target }));
        }
        Ok(())
    }

    /// Makes a ring that this list shares with a group's engine.
    fn meet(&mut self, group: GroupId) -> Result<(), Error> {
        let index = usize::from(group.0);
        if self.groups.len() <= index {
            self.groups.resize_with(index + 1, || None);
        }
        if self.groups[index].is_none() {
            let end = self.reach.list_ring(self.number, group)?;
            self.groups[index] = Some(RefCell::new(end));
        }
        Ok(())
    }

    fn met(&self) -> impl Iterator<Item = GroupId> {
        let met = self.groups.iter().enumerate().filter(|(_, list)| list.is_some());
        met.map(|(group, _)| GroupId(group as u8))
    }

    /// One pass of the engines: who finds something at every wait would not drive them otherwise.
    fn drive(&self) {
        if self.listeners.is_empty() {
            self.met().for_each(|group| self.reach.drive_group(group));
        } else {
            self.reach.drive_all();
        }
    }

    /// Finds out what is ready.
    fn collect(&mut self) {
        self.events.clear();
        for index in self.slots.take_again() {
            self.examine(index);
        }
        for group in 0..self.groups.len() {
            let Some(list) = &self.groups[group] else { continue };
            if list.borrow().take_overflow() {
                self.examine_all();
            }
            loop {
                let name = self.groups[group].as_ref().and_then(|list| list.borrow_mut().pop());
                let Some(name) = name else { break };
                if let Some(index) = self.slots.find(name) {
                    self.examine(index);
                }
            }
        }
        let events = &mut self.events;
        self.listeners.retain(|(backlog, token)| {
            if backlog.is_ready() {
                events.push(Event { token: *token, is_readable: true, is_writable: false });
            }
            !backlog.is_closed()
        });
    }

    fn examine_all(&mut self) {
        for index in self.slots.all() {
            self.examine(index);
        }
    }

    /// Tells of a stream if it is ready; arms what is not, so that the engine tells.
    fn examine(&mut self, index: u32) {
        let slot = &self.slots[index];
        if slot.is_queued() {
            // Told already.
            return;
        }
        let Some(stream) = slot.stream.upgrade() else { return self.slots.vacate(index) };
        let cell = stream.cell();
        let ready = DIRECTIONS.map(|direction| {
            slot.interest.has(direction)
                && (cell.is_ready(direction) || cell.arm(bits::list(direction), direction))
        });
        if ready.contains(&true) {
            let [is_readable, is_writable] = ready;
            self.events.push(Event { token: slot.token, is_readable, is_writable });
            self.slots.look_again(index);
        }
    }
}

fn disarm(stream: &Shared, interest: Interest) {
    let wanted = DIRECTIONS.into_iter().filter(|d| interest.has(*d));
    let wanted = wanted.fold(0, |all, direction| all | bits::list(direction));
    stream.cell().application.armed.fetch_and(!wanted, AcqRel);
}

impl Drop for ReadyList {
    fn drop(&mut self) {
        self.reach.drop_list(self.number, self.met());
    }
}

/// What a list waits for.
struct News<'a>(&'a ReadyList);

impl Waitable for News<'_> {
    fn is_ready(&self) -> bool {
        let mut lists = self.0.groups.iter().flatten();
        lists.any(|list| list.borrow_mut().has_news())
            || self.0.listeners.iter().any(|(backlog, _)| backlog.is_ready())
    }

    fn set_waiter(&self, port: Option<&Arc<PortShared>>) {
        for list in self.0.groups.iter().flatten() {
            let number = port.map_or(0, |port| port.number);
            list.borrow().memory.state().waiter.store(number, Relaxed);
        }
        self.0.listeners.iter().for_each(|(backlog, _)| backlog.set_waiter(port));
    }

    fn group(&self) -> Option<GroupId> {
        None
    }
}
