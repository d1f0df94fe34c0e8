//! Control messages to bytes and back: an 8-byte prefix, then a CBOR array of two: the number of
//! the message and the map of its fields.

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Decoder, Encode};

use super::channel::{self, ChannelMessage, ChannelNews};
use super::error::ControlError;
use super::message::{ControlMessage, Echo, Farewell, MessageKind, Nothing};

/// First bytes of every record.
pub const MAGIC: [u8; 4] = *b"NCC1";

/// Bytes of the prefix: magic, then the length of what follows as a little endian `u32`.
pub const PREFIX_LEN: usize = 8;

/// The most bytes that may follow a prefix: 256 Channels with the endpoints of any provider there
/// is, and a bound on what a hostile peer can make this side keep.
pub const MAX_RECORD: u32 = 64 << 10;

/// The record of a message.
///
/// # Errors
/// [`ControlError::RecordLength`] if it is too long (many Channels with long endpoints).
pub fn encode(message: &ControlMessage) -> Result<Vec<u8>, ControlError> {
    let number = message.kind().to_wire();
    match message {
        ControlMessage::Hello(hello) => encode_body(number, hello.as_ref()),
        ControlMessage::Accept(accept) => encode_body(number, accept.as_ref()),
        ControlMessage::Refuse(farewell) | ControlMessage::Goodbye(farewell) => {
            encode_body(number, farewell)
        }
        ControlMessage::Ready => encode_body(number, &Nothing {}),
        ControlMessage::Ping(echo) | ControlMessage::Pong(echo) => encode_body(number, echo),
        ControlMessage::Channel(message) => encode_body(number, message),
    }
}

fn encode_body<B: Encode<()>>(number: u32, body: &B) -> Result<Vec<u8>, ControlError> {
    let mut record = vec![0; PREFIX_LEN];
    minicbor::encode((number, body), &mut record)
        .map_err(|error| ControlError::Malformed { kind: None, detail: error.to_string() })?;
    let length = u32::try_from(record.len() - PREFIX_LEN).unwrap_or(u32::MAX);
    if length > MAX_RECORD {
        return Err(ControlError::RecordLength { length, max: MAX_RECORD });
    }
    record[..4].copy_from_slice(&MAGIC);
    record[4..PREFIX_LEN].copy_from_slice(&length.to_le_bytes());
    Ok(record)
}

/// The message in the bytes after a prefix; `None` for an unknown one that may be skipped.
///
/// # Errors
/// [`ControlError::Malformed`], [`ControlError::NotSupported`], [`ControlError::OutOfRange`].
pub fn decode(body: &[u8]) -> Result<Option<ControlMessage>, ControlError> {
    let malformed =
        |detail: &dyn ToString| ControlError::Malformed { kind: None, detail: detail.to_string() };
    let mut decoder = Decoder::new(body);
    match decoder.array() {
        Ok(Some(2)) => {}
        Ok(_) => return Err(malformed(&"not an array of two")),
        Err(error) => return Err(malformed(&error)),
    }
    let number = decoder.u32().map_err(|error| malformed(&error))?;
    let Some(kind) = MessageKind::from_wire(number) else {
        if number >= MessageKind::IGNORABLE {
            return Ok(None);
        }
        let reserved = MessageKind::RESERVED.iter().find(|(reserved, _)| *reserved == number);
        let name = reserved.map_or("unknown", |(_, name)| name);
        return Err(ControlError::NotSupported { number, name });
    };
    decode_body(kind, &mut decoder)
        .and_then(|message| match body.len() - decoder.position() {
            0 => Ok(message),
            n => Err(minicbor::decode::Error::message(format!("{n} bytes follow the message"))),
        })
        .map_err(|error| ControlError::Malformed { kind: Some(kind), detail: error.to_string() })?
        .checked()
        .map(Some)
}

fn decode_body(
    kind: MessageKind,
    d: &mut Decoder<'_>,
) -> Result<ControlMessage, minicbor::decode::Error> {
    Ok(match kind {
        MessageKind::Hello => ControlMessage::Hello(field(d)?),
        MessageKind::Accept => ControlMessage::Accept(field(d)?),
        MessageKind::Refuse => ControlMessage::Refuse(field::<Farewell>(d)?),
        MessageKind::Ready => {
            field::<Nothing>(d)?;
            ControlMessage::Ready
        }
        MessageKind::Ping => ControlMessage::Ping(field::<Echo>(d)?),
        MessageKind::Pong => ControlMessage::Pong(field::<Echo>(d)?),
        MessageKind::Goodbye => ControlMessage::Goodbye(field::<Farewell>(d)?),
        MessageKind::Fence => said(d, |cause| ChannelNews::Fence { cause })?,
        MessageKind::Fenced => said(d, |received| ChannelNews::Fenced { received })?,
        MessageKind::Renew => {
            said(d, |endpoint: ByteVec| ChannelNews::Renew { endpoint: endpoint.into() })?
        }
        MessageKind::Renewed => said(d, |channel::NoField| ChannelNews::Renewed)?,
    })
}

fn said<'b, T: Decode<'b, ()>>(
    d: &mut Decoder<'b>,
    news: impl FnOnce(T) -> ChannelNews,
) -> Result<ControlMessage, minicbor::decode::Error> {
    ChannelMessage::read(d, news).map(ControlMessage::Channel)
}

fn field<'b, T: Decode<'b, ()>>(d: &mut Decoder<'b>) -> Result<T, minicbor::decode::Error> {
    d.decode()
}

/// Cuts the byte stream into records. Keeps at most one, and of that no more than has come.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    partial: Vec<u8>,
    records: u64,
}

impl Assembler {
    /// Bytes of a record that is not complete.
    pub(super) fn partial(&self) -> usize {
        self.partial.len()
    }

    /// Takes bytes off the front of `input` until a record is complete, and returns what follows
    /// its prefix; `None` when `input` is used up. The caller gives the buffer back with
    /// [`recycle`](Self::recycle).
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Vec<u8>>, ControlError> {
        self.fill(input, PREFIX_LEN);
        let Some(prefix) = self.partial.first_chunk::<PREFIX_LEN>() else { return Ok(None) };
        let [magic @ .., l0, l1, l2, l3] = *prefix;
        if magic != MAGIC {
            return Err(ControlError::Magic { record: self.records, prefix: *prefix });
        }
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        if length > MAX_RECORD {
            return Err(ControlError::RecordLength { length, max: MAX_RECORD });
        }
        let total = PREFIX_LEN + length as usize;
        self.fill(input, total);
        if self.partial.len() < total {
            return Ok(None);
        }
        self.records += 1;
        self.partial.drain(..PREFIX_LEN);
        Ok(Some(core::mem::take(&mut self.partial)))
    }

    /// Takes back a buffer, so that keepalives do not allocate; large ones are let go.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if buffer.capacity() <= 1024 {
            buffer.clear();
            self.partial = buffer;
        }
    }

    fn fill(&mut self, input: &mut &[u8], total: usize) {
        let want = total.saturating_sub(self.partial.len());
        let (now, later) = input.split_at(want.min(input.len()));
        self.partial.extend_from_slice(now);
        *input = later;
    }
}
