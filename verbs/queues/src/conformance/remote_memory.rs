//! WRITE and READ, and what they may not do.

use std::time::Duration;

use super::Check;
use super::bench::{MEMORY, Pair, Side, ensure, expect, expect_success, pattern, request, say};
use crate::memory::{Access, MemoryRegion as _, RemoteKey};
use crate::queue_pair::ConnectOptions;
use crate::work::{MAX_SLICES, Opcode, SendOperation, Status};
use crate::{Context, QueuePair as _};

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![
        ("write: bytes arrive, no completion at the peer", write),
        ("write: there when the next SEND arrives", write_then_send),
        ("write: gathers slices", write_gather),
        ("write: inline source is free at once", write_inline),
        ("write: zero bytes", write_nothing),
        ("write: 4 MiB", write_large),
        ("write: stays in order behind a waiting SEND", write_behind_send),
        ("read: bytes come back", read),
        ("read: scatters into slices", read_scatter),
        ("shared: another mapping reads what a WRITE brought", shared_region),
        ("access: a wrong key", wrong_key),
        ("access: out of bounds", out_of_bounds),
        ("access: a WRITE without the right", write_without_right),
        ("access: a READ without the right", read_without_right),
        ("access: a key of closed memory", stale_key),
        ("access: a wrong local key", wrong_local_key),
    ]
}

fn write<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    pair.b.receive(1, &[pair.b.slice(0, 64)])?;
    for (i, length) in [1, 8, 4096, 100_000].into_iter().enumerate() {
        let id = 10 + i as u64;
        pair.a.fill(0, length, id);
        let operation = Side::write_to(&pair.b, 1000);
        pair.a.send(request(id, operation, &[pair.a.slice(0, length)]))?;
        let written = pair.wait_a(id)?;
        expect_success(&written)?;
        ensure!(written.opcode == Opcode::Write, "{written:?}");
        // A completion says that it was executed: an acknowledgement of the responder's NIC.
        pair.b.check(1000, length, id)?;
    }
    pair.poll_for(Duration::from_millis(2))?;
    ensure!(!pair.b.has_seen(), "the peer saw {:?}", pair.b.take_all());
    Ok(())
}

fn write_then_send<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    for round in 0..50u64 {
        let length = 1 + (round as usize * 7919) % 60_000;
        pair.b.receive(1, &[pair.b.slice(0, 64)])?;
        pair.a.fill(64, length, round);
        let mut write = request(2, Side::write_to(&pair.b, 4096), &[pair.a.slice(64, length)]);
        write.signaled = false;
        let send = request(3, SendOperation::SendWithImmediate(round as u32), &[]);
        pair.a.try_send(&[write, send]).map_err(say("post_send"))?;
        let received = pair.wait_b(1)?;
        expect_success(&received)?;
        ensure!(received.immediate == Some(round as u32), "{received:?}");
        pair.b.check(4096, length, round)?;
        expect_success(&pair.wait_a(3)?)?;
    }
    ensure!(!pair.a.has_seen(), "unsignalled WRITEs completed: {:?}", pair.a.take_all());
    Ok(())
}

fn write_gather<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let slices = MAX_SLICES.min(a.attributes().max_slices as usize);
    let mut pair = Pair::new(a, b)?;
    pair.a.fill(0, 100 * slices, 4);
    // Written piece by piece from the same bytes.
    let from: Vec<_> = (0..slices).map(|i| pair.a.slice(100 * i, 100)).collect();
    pair.a.send(request(1, Side::write_to(&pair.b, 77), &from))?;
    expect_success(&pair.wait_a(1)?)?;
    pair.b.check(77, 100 * slices, 4)
}

fn write_inline<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    let length = pair.a.queue_pair.max_inline().min(100_000) as usize;
    pair.a.fill(0, length, 1);
    let mut write = request(1, Side::write_to(&pair.b, 0), &[pair.a.slice(0, length)]);
    write.inline = true;
    pair.a.send(write)?;
    pair.a.fill(0, length, 2);
    expect_success(&pair.wait_a(1)?)?;
    pair.b.check(0, length, 1)
}

fn write_nothing<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    pair.a.send(request(1, Side::write_to(&pair.b, 0), &[]))?;
    expect_success(&pair.wait_a(1)?)
}

fn write_large<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    let length = 4 << 20;
    pair.a.fill(1, length, 8);
    pair.a.send(request(1, Side::write_to(&pair.b, 3), &[pair.a.slice(1, length)]))?;
    expect_success(&pair.wait_a(1)?)?;
    pair.b.check(3, length, 8)
}

fn write_behind_send<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    pair.a.send(request(1, SendOperation::Send, &[pair.a.slice(0, 8)]))?;
    pair.a.send(request(2, Side::write_to(&pair.b, 0), &[pair.a.slice(0, 8)]))?;
    pair.poll_for(Duration::from_millis(2))?;
    ensure!(!pair.a.has_seen(), "completions overtook a SEND: {:?}", pair.a.take_all());
    pair.b.receive(3, &[pair.b.slice(64, 8)])?;
    expect_success(&pair.wait_a(2)?)?;
    ensure!(pair.a.take(1).is_some(), "the WRITE completed before the SEND");
    expect_success(&pair.wait_b(3)?)
}

fn read<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    for (i, length) in [1, 8, 4096, 1 << 20].into_iter().enumerate() {
        let id = i as u64;
        pair.b.fill(10, length, id);
        let operation = Side::read_from(&pair.b, 10);
        pair.a.send(request(id, operation, &[pair.a.slice(5, length)]))?;
        let done = pair.wait_a(id)?;
        expect_success(&done)?;
        ensure!(done.opcode == Opcode::Read, "{done:?}");
        pair.a.check(5, length, id)?;
    }
    ensure!(!pair.b.has_seen(), "the peer saw {:?}", pair.b.take_all());
    Ok(())
}

