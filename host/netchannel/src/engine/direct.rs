//! Writes straight from an application's buffer.
//!
//! Where posting moves the bytes itself (the soft NIC), they need not lie in a send buffer first:
//! while the application is inside of its write call the engine sends them from where they are.
//! What the peer has not confirmed when the call ends moves to the send buffer, so that a lost
//! Channel loses nothing. Never more is unconfirmed than the send buffer could hold.

use std::time::Duration;

use netchannel_units::Timestamp;
use netchannel_verbs::Context;

use crate::boundary::StreamKey;
use crate::engine::session::Borrow;
use crate::engine::{Drive, Engine};

/// Speed of a copy in the cache, for weighing it against a short wait: bytes per microsecond.
const COPY_BYTES_PER_MICRO: u64 = 80_000;
/// The wait is worth it for more than this only.
const MIN_WAIT_BYTES: u64 = 8_192;
/// Who polled this recently sends first and looks for what arrived afterwards, if at all: a short
/// message then costs no poll of the queues.
const JUST_POLLED: Duration = Duration::from_micros(10);
/// Without any progress for this long the call ends and the application waits its own way.
const PATIENCE: Duration = Duration::from_micros(5);

/// Bytes that an application lends to a stream while it is inside of its write call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loan<'a> {
    pub(crate) stream: StreamKey,
    pub(crate) bytes: &'a [u8],
    /// Waits for the peer for some microseconds, which may save the copy to the send buffer.
    pub(crate) patient: bool,
}

impl<C: Context> Engine<C> {
    /// See [`Drive::write_direct`].
    pub(super) fn write_borrowed(
        &mut self,
        clock: &dyn Fn() -> Timestamp,
        loan: Loan<'_>,
    ) -> Option<usize> {
        let Loan { stream: key, bytes, patient } = loan;
        if !self.context.attributes().moves_bytes_while_posting() {
            return None;
        }
        let id = key.stream();
        let slot = key.session() as usize;
        let session = self.sessions.get_mut(slot)?.as_mut()?;
        // Bytes that went through the send buffer may not have been heard of.
        session.on_written(self.last_poll, id, &mut self.tenants);
        let wanted = super::buffers::wanted(bytes.len(), self.config.window);
        session.supply_buffer(self.last_poll, id, wanted, &mut self.tenants);
        session.attention = true;
        let capacity = session.table.get(id.0)?.buffer.as_ref()?.size();
        let start = session.streams.send_half(id)?.tail();
        let end = start.checked_add(bytes.len() as u64)?;
        session.borrow = Some((id, Borrow { address: bytes.as_ptr(), start, end }));

        let mut last_progress = clock();
        let mut now = last_progress;
        let mut just_polled = now.saturating_since(self.last_poll) < JUST_POLLED;
        let mut last_confirmed = start;
        while let Some(Some(session)) = self.sessions.get_mut(slot) {
            let Some(half) = session.streams.send_half(id) else { break };
            let confirmed = half.confirmed();
            let tail = end.min(confirmed + capacity);
            if half.sent() >= end && confirmed.max(start) >= end {
                break;
            }
            if tail > half.tail() {
                session.attention = true;
                if session.streams.write(id, tail).is_err() {
                    break;
                }
            }
            let moved = if std::mem::take(&mut just_polled) {
                self.run_session(now.max(self.last_poll), key.session())
            } else {
                self.poll(now)
            };
            let Some(Some(session)) = self.sessions.get(slot) else { break };
            let Some(half) = session.streams.send_half(id) else { break };
            if session.is_over() {
                break;
            }
            let progress = half.confirmed() > last_confirmed || (moved && half.sent() < end);
            last_confirmed = half.confirmed();
            let unconfirmed = end.saturating_since(half.confirmed().max(start));
            if half.sent() >= end && unconfirmed < MIN_WAIT_BYTES {
                break;
            }
            now = clock();
            if progress {
                last_progress = now;
            }
            let patience = if !patient {
                Duration::ZERO
            } else if half.sent() < end {
                PATIENCE
            } else {
                // All is sent; wait for the confirmation no longer than keeping a copy would take.
                Duration::from_nanos(unconfirmed * 1_000 / COPY_BYTES_PER_MICRO)
            };
            if !progress && now - last_progress >= patience {
                break;
            }
            if !progress {
                std::hint::spin_loop();
            }
        }
        // SAFETY: the slice lives until this call returns.
        Some(unsafe { self.keep_rest(key) }.unwrap_or(0))
    }

    /// Ends a loan (`None` if the stream is gone): what is not confirmed moves to the send buffer, what does not fit there and
    /// was not sent is not taken.
    ///
    /// # Safety
    /// The stream's borrowed bytes are still valid for reads.
    unsafe fn keep_rest(&mut self, key: StreamKey) -> Option<usize> {
        let id = key.stream();
        let session = self.sessions.get_mut(key.session() as usize)?.as_mut()?;
        let (_, borrow) = session.borrow.take()?;
        let entry = session.table.get(id.0)?;
        let buffer = entry.buffer.as_ref()?;
        let span = self.tenants.buffers(entry.application)?.span(buffer);
        let Some(half) = session.streams.send_half(id) else { return Some(0) };
        let confirmed = half.confirmed();
        let upto = borrow.end.min(confirmed + buffer.size()).max(borrow.start);
        let mut at = confirmed.max(borrow.start);
        let mut copied = 0;
        while at < upto {
            let (target, contiguous) = span.at(at.get());
            let len = upto.saturating_since(at).min(contiguous);
            let offset = at.saturating_since(borrow.start) as usize;
            // SAFETY: `at + len` is inside of the borrowed bytes, which the caller keeps valid,
            // and `contiguous` bytes follow in the buffer. The application's other threads may
            // be writing the borrowed bytes; then it gets what it asked for.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    borrow.address.add(offset),
                    target.as_ptr(),
                    len as usize,
                );
            }
            at = at + len;
            copied += len;
        }
        self.shared.counters.engine_copied.add(copied);
        // What is kept counts as written, even if it was not offered to the scheduler yet.
        session.attention = true;
        if upto > half.tail() {
            let _ = session.streams.write(id, upto);
        } else {
            session.streams.unwrite(id, upto);
        }
        let taken = upto.saturating_since(borrow.start) as usize;
        let application = &entry_cell(session, key)?.application;
        application.tail.store(upto.get(), std::sync::atomic::Ordering::Release);
        Some(taken)
    }
}

fn entry_cell<C: Context>(
    session: &super::session::Session<C>,
    key: StreamKey,
) -> Option<&crate::boundary::cell::CellState> {
    Some(session.table.get(key.stream().0)?.cell.state())
}
