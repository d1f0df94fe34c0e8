//! Chunks to messages: where the bytes of a chunk lie, and how they enter the draft of a Channel's next
//! message.

use netchannel_driver::{DriverError, RcChannel, Source, Target};
use netchannel_units::{ByteRange, Claim, Timestamp};
use netchannel_verbs::Context;
use netchannel_vns::streams::Sending;
use netchannel_vns::{Carried, Form, Grant, Streams};
use netchannel_wire::StreamId;
use netchannel_wire::encode::DATA_OVERHEAD;

use crate::engine::buffers::Span;
use crate::engine::session::Borrow;
use crate::engine::stream::StreamTable;
use crate::engine::tenants::Tenants;
use crate::shared::EngineCounters;

/// A remainder of a message smaller than this is not worth an eager frame of a longer chunk.
const MIN_EAGER: usize = 256;

/// Borrowed bytes are confirmed sooner in smaller pieces, the last ones in the smallest, so that less is
/// left to keep when their writer's call ends.
const BORROWED_PIECES: (u64, u64) = (32 << 10, 128 << 10);

/// What chunks go into messages with.
pub(super) struct Sink<'a> {
    pub(super) now: Timestamp,
    /// Posting moves the bytes.
    pub(super) direct: bool,
    /// Bytes in a message of bulk, after which it leaves.
    pub(super) most: u64,
    pub(super) counters: &'a EngineCounters,
}

/// A stream while its bytes go into messages.
pub(super) struct Outlet<'a> {
    id: StreamId,
    sending: Sending<'a>,
    borrow: Option<Borrow>,
    buffer: Option<Span>,
}

impl<'a> Outlet<'a> {
    /// `None` if there is no such stream, or it may not send.
    pub(super) fn new<C: Context>(
        id: StreamId,
        streams: &'a mut Streams,
        table: &StreamTable,
        tenants: &Tenants<C>,
        borrow: Option<Borrow>,
    ) -> Option<Self> {
        let sending = streams.sending(id)?;
        let entry = table.get(id.0)?;
        let buffers = tenants.buffers_of(entry.application)?;
        let buffer = entry.buffer.as_ref().map(|buffer| buffers.span(buffer));
        Some(Self { id, sending, borrow, buffer })
    }

    /// Its class and weight.
    #[inline]
    pub(super) fn claim(&self) -> Claim {
        self.sending.claim()
    }

    /// Bytes that could go now.
    #[inline]
    pub(super) fn sendable(&self) -> u64 {
        self.sending.sendable()
    }

    /// Sends so many bytes, as far as the Channel has room. Returns how many.
    ///
    /// # Errors
    /// As [`RcChannel::flush`].
    pub(super) fn send<C: Context>(
        &mut self,
        sink: &Sink<'_>,
        channel: &mut RcChannel<C, Carried>,
        bytes: u64,
    ) -> Result<u64, DriverError> {
        let (least, most) = BORROWED_PIECES;
        let piece = match self.borrow {
            Some(_) => (bytes / 2).clamp(least, most),
            None => u64::MAX,
        };
        let mut left = bytes;
        while left > 0 {
            let Some(mut chunk) = self.sending.next_chunk(left.min(piece)) else { break };
            let Some(source) = self.locate(chunk.range, sink.direct) else { break };
            chunk.cut(u64::from(source.length));
            let hint = self.sending.backlog_hint(&chunk);
            let taken = match chunk.form {
                Form::Bulk(grant) => bulk(channel, self.id, chunk.range, grant, source, hint),
                Form::Eager => eager(channel, self.id, chunk.range, source, hint),
            };
            if taken == 0 {
                // Full: let it go, and try once more if that made room.
                if channel.has_draft() && channel.flush(sink.now)? {
                    continue;
                }
                break;
            }
            match chunk.form {
                Form::Eager => sink.counters.engine_copied.add(taken),
                Form::Bulk(_) if source.inline => sink.counters.moved_by_posting.add(taken),
                Form::Bulk(_) => {}
            }
            chunk.cut(taken);
            channel.carry(self.sending.on_sent(&chunk));
            left = left.saturating_sub(taken);
            // The receiver works on what it has while more is sent.
            if channel.draft_bytes() >= sink.most {
                channel.flush(sink.now)?;
            }
        }
        Ok(bytes - left)
    }

    /// Finds the first of these bytes, as many as are contiguous.
    #[inline]
    fn locate(&self, range: ByteRange, direct: bool) -> Option<Source> {
        let start = range.start;
        let mut length = range.len();
        let source = match self.borrow {
            Some(borrow) if start >= borrow.start => {
                length = length.min(borrow.end.saturating_since(start));
                let address = borrow.address as u64 + start.saturating_since(borrow.start);
                Source { address, length: length as u32, local_key: 0, inline: true }
            }
            borrow => {
                let buffer = self.buffer.as_ref()?;
                let (address, contiguous) = buffer.at(start.get());
                length = length.min(contiguous);
                if let Some(borrow) = borrow {
                    length = length.min(borrow.start.saturating_since(start));
                }
                let (address, local_key) = (address.as_ptr() as u64, buffer.local_key);
                Source { address, length: length as u32, local_key, inline: direct }
            }
        };
        (source.length > 0).then_some(source)
    }
}

/// Adds a bulk chunk: its WRITE, and the frame that announces it. Returns the bytes that it took: all
/// or none.
#[inline]
fn bulk<C: Context>(
    channel: &mut RcChannel<C, Carried>,
    stream: StreamId,
    range: ByteRange,
    grant: Grant,
    source: Source,
    backlog: u32,
) -> u64 {
    let (grant, address, key) = (grant.id, grant.address_of(range.start), grant.key);
    let target = Target { stream, grant, range, backlog, address, key };
    // SAFETY: the source is the stream's send buffer, which keeps the bytes until they are
    // confirmed, or (inline) the application's, which outlives the flush at the end of this pass.
    if unsafe { channel.push_write(source, &target) } { range.len() } else { 0 }
}

/// Adds an eager chunk, or as much of it as the draft takes. Returns the bytes.
fn eager<C: Context>(
    channel: &mut RcChannel<C, Carried>,
    id: StreamId,
    range: ByteRange,
    source: Source,
    hint: u32,
) -> u64 {
    if !channel.may_draft() {
        return 0;
    }
    let room = channel.room().saturating_sub(DATA_OVERHEAD);
    let whole = range.len() as usize;
    if room < whole && room < MIN_EAGER {
        return 0;
    }
    let length = whole.min(room);
    let hint = hint.saturating_add((whole - length) as u32);
    // SAFETY: `locate` found this many contiguous bytes in the send buffer, or in the buffer that
    // the application lends for the time of this call.
    let pushed =
        unsafe { channel.push_data(id, range.start, hint, source.address as *const u8, length) };
    if pushed { length as u64 } else { 0 }
}
