//! The messages of the control protocol. Each is a map of numbered fields; who does not know a
//! number skips it.

use minicbor::{Decode, Decoder, Encode, Encoder};
use netchannel_units::Class;

use super::channel::ChannelMessage;
use super::error::ControlError;
use super::parameters::{Features, Parameters, VersionRange, in_range};
use super::reason::Reason;

/// Name of a session, drawn at random by the side that connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct SessionId(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 16]);

/// One queue pair, from the side that made it. The offers of both sides with the same index are to
/// be connected.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ChannelOffer {
    /// Number of the Channel in its session.
    #[n(0)]
    pub index: u16,
    /// The class of its group.
    #[cbor(n(1), with = "class")]
    pub class: Class,
    /// What the provider needs to connect to it; only the provider reads it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub endpoint: Vec<u8>,
    /// Number of its group in the session. The Channels of a group have one class, and the
    /// streams on them one space of numbers.
    #[n(3)]
    pub group: u8,
}

impl ChannelOffer {
    /// Bytes of the longest endpoint.
    pub const MAX_ENDPOINT: usize = 256;
    /// Channels that one message can carry (if they also fit into one record).
    pub const MAX_CHANNELS: usize = 256;

    /// Groups that a session can have.
    pub const MAX_GROUPS: u8 = 64;

    /// What the two sides' offers of one Channel must have in common.
    pub fn name(&self) -> (u16, u8, Class) {
        (self.index, self.group, self.class)
    }

    /// Whether lengths are in range, no index comes twice and every group has one class.
    ///
    /// # Errors
    /// [`ControlError::OutOfRange`] or [`ControlError::ChannelOffers`].
    pub fn check(offers: &[Self]) -> Result<(), ControlError> {
        in_range("number of channels", offers.len() as u64, 0..=Self::MAX_CHANNELS as u64)?;
        for (i, offer) in offers.iter().enumerate() {
            let len = offer.endpoint.len() as u64;
            in_range("length of an endpoint", len, 1..=Self::MAX_ENDPOINT as u64)?;
            if offers.iter().take(i).any(|earlier| earlier.index == offer.index) {
                let index = offer.index;
                return Err(ControlError::ChannelOffers { index, what: "comes twice" });
            }
            let most = u64::from(Self::MAX_GROUPS - 1);
            in_range("number of a group", u64::from(offer.group), 0..=most)?;
            let differs = |other: &&Self| other.group == offer.group && other.class != offer.class;
            if offers.iter().take(i).any(|earlier| differs(&earlier)) {
                let what = "has another class than its group";
                return Err(ControlError::ChannelOffers { index: offer.index, what });
            }
        }
        Ok(())
    }
}

/// The first message, from the side that connects.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// The lowest version that it speaks.
    #[n(0)]
    pub min_version: u16,
    /// The highest.
    #[n(1)]
    pub max_version: u16,
    /// Name of the session.
    #[n(2)]
    pub session: SessionId,
    /// What it can do.
    #[n(3)]
    pub features: Features,
    /// What it is.
    #[n(4)]
    pub parameters: Parameters,
    /// Its queue pairs.
    #[n(5)]
    pub channels: Vec<ChannelOffer>,
    /// Authentication. None is defined: whoever sends it is refused.
    #[n(6)]
    pub authentication: Option<Undefined>,
}

impl Hello {
    /// The versions.
    pub fn versions(&self) -> VersionRange {
        VersionRange { min: self.min_version, max: self.max_version }
    }
}

/// The answer to a Hello: the session is made.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Accept {
    /// The version of the session.
    #[n(0)]
    pub version: u16,
    /// What both sides can do.
    #[n(1)]
    pub features: Features,
    /// What the accepting side is.
    #[n(2)]
    pub parameters: Parameters,
    /// Its queue pairs, for those of the offered ones that it takes.
    #[n(3)]
    pub channels: Vec<ChannelOffer>,
}

/// Refuse and Goodbye: a reason, and words for people.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Farewell {
    /// The reason.
    #[n(0)]
    pub reason: Reason,
    /// At most [`Farewell::MAX_TEXT`] bytes, without control characters.
    #[n(1)]
    pub text: String,
}

impl Farewell {
    /// Bytes of text.
    pub const MAX_TEXT: usize = 256;

