//! What the two sides say of one Channel whose queue pair died: first fence, then renew. The order is
//! that of `netchannel-channel`'s fence.

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};

use super::error::ControlError;
use super::message::{ChannelOffer, Farewell, MessageKind};
use super::parameters::in_range;

/// One queue pair of a Channel: its Channel, and which of those that it has had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChannelEpoch {
    /// Number of the Channel group.
    pub group: u8,
    /// Number of the Channel in the group's part of the session.
    pub channel: u16,
    /// Counts the queue pairs of the Channel, from 0.
    pub epoch: u32,
}

/// A message about one Channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelMessage {
    /// Which.
    pub of: ChannelEpoch,
    /// What about it.
    pub news: ChannelNews,
}

/// What is said of a Channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChannelNews {
    /// The queue pair failed here: fence yours.
    Fence {
        /// Why, for people.
        cause: String,
    },
    /// The queue pair is destroyed here and everything that arrived through it was processed.
    Fenced {
        /// How many messages from the first were processed. The Channel's own acknowledgements may
        /// say more.
        received: u64,
    },
    /// A new queue pair.
    Renew {
        /// What the provider needs to connect to it.
        endpoint: Vec<u8>,
    },
    /// The new queue pair is connected to yours: it may be used.
    Renewed,
}

impl ChannelNews {
    /// The number of the message.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Fence { .. } => MessageKind::Fence,
            Self::Fenced { .. } => MessageKind::Fenced,
            Self::Renew { .. } => MessageKind::Renew,
            Self::Renewed => MessageKind::Renewed,
        }
    }
}

impl ChannelMessage {
    /// A message that may be sent: the cause is cut to the length of a [`Farewell`]'s text.
    pub fn fence(of: ChannelEpoch, cause: &str) -> Self {
        let cause = Farewell::new(super::reason::Reason::Done, cause).text;
        Self { of, news: ChannelNews::Fence { cause } }
    }

    /// Whether lengths are as they must be.
    pub(super) fn checked(mut self) -> Result<Self, ControlError> {
        match &mut self.news {
            ChannelNews::Fence { cause } => {
                in_range("length of a text", cause.len() as u64, 0..=Farewell::MAX_TEXT as u64)?;
                *cause = cause.replace(char::is_control, " ");
            }
            ChannelNews::Renew { endpoint } => {
                let most = ChannelOffer::MAX_ENDPOINT as u64;
                in_range("length of an endpoint", endpoint.len() as u64, 1..=most)?;
            }
            ChannelNews::Fenced { .. } | ChannelNews::Renewed => {}
        }
        Ok(self)
    }
}

/// The map on the wire: fields 0 to 2 name the queue pair, field 3 is what is said.
#[derive(Encode, Decode)]
#[cbor(map)]
struct Said<T> {
    #[n(0)]
    group: u8,
    #[n(1)]
    channel: u16,
    #[n(2)]
    epoch: u32,
    #[n(3)]
    what: T,
}

/// NoField is said beside the name: there is no field 3.
pub(super) struct NoField;

impl<C> Encode<C> for NoField {
    fn encode<W: minicbor::encode::Write>(
        &self,
        _: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        Ok(())
    }

    fn is_nil(&self) -> bool {
        true
    }
}

impl<'b, C> Decode<'b, C> for NoField {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.skip().map(|()| Self)
    }

    fn nil() -> Option<Self> {
        Some(Self)
    }
}

impl<C> Encode<C> for ChannelMessage {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        context: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        let ChannelEpoch { group, channel, epoch } = self.of;
        match &self.news {
            ChannelNews::Fence { cause } => {
                Said { group, channel, epoch, what: cause.as_str() }.encode(e, context)
            }
            ChannelNews::Fenced { received } => {
                Said { group, channel, epoch, what: *received }.encode(e, context)
            }
            ChannelNews::Renew { endpoint } => {
                let what: &ByteSlice = endpoint.as_slice().into();
                Said { group, channel, epoch, what }.encode(e, context)
            }
            ChannelNews::Renewed => {
                Said { group, channel, epoch, what: NoField }.encode(e, context)
            }
        }
    }
}

impl ChannelMessage {
    /// Reads the map of a message; `news` is what the message says with field 3.
    pub(super) fn read<'b, T: Decode<'b, ()>>(
        d: &mut minicbor::Decoder<'b>,
        news: impl FnOnce(T) -> ChannelNews,
    ) -> Result<Self, minicbor::decode::Error> {
        let Said { group, channel, epoch, what } = d.decode::<Said<T>>()?;
        Ok(Self { of: ChannelEpoch { group, channel, epoch }, news: news(what) })
    }
}
