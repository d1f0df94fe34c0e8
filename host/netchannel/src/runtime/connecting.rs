//! A stream on its way to be opened: first the session, then the stream in it.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use netchannel_units::Timestamp;

use crate::attach::attachment::Opening;
use crate::boundary::application::ApplicationId;
use crate::clock::now;
use crate::config::StreamOptions;
use crate::error::Error;
use crate::local::{ConnectReply, HelperCommand, Keeper};
use crate::reach::Reach;
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
    reach: Reach,
    peer: SocketAddr,
    options: StreamOptions,
    stage: Stage,
}

enum Stage {
    /// The helper thread finds or makes a session.
    Session(Arc<Keeper>, Arc<ConnectReply>),
    /// The engine's process does, and makes the stream.
    Asked(Opening),
    /// The peer has not answered the open.
    Stream(Stream),
    /// Handed out, or failed.
    Over,
}

impl Connecting {
    pub(super) fn start(
        reach: &Reach,
        peer: SocketAddr,
        options: StreamOptions,
    ) -> Result<Self, Error> {
        let stage = match reach {
            Reach::Here(keeper) => {
                let reply = Arc::new(ConnectReply::default());
                let command = HelperCommand::Connect { peer, reply: Arc::clone(&reply) };
                if !keeper.inner.command(command) {
                    return Err(Error::Closed);
                }
                Stage::Session(Arc::clone(keeper), reply)
            }
            Reach::There(attachment) => Stage::Asked(attachment.connect(peer, options.claim())?),
        };
        Ok(Self { reach: reach.clone(), peer, options, stage })
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
        let seed = match &self.stage {
            Stage::Session(keeper, reply) => {
                let timeout = deadline.map(|at| at.saturating_since(now()));
                let session = reply.wait(timeout).ok_or(Error::WouldBlock)?;
                let open = |session: Arc<SessionShared>| {
                    let (service, claim) = (self.peer.port(), self.options.claim());
                    keeper.inner.open_stream(&session, ApplicationId::LOCAL, service, claim)
                };
                Some(session.and_then(open))
            }
            Stage::Asked(opening) => {
                Some(opening.wait(deadline).transpose().ok_or(Error::WouldBlock)?)
            }
            Stage::Stream(_) | Stage::Over => None,
        };
        if let Some(seed) = seed {
            self.stage = Stage::Over;
            self.stage = Stage::Stream(Stream::new(self.reach.clone(), seed?));
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
}
