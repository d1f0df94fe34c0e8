//! The thread of an engine's process that takes applications in. It sleeps unless one of them says
//! something, and never waits for any.

use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use netchannel_shared_memory::wake::Wake;
use rustix::event::{PollFd, PollFlags, poll};

use crate::attach::guest::Guest;
use crate::attach::socket::Door;
use crate::boundary::application::ApplicationId;
use crate::error::Error;
use crate::local::{Keeper, RuntimeInner};
use crate::sync::lock;

/// Applications at once.
const MAX_GUESTS: usize = 256;

/// Serves applications of other processes until it is dropped; then they get an error.
///
/// Made by [`Runtime::serve`](crate::Runtime::serve).
pub struct AttachServer {
    shared: Arc<ServerShared>,
    thread: Option<JoinHandle<()>>,
    path: std::path::PathBuf,
    /// The engine outlives its applications.
    _keeper: Arc<Keeper>,
}

#[derive(Debug)]
struct ServerShared {
    wake: Arc<Wake>,
    stop: AtomicBool,
}

impl AttachServer {
    pub(crate) fn start(keeper: Arc<Keeper>, path: &Path) -> Result<Self, Error> {
        let door = Door::open(path)?;
        let wake = Wake::new().map_err(Error::shared_memory("making the server's wake-up"))?;
        let shared = Arc::new(ServerShared { wake: Arc::new(wake), stop: AtomicBool::new(false) });
        let inner = Arc::clone(&keeper.inner);
        lock(&inner.shared.servers).push(Arc::clone(&shared.wake));
        let path = door.path().to_owned();
        let server = Server { inner, shared: Arc::clone(&shared), door, guests: Vec::new() };
        let thread = std::thread::Builder::new()
            .name("nc-attach".into())
            .spawn(move || server.run())
            .map_err(Error::system("starting the attach server"))?;
        Ok(Self { shared, thread: Some(thread), path, _keeper: keeper })
    }

    /// Where applications find it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for AttachServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Err(error) = self.shared.wake.notify() {
            tracing::warn!(%error, "cannot wake the attach server");
        }
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so on standard error.
            let _ = thread.join();
        }
    }
}

struct Server {
    inner: Arc<RuntimeInner>,
    shared: Arc<ServerShared>,
    door: Door,
    guests: Vec<Guest>,
}

impl Server {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) && !self.inner.is_stopping() {
            self.sleep();
            self.accept();
            let inner = &self.inner;
            let guests = std::mem::take(&mut self.guests);
            for mut guest in guests {
                match guest.run(inner) {
                    Ok(()) => self.guests.push(guest),
                    Err(parting) => guest.leave(inner, &parting),
                }
            }
        }
        for guest in std::mem::take(&mut self.guests) {
            guest.send_off(&self.inner);
        }
        lock(&self.inner.shared.servers).retain(|wake| !Arc::ptr_eq(wake, &self.shared.wake));
    }

    /// Sleeps until something is to be done for anybody.
    fn sleep(&mut self) {
        let wait = |fd, what| PollFd::from_borrowed_fd(fd, what);
        let wake: BorrowedFd<'_> = self.shared.wake.fd();
        let mut fds = vec![wait(wake, PollFlags::IN), wait(self.door.fd(), PollFlags::IN)];
        for guest in &self.guests {
            guest.add_fds(&mut fds);
        }
        // An interrupted sleep is a wake-up like any other.
        let _ = poll(&mut fds, None);
        let _ = self.shared.wake.drain();
    }

    fn accept(&mut self) {
        loop {
            match self.door.accept() {
                Ok(None) => return,
                Ok(Some(visitor)) if self.guests.len() >= MAX_GUESTS => {
                    let text = format!("this engine has {MAX_GUESTS} applications already");
                    Guest::refuse(&visitor, &text);
                }
                Ok(Some(visitor)) if !visitor.is_welcome() => {
                    let text = format!("user {} may not use this engine", visitor.user);
                    tracing::warn!(process = visitor.process, text, "refusing an application");
                    Guest::refuse(&visitor, &text);
                }
                Ok(Some(visitor)) => {
                    let id = self.inner.shared.next_application.fetch_add(1, Ordering::Relaxed);
                    let wake = Arc::clone(&self.shared.wake);
                    self.guests.push(Guest::new(visitor, ApplicationId(id), wake));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot take an application in");
                    return;
                }
            }
        }
    }
}
