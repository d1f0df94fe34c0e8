//! What must hold whatever the peer sends: shared by the fuzz target in `testbed/fuzz` and by the
//! tests.

use netchannel_units::{ByteRange, ChannelId, Class, Duration, StreamOffset, Timestamp, Weight};
use netchannel_wire::frame::GrantId;
use netchannel_wire::{Frame, StreamId};

use crate::pool::SlabId;
use crate::send::Form;
use crate::streams::{ApplicationId, Carried, Placement, Role, Streams, StreamsConfig};

static ZEROES: [u8; 4096] = [0; 4096];

/// Bytes as a source of decisions; zeroes when they are used up.
struct Input<'a> {
    bytes: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.bytes.split_first() else { return 0 };
        self.bytes = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        let low = u64::from(self.byte()) | (u64::from(self.byte()) << 8);
        match self.byte() % 6 {
            0 => low,
            1 => low << 8,
            2 => low << 48,
            3 => u64::MAX - low,
            4 => (1 << 32) - low,
            _ => low % 8,
        }
    }

    /// One of the first few streams, or any.
    fn stream(&mut self) -> StreamId {
        let byte = self.byte();
        StreamId(if byte < 240 { u32::from(byte % 6) } else { self.number() as u32 })
    }

    fn grant(&mut self) -> GrantId {
        GrantId(self.number() as u32)
    }
}

/// A peer sends any frames at any time while an application does what it likes: nothing panics,
/// nothing is placed outside of its window, nothing is sent that was not written, and what the peer
/// makes us keep is bounded.
///
/// # Panics
/// If that does not hold.
pub fn check_hostile(bytes: &[u8]) {
    let mut input = Input { bytes };
    let role = if input.byte() & 1 == 0 { Role::Client } else { Role::Server };
    let mut host = Host::new(role);
    while !input.bytes.is_empty() {
        match input.byte() % 16 {
            0..=8 => host.frame(&mut input),
            9..=12 => host.command(&mut input),
            _ => host.output(&mut input),
        }
        host.check();
    }
    host.output(&mut input);
    host.check();
}

struct Host {
    streams: Streams,
    now: Timestamp,
    slabs: u32,
    carried: Vec<Carried>,
    frames: usize,
}

impl Host {
    fn new(role: Role) -> Self {
        let streams = Streams::new(StreamsConfig {
            role,
            eager_credit: 65_536,
            peer_eager_credit: 65_536,
            window_log2: 20,
            eager_chunk: 4096,
            bulk_min: 2048,
            credits_per_window: 4,
        });
        Self { streams, now: Timestamp::ZERO, slabs: 0, carried: Vec::new(), frames: 0 }
    }

    /// An engine would end the session at the first error; here it goes on.
    fn frame(&mut self, input: &mut Input<'_>) {
        let stream = input.stream();
        let frame = frame(stream, input);
        let via = ChannelId(u16::from(input.byte() % 4));
        self.frames += 1;
        let Ok(placement) = self.streams.on_frame(self.now, via, &frame) else { return };
        if let (Placement::Copy { .. }, Frame::Data { bytes, .. }) = (placement, frame) {
            let half = self.streams.receive_half(stream).expect("bytes of a stream");
            for piece in self.streams.pieces() {
                assert!(half.windows().any(|w| w.lease == piece.lease));
                assert!(piece.at + piece.len as u64 <= piece.lease.size());
                assert!(piece.source + piece.len <= bytes.len());
            }
        }
    }

    fn command(&mut self, input: &mut Input<'_>) {
        let id = input.stream();
        let amount = input.number();
        match input.byte() % 11 {
            0 => drop(self.streams.open(1, Class::Latency)),
            1 | 2 => {
                let tail = self.streams.send_half(id).map_or(0, |h| h.tail().get());
                let _ = self.streams.write(id, StreamOffset::new(tail.saturating_add(amount)));
            }
            3 => {
                let _ = self.streams.consume(self.now, id, StreamOffset::new(amount));
            }
            4 => {
                let upto =
                    self.streams.receive_half(id).map_or(StreamOffset::ZERO, |h| h.received());
                assert!(self.streams.consume(self.now, id, upto));
            }
            5 => self.streams.finish(id),
            6 => self.streams.reset(id, 1),
            7 => self.streams.stop(id, 2),
            8 => self.streams.release(id, 3),
            9 if self.slabs < 4 => {
                self.streams.add_slab(ApplicationId::LOCAL, SlabId(self.slabs));
                self.slabs += 1;
            }
            _ => {
                self.now = self.now + Duration::from_millis(amount % 64);
                self.streams.on_timeout(self.now);
            }
        }
    }

