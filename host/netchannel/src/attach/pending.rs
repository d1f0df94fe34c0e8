//! Requests whose answers are under way.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use netchannel_attach::Answer;

use crate::attach::convert::to_error;
use crate::attach::link::Link;
use crate::error::Error;
use crate::shared::Backlog;
use crate::sync::lock;

/// Where the answer to a request goes.
pub(super) struct Pending {
    state: Mutex<State>,
    there: Condvar,
    /// To Listen: what takes the streams, which may come right behind the answer.
    pub(super) backlog: Option<Arc<Backlog>>,
}

enum State {
    Waiting,
    There(Answer, Vec<OwnedFd>),
    /// Nobody wants the answer any more.
    Abandoned,
}

impl Pending {
    pub(super) fn new(backlog: Option<Arc<Backlog>>) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new(State::Waiting), there: Condvar::new(), backlog })
    }

    /// The answer came. Gives it back if nobody wants it any more.
    pub(super) fn answer(&self, answer: Answer, fds: Vec<OwnedFd>) -> Option<Answer> {
        let mut state = lock(&self.state);
        if matches!(*state, State::Abandoned) {
            return Some(answer);
        }
        *state = State::There(answer, fds);
        self.there.notify_all();
        None
    }

    /// The conversation is over.
    pub(super) fn wake(&self) {
        // Under the lock: who is about to wait has looked before or will be notified.
        let state = lock(&self.state);
        self.there.notify_all();
        drop(state);
    }

    /// Nobody waits any more; the answer, if it was there.
    pub(super) fn abandon(&self) -> Option<Answer> {
        match std::mem::replace(&mut *lock(&self.state), State::Abandoned) {
            State::There(answer, _) => Some(answer),
            State::Waiting | State::Abandoned => None,
        }
    }

    /// Waits for the answer.
    pub(super) fn wait(&self, link: &Link) -> Result<(Answer, Vec<OwnedFd>), Error> {
        loop {
            if let Some(answer) = self.wait_for(link, Duration::MAX)? {
                return Ok(answer);
            }
        }
    }

    /// The answer, if it is there or comes within `timeout`.
    pub(super) fn wait_for(
        &self,
        link: &Link,
        timeout: Duration,
    ) -> Result<Option<(Answer, Vec<OwnedFd>)>, Error> {
        let waiting = |state: &mut State| matches!(state, State::Waiting) && !link.is_over();
        let waited = self.there.wait_timeout_while(lock(&self.state), timeout, waiting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        match std::mem::replace(&mut *state, State::Waiting) {
            State::There(Answer::Failed(failure), _) => Err(to_error(failure)),
            State::There(answer, fds) => Ok(Some((answer, fds))),
            _ if link.is_over() => Err(link.error()),
            _ => Ok(None),
        }
    }
}
