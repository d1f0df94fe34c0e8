//! Writing messages into a caller's buffer.

use core::mem::size_of;

use netchannel_units::{ByteRange, StreamOffset};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::error::NoRoom;
use crate::frame::{Frame, GrantId, MessageHeader, StreamId};
use crate::kind::FrameKind;
use crate::layout;

/// Bytes that a Data frame takes besides the bytes that it carries.
pub const DATA_OVERHEAD: usize = size_of::<layout::Head>() + size_of::<layout::Data>();

/// Bytes that one Data frame can carry: its length field has 16 bits.
pub const MAX_DATA: usize = u16::MAX as usize - size_of::<layout::Data>();

/// A message that is being put together in a buffer that the caller keeps: what is known of it
/// between two calls. Every call takes the same buffer.
///
/// ```
/// use netchannel_units::StreamOffset;
/// use netchannel_wire::{Frame, MessageDraft, MessageHeader, StreamId, parse};
/// let mut slot = [0; 256];
/// let mut draft = MessageDraft::new();
/// let credit = Frame::Credit { stream: StreamId(4), limit: StreamOffset::new(9_000) };
/// draft.push(&mut slot, &credit).unwrap();
/// let len = draft.finish(&mut slot, &MessageHeader { credit: 64, ..Default::default() });
///
/// let (header, mut frames) = parse(&slot[..len]).unwrap();
/// assert_eq!((header.credit, header.frames), (64, 1));
/// assert_eq!(frames.next(), Some(Ok(credit)));
/// assert_eq!(frames.next(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageDraft {
    len: usize,
    frames: u16,
}

impl Default for MessageDraft {
    fn default() -> Self {
        Self::new()
    }
}

impl MessageDraft {
    /// A message without frames.
    pub const fn new() -> Self {
        Self { len: MessageHeader::LEN, frames: 0 }
    }

    /// Bytes of the message so far, header included.
    #[expect(clippy::len_without_is_empty, reason = "a message is never empty: it has a header")]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Frames so far.
    pub const fn frames(&self) -> u16 {
        self.frames
    }

    /// Bytes that one more frame may take ([`Frame::encoded_len`]) in a buffer of `capacity` bytes.
    pub const fn room(&self, capacity: usize) -> usize {
        if self.frames == u16::MAX { 0 } else { capacity.saturating_sub(self.len) }
    }

    /// Appends `frame`.
    ///
    /// # Errors
    /// [`NoRoom`] if the rest of the buffer is too short, or the message already has 65,535
    /// frames, or a Data frame carries more than [`MAX_DATA`] bytes; nothing was appended.
    #[inline]
    pub fn push(&mut self, buffer: &mut [u8], frame: &Frame<'_>) -> Result<(), NoRoom> {
        debug_assert!(is_sound(frame), "the peer would refuse {frame:?}");
        let stream = frame.stream();
        let kind = frame.kind();
        match *frame {
            Frame::Open { class, weight, service, limit, .. } => {
                let body = layout::Open {
                    limit: limit.get().into(),
                    service: service.into(),
                    class: class.to_wire(),
                    weight: weight.to_wire(),
                };
                self.append(buffer, kind, stream, body)
            }
            Frame::Opened { limit: offset, .. }
            | Frame::Credit { limit: offset, .. }
            | Frame::Fin { final_offset: offset, .. } => {
                let body = layout::Offset { offset: offset.get().into() };
                self.append(buffer, kind, stream, body)
            }
            Frame::Data { offset, backlog, bytes, .. } => {
                let room = self.push_data(buffer, stream, offset, backlog, bytes.len())?;
                room.copy_from_slice(bytes);
                Ok(())
            }
            Frame::Written { grant, range, backlog, .. } => {
                self.push_written(buffer, stream, grant, range, backlog)
            }
            Frame::Window { grant, log2_size, address, key, from, limit, .. } => {
                let body = layout::Window {
                    address: address.into(),
                    from: from.get().into(),
                    limit: limit.get().into(),
                    key: key.into(),
                    grant: grant.0.into(),
                    log2_size,
                    reserved: [0; 3],
                };
                self.append(buffer, kind, stream, body)
            }
            Frame::Recall { grant, .. } | Frame::Return { grant, .. } => {
                self.append(buffer, kind, stream, layout::Number { value: grant.0.into() })
            }
            Frame::Refuse { range, .. } => {
                let body =
                    layout::Refuse { start: range.start.get().into(), end: range.end.get().into() };
                self.append(buffer, kind, stream, body)
            }
            Frame::Reset { code, .. } | Frame::Stop { code, .. } => {
                self.append(buffer, kind, stream, layout::Number { value: code.into() })
            }
        }
    }

