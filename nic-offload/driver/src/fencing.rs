//! Fencing a Channel: its queue pair goes to error, what had arrived is taken, then it is destroyed and
//! the completion queue is looked at once more.
//!
//! Why in this order: some devices drop completions of a queue pair that is destroyed (then receive
//! slots would be lost), others make the last ones up to that moment. After it nobody can write
//! through the queue pair, and none of its sources is read any more. Everything of the Channel but
//! its queue pair is kept for the next one.

use netchannel_channel::{ChannelConfig, Controller};
use netchannel_units::{Duration, Timestamp};
use netchannel_verbs::{Context, Endpoint, QueuePair};

use crate::error::DriverError;
use crate::group::{ChannelKey, Group};

/// A device that does not say when it is done gets this long for the event; SoftRoCE never raises
/// it, and is done when the queue pair is destroyed. A hundred round trips of a data centre.
const PATIENCE: Duration = Duration::from_millis(5);

/// How far the fence of a Channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It has not begun.
    Open,
    /// In error since then.
    InError {
        since: Timestamp,
        /// The device said that no receive will be taken any more.
        last_receive: bool,
        /// The device is done; the completions up to this mark are to be taken.
        done: Option<u64>,
    },
    /// Destroyed; the completions up to this mark are to be taken.
    Destroyed(u64),
    /// Nothing is left of the queue pair.
    Drained,
}

impl<C: Context, T> Group<C, T> {
    /// Begins to fence a Channel: nothing more leaves, its queue pair goes to error. Poll on, handle
    /// what comes, and ask [`is_drained`](Self::is_drained) after each poll.
    ///
    /// # Errors
    /// [`DriverError::Queue`] if the device refuses to move the queue pair to error; it is destroyed
    /// all the same in the end.
    pub fn fence(&mut self, now: Timestamp, key: ChannelKey) -> Result<(), DriverError> {
        let Some(channel) = self.channel_mut(key) else { return Ok(()) };
        if channel.progress != Progress::Open {
            return Ok(());
        }
        channel.progress = Progress::InError { since: now, last_receive: false, done: None };
        channel.state_mut().receive_only();
        channel.fail_queue_pair()
    }

    /// Whether the fence is complete. Call it after a poll whose messages were handled.
    pub fn is_drained(&mut self, now: Timestamp, key: ChannelKey) -> bool {
        let now_mark = self.receive_mark();
        let Some(channel) = self.channel(key) else { return true };
        let progress = match channel.progress {
            Progress::Open => return false,
            Progress::Drained => return true,
            Progress::InError { done: Some(mark), .. } if self.has_taken(mark) => {
                Progress::Destroyed(now_mark)
            }
            Progress::InError { since, last_receive, done: None } => {
                let by_itself = last_receive || now - since >= PATIENCE;
                let drained = channel.queue_pair.as_ref().and_then(QueuePair::is_drained);
                let done = drained.unwrap_or(by_itself).then_some(now_mark);
                Progress::InError { since, last_receive, done }
            }
            Progress::Destroyed(mark) if self.has_taken(mark) => Progress::Drained,
            taking => taking,
        };
        let Some(channel) = self.channel_mut(key) else { return true };
        channel.progress = progress;
        if matches!(progress, Progress::Destroyed(_))
            && let Some(queue_pair) = channel.queue_pair.take()
            && let Err(error) = queue_pair.close()
        {
            tracing::warn!(%error, "destroying a fenced queue pair");
        }
        if progress != Progress::Drained {
            return false;
        }
        self.forget_number(key);
        true
    }

    /// The device says that no receive will be taken for this queue pair any more.
    pub fn on_last_receive(&mut self, queue_pair: u32) {
        if let Some(key) = self.by_number(queue_pair)
            && let Some(channel) = self.channel_mut(key)
            && let Progress::InError { last_receive, .. } = &mut channel.progress
        {
            *last_receive = true;
        }
    }

    /// Makes a queue pair for a drained Channel, with a state of its own that only receives. What
    /// the last state held must have been taken by [`RcChannel::fail`](crate::RcChannel::fail).
    ///
    /// # Errors
    /// [`DriverError::Queue`] if the device refuses; the Channel stays as it is.
    pub fn renew(
        &mut self,
        key: ChannelKey,
        config: ChannelConfig,
        controller: Controller,
    ) -> Result<Option<Endpoint>, DriverError> {
        if !self.channel(key).is_some_and(|channel| channel.progress == Progress::Drained) {
            return Ok(None);
        }
        let queue_pair = self.make_queue_pair()?;
        let number = queue_pair.number();
        let tag = self.new_tag(key);
        self.note_number(number, key);
        let Some(channel) = self.channel_mut(key) else { return Ok(None) };
        channel.renew(queue_pair, tag, config, controller);
        Ok(Some(channel.endpoint()))
    }
}

#[cfg(test)]
mod tests {
    use netchannel_units::ChannelId;
    use netchannel_verbs::soft::{Context, SoftOptions};

    use super::*;
    use crate::group::GroupConfig;

    /// A group with one Channel in error, and a way to poll it and ask whether it is drained.
    fn fenced() -> (Group<Context, ()>, ChannelKey) {
        let context = Context::open(SoftOptions::default()).unwrap();
        let mut group = Group::new(context, GroupConfig::default()).unwrap();
        let config = ChannelConfig { send_queue: 64, ..ChannelConfig::default() };
        let key = group.add_channel(ChannelId(0), config, Controller::default()).unwrap();
        group.fence(Timestamp::ZERO, key).unwrap();
        (group, key)
    }

    #[test]
    fn a_fence_ends_when_the_receive_queue_is_empty() {
        let (mut group, key) = fenced();
        let mut drained = || {
            group.poll(Timestamp::ZERO, &mut Vec::new()).unwrap();
            group.is_drained(Timestamp::ZERO, key)
        };
        // The device is done; destroyed; nothing came of that.
        assert_eq!([drained(), drained(), drained()], [false, false, true]);
    }

    #[test]
    fn a_fence_ends_although_others_never_let_the_receive_queue_run_empty() {
        let (mut group, key) = fenced();
        let (_, slots) = group.receive_slots();
        let mut drained = |taken| {
            group.note_receives(taken, false);
            group.is_drained(Timestamp::ZERO, key)
        };
        assert!(!drained(32), "the device is done");
        assert!(!drained(slots - 1), "one may be left of it");
        assert!(!drained(1), "destroyed");
        assert!(!drained(slots - 1), "one may be left of that");
        assert!(drained(1));
    }
}
