//! Datagrams that arrive. A link may lose some (that is allowed), so what is lost is sent again.

use std::time::{Duration, Instant};

use super::Check;
use super::bench::{DEPTH, PATIENCE, Pair, Side, ensure, expect_success, pattern, request, say};
use crate::datagram::{Datagram, DatagramEndpoint};
use crate::work::{MAX_SLICES, Opcode, SendOperation, SendRequest, WorkCompletion};
use crate::{AddressVector, Context, Ecn, Grh, QueuePair as _};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("datagram: bytes arrive, with their sender", bytes),
        ("datagram: gather and scatter", gather_scatter),
        ("datagram: immediate data", immediate),
        ("datagram: inline source is free at once", inline),
        ("datagram: the GRH says from where, DSCP, ECN", grh),
        ("datagram: a reply along the completion", reply),
        ("datagram: unsignalled ones complete silently", unsignalled),
    ]
}

/// The header in front of every payload.
pub(super) const GRH: usize = Grh::LEN;
/// Where receives begin; sources lie below.
pub(super) const INBOX: usize = 1 << 20;
/// When what was sent is taken for lost.
pub(super) const LOST: Duration = Duration::from_secs(1);

pub(super) const KEY_A: u32 = 0x1234_5678;
pub(super) const KEY_B: u32 = 0x0abc_def0;

/// Two sides, and the ways between them.
pub(super) struct Talk<C: Context> {
    pub(super) pair: Pair<C>,
    pub(super) to_b: Way<C>,
    pub(super) to_a: Way<C>,
}

/// A receiver and the way there.
pub(super) struct Way<C: Context> {
    pub(super) handle: C::AddressHandle,
    pub(super) peer: DatagramEndpoint,
}

impl<C: Context> Way<C> {
    /// From `context` to `side`.
    pub(super) fn new(context: &C, side: &Side<C>) -> Result<Self, String> {
        let peer =
            DatagramEndpoint::parse(&side.queue_pair.endpoint()).map_err(say("the endpoint"))?;
        Self::along(context, peer, &peer.address())
    }

    pub(super) fn along(
        context: &C,
        peer: DatagramEndpoint,
        address: &AddressVector,
    ) -> Result<Self, String> {
        let handle = context.create_address_handle(address).map_err(say("address handle"))?;
        Ok(Self { handle, peer })
    }

    pub(super) fn datagram(&self, request: SendRequest) -> Datagram<'_, C::AddressHandle> {
        Datagram::to(&self.peer, &self.handle, request)
    }
}

impl<C: Context> Talk<C> {
    pub(super) fn new(a: &C, b: &C) -> Result<Self, String> {
        let pair = Pair { a: Side::datagrams(a, KEY_A)?, b: Side::datagrams(b, KEY_B)? };
        let (to_b, to_a) = (Way::new(a, &pair.b)?, Way::new(b, &pair.a)?);
        Ok(Self { pair, to_b, to_a })
    }

    /// A posts, until B's receive `receive` has it; both completions.
    pub(super) fn deliver(
        &mut self,
        request: SendRequest,
        receive: u64,
    ) -> Result<(WorkCompletion, WorkCompletion), String> {
        deliver(&mut self.pair, &self.to_b, request, receive)
    }
}

/// Side A posts `request` along `way`, until side B's receive `receive` has it: what A and B saw.
pub(super) fn deliver<C: Context>(
    pair: &mut Pair<C>,
    way: &Way<C>,
    request: SendRequest,
    receive: u64,
) -> Result<(WorkCompletion, WorkCompletion), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        pair.a.try_datagrams(&[way.datagram(request)]).map_err(say("post_datagrams"))?;
        let sent = pair.wait_a(request.id)?;
        expect_success(&sent)?;
        let lost = Instant::now() + LOST;
        while Instant::now() < lost {
            pair.a.poll()?;
            pair.b.poll()?;
            if let Some(received) = pair.b.take(receive) {
                expect_success(&received)?;
                return Ok((sent, received));
            }
            std::thread::yield_now();
        }
        ensure!(Instant::now() < deadline, "no datagram arrived within {PATIENCE:?}");
    }
}

