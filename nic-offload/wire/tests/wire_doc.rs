//! Holds `docs/wire.md` against the code.

#[path = "wire_doc/document.rs"]
mod document;

use std::collections::BTreeSet;

use document::{Document, hex, size};
use minicbor::data::Type;
use minicbor::{Decoder, Encoder};
use netchannel_units::{Class, Duration};
use netchannel_wire::control::record::{self, MAX_RECORD, PREFIX_LEN};
use netchannel_wire::control::{
    ControlError, ControlMessage, DEFAULT_PORT, Features, MessageKind, Parameters, Reason,
};
use netchannel_wire::fuzzing::encode;
use netchannel_wire::{FrameKind, MessageHeader, frame::reset, samples};

/// Every example of the document, by name, from the code.
fn examples() -> Vec<(String, Vec<u8>)> {
    let frames = samples::frames();
    let mut all = vec![
        ("message-header".to_owned(), encode(&samples::HEADER, &[])),
        ("message".to_owned(), encode(&samples::HEADER, &[frames[4], frames[9]])),
    ];
    for frame in frames {
        let message = encode(&samples::HEADER, &[frame]);
        let name = format!("frame-{}", frame.kind().name().to_lowercase());
        all.push((name, message[MessageHeader::LEN..].to_vec()));
    }
    for message in samples::control_messages() {
        let name = format!("control-{:?}", message.kind()).to_lowercase();
        all.push((name, record::encode(&message).unwrap()));
    }
    all
}

#[test]
fn every_example_is_what_the_code_writes() {
    let document = Document::read();
    let blocks = document.hex_blocks();
    let examples = examples();
    for (name, bytes) in &examples {
        let block = blocks.get(name.as_str()).unwrap_or_else(|| panic!("no block `hex {name}`"));
        let written: Vec<u8> = block.iter().flat_map(|line| hex(line)).collect();
        assert_eq!(&written, bytes, "block `hex {name}`");
    }
    let known: BTreeSet<_> = examples.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(blocks.keys().copied().collect::<BTreeSet<_>>(), known);
}

#[test]
fn every_frame_has_its_table() {
    let document = Document::read();
    let blocks = document.hex_blocks();
    for kind in FrameKind::ALL {
        let name = kind.name();
        let tail = if kind == FrameKind::Data { " + n" } else { "" };
        let (number, body) = (kind.to_wire(), kind.body_len());
        let heading = format!("### {name}: kind {number}, body {body}{tail} bytes");
        let rows = document.table(&heading, "offset");
        assert_eq!(document.check_offsets(&rows), body, "{heading}");
        // The example has a line for the head and one for each row, of its size.
        let block = &blocks[format!("frame-{}", name.to_lowercase()).as_str()];
        assert_eq!(block.len(), rows.len() + 1, "{heading}");
        assert_eq!(hex(block[0]).len(), 8, "{heading}");
        for (line, row) in block[1..].iter().zip(&rows) {
            let (_, comment) = line.split_once('#').expect("a comment names the field");
            assert_eq!(comment.trim(), row[3], "{heading}");
            if let Some(size) = size(row[1]) {
                assert_eq!(hex(line).len(), size, "{heading}: {}", row[3]);
            }
        }
    }
}

#[test]
fn headers_have_their_tables() {
    let document = Document::read();
    let header = document.table("## Messages of a Channel", "offset");
    assert_eq!(document.check_offsets(&header), MessageHeader::LEN);
    let block = &document.hex_blocks()["message-header"];
    for (line, row) in block.iter().zip(&header) {
        assert_eq!(Some(hex(line).len()), size(row[1]), "{}", row[3]);
    }
    let head = document.table("Each frame is a head and a body", "offset");
    assert_eq!(document.check_offsets(&head), 8);
    let prefix = document.table("## Records", "offset");
    assert_eq!(document.check_offsets(&prefix), PREFIX_LEN);
    assert!(prefix[0][4].starts_with(&document::text(&record::MAGIC)), "{}", prefix[0][4]);
    assert!(prefix[1][4].ends_with(&format!("at most {MAX_RECORD}")), "{}", prefix[1][4]);
    document.contains(&format!("TCP, port {DEFAULT_PORT} by default"));
}