    /// Cuts `text` to what may be sent.
    pub fn new(reason: Reason, text: &str) -> Self {
        let mut end = text.len().min(Self::MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let text = text[..end].replace(char::is_control, " ");
        Self { reason, text }
    }

    /// Whether the text is short enough; control characters in it become spaces, for it goes to
    /// logs and terminals.
    fn cleaned(mut self) -> Result<Self, ControlError> {
        in_range("length of a text", self.text.len() as u64, 0..=Self::MAX_TEXT as u64)?;
        self.text = self.text.replace(char::is_control, " ");
        Ok(self)
    }
}

/// A field without a meaning in this version: any CBOR item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Undefined;

impl<C> Encode<C> for Undefined {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.map(0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for Undefined {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        d.skip().map(|()| Self)
    }
}

/// Ping and Pong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Echo {
    /// Comes back as it was.
    #[n(0)]
    pub nonce: u64,
}

/// Ready has no fields yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Nothing {}

/// A message of the control protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ControlMessage {
    /// The connecting side introduces itself.
    Hello(Box<Hello>),
    /// The accepting side does, and takes it.
    Accept(Box<Accept>),
    /// The accepting side does not.
    Refuse(Farewell),
    /// The connecting side has connected its queue pairs.
    Ready,
    /// Are you there?
    Ping(Echo),
    /// I am.
    Pong(Echo),
    /// The session ends; nothing follows.
    Goodbye(Farewell),
    /// A queue pair died, or is replaced.
    Channel(ChannelMessage),
}

/// The number of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum MessageKind {
    /// [`ControlMessage::Hello`].
    Hello = 1,
    /// [`ControlMessage::Accept`].
    Accept = 2,
    /// [`ControlMessage::Refuse`].
    Refuse = 3,
    /// [`ControlMessage::Ready`].
    Ready = 4,
    /// [`ControlMessage::Ping`].
    Ping = 5,
    /// [`ControlMessage::Pong`].
    Pong = 6,
    /// [`ControlMessage::Goodbye`].
    Goodbye = 7,
    /// [`ChannelNews::Fence`](super::channel::ChannelNews).
    Fence = 32,
    /// [`ChannelNews::Fenced`](super::channel::ChannelNews).
    Fenced = 33,
    /// [`ChannelNews::Renew`](super::channel::ChannelNews).
    Renew = 36,
    /// [`ChannelNews::Renewed`](super::channel::ChannelNews).
    Renewed = 37,
}

impl MessageKind {
    /// Every kind, by number.
    pub const ALL: [Self; 11] = [
        Self::Hello,
        Self::Accept,
        Self::Refuse,
        Self::Ready,
        Self::Ping,
        Self::Pong,
        Self::Goodbye,
        Self::Fence,
        Self::Fenced,
        Self::Renew,
        Self::Renewed,
    ];

    /// From this number on, who does not know a message skips it.
    pub const IGNORABLE: u32 = 128;

    /// Numbers of later versions: a name for each, so that an error can say it.
    pub const RESERVED: [(u32, &'static str); 6] = [
        (16, "AddChannels"),
        (17, "ChannelsAdded"),
        (18, "RemoveChannels"),
        (19, "ChannelsRemoved"),
        (34, "Replayed"),
        (35, "Authenticate"),
    ];

    /// The kind with this number, if there is one.
    pub fn from_wire(value: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.to_wire() == value)
    }

    /// The number on the wire.
    pub const fn to_wire(self) -> u32 {
        self as u32
    }
}

impl ControlMessage {
    /// Its number.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Hello(_) => MessageKind::Hello,
            Self::Accept(_) => MessageKind::Accept,
            Self::Refuse(_) => MessageKind::Refuse,
            Self::Ready => MessageKind::Ready,
            Self::Ping(_) => MessageKind::Ping,
            Self::Pong(_) => MessageKind::Pong,
            Self::Goodbye(_) => MessageKind::Goodbye,
            Self::Channel(message) => message.news.kind(),
        }
    }

    /// Whether lengths are as they must be. Values that only one of the sides can judge are
    /// judged by its [`Connection`](super::Connection).
    pub(super) fn checked(self) -> Result<Self, ControlError> {
        Ok(match self {
            Self::Refuse(farewell) => Self::Refuse(farewell.cleaned()?),
            Self::Goodbye(farewell) => Self::Goodbye(farewell.cleaned()?),
            Self::Channel(message) => Self::Channel(message.checked()?),
            other => other,
        })
    }
}

/// Classes on the wire.
mod class {
    use minicbor::{Decoder, Encoder};
    use netchannel_units::Class;

    pub(super) fn encode<C, W: minicbor::encode::Write>(
        value: &Class,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(value.to_wire())?.ok()
    }

    pub(super) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Class, minicbor::decode::Error> {
        let number = d.u8()?;
        Class::from_wire(number)
            .ok_or_else(|| minicbor::decode::Error::message(format!("unknown class {number}")))
    }
}