/// The parsed GRH area at `at` of the side's memory.
pub(super) fn grh_at<C: Context>(side: &Side<C>, at: usize) -> Result<Grh, String> {
    let mut area = [0; GRH];
    for (i, byte) in area.iter_mut().enumerate() {
        *byte = side.byte(at + i);
    }
    Grh::parse(&area).map_err(say("GRH"))
}

fn bytes<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mtu = a.attributes().port.mtu.min(b.attributes().port.mtu) as usize;
    let mut talk = Talk::new(a, b)?;
    let lengths = [0, 1, 23, 24, 25, 64, 1000, mtu - 1, mtu];
    for (id, length) in (0..).zip(lengths) {
        let Pair { a, b } = &mut talk.pair;
        a.fill(0, length, id);
        b.fill(INBOX + GRH + length, 16, 99);
        b.receive(100 + id, &[b.slice(INBOX, GRH + mtu)])?;
        let send = request(id, SendOperation::Send, &[a.slice(0, length)]);
        let (sent, received) = talk.deliver(send, 100 + id)?;
        let Pair { a, b } = &talk.pair;
        ensure!(received.bytes as usize == GRH + length, "{} bytes", received.bytes);
        ensure!(received.opcode == Opcode::Receive, "{received:?}");
        ensure!(received.queue_pair == b.queue_pair.number(), "{received:?}");
        ensure!(received.source_queue_pair == a.queue_pair.number(), "{received:?}");
        ensure!(received.has_grh && received.immediate.is_none(), "{received:?}");
        ensure!(sent.opcode == Opcode::Send, "{sent:?}");
        ensure!(sent.queue_pair == a.queue_pair.number(), "{sent:?}");
        b.check(INBOX + GRH, length, id)?;
        b.check(INBOX + GRH + length, 16, 99).map_err(say("behind the payload"))?;
    }
    Ok(())
}

fn gather_scatter<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let slices = MAX_SLICES.min(a.attributes().max_slices as usize);
    let mut talk = Talk::new(a, b)?;
    let Pair { a, b } = &mut talk.pair;
    let length = 30 * slices;
    a.fill(0, length, 7);
    // Cut differently at both ends; the header has a place of its own.
    let from: Vec<_> = (0..slices).map(|i| a.slice(30 * i, 30)).collect();
    let to = [b.slice(INBOX, GRH), b.slice(INBOX + 4096, 11), b.slice(INBOX + 8192, length)];
    b.receive(1, &to)?;
    let (_, received) = talk.deliver(request(2, SendOperation::Send, &from), 1)?;
    ensure!(received.bytes as usize == GRH + length, "{} bytes", received.bytes);
    let b = &talk.pair.b;
    let places = (INBOX + 4096..INBOX + 4107).chain(INBOX + 8192..INBOX + 8192 + length - 11);
    let arrived: Vec<u8> = places.map(|at| b.byte(at)).collect();
    ensure!(arrived.iter().copied().eq(pattern(7).take(length)), "arrived {arrived:02x?}");
    grh_at(b, INBOX).map(drop)
}

fn immediate<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    let Pair { a, b } = &mut talk.pair;
    a.fill(0, 100, 1);
    b.receive(1, &[b.slice(INBOX, 200)])?;
    let operation = SendOperation::SendWithImmediate(0x1234_5678);
    let send = request(2, operation, &[a.slice(0, 100)]);
    let (_, received) = talk.deliver(send, 1)?;
    ensure!(received.immediate == Some(0x1234_5678), "{received:?}");
    talk.pair.b.check(INBOX + GRH, 100, 1)
}

fn inline<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    let most = talk.pair.a.queue_pair.max_inline();
    if most < u32::MAX {
        let mut long = request(1, SendOperation::Send, &[talk.pair.a.slice(0, most as usize + 1)]);
        long.inline = true;
        let refused = talk.pair.a.try_datagrams(&[talk.to_b.datagram(long)]);
        ensure!(refused.is_err(), "{} inline bytes were taken", most + 1);
    }
    let length = most.min(64) as usize;
    let deadline = Instant::now() + PATIENCE;
    talk.pair.b.receive(3, &[talk.pair.b.slice(INBOX, 200)])?;
    loop {
        let a = &mut talk.pair.a;
        a.fill(0, length, 5);
        let mut send = request(2, SendOperation::Send, &[a.slice(0, length)]);
        send.inline = true;
        a.try_datagrams(&[talk.to_b.datagram(send)]).map_err(say("post_datagrams"))?;
        a.fill(0, length, 6);
        expect_success(&talk.pair.wait_a(2)?)?;
        talk.pair.poll_for(Duration::from_millis(20))?;
        if let Some(received) = talk.pair.b.take(3) {
            expect_success(&received)?;
            return talk.pair.b.check(INBOX + GRH, length, 5);
        }
        ensure!(Instant::now() < deadline, "nothing arrived");
    }
}