    /// Appends a Data frame of `len` bytes and returns the place for them, for callers whose bytes
    /// lie where no slice can (memory shared with another process). What the place holds now is
    /// what the buffer held; the caller fills all of it before [`finish`](Self::finish).
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_data<'b>(
        &mut self,
        buffer: &'b mut [u8],
        stream: StreamId,
        offset: StreamOffset,
        backlog: u32,
        len: usize,
    ) -> Result<&'b mut [u8], NoRoom> {
        if len > MAX_DATA {
            return Err(NoRoom);
        }
        let start = self.len;
        let body = layout::Data { offset: offset.get().into(), backlog: backlog.into() };
        self.append_with_tail(buffer, FrameKind::Data, stream, body, len)?;
        buffer.get_mut(start + DATA_OVERHEAD..self.len).ok_or(NoRoom)
    }

    /// Appends a Written frame: [`push`](Self::push) for the way that most bytes go, without a
    /// frame in memory in between.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    #[inline]
    pub fn push_written(
        &mut self,
        buffer: &mut [u8],
        stream: StreamId,
        grant: GrantId,
        range: ByteRange,
        backlog: u32,
    ) -> Result<(), NoRoom> {
        let body = layout::Written {
            start: range.start.get().into(),
            end: range.end.get().into(),
            grant: grant.0.into(),
            backlog: backlog.into(),
        };
        self.append(buffer, FrameKind::Written, stream, body)
    }

    /// Writes the header, with the number of frames filled in, and returns the length of the
    /// message. The draft starts over: the next frame begins the next message.
    ///
    /// # Panics
    /// If the buffer is not the one that took the frames but a shorter one, or has no room for
    /// even a header.
    #[inline]
    pub fn finish(&mut self, buffer: &mut [u8], header: &MessageHeader) -> usize {
        let Self { len, frames } = core::mem::take(self);
        assert!(buffer.len() >= len, "a message of {len} bytes in a buffer of {}", buffer.len());
        let Ok((place, _)) = layout::Header::mut_from_prefix(buffer) else {
            unreachable!("a message is never shorter than its header");
        };
        // Field by field into its place: a copy of it all would wait for the fields' stores.
        *place = layout::Header {
            version: MessageHeader::VERSION,
            flags: 0,
            frames: frames.into(),
            sequence: header.sequence.into(),
            acknowledged: header.acknowledged.into(),
            credit: header.credit.into(),
        };
        len
    }

    #[inline]
    fn append<B: IntoBytes + Immutable>(
        &mut self,
        buffer: &mut [u8],
        kind: FrameKind,
        stream: StreamId,
        body: B,
    ) -> Result<(), NoRoom> {
        self.append_with_tail(buffer, kind, stream, body, 0)
    }

    /// Head and body of a frame, and `tail` bytes left as they are. The caller has checked that
    /// body and tail fit into a 16-bit length.
    #[inline]
    fn append_with_tail<B: IntoBytes + Immutable>(
        &mut self,
        buffer: &mut [u8],
        kind: FrameKind,
        stream: StreamId,
        body: B,
        tail: usize,
    ) -> Result<(), NoRoom> {
        let body_len = size_of::<B>() + tail;
        let total = size_of::<layout::Head>() + body_len;
        let (Ok(length), true) = (u16::try_from(body_len), self.frames < u16::MAX) else {
            return Err(NoRoom);
        };
        let place = buffer.get_mut(self.len..).and_then(|rest| rest.get_mut(..total));
        let (head, rest) =
            layout::Head::mut_from_prefix(place.ok_or(NoRoom)?).map_err(|_| NoRoom)?;
        // Field by field into its place, as in `finish`.
        *head = layout::Head {
            kind: kind.to_wire(),
            flags: 0,
            length: length.into(),
            stream: stream.0.into(),
        };
        body.write_to_prefix(rest).map_err(|_| NoRoom)?;
        self.len += total;
        self.frames += 1;
        Ok(())
    }
}

/// A message that is written in one go.
#[derive(Debug)]
pub struct MessageWriter<'b> {
    buffer: &'b mut [u8],
    draft: MessageDraft,
}

impl<'b> MessageWriter<'b> {
    /// A message without frames at the start of `buffer`.
    pub fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, draft: MessageDraft::new() }
    }

    /// As [`MessageDraft::room`].
    pub fn room(&self) -> usize {
        self.draft.room(self.buffer.len())
    }

    /// As [`MessageDraft::frames`].
    pub fn frames(&self) -> u16 {
        self.draft.frames()
    }

    /// As [`MessageDraft::push`].
    ///
    /// # Errors
    /// As there.
    pub fn push(&mut self, frame: &Frame<'_>) -> Result<(), NoRoom> {
        self.draft.push(self.buffer, frame)
    }

    /// As [`MessageDraft::finish`].
    ///
    /// # Panics
    /// If the buffer has no room for even a header.
    pub fn finish(mut self, header: &MessageHeader) -> usize {
        self.draft.finish(self.buffer, header)
    }
}

/// Whether a receiver would take the frame.
fn is_sound(frame: &Frame<'_>) -> bool {
    match *frame {
        Frame::Data { offset, bytes, .. } => offset.checked_add(bytes.len() as u64).is_some(),
        Frame::Written { range, .. } | Frame::Refuse { range, .. } => range.start < range.end,
        Frame::Window { log2_size, address, .. } => {
            crate::decode::WINDOW_LOG2.contains(&log2_size)
                && address.checked_add((1 << log2_size) - 1).is_some()
        }
        _ => true,
    }
}
