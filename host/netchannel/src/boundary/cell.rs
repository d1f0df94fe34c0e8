//! Stream cells: what an application and the engine tell each other about one stream.
//!
//! A cell lies in shared memory: one half is written by the engine alone, the other by the
//! application alone. All values only say "up to here", so nothing is lost when a notification
//! is. The engine believes nothing that it reads: it checks the application's offsets against its
//! private state.

use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::{AtomicU32, AtomicU64};

use netchannel_shared_memory::memory::{Mapping, SharedMemory, SharedWord};

use crate::boundary::application::{Application, Export};
use crate::boundary::region::{RegionId, place};
use crate::error::Error;

/// Bits of [`EngineSide::flags`].
pub(crate) mod flags {
    /// The peer knows the stream.
    pub(crate) const OPENED: u32 = 1;
    /// `readable` is the end of the stream.
    pub(crate) const FIN: u32 = 1 << 1;
    /// The peer gave up sending; `reset_code` says why.
    pub(crate) const RESET: u32 = 1 << 2;
    /// The peer stopped reading; `stop_code` says why.
    pub(crate) const STOPPED: u32 = 1 << 3;
    /// Everything written and FIN are confirmed.
    pub(crate) const FINISHED: u32 = 1 << 4;
    /// The session is over; the session's error says why.
    pub(crate) const DEAD: u32 = 1 << 5;
}

/// Values of [`ApplicationSide::buffer_state`].
pub(crate) mod buffer {
    /// No send buffer.
    pub(crate) const NONE: u32 = 0;
    /// There is one, not in use by the application at the moment: the engine may take it back.
    pub(crate) const IDLE: u32 = 1;
    /// The application writes into it.
    pub(crate) const BUSY: u32 = 2;
    /// The application wants one of `buffer_wanted` bytes (instead of the one there is, if so, which
    /// is empty). The engine answers with `IDLE`, or with `NONE` if there is no memory.
    pub(crate) const WANTED: u32 = 3;
}

/// A receive window as the application sees it.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct WindowSlot {
    /// Region in the upper 32 bits, offset of the first byte in the lower.
    pub(crate) place: AtomicU64,
    /// First stream offset in it.
    pub(crate) from: AtomicU64,
    /// log2 of its size.
    pub(crate) log2: AtomicU32,
    reserved: AtomicU32,
}

/// Written by the engine. What changes with every chunk is in its first cache line.
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct EngineSide {
    /// Bytes below have arrived.
    pub(crate) readable: AtomicU64,
    /// Bytes below are with the peer's engine.
    pub(crate) confirmed: AtomicU64,
    /// See [`flags`].
    pub(crate) flags: AtomicU32,
    pub(crate) reset_code: AtomicU32,
    pub(crate) stop_code: AtomicU32,
    /// Number of the newest window; window `g` is in slot `g & 1`.
    pub(crate) generation: AtomicU32,
    /// The send buffer, like [`WindowSlot::place`].
    pub(crate) buffer_place: AtomicU64,
    pub(crate) buffer_log2: AtomicU32,
    reserved: [AtomicU32; 5],
    pub(crate) windows: [WindowSlot; 2],
}

/// Written by the application (`buffer_state` and the waiters by both).
#[derive(Debug)]
#[repr(C, align(64))]
pub(crate) struct ApplicationSide {
    /// Bytes below were read.
    pub(crate) consumed: AtomicU64,
    /// Bytes below were written.
    pub(crate) tail: AtomicU64,
    /// Port (plus one) of a thread that sleeps until something can be read.
    pub(crate) read_waiter: AtomicU32,
    /// Port (plus one) of a thread that sleeps until something can be written.
    pub(crate) write_waiter: AtomicU32,
    /// See [`buffer`].
    pub(crate) buffer_state: AtomicU32,
    /// Bytes of send buffer that the application would like to have.
    pub(crate) buffer_wanted: AtomicU32,
    /// Free bytes of send buffer that are worth telling the application of.
    pub(crate) room_wanted: AtomicU32,
    /// Not zero: the application makes its bytes in the send buffer, so copies elsewhere are worth
    /// avoiding, too.
    pub(crate) in_place: AtomicU32,
    /// Of what the application wants to hear: see [`ready`](crate::boundary::ready).
    pub(crate) armed: AtomicU32,
}

/// Both sides.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct CellState {
    pub(crate) engine: EngineSide,
    pub(crate) application: ApplicationSide,
}

impl CellState {
    /// Free bytes of send buffer; `None` if there is none.
    pub(crate) fn room(&self) -> Option<u64> {
        match self.application.buffer_state.load(Acquire) {
            buffer::NONE | buffer::WANTED => None,
            _ => {
                let size = 1u64 << (self.engine.buffer_log2.load(Relaxed) & 63);
                let tail = self.application.tail.load(Acquire);
                let used = tail.saturating_sub(self.engine.confirmed.load(Acquire));
                Some(size.saturating_sub(used))
            }
        }
    }

