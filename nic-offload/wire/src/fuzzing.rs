//! What must hold for any bytes from the network: shared by the fuzz targets in `testbed/fuzz` and
//! by the tests that replay their corpus.

use crate::encode::MessageWriter;
use crate::frame::{Frame, MessageHeader};

/// Any bytes are either refused, or a message that encodes to the same bytes again (less the
/// frames that were skipped).
///
/// # Panics
/// If that does not hold.
pub fn check_frames(bytes: &[u8]) {
    let Ok((header, frames)) = crate::parse(bytes) else { return };
    let Ok(read) = frames.collect::<Result<Vec<_>, _>>() else { return };
    assert!(read.len() <= usize::from(header.frames));
    let again = encode(&header, &read);
    if read.len() == usize::from(header.frames) {
        assert_eq!(again, bytes, "{header:?} {read:?}");
        return;
    }
    assert!(again.len() < bytes.len());
    let (_, frames) = crate::parse(&again).expect("our own message");
    assert_eq!(frames.collect::<Result<Vec<_>, _>>().as_ref(), Ok(&read));
}

/// The message of these frames.
///
/// # Panics
/// If a frame does not fit a buffer of the length that the frames claim.
pub fn encode(header: &MessageHeader, frames: &[Frame<'_>]) -> Vec<u8> {
    let len: usize = frames.iter().map(Frame::encoded_len).sum();
    let mut buffer = vec![0xEE; MessageHeader::LEN + len];
    let mut writer = MessageWriter::new(&mut buffer);
    for frame in frames {
        let before = writer.room();
        writer.push(frame).expect("encoded_len holds");
        assert_eq!(before - writer.room(), frame.encoded_len());
    }
    assert_eq!(writer.room(), 0);
    assert_eq!(writer.finish(header), MessageHeader::LEN + len);
    buffer
}
