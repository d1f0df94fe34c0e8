//! What applications ask of the helper thread, and its answers.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use netchannel_shared_memory::wake::Wake;

use crate::error::Error;
use crate::shared::SessionShared;
use crate::sync::lock;

/// What applications ask of the helper.
pub(crate) enum HelperCommand {
    /// Accept control connections here.
    Listen(TcpListener),
    /// Stop doing so.
    Unlisten(SocketAddr),
    /// Find or make a session.
    Connect { peer: SocketAddr, reply: Arc<ConnectReply> },
}

/// The answer to [`HelperCommand::Connect`]: the session.
#[derive(Default)]
pub(crate) struct ConnectReply {
    answer: Mutex<Option<Result<Arc<SessionShared>, Error>>>,
    there: Condvar,
    /// Wakes who waits for several.
    wake: Option<Arc<Wake>>,
}

impl ConnectReply {
    /// An answer that wakes somebody when it is there.
    pub(crate) fn notifying(wake: Arc<Wake>) -> Self {
        Self { wake: Some(wake), ..Self::default() }
    }

    /// The answer, if it is there.
    pub(crate) fn take(&self) -> Option<Result<Arc<SessionShared>, Error>> {
        lock(&self.answer).take()
    }

    pub(super) fn answer(&self, answer: Result<Arc<SessionShared>, Error>) {
        lock(&self.answer).get_or_insert(answer);
        self.there.notify_all();
        if let Some(Err(error)) = self.wake.as_ref().map(|wake| wake.notify()) {
            tracing::warn!(%error, "cannot wake who waits for a connection");
        }
    }

    /// The answer, if it is there or comes within `timeout` (none: some time).
    pub(crate) fn wait(
        &self,
        timeout: Option<Duration>,
    ) -> Option<Result<Arc<SessionShared>, Error>> {
        let answer = lock(&self.answer);
        let mut answer = match timeout {
            None => self
                .there
                .wait_while(answer, |answer| answer.is_none())
                .unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.there.wait_timeout_while(answer, timeout, |a| a.is_none());
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        };
        answer.take()
    }
}