fn read_scatter<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let slices = MAX_SLICES.min(a.attributes().max_slices as usize);
    let mut pair = Pair::new(a, b)?;
    pair.b.fill(0, 100 * slices, 4);
    // Adjacent slices, named in order, are the same bytes.
    let to: Vec<_> = (0..slices).map(|i| pair.a.slice(500 + 100 * i, 100)).collect();
    pair.a.send(request(1, Side::read_from(&pair.b, 0), &to))?;
    expect_success(&pair.wait_a(1)?)?;
    pair.a.check(500, 100 * slices, 4)
}

/// The violation completes so, what is behind it is flushed, and the peer's queue pair fails too.
fn expect_refused<C: Context>(
    mut pair: Pair<C>,
    operation: SendOperation,
    length: usize,
) -> Result<(), String> {
    pair.b.receive(50, &[pair.b.slice(0, 64)])?;
    pair.b.fill(0, 4096, 1);
    let violation = request(1, operation, &[pair.a.slice(0, length)]);
    let behind = request(2, SendOperation::Send, &[pair.a.slice(0, 8)]);
    pair.a.try_send(&[violation, behind]).map_err(say("post_send"))?;
    expect(&pair.wait_a(1)?, &[Status::RemoteAccess])?;
    expect(&pair.wait_a(2)?, &[Status::Flushed])?;
    expect(&pair.wait_b(50)?, &[Status::Flushed])?;
    pair.b.check(0, 4096, 1)
}

fn wrong_key<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let pair = Pair::new(a, b)?;
    let key = RemoteKey(pair.b.memory.remote_key().0 ^ 0x5a5a_5a00);
    let address = pair.b.memory.remote_address();
    expect_refused(pair, SendOperation::Write { address, key }, 64)
}

fn out_of_bounds<C: Context>(a: &C, b: &C) -> Result<(), String> {
    for offset in [MEMORY - 63, MEMORY, usize::MAX - 1000] {
        let pair = Pair::new(a, b)?;
        let key = pair.b.memory.remote_key();
        let address = pair.b.memory.remote_address().wrapping_add(offset as u64);
        expect_refused(pair, SendOperation::Write { address, key }, 64)?;
    }
    Ok(())
}

fn without_right<C: Context>(
    a: &C,
    b: &C,
    access: Access,
    operation: impl Fn(&Side<C>) -> SendOperation,
) -> Result<(), String> {
    let (mut a, mut b) = (Side::new(a)?, Side::with_access(b, access)?);
    a.connect(&b, &ConnectOptions::default())?;
    b.connect(&a, &ConnectOptions::default())?;
    let operation = operation(&b);
    expect_refused(Pair { a, b }, operation, 64)
}

fn write_without_right<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let access = Access::LOCAL_WRITE | Access::REMOTE_READ;
    without_right(a, b, access, |b| Side::write_to(b, 0))?;
    without_right(a, b, Access::LOCAL_WRITE, |b| Side::write_to(b, 0))
}

fn read_without_right<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
    without_right(a, b, access, |b| Side::read_from(b, 0))
}

fn stale_key<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
    let memory = b.alloc(4096, access).map_err(say("memory"))?;
    let (address, key) = (memory.remote_address(), memory.remote_key());
    let write = SendOperation::Write { address, key };
    pair.a.send(request(9, write, &[pair.a.slice(0, 64)]))?;
    expect_success(&pair.wait_a(9)?)?;
    memory.close().map_err(say("close"))?;
    // New memory may take the place of the old, but not its key.
    let successor = b.alloc(4096, access).map_err(say("memory"))?;
    ensure!(successor.remote_key() != key, "the key was given out again at once");
    expect_refused(pair, write, 64)
}

fn wrong_local_key<C: Context>(a: &C, b: &C) -> Result<(), String> {
    let mut pair = Pair::new(a, b)?;
    let mut slice = pair.a.slice(0, 64);
    slice.local_key ^= 0x5a5a_5a00;
    pair.a.send(request(1, SendOperation::Send, &[slice]))?;
    let allowed = [Status::LocalProtection, Status::LocalOperation, Status::LocalLength];
    expect(&pair.wait_a(1)?, &allowed)
}

fn shared_region<C: Context>(a: &C, b: &C) -> Result<(), String> {
    use netchannel_shared_memory::memory::SharedMemory;
    let mut pair = Pair::new(a, b)?;
    let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
    let (memory, fd) = b.alloc_shared(8192, access).map_err(say("shared memory"))?;
    let elsewhere = SharedMemory::from_fd(fd, 8192).map_err(say("its descriptor"))?;
    ensure!(elsewhere.map().is_err(), "the descriptor gives the right to write");
    let view = elsewhere.map_read_only().map_err(say("its mapping"))?;
    let (address, key) = (memory.remote_address() + 100, memory.remote_key());
    pair.a.fill(0, 5_000, 3);
    let operation = SendOperation::Write { address, key };
    pair.a.send(request(1, operation, &[pair.a.slice(0, 5_000)]))?;
    expect_success(&pair.wait_a(1)?)?;
    let mut seen = vec![0; 5_000];
    view.copy_out(100, &mut seen).map_err(say("reading"))?;
    ensure!(seen.iter().copied().eq(pattern(3).take(5_000)), "other bytes than were written");
    ensure!(b.alloc_shared(4096, Access::empty()).is_err(), "private memory was shared");
    memory.close().map_err(say("close"))
}