fn grh<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    let gids = [a, b].map(|context| context.attributes().port.gid.map(|gid| gid.value));
    let classes = [
        (0, Ecn::NotCapable, 0),
        (2, Ecn::Capable0, 0),
        (1, Ecn::Capable1, 0),
        (0xb8, Ecn::NotCapable, 46),
        (0x28 | 2, Ecn::Capable0, 10),
    ];
    for (id, (traffic_class, ecn, dscp)) in (0..).zip(classes) {
        let peer = talk.to_b.peer;
        let address = AddressVector { traffic_class, ..peer.address() };
        talk.to_b = Way::along(a, peer, &address)?;
        let Pair { a, b } = &mut talk.pair;
        b.receive(id, &[b.slice(INBOX, 200)])?;
        let send = request(100 + id, SendOperation::Send, &[a.slice(0, 100)]);
        talk.deliver(send, id)?;
        let grh = grh_at(&talk.pair.b, INBOX)?;
        ensure!((grh.ecn(), grh.dscp()) == (ecn, dscp), "{traffic_class:#x}: {grh:?}");
        ensure!([Some(grh.source), Some(grh.destination)] == gids, "{grh}, not {gids:?}");
        ensure!(grh.hop_limit > 0, "{grh:?}");
    }
    Ok(())
}

fn reply<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    let peer = talk.to_b.peer;
    let address = AddressVector { traffic_class: 0x48 | 2, flow_label: 77, ..peer.address() };
    talk.to_b = Way::along(a, peer, &address)?;
    talk.pair.b.receive(1, &[talk.pair.b.slice(INBOX, 200)])?;
    let send = request(2, SendOperation::Send, &[talk.pair.a.slice(0, 100)]);
    let (_, received) = talk.deliver(send, 1)?;
    let grh = grh_at(&talk.pair.b, INBOX)?;
    let address = AddressVector::reply(&received, Some(&grh));
    // The sender's queue key comes from elsewhere; all the rest is in the completion.
    let number = received.source_queue_pair;
    let peer = DatagramEndpoint { number, queue_key: KEY_A, lid: address.lid, gid: address.gid };
    let back = Way::along(b, peer, &address)?;
    let Pair { a, b } = talk.pair;
    let mut turned = Pair { a: b, b: a };
    turned.b.receive(3, &[turned.b.slice(INBOX, 200)])?;
    turned.a.fill(0, 50, 8);
    let send = request(4, SendOperation::Send, &[turned.a.slice(0, 50)]);
    let (_, received) = deliver(&mut turned, &back, send, 3)?;
    ensure!(received.source_queue_pair == turned.a.queue_pair.number(), "{received:?}");
    let grh = grh_at(&turned.b, INBOX)?;
    ensure!((grh.dscp(), grh.ecn()) == (0x48 >> 2, Ecn::NotCapable), "{grh:?}");
    turned.b.check(INBOX + GRH, 50, 8)
}

fn unsignalled<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut talk = Talk::new(a, b)?;
    for round in 0..4 {
        let a = &mut talk.pair.a;
        for id in 0..u64::from(DEPTH) {
            let mut send = request(id, SendOperation::Send, &[a.slice(0, 64)]);
            send.signaled = id + 1 == u64::from(DEPTH);
            a.try_datagrams(&[talk.to_b.datagram(send)])
                .map_err(say(&format!("datagram {id} of round {round}")))?;
        }
        expect_success(&talk.pair.wait_a(u64::from(DEPTH) - 1)?)?;
        let others = talk.pair.a.take_all();
        ensure!(others.is_empty(), "completions that nobody asked for: {others:?}");
    }
    Ok(())
}
