//! Commands of the application.

use netchannel_units::{Claim, StreamOffset, Timestamp};
use netchannel_wire::StreamId;

use super::queues::IDLE_RELEASE;
use super::{AccountIndex, Streams};
use crate::error::StreamError;
use crate::pool::SlabId;
use crate::send::SendHalf;
use crate::stream::{Opening, Owed};

/// Idle streams that are looked at for one window.
const RECLAIM_ATTEMPTS: usize = 8;

impl Streams {
    /// Opens a stream to the peer's listener `service`. Bytes may be written at once.
    ///
    /// # Errors
    /// [`StreamError::NumbersExhausted`], [`StreamError::TooMany`].
    pub fn open(&mut self, service: u16, claim: impl Into<Claim>) -> Result<StreamId, StreamError> {
        let id = self.take_id()?;
        let send = SendHalf::new(self.first_credit());
        self.insert(id, claim.into(), service, Opening::New, send);
        Ok(id)
    }

    /// The application has written bytes up to `tail`.
    ///
    /// # Errors
    /// Why nothing may be written.
    pub fn write(&mut self, id: StreamId, tail: StreamOffset) -> Result<(), StreamError> {
        let stream = self.table.get_mut(id.0).ok_or(StreamError::Closed)?;
        if let Some(code) = stream.send.stopped() {
            return Err(StreamError::Stopped(code));
        }
        if !stream.send.write(tail) {
            return Err(StreamError::Finished);
        }
        self.queues.note_backlog(id, stream);
        Ok(())
    }

    /// The application's bytes lie where the NIC can fetch them: more than a message's worth waits for
    /// a window rather than be copied.
    pub fn prefer_window(&mut self, id: StreamId) {
        if let Some(stream) = self.table.get_mut(id.0) {
            stream.send.prefer_window(self.config.eager_chunk);
        }
    }

    /// Takes back written bytes above `tail` that were not sent.
    pub fn unwrite(&mut self, id: StreamId, tail: StreamOffset) {
        if let Some(stream) = self.table.get_mut(id.0) {
            stream.send.unwrite(tail);
            self.queues.note_backlog(id, stream);
        }
    }

    /// Everything written was confirmed long ago.
    pub fn on_send_idle(&mut self, id: StreamId) {
        if let Some(stream) = self.table.get_mut(id.0) {
            stream.send.trim();
        }
    }

    /// The application has read up to `upto`. False if that cannot be: then it is ignored.
    pub fn consume(&mut self, now: Timestamp, id: StreamId, upto: StreamOffset) -> bool {
        let limits = self.limits();
        let Some(stream) = self.table.get_mut(id.0) else { return true };
        if !stream.receive.consume(upto, self.accounts.pool(stream.account)) {
            return false;
        }
        stream.last_active = now;
        self.queues.note_idle(id, stream);
        if stream.receive.credit_due(limits) {
            self.queues.owe(id, stream, Owed::CREDIT);
        }
        if stream.is_over() {
            self.retire(id);
        }
        true
    }

    /// The application has written its last byte.
    pub fn finish(&mut self, id: StreamId) {
        if let Some(stream) = self.table.get_mut(id.0)
            && stream.send.finish()
        {
            self.queues.note_backlog(id, stream);
            self.queues.owe(id, stream, Owed::FIN);
        }
    }

    /// The application gives up sending.
    pub fn reset(&mut self, id: StreamId, code: u32) {
        let Some(stream) = self.table.get_mut(id.0) else { return };
        if stream.send.reset() {
            stream.reset_code = code;
            self.queues.note_backlog(id, stream);
            self.queues.owe(id, stream, Owed::RESET);
            self.queues.note_return(id, stream);
        }
    }

    /// The application reads no more.
    pub fn stop(&mut self, id: StreamId, code: u32) {
        let limits = self.limits();
        let Some(stream) = self.table.get_mut(id.0) else { return };
        // A window that the peer may write into comes back with its FIN or its RETURN: STOP makes
        // it reset.
        if stream.receive.stop(self.accounts.pool(stream.account)) {
            stream.stop_code = code;
            let credit = if stream.receive.credit_due(limits) { Owed::CREDIT } else { Owed::NONE };
            self.queues.owe(id, stream, Owed::STOP | credit);
        }
        self.retire(id);
    }

    /// The application has let go: what was written still goes out, what arrives is not wanted.
    pub fn release(&mut self, id: StreamId, code: u32) {
        self.finish(id);
        self.stop(id, code);
        if let Some(stream) = self.table.get_mut(id.0) {
            stream.released = true;
        }
        self.retire(id);
    }

    /// Refuses a stream that the peer opened, instead of giving it to an application: the opener
    /// sees RESET and STOP with `code` and never OPENED.
    pub fn refuse(&mut self, id: StreamId, code: u32) {
        if let Some(stream) = self.table.get_mut(id.0) {
            stream.owed = stream.owed & !Owed::OPENED;
        }
        self.reset(id, code);
        self.release(id, code);
    }

    /// When [`on_timeout`](Self::on_timeout) wants to be called.
    pub fn next_timeout(&self) -> Option<Timestamp> {
        let idle = self.queues.idle.front().map(|(at, _)| *at);
        [idle, self.accounts.next_timeout()].into_iter().flatten().min()
    }

    /// Gives up windows of streams that were idle for long.
    pub fn on_timeout(&mut self, now: Timestamp) {
        let waited = !self.queues.idle.is_empty();
        while let Some(&(at, id)) = self.queues.idle.front()
            && at <= now
        {
            self.queues.idle.pop_front();
            let Some(stream) = self.table.get_mut(id.0) else { continue };
            stream.in_idle_queue = false;
            if stream.last_active + IDLE_RELEASE > now {
                self.queues.note_idle(id, stream);
            } else if stream.receive.is_idle()
                && let Some(grant) = stream.receive.release_idle(self.accounts.pool(stream.account))
            {
                stream.recall = Some(grant);
                self.queues.owe(id, stream, Owed::RECALL);
            }
        }
        if waited && self.queues.idle.is_empty() {
            self.queues.trim();
        }
    }

    /// A slab of windows that nobody has needed for long: from now on this session does not use it.
    /// To be asked in every pass, until there is none.
    pub fn take_spare_slab(&mut self, now: Timestamp) -> Option<SlabId> {
        self.accounts.take_spare_slab(now)
    }

    /// Takes windows from streams of one application that have no use for them just now, the longest
    /// idle first, until another that was idle could have one; gives up soon if those in front do
    /// have a use.
    pub(super) fn reclaim_windows(&mut self, account: AccountIndex) {
        let wanted = self.limits().eager_log2();
        for _ in 0..RECLAIM_ATTEMPTS {
            if self.accounts.pool(account).has(wanted) {
                return;
            }
            let Some((_, id)) = self.queues.idle.pop_front() else { return };
            let Some(stream) = self.table.get_mut(id.0) else { continue };
            stream.in_idle_queue = false;
            let granted = stream.receive.windows().any(|window| window.grant.is_some());
            if granted || stream.account != account {
                self.queues.note_idle(id, stream);
            } else if stream.receive.is_idle() {
                stream.receive.release_idle(self.accounts.pool(account));
            }
        }
    }
}