#[test]
fn lists_of_numbers_are_complete() {
    let document = Document::read();
    let pairs = |column: &str| document.pairs(column);
    let owned = |number: u64, name: &str| (number, name.to_owned());
    let frames: Vec<_> =
        FrameKind::ALL.iter().map(|k| owned(k.to_wire().into(), k.name())).collect();
    assert_eq!(pairs("kind"), frames);
    let messages: Vec<_> = MessageKind::ALL
        .iter()
        .map(|kind| owned(kind.to_wire().into(), &format!("{kind:?}")))
        .collect();
    assert_eq!(pairs("number | message"), messages);
    let reserved: Vec<_> =
        MessageKind::RESERVED.iter().map(|(number, name)| owned((*number).into(), name)).collect();
    assert_eq!(pairs("reserved"), reserved);
    let reasons: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| owned(reason.to_wire().into(), &format!("{reason:?}")))
        .collect();
    assert_eq!(pairs("reason | name"), reasons);
    let classes: Vec<_> =
        Class::ALL.iter().map(|class| owned(class.to_wire().into(), &class.to_string())).collect();
    assert_eq!(pairs("class"), classes);
    let features = [
        (Features::BULK, "BULK"),
        (Features::ELASTIC, "ELASTIC"),
        (Features::FAILOVER, "FAILOVER"),
    ];
    let features = features.map(|(bit, name)| owned(bit.0.trailing_zeros().into(), name));
    assert_eq!(pairs("bit"), features);
    let codes =
        [(reset::CANCELLED, "CANCELLED"), (reset::REFUSED, "REFUSED"), (reset::BUSY, "BUSY")];
    assert_eq!(pairs("code"), codes.map(|(code, name)| owned(code.into(), name)));
}

/// Number, type and presence of every field of a map. What is required is found by leaving each
/// field out.
fn fields(map: &[u8], reads: impl Fn(&[u8]) -> bool) -> Vec<(u64, &'static str, &'static str)> {
    let mut d = Decoder::new(map);
    let count = d.map().unwrap().expect("definite") as usize;
    let mut entries = Vec::new();
    let mut found = Vec::new();
    for _ in 0..count {
        let start = d.position();
        let number = d.u64().unwrap();
        let kind = match d.datatype().unwrap() {
            Type::U8 | Type::U16 | Type::U32 | Type::U64 => "uint",
            Type::String => "text",
            Type::Bytes => "bytes",
            Type::Array => "array",
            Type::Map => "map",
            other => panic!("{other}"),
        };
        d.skip().unwrap();
        entries.push(&map[start..d.position()]);
        found.push((number, kind));
    }
    assert_eq!(d.position(), map.len());
    assert!(reads(map));
    let without = |left_out: usize| {
        let mut bytes = Vec::new();
        Encoder::new(&mut bytes).map(count as u64 - 1).unwrap();
        for (i, entry) in entries.iter().enumerate() {
            if i != left_out {
                bytes.extend_from_slice(entry);
            }
        }
        reads(&bytes)
    };
    found
        .into_iter()
        .enumerate()
        .map(|(i, (number, kind))| (number, kind, if without(i) { "optional" } else { "required" }))
        .collect()
}

#[test]
fn every_map_has_its_table() {
    let document = Document::read();
    let check = |name: &str, map: &[u8], reads: &dyn Fn(&[u8]) -> bool| {
        let heading = format!("### {name}: fields");
        let rows = document.table(&heading, "number");
        let written: Vec<_> =
            rows.iter().map(|row| (row[0].parse().unwrap(), row[2], row[3])).collect();
        assert_eq!(written, fields(map, reads), "{heading}");
    };
    let [_, others @ ..] = samples::control_messages();
    for message in [samples::full_hello()].into_iter().chain(others) {
        if message == ControlMessage::Ready {
            continue;
        }
        let record = record::encode(&message).unwrap();
        // Array of two, number (one byte below 24, else two), map.
        let number = if message.kind().to_wire() < 24 { 1 } else { 2 };
        let (head, map) = record[PREFIX_LEN..].split_at(1 + number);
        let reads = |map: &[u8]| record::decode(&[head, map].concat()).is_ok();
        check(&format!("{:?}", message.kind()), map, &reads);
    }
    let parameters = minicbor::to_vec(samples::parameters()).unwrap();
    check("Parameters", &parameters, &|map| minicbor::decode::<Parameters>(map).is_ok());
    let offer = minicbor::to_vec(samples::channel()).unwrap();
    let reads =
        |map: &[u8]| minicbor::decode::<netchannel_wire::control::ChannelOffer>(map).is_ok();
    check("Channel offer", &offer, &reads);
}

#[test]
fn limits_are_those_of_the_code() {
    let document = Document::read();
    let rows = document.table("### Parameters: fields", "limit of");
    type Breaks = fn(&mut Parameters);
    let broken: [(&str, Breaks); 7] = [
        ("length of the provider name", |p| p.provider = "p".repeat(300)),
        ("length of the device name", |p| p.device = "d".repeat(300)),
        ("length of the host name", |p| p.host_name = Some("h".repeat(300))),
        ("keepalive in ms", |p| p.keepalive = Duration::MAX),
        ("death timeout in ms", |p| p.death_timeout = Duration::MAX),
        ("slots", |p| p.slots = u32::MAX),
        ("slot bytes", |p| p.slot_bytes = u32::MAX),
    ];
    assert_eq!(rows.len(), broken.len());
    for (row, (name, breaks)) in rows.iter().zip(broken) {
        let mut parameters = samples::parameters();
        breaks(&mut parameters);
        let Err(ControlError::OutOfRange { field, min, max, .. }) = parameters.check() else {
            panic!("{name}")
        };
        assert_eq!((row[0], field), (name, name));
        assert_eq!((row[1], row[2]), (&*min.to_string(), &*max.to_string()), "{name}");
    }
}