    /// Whether trying to write brings anything: room, a buffer to ask for, or an error.
    pub(crate) fn is_writable(&self) -> bool {
        if self.engine.flags.load(Acquire) & (flags::STOPPED | flags::DEAD | flags::FINISHED) != 0 {
            return true;
        }
        match self.room() {
            Some(room) => room >= u64::from(self.application.room_wanted.load(Relaxed)).max(1),
            None => self.application.buffer_state.load(Acquire) == buffer::NONE,
        }
    }

    /// Whether trying to read brings anything: bytes, the end, or an error.
    pub(crate) fn is_readable(&self) -> bool {
        let over = flags::FIN | flags::RESET | flags::DEAD;
        self.engine.flags.load(Acquire) & over != 0
            || self.engine.readable.load(Acquire) > self.application.consumed.load(Relaxed)
    }
}

// SAFETY: made of atomics, `repr(C)`, valid for any bytes.
unsafe impl SharedWord for CellState {}

/// Three cache lines: there are as many cells as streams.
const _: () = assert!(size_of::<CellState>() == 192);

/// Cells per block: a block is 768 KiB.
const BLOCK_CELLS: usize = 4_096;

/// One cell, kept mapped by this handle.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    /// In `_block`. Looked up once: every read and write of a stream begins here.
    state: NonNull<CellState>,
    /// What its application calls it, where that is another process; else zero.
    place: u64,
    _block: Arc<Mapping>,
}

// SAFETY: a cell is made of atomics, in memory that `_block` keeps mapped.
unsafe impl Send for Cell {}
// SAFETY: as for `Send`.
unsafe impl Sync for Cell {}

impl Cell {
    /// The cell at `offset`; `None` if it would not lie inside of the block, or not aligned.
    pub(crate) fn at(block: &Arc<Mapping>, offset: usize, place: u64) -> Option<Self> {
        let state = NonNull::from(block.at::<CellState>(offset)?);
        Some(Self { state, place, _block: Arc::clone(block) })
    }

    /// What its application calls it, where that is another process.
    pub(crate) fn place(&self) -> u64 {
        self.place
    }

    #[inline]
    pub(crate) fn state(&self) -> &CellState {
        // SAFETY: `at` got the pointer from the mapping, which lives as long as `self`.
        unsafe { self.state.as_ref() }
    }
}

/// All cells of one application in one engine.
#[derive(Debug)]
pub(crate) struct CellBlocks {
    application: Arc<Application>,
    /// The newest block.
    newest: Option<(Arc<Mapping>, Option<RegionId>)>,
    /// Blocks that another process has mapped, too.
    regions: Vec<RegionId>,
    /// Cells of the newest block that were handed out at least once.
    used: usize,
    /// Of those, and of the other blocks, the ones that came back.
    free: Vec<Cell>,
}

impl CellBlocks {
    pub(crate) fn new(application: Arc<Application>) -> Self {
        Self { application, newest: None, regions: Vec::new(), used: 0, free: Vec::new() }
    }

    /// A zeroed cell.
    pub(crate) fn take(&mut self) -> Result<Cell, Error> {
        if let Some(cell) = self.free.pop() {
            return Ok(cell);
        }
        if self.used == BLOCK_CELLS || self.newest.is_none() {
            self.grow()?;
        }
        let none_left = || Error::NoMemory { what: "stream cells" };
        let (block, region) = self.newest.as_ref().ok_or_else(none_left)?;
        let offset = self.used * size_of::<CellState>();
        let place = region.map_or(0, |region| place(region, offset as u32));
        let cell = Cell::at(block, offset, place);
        self.used += 1;
        cell.ok_or_else(none_left)
    }

    fn grow(&mut self) -> Result<(), Error> {
        let memory = SharedMemory::create("netchannel-cells", size_of::<CellState>() * BLOCK_CELLS)
            .map_err(Error::shared_memory("making stream cells"))?;
        let block = Arc::new(memory.map().map_err(Error::shared_memory("mapping stream cells"))?);
        let mut region = None;
        if self.application.is_attached() {
            let export = || Ok(Export { len: memory.len(), fd: memory.into_fd(), writable: true });
            region = Some(self.application.add_region(block.as_ptr(), export)?);
        }
        self.regions.extend(region);
        self.used = 0;
        self.newest = Some((block, region));
        Ok(())
    }

    /// Takes back a cell that nobody uses any more.
    pub(crate) fn give(&mut self, cell: Cell) {
        let CellState { engine, application } = cell.state();
        for word in [&engine.readable, &engine.confirmed, &engine.buffer_place] {
            word.store(0, Relaxed);
        }
        for window in &engine.windows {
            window.place.store(0, Relaxed);
            window.from.store(0, Relaxed);
            window.log2.store(0, Relaxed);
        }
        for word in [
            &engine.flags,
            &engine.reset_code,
            &engine.stop_code,
            &engine.generation,
            &engine.buffer_log2,
            &application.read_waiter,
            &application.write_waiter,
            &application.buffer_state,
            &application.buffer_wanted,
            &application.room_wanted,
            &application.in_place,
            &application.armed,
        ] {
            word.store(0, Relaxed);
        }
        application.consumed.store(0, Relaxed);
        application.tail.store(0, Relaxed);
        self.free.push(cell);
    }
}

impl Drop for CellBlocks {
    fn drop(&mut self) {
        for region in &self.regions {
            self.application.remove_region(*region);
        }
    }
}
