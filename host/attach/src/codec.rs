//! CBOR to values and back, with what the reader must check.

use minicbor::{Decode, Decoder, Encode, Encoder};
use netchannel_units::{Class, Weight};

use crate::MAX_PACKET;
use crate::error::AttachError;

pub(crate) fn encode<T: Encode<()>>(value: &T, packet: &mut Vec<u8>) {
    // Writing to a `Vec` cannot fail, and no message refuses to be encoded.
    let written = minicbor::encode(value, packet);
    debug_assert!(written.is_ok());
}

/// The value that fills all of `bytes`.
pub(crate) fn decode<'b, T: Decode<'b, ()>>(
    bytes: &'b [u8],
    what: &'static str,
) -> Result<T, AttachError> {
    if bytes.len() > MAX_PACKET {
        return Err(AttachError::TooLong { length: bytes.len(), max: MAX_PACKET });
    }
    let mut decoder = Decoder::new(bytes);
    let value = decoder
        .decode()
        .map_err(|error| AttachError::Malformed { what, detail: error.to_string() })?;
    match bytes.len() - decoder.position() {
        0 => Ok(value),
        n => Err(AttachError::Malformed { what, detail: format!("{n} bytes follow it") }),
    }
}

pub(crate) fn in_range(
    field: &'static str,
    value: u64,
    range: std::ops::RangeInclusive<u64>,
) -> Result<(), AttachError> {
    if range.contains(&value) {
        return Ok(());
    }
    Err(AttachError::OutOfRange { field, value, min: *range.start(), max: *range.end() })
}

/// Cuts a text to `max` bytes; control characters become spaces, for it goes to logs and terminals.
pub(crate) fn clean(text: &str, max: usize) -> String {
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].replace(char::is_control, " ")
}

/// Classes travel as their numbers.
pub(crate) mod class {
    use super::{Class, Decoder, Encoder};

    pub(crate) fn encode<C, W: minicbor::encode::Write>(
        class: &Class,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(class.to_wire())?;
        Ok(())
    }

    pub(crate) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Class, minicbor::decode::Error> {
        let number = d.u8()?;
        Class::from_wire(number).ok_or_else(|| {
            minicbor::decode::Error::message(format!("no class has number {number}"))
        })
    }
}

/// Weights travel as on the wire.
pub(crate) mod weight {
    use super::{Decoder, Encoder, Weight};

    pub(crate) fn encode<C, W: minicbor::encode::Write>(
        weight: &Weight,
        e: &mut Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.u8(weight.to_wire())?;
        Ok(())
    }

    pub(crate) fn decode<C>(
        d: &mut Decoder<'_>,
        _: &mut C,
    ) -> Result<Weight, minicbor::decode::Error> {
        let number = d.u8()?;
        Weight::from_wire(number).ok_or_else(|| {
            minicbor::decode::Error::message(format!("no weight has number {number}"))
        })
    }
}
