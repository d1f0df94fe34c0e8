//! A fixed window.

use super::CongestionControl;

/// At most `window` bytes outstanding, whatever happens. For experiments, and for paths whose
/// bandwidth-delay product is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fixed {
    window: u64,
}

impl Fixed {
    /// A window of `bytes` bytes; one byte if zero, as no byte at all would wait for ever.
    pub fn new(bytes: u64) -> Self {
        Self { window: bytes.max(1) }
    }
}

impl CongestionControl for Fixed {
    fn window(&self) -> u64 {
        self.window
    }
}
