use super::error::ControlError;
use super::message::ControlMessage;
use super::record;

/// Records to be sent, and how far they have been.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, message: &ControlMessage) -> Result<(), ControlError> {
        let record = record::encode(message)?;
        // Memory of what was sent is given back before more is added.
        self.bytes.drain(..self.sent);
        self.sent = 0;
        self.bytes.extend_from_slice(&record);
        Ok(())
    }

    /// What waits to be sent.
    pub(super) fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// The first `count` bytes of what waits are sent.
    pub(super) fn on_transmitted(&mut self, count: usize) {
        self.sent = self.sent.saturating_add(count).min(self.bytes.len());
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.sent = 0;
        }
    }
}
