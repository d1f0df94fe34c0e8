//! A stream on its way to be opened: first the session, then the stream in it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use netchannel_units::Timestamp;

use crate::application::ApplicationId;
use crate::config::StreamOptions;
use crate::engine::Drive;
use crate::error::Error;
use crate::runtime::helper::{ConnectReply, HelperCommand};
use crate::runtime::{Keeper, Reach, now};
use crate::shared::SessionShared;
use crate::stream::Stream;

/// A stream that is being opened, from [`Runtime::start_connect`](crate::Runtime::start_connect). Dropping it gives
/// up.
///
/// ```
/// use netchannel::{Config, Error, Runtime, StreamOptions};
///
/// # let config = || Config { device: "soft".into(), ..Config::default() };
/// # let server = Runtime::start(config())?;
/// # let listener = server.listen("127.0.0.1:0".parse()?)?;
/// # let address = listener.local_addr();
/// let runtime = Runtime::start(config())?;
/// let mut connecting = runtime.start_connect(address, &StreamOptions::default())?;
/// let stream = loop {
///     match connecting.try_finish() {
///         Ok(stream) => break stream,
///         Err(Error::WouldBlock) => { /* do something else */ }
///         Err(error) => return Err(error.into()),
///     }
/// #   let _ = listener.try_accept();
/// };
/// # drop(stream);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping it gives up"]
pub struct Connecting {
    keeper: Arc<Keeper>,
    peer: SocketAddr,
    options: StreamOptions,
    stage: Stage,
}

enum Stage {
    /// The helper thread finds or makes a session.
    Session(Arc<ConnectReply>),
    /// The peer has not answered the open.
    Stream(Stream),
    /// Handed out, or failed.
    Over,
}

impl Connecting {
    pub(super) fn start(
        keeper: Arc<Keeper>,
        peer: SocketAddr,
        options: StreamOptions,
    ) -> Result<Self, Error> {
        let reply = Arc::new(ConnectReply::default());
        let command = HelperCommand::Connect { peer, reply: Arc::clone(&reply) };
        if !keeper.inner.command(command) {
            return Err(Error::Closed);
        }
        Ok(Self { keeper, peer, options, stage: Stage::Session(reply) })
    }

    /// The stream, if it is open by now. After that, and after another error, this is over.
    ///
    /// # Errors
    /// [`Error::WouldBlock`] if it is not; those of [`connect`](crate::Runtime::connect).
    pub fn try_finish(&mut self) -> Result<Stream, Error> {
        self.step(Some(now()))
    }

    /// Waits for the stream, at most for `timeout`.
    ///
    /// # Errors
    /// Those of [`connect_timeout`](crate::Runtime::connect_timeout).
    pub fn finish(mut self, timeout: Option<Duration>) -> Result<Stream, Error> {
        let result = self.step(timeout.map(|timeout| now() + timeout));
        match (result, timeout) {
            (Err(Error::WouldBlock), Some(timeout)) => {
                let reason = format!("no answer within {timeout:?}");
                Err(Error::Connect { peer: self.peer, reason, kind: ErrorKind::TimedOut })
            }
            (result, _) => result,
        }
    }

    /// Goes as far as it can until `deadline`.
    fn step(&mut self, deadline: Option<Timestamp>) -> Result<Stream, Error> {
        if let Stage::Session(reply) = &self.stage {
            let timeout = deadline.map(|at| at.saturating_since(now()));
            let session = reply.wait(timeout).ok_or(Error::WouldBlock)?;
            let stream = session.and_then(|session| self.open(&session));
            self.stage = Stage::Over;
            self.stage = Stage::Stream(stream?);
        }
        let Stage::Stream(stream) = &self.stage else { return Err(Error::Closed) };
        stream.wait_for_answer(deadline)?;
        match stream.is_open(self.peer) {
            Ok(false) => Err(Error::WouldBlock),
            answer => {
                let Stage::Stream(stream) = std::mem::replace(&mut self.stage, Stage::Over) else {
                    return Err(Error::Closed);
                };
                answer.map(|_| stream)
            }
        }
    }

    fn open(&self, session: &SessionShared) -> Result<Stream, Error> {
        let inner = &self.keeper.inner;
        let part = inner.part_for(session, self.options.class)?;
        let (service, class) = (self.peer.port(), self.options.class);
        let open = |engine: &mut dyn Drive| {
            engine.control().open_stream(part.slot, ApplicationId::LOCAL, service, class)
        };
        let seed = inner.with_engine(inner.group(part.group), open)?;
        Ok(Stream::new(Reach::Here(Arc::clone(&self.keeper)), seed))
    }
}