    fn output(&mut self, input: &mut Input<'_>) {
        for _ in 0..1 + input.byte() % 8 {
            let Some(outgoing) = self.streams.poll_control() else { break };
            if input.byte() % 8 == 1 {
                self.streams.defer_control();
            } else {
                let via = outgoing.via.unwrap_or(ChannelId(u16::from(input.byte() % 4)));
                self.streams.on_control_sent(&outgoing.carried, via);
                self.carried.push(outgoing.carried);
            }
        }
        while let Some(backlog) = self.streams.poll_backlog() {
            self.send(backlog.stream, input.number());
        }
        while self.streams.poll_touched().is_some() {}
        while self.streams.poll_incoming().is_some() {}
        while self.streams.poll_closed().is_some() {}
        for _ in 0..input.byte() % 8 {
            if self.carried.is_empty() {
                break;
            }
            let carried = self.carried.swap_remove(usize::from(input.byte()) % self.carried.len());
            if input.byte() % 8 == 1 {
                self.streams.on_lost(&carried);
            } else {
                self.streams.on_confirmed(&carried);
            }
        }
        if input.byte() == 255 {
            self.streams.on_channel_lost(ChannelId(0));
        }
    }

    fn send(&mut self, id: StreamId, most: u64) {
        let Some(chunk) = self.streams.sending(id).and_then(|s| s.next_chunk(most)) else { return };
        let half = self.streams.send_half(id).expect("a stream with bytes");
        assert!(!chunk.range.is_empty() && chunk.range.len() <= most);
        assert!(chunk.range.end <= half.tail());
        match chunk.form {
            Form::Eager => assert!(chunk.range.len() <= 4096),
            Form::Bulk(grant) => {
                let start = grant.address_of(chunk.range.start) - grant.address;
                assert!(start + chunk.range.len() <= 1 << grant.log2);
            }
        }
        let mut sending = self.streams.sending(id).expect("a stream with bytes");
        let _ = sending.backlog_hint(&chunk);
        let carried = sending.on_sent(&chunk);
        self.carried.push(carried);
    }

    fn check(&self) {
        let total = u64::from(self.slabs) << 21;
        assert!(
            self.streams.pool(ApplicationId::LOCAL).map_or(0, |pool| pool.free_bytes()) <= total
        );
        assert!(self.streams.owing() <= self.frames + 2 * self.streams.len() + self.carried.len());
    }
}

fn frame<'a>(stream: StreamId, input: &mut Input<'_>) -> Frame<'a> {
    let offset = StreamOffset::new(input.number());
    let limit = StreamOffset::new(input.number());
    let code = input.byte();
    match code % 16 {
        0 => Frame::Open {
            stream,
            class: Class::Throughput,
            weight: Weight::default(),
            service: 1,
            limit,
        },
        1 => Frame::Opened { stream, limit },
        2..=4 => {
            let bytes = &ZEROES[..limit.get() as usize % 4097];
            Frame::Data { stream, offset, backlog: u32::from(input.byte()) << 16, bytes }
        }
        5 | 6 => Frame::Written {
            stream,
            grant: input.grant(),
            // Reversed ones, too.
            range: ByteRange { start: offset, end: limit },
            backlog: u32::from(input.byte()) << 16,
        },
        7 => Frame::Credit { stream, limit },
        8 | 9 => Frame::Window {
            stream,
            grant: input.grant(),
            log2_size: input.byte(),
            address: input.number(),
            key: 0,
            from: offset,
            limit,
        },
        10 => Frame::Recall { stream, grant: input.grant() },
        11 => Frame::Return { stream, grant: input.grant() },
        12 => Frame::Refuse { stream, range: ByteRange { start: offset, end: limit } },
        13 => Frame::Fin { stream, final_offset: limit },
        14 => Frame::Reset { stream, code: 1 },
        _ => Frame::Stop { stream, code: 2 },
    }
}
