//! The engine's ear: packets in, operations out.

use crate::error::AttachError;
use crate::hello::Hello;
use crate::request::Request;

/// What an application said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// Its first packet.
    Hello(Hello),
    /// Any other.
    Request(Request),
}

/// How far a conversation is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Nothing was said.
    #[default]
    Silent,
    /// Hello was said.
    Open,
    /// Something was said that ends it.
    Over,
}

/// One application's conversation, as the engine hears it.
#[derive(Debug, Default)]
pub struct Hearing {
    state: State,
}

impl Hearing {
    /// How far it is.
    pub fn state(&self) -> State {
        self.state
    }

    /// A packet came, and with it `descriptors` descriptors.
    ///
    /// # Errors
    /// Whatever is wrong with it; the conversation is over then, and so says every later call.
    pub fn on_packet(&mut self, packet: &[u8], descriptors: usize) -> Result<Heard, AttachError> {
        let heard = self.hear(packet, descriptors);
        self.state = if heard.is_ok() { State::Open } else { State::Over };
        heard
    }

    fn hear(&self, packet: &[u8], descriptors: usize) -> Result<Heard, AttachError> {
        if descriptors > 0 {
            let what = "a packet of an application";
            return Err(AttachError::Descriptors { found: descriptors, what });
        }
        match self.state {
            State::Silent => Hello::decode(packet).map(Heard::Hello),
            State::Open => Request::decode(packet).map(Heard::Request),
            State::Over => Err(AttachError::Refused("the conversation is over".into())),
        }
    }
}
