//! The message that a Channel sends next: frames in a send slot, behind a list of WRITEs.

use netchannel_units::{ByteRange, StreamOffset};
use netchannel_verbs::work::{SendOperation, Slices};
use netchannel_verbs::{Access, Context, LocalSlice, MemoryRegion, RemoteKey, SendRequest};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, MessageDraft, MessageHeader, StreamId};

use crate::error::DriverError;
use crate::group::GroupConfig;
use crate::send_queue::INITIAL_ROOM;

/// Where bulk bytes come from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Address of the first byte in this process.
    pub address: u64,
    /// Number of bytes.
    pub length: u32,
    /// Key of the region; ignored if `inline`.
    pub local_key: u32,
    /// Move the bytes while posting: the memory is needed no longer than that, and no key.
    pub inline: bool,
}

/// Where bulk bytes go: memory of the peer, and what announces them.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// The stream.
    pub stream: StreamId,
    /// The window.
    pub grant: GrantId,
    /// Which bytes.
    pub range: ByteRange,
    /// Bytes that wait behind them.
    pub backlog: u32,
    /// Address in the peer's terms.
    pub address: u64,
    /// The peer's key.
    pub key: u32,
}

/// A message that is ready to be posted.
pub(crate) struct Message {
    pub(crate) slot: u16,
    pub(crate) length: u32,
}

/// The draft, and the memory of all send slots.
pub(crate) struct Draft<C: Context> {
    slots: C::MemoryRegion,
    slot_bytes: u32,
    /// Where the frames are put; the draft is open.
    slot: Option<u16>,
    frames: MessageDraft,
    writes: Vec<SendRequest>,
    write_bytes: u64,
}

impl<C: Context> Draft<C> {
    pub(crate) fn new(context: &C, config: &GroupConfig) -> Result<Self, DriverError> {
        let slots = context
            .alloc(config.send_slots as usize * config.slot_bytes as usize, Access::LOCAL_WRITE)
            .map_err(DriverError::queue("allocating send slots"))?;
        Ok(Self {
            slots,
            slot_bytes: config.slot_bytes,
            slot: None,
            frames: MessageDraft::new(),
            writes: Vec::with_capacity(INITIAL_ROOM),
            write_bytes: 0,
        })
    }

    pub(crate) fn is_open(&self) -> bool {
        self.slot.is_some()
    }

    /// Begins with a slot that is not posted.
    pub(crate) fn open(&mut self, slot: u16) {
        self.slot = Some(slot);
    }

    /// Forgets it and gives up its slot.
    pub(crate) fn close(&mut self) {
        self.slot = None;
        self.discard();
    }

    /// Forgets what is in it.
    pub(crate) fn discard(&mut self) {
        self.frames = MessageDraft::new();
        self.clear_writes();
    }

    /// The WRITEs were posted.
    pub(crate) fn clear_writes(&mut self) {
        self.writes.clear();
        self.write_bytes = 0;
    }

    pub(crate) fn has_frames(&self) -> bool {
        self.frames.frames() > 0
    }

    /// Number of WRITEs.
    pub(crate) fn writes(&self) -> u32 {
        self.writes.len() as u32
    }

    /// Bytes that frames can still take.
    pub(crate) fn room(&self) -> usize {
        self.frames.room(self.slot_bytes as usize)
    }

    /// Bytes of bulk and frames; without the header, so that nothing is nothing.
    pub(crate) fn bytes(&self) -> u64 {
        self.write_bytes + self.frames.len().saturating_sub(MessageDraft::new().len()) as u64
    }

    /// The slot's memory. Only for a slot that is not posted.
    fn memory_of(slots: &mut C::MemoryRegion, slot: u16, slot_bytes: u32) -> &mut [u8] {
        let offset = usize::from(slot) * slot_bytes as usize;
        // SAFETY: the slot lies in the region, which `slots` borrows; the NIC only reads posted
        // slots, and callers pass one that is not posted. Peers have no key to the region.
        unsafe {
            std::slice::from_raw_parts_mut(slots.as_ptr().as_ptr().add(offset), slot_bytes as usize)
        }
    }

    /// Adds a frame. False if it has no room, or the draft is not open.
    #[inline]
    pub(crate) fn push(&mut self, frame: &Frame<'_>) -> bool {
        let Some(slot) = self.slot else { return false };
        let buffer = Self::memory_of(&mut self.slots, slot, self.slot_bytes);
        self.frames.push(buffer, frame).is_ok()
    }

    /// Adds a Data frame whose `len` bytes are copied from `source`. False as in [`push`](Self::push).
    ///
    /// # Safety
    /// `source` is valid for reads of `len` bytes. Another thread or process may be writing them:
    /// then what is sent is unspecified bytes.
    #[inline]
    pub(crate) unsafe fn push_data(
        &mut self,
        stream: StreamId,
        offset: StreamOffset,
        backlog: u32,
        source: *const u8,
        len: usize,
    ) -> bool {
        let Some(slot) = self.slot else { return false };
        let buffer = Self::memory_of(&mut self.slots, slot, self.slot_bytes);
        let Ok(place) = self.frames.push_data(buffer, stream, offset, backlog, len) else {
            return false;
        };
        // SAFETY: `source` is readable for `len` bytes (the caller's promise), `place` has that
        // length and belongs to this Channel alone, so they do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(source, place.as_mut_ptr(), len) };
        true
    }

    /// Adds a WRITE, and the Written frame that announces it. False as in [`push`](Self::push).
    ///
    /// # Safety
    /// The source stays valid and unchanged until what was posted with it is not executed any more; with
    /// `inline`, until it was posted.
    #[inline]
    pub(crate) unsafe fn push_write(&mut self, source: Source, target: &Target) -> bool {
        let Some(slot) = self.slot else { return false };
        let buffer = Self::memory_of(&mut self.slots, slot, self.slot_bytes);
        let &Target { stream, grant, range, backlog, address, key } = target;
        if self.frames.push_written(buffer, stream, grant, range, backlog).is_err() {
            return false;
        }
        self.write_bytes += u64::from(source.length);
        self.writes.push(SendRequest {
            id: 0,
            operation: SendOperation::Write { address, key: RemoteKey(key) },
            local: Slices::one(LocalSlice {
                address: source.address,
                length: source.length,
                local_key: source.local_key,
            }),
            signaled: false,
            inline: source.inline,
            solicited: false,
        });
        true
    }

    /// Puts the header in front of the frames and closes the draft. The message, if it was open.
    #[inline]
    pub(crate) fn finish(&mut self, header: &MessageHeader) -> Option<Message> {
        let slot = self.slot.take()?;
        let buffer = Self::memory_of(&mut self.slots, slot, self.slot_bytes);
        let length = self.frames.finish(buffer, header) as u32;
        Some(Message { slot, length })
    }

    /// What to post of a finished message: its WRITEs, then its SEND.
    #[inline]
    pub(crate) fn requests(
        &mut self,
        message: &Message,
        id: u64,
        signaled: bool,
        inline: bool,
    ) -> &[SendRequest] {
        let offset = u64::from(message.slot) * u64::from(self.slot_bytes);
        self.writes.push(SendRequest {
            id,
            operation: SendOperation::Send,
            local: Slices::one(LocalSlice {
                address: self.slots.as_ptr().as_ptr() as u64 + offset,
                length: message.length,
                local_key: self.slots.local_key(),
            }),
            signaled,
            inline,
            solicited: false,
        });
        for write in &mut self.writes {
            write.id = id;
        }
        &self.writes
    }
}
