//! Numbers of the frame kinds.

use core::mem::size_of;

use crate::frame::Frame;
use crate::layout;

/// The kind of a frame: its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum FrameKind {
    /// [`Frame::Open`].
    Open = 1,
    /// [`Frame::Opened`].
    Opened = 2,
    /// [`Frame::Data`].
    Data = 3,
    /// [`Frame::Written`].
    Written = 4,
    /// [`Frame::Credit`].
    Credit = 5,
    /// [`Frame::Window`].
    Window = 6,
    /// [`Frame::Recall`].
    Recall = 7,
    /// [`Frame::Return`].
    Return = 8,
    /// [`Frame::Refuse`].
    Refuse = 9,
    /// [`Frame::Fin`].
    Fin = 10,
    /// [`Frame::Reset`].
    Reset = 11,
    /// [`Frame::Stop`].
    Stop = 12,
}

impl FrameKind {
    /// Every kind, by number.
    pub const ALL: [Self; 12] = [
        Self::Open,
        Self::Opened,
        Self::Data,
        Self::Written,
        Self::Credit,
        Self::Window,
        Self::Recall,
        Self::Return,
        Self::Refuse,
        Self::Fin,
        Self::Reset,
        Self::Stop,
    ];

    /// Kinds with this bit may be skipped by a receiver that does not know them.
    pub const IGNORABLE: u8 = 0x80;

    /// The kind with this number, if there is one.
    pub const fn from_wire(value: u8) -> Option<Self> {
        Some(match value {
            1 => Self::Open,
            2 => Self::Opened,
            3 => Self::Data,
            4 => Self::Written,
            5 => Self::Credit,
            6 => Self::Window,
            7 => Self::Recall,
            8 => Self::Return,
            9 => Self::Refuse,
            10 => Self::Fin,
            11 => Self::Reset,
            12 => Self::Stop,
            _ => return None,
        })
    }

    /// The number of this kind on the wire.
    pub const fn to_wire(self) -> u8 {
        self as u8
    }

    /// The name in `docs/wire.md`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "Open",
            Self::Opened => "Opened",
            Self::Data => "Data",
            Self::Written => "Written",
            Self::Credit => "Credit",
            Self::Window => "Window",
            Self::Recall => "Recall",
            Self::Return => "Return",
            Self::Refuse => "Refuse",
            Self::Fin => "Fin",
            Self::Reset => "Reset",
            Self::Stop => "Stop",
        }
    }

    /// Bytes of the body, without the bytes that a Data frame ends in.
    pub const fn body_len(self) -> usize {
        match self {
            Self::Open => size_of::<layout::Open>(),
            Self::Opened | Self::Credit | Self::Fin => size_of::<layout::Offset>(),
            Self::Data => size_of::<layout::Data>(),
            Self::Written => size_of::<layout::Written>(),
            Self::Window => size_of::<layout::Window>(),
            Self::Recall | Self::Return | Self::Reset | Self::Stop => size_of::<layout::Number>(),
            Self::Refuse => size_of::<layout::Refuse>(),
        }
    }
}

impl Frame<'_> {
    /// The kind.
    pub const fn kind(&self) -> FrameKind {
        match self {
            Frame::Open { .. } => FrameKind::Open,
            Frame::Opened { .. } => FrameKind::Opened,
            Frame::Data { .. } => FrameKind::Data,
            Frame::Written { .. } => FrameKind::Written,
            Frame::Credit { .. } => FrameKind::Credit,
            Frame::Window { .. } => FrameKind::Window,
            Frame::Recall { .. } => FrameKind::Recall,
            Frame::Return { .. } => FrameKind::Return,
            Frame::Refuse { .. } => FrameKind::Refuse,
            Frame::Fin { .. } => FrameKind::Fin,
            Frame::Reset { .. } => FrameKind::Reset,
            Frame::Stop { .. } => FrameKind::Stop,
        }
    }

    /// Bytes that the frame takes in a message, its head included.
    pub const fn encoded_len(&self) -> usize {
        let tail = match self {
            Frame::Data { bytes, .. } => bytes.len(),
            _ => 0,
        };
        size_of::<layout::Head>() + self.kind().body_len() + tail
    }
}
