//! Chunks to messages: where the bytes of a chunk lie, and how they enter the draft of a Channel's next
//! message.

use netchannel_driver::{RcChannel, Source, Target};
use netchannel_units::ByteRange;
use netchannel_verbs::Context;
use netchannel_vns::{Carried, Grant};
use netchannel_wire::StreamId;
use netchannel_wire::encode::DATA_OVERHEAD;

use crate::engine::buffers::SendBuffers;
use crate::engine::session::{Borrow, EngineStream};

/// A remainder of a message smaller than this is not worth an eager frame of a longer chunk.
const MIN_EAGER: usize = 256;

/// Finds the first of these bytes, as many as are contiguous.
pub(super) fn locate<C: Context>(
    entry: &EngineStream,
    borrow: Option<Borrow>,
    buffers: &SendBuffers<C>,
    range: ByteRange,
    direct: bool,
) -> Option<Source> {
    let start = range.start;
    let source = match borrow {
        Some(borrow) if start >= borrow.start => {
            let length = range.len().min(borrow.end.saturating_since(start));
            let offset = start.saturating_since(borrow.start);
            Source {
                address: borrow.address as u64 + offset,
                length: length as u32,
                local_key: 0,
                inline: true,
            }
        }
        borrow => {
            let buffer = entry.buffer.as_ref()?;
            let (address, contiguous) = buffers.at(buffer, start.get());
            let mut length = range.len().min(contiguous);
            if let Some(borrow) = borrow {
                length = length.min(borrow.start.saturating_since(start));
            }
            Source {
                address: address.as_ptr() as u64,
                length: length as u32,
                local_key: buffers.local_key(buffer),
                inline: direct,
            }
        }
    };
    (source.length > 0).then_some(source)
}

/// Adds a bulk chunk: its WRITE, and the frame that announces it. Returns the bytes that it took: all
/// or none.
pub(super) fn bulk<C: Context>(
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
pub(super) fn eager<C: Context>(
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
