//! Work requests, in our terms and in those of libibverbs. No call leaves here.

use std::{mem::size_of, ptr};

use super::address_handle::AddressHandle;
use super::bindings::{
    self as sys, ibv_recv_wr, ibv_send_wr, ibv_send_wr__bindgen_ty_2__bindgen_ty_1 as RemoteRange,
    ibv_send_wr__bindgen_ty_2__bindgen_ty_3 as Receiver, ibv_sge,
};
use crate::datagram::{self, Datagram};
use crate::work::{LocalSlice, MAX_SLICES, ReceiveRequest, SendOperation, SendRequest, Slices};

/// Requests that one call of the driver takes: about 6 KiB of its structures per queue pair.
pub(super) const BATCH: usize = 32;

/// What a queue pair takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestLimits {
    pub(super) max_inline: u32,
    pub(super) max_message: u32,
    pub(super) max_slices: u32,
}

/// A chain of at most [`BATCH`] requests, written anew for each call; its memory is reused.
pub(super) struct Chain<W> {
    requests: Box<[W]>,
    slices: Box<[ibv_sge]>,
}

/// How much of the requests is in the chain, and why the next one is not.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) len: usize,
    pub(super) invalid: Option<&'static str>,
}

/// A request in the driver's form.
pub(super) trait DriverRequest: Default + Clone {
    /// `next` is null for the last one.
    fn link(&mut self, next: *mut Self);
}

/// A request in our form, which becomes the driver's `W`.
pub(super) trait Request<W> {
    fn slices(&self) -> &Slices;
    fn check(&self, limits: RequestLimits) -> Result<(), &'static str>;
    fn write(&self, place: &mut W, slices: *mut ibv_sge, count: i32);
}

impl<W: DriverRequest> Chain<W> {
    pub(super) fn new() -> Self {
        Self {
            requests: vec![W::default(); BATCH].into(),
            slices: vec![ibv_sge::default(); BATCH * MAX_SLICES].into(),
        }
    }

    /// Writes `requests`, at most [`BATCH`], up to the first invalid one.
    pub(super) fn fill<R: Request<W>>(&mut self, requests: &[R], limits: RequestLimits) -> Filled {
        debug_assert!(requests.len() <= BATCH);
        let first = self.requests.as_mut_ptr();
        let places = self.requests.iter_mut().zip(self.slices.chunks_exact_mut(MAX_SLICES));
        let mut filled = Filled { len: 0, invalid: None };
        for ((place, slices), request) in places.zip(requests) {
            if let Err(reason) = request.check(limits) {
                filled.invalid = Some(reason);
                break;
            }
            let count = write_slices(slices, request.slices().as_slice());
            request.write(place, slices.as_mut_ptr(), count);
            filled.len += 1;
            place.link(first.wrapping_add(filled.len));
        }
        if let Some(last) = filled.len.checked_sub(1) {
            self.requests[last].link(ptr::null_mut());
        }
        filled
    }

    /// The head of the chain.
    pub(super) fn as_mut_ptr(&mut self) -> *mut W {
        self.requests.as_mut_ptr()
    }

    /// How many of the `len` requests stand before `bad`, which the driver refused; 0 if it is
    /// not of this chain.
    pub(super) fn accepted(&self, bad: *mut W, len: usize) -> usize {
        let distance = bad.addr().wrapping_sub(self.requests.as_ptr().addr());
        let index = distance / size_of::<W>();
        if index < len { index } else { 0 }
    }
}

/// Empty slices are left out: in a device's terms, length 0 is 2^31 bytes.
fn write_slices(places: &mut [ibv_sge], slices: &[LocalSlice]) -> i32 {
    let mut count = 0;
    for (place, slice) in places.iter_mut().zip(slices.iter().filter(|slice| slice.length > 0)) {
        *place = ibv_sge { addr: slice.address, length: slice.length, lkey: slice.local_key };
        count += 1;
    }
    count
}

impl DriverRequest for ibv_send_wr {
    fn link(&mut self, next: *mut Self) {
        self.next = next;
    }
}

impl DriverRequest for ibv_recv_wr {
    fn link(&mut self, next: *mut Self) {
        self.next = next;
    }
}

impl Request<ibv_send_wr> for SendRequest {
    fn slices(&self) -> &Slices {
        &self.local
    }

    fn check(&self, limits: RequestLimits) -> Result<(), &'static str> {
        check_slices(&self.local, limits)?;
        let bytes = self.local.bytes();
        if bytes > u64::from(limits.max_message) {
            return Err("longer than the port's largest message");
        }
        if self.inline && matches!(self.operation, SendOperation::Read { .. }) {
            return Err("a READ cannot be inline");
        }
        if self.inline && bytes > u64::from(limits.max_inline) {
            return Err("longer than the queue pair's inline size");
        }
        Ok(())
    }

    fn write(&self, place: &mut ibv_send_wr, slices: *mut ibv_sge, count: i32) {
        place.wr_id = self.id;
        place.sg_list = slices;
        place.num_sge = count;
        place.send_flags = 0;
        for (wanted, flag) in [
            (self.signaled, sys::IBV_SEND_SIGNALED),
            (self.inline, sys::IBV_SEND_INLINE),
            (self.solicited, sys::IBV_SEND_SOLICITED),
        ] {
            place.send_flags |= if wanted { flag } else { 0 };
        }
        place.opcode = match self.operation {
            SendOperation::Send => sys::IBV_WR_SEND,
            SendOperation::SendWithImmediate(immediate) => {
                place.__bindgen_anon_1.imm_data = immediate.to_be();
                sys::IBV_WR_SEND_WITH_IMM
            }
            SendOperation::Write { address, key } => {
                place.wr.rdma = RemoteRange { remote_addr: address, rkey: key.0 };
                sys::IBV_WR_RDMA_WRITE
            }
            SendOperation::Read { address, key } => {
                place.wr.rdma = RemoteRange { remote_addr: address, rkey: key.0 };
                sys::IBV_WR_RDMA_READ
            }
        };
    }
}

/// `max_message` is the port's MTU here.
impl Request<ibv_send_wr> for Datagram<'_, AddressHandle> {
    fn slices(&self) -> &Slices {
        &self.request.local
    }

    fn check(&self, limits: RequestLimits) -> Result<(), &'static str> {
        datagram::check(&self.request, self.queue_key, limits.max_message)?;
        self.request.check(limits)
    }

    fn write(&self, place: &mut ibv_send_wr, slices: *mut ibv_sge, count: i32) {
        self.request.write(place, slices, count);
        place.wr.ud = Receiver {
            ah: self.handle.as_ptr(),
            remote_qpn: self.queue_pair,
            remote_qkey: self.queue_key,
        };
    }
}

impl Request<ibv_recv_wr> for ReceiveRequest {
    fn slices(&self) -> &Slices {
        &self.local
    }

    fn check(&self, limits: RequestLimits) -> Result<(), &'static str> {
        check_slices(&self.local, limits)
    }

    fn write(&self, place: &mut ibv_recv_wr, slices: *mut ibv_sge, count: i32) {
        place.wr_id = self.id;
        place.sg_list = slices;
        place.num_sge = count;
    }
}

fn check_slices(local: &Slices, limits: RequestLimits) -> Result<(), &'static str> {
    if local.as_slice().len() > limits.max_slices as usize {
        return Err("more slices than the device takes");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::RemoteKey;

    const LIMITS: RequestLimits =
        RequestLimits { max_inline: 64, max_message: 1 << 20, max_slices: 3 };

    fn slices(lengths: &[u32]) -> Slices {
        let mut slices = Slices::default();
        for (at, &length) in (0..).zip(lengths) {
            slices.push(LocalSlice { address: 0x1000 * (at + 1), length, local_key: 7 });
        }
        slices
    }

    fn send(id: u64, operation: SendOperation, lengths: &[u32]) -> SendRequest {
        let local = slices(lengths);
        SendRequest { id, operation, local, signaled: false, inline: false, solicited: false }
    }

    /// The requests that a driver would see, with the lengths of their slices.
    fn walk(chain: &mut Chain<ibv_send_wr>, filled: usize) -> Vec<(ibv_send_wr, Vec<u32>)> {
        let mut seen = Vec::new();
        let mut next = if filled > 0 { chain.as_mut_ptr() } else { ptr::null_mut() };
        while !next.is_null() {
            // SAFETY: the chain was filled, its pointers name its own live memory.
            let request = unsafe { *next };
            let lengths = (0..request.num_sge as usize)
                // SAFETY: as above.
                .map(|at| unsafe { (*request.sg_list.add(at)).length })
                .collect();
            seen.push((request, lengths));
            next = request.next;
        }
        seen
    }

    #[test]
    fn a_chain_is_what_was_asked_for() {
        let mut chain = Chain::new();
        let key = RemoteKey(9);
        let requests = [
            SendRequest {
                signaled: true,
                solicited: true,
                ..send(1, SendOperation::SendWithImmediate(0x0102_0304), &[10, 0, 30])
            },
            send(2, SendOperation::Write { address: 0xabc, key }, &[5]),
            SendRequest { inline: true, ..send(3, SendOperation::Send, &[]) },
            send(4, SendOperation::Read { address: 0xdef, key }, &[6, 7]),
        ];
        assert_eq!(chain.fill(&requests, LIMITS), Filled { len: 4, invalid: None });
        let seen = walk(&mut chain, 4);
        let summary: Vec<_> = seen
            .iter()
            .map(|(wr, lengths)| (wr.wr_id, wr.opcode, wr.send_flags, lengths.as_slice()))
            .collect();
        let signaled_solicited = sys::IBV_SEND_SIGNALED | sys::IBV_SEND_SOLICITED;
        assert_eq!(
            summary,
            [
                (1, sys::IBV_WR_SEND_WITH_IMM, signaled_solicited, &[10, 30][..]),
                (2, sys::IBV_WR_RDMA_WRITE, 0, &[5]),
                (3, sys::IBV_WR_SEND, sys::IBV_SEND_INLINE, &[]),
                (4, sys::IBV_WR_RDMA_READ, 0, &[6, 7]),
            ]
        );
        // SAFETY: plain integers in unions.
        let (immediate, remote) =
            unsafe { (seen[0].0.__bindgen_anon_1.imm_data, seen[3].0.wr.rdma) };
        assert_eq!(immediate.to_ne_bytes(), [1, 2, 3, 4], "immediates are big-endian");
        assert_eq!((remote.remote_addr, remote.rkey), (0xdef, 9));
    }

    #[test]
    fn a_shorter_chain_in_the_same_memory_ends_where_it_should() {
        let mut chain = Chain::new();
        let full: Vec<_> =
            (0..BATCH as u64).map(|id| send(id, SendOperation::Send, &[1])).collect();
        assert_eq!(chain.fill(&full, LIMITS).len, BATCH);
        assert_eq!(walk(&mut chain, BATCH).len(), BATCH);
        assert_eq!(chain.fill(&full[..3], LIMITS).len, 3);
        assert_eq!(walk(&mut chain, 3).len(), 3);
        assert_eq!(chain.fill::<SendRequest>(&[], LIMITS).len, 0);
    }

    #[test]
    fn the_first_invalid_request_ends_the_chain() {
        let read = SendOperation::Read { address: 0, key: RemoteKey(1) };
        let good = send(1, SendOperation::Send, &[1]);
        let bad = [
            (send(2, SendOperation::Send, &[1, 1, 1, 1]), "slices"),
            (send(2, SendOperation::Send, &[1 << 20, 1]), "largest message"),
            (SendRequest { inline: true, ..send(2, SendOperation::Send, &[64, 1]) }, "inline size"),
            (SendRequest { inline: true, ..send(2, read, &[1]) }, "READ"),
        ];
        for (request, reason) in bad {
            let mut chain = Chain::new();
            let filled = chain.fill(&[good, request, good], LIMITS);
            assert_eq!(filled.len, 1);
            assert!(filled.invalid.is_some_and(|text| text.contains(reason)), "{filled:?}");
            assert_eq!(walk(&mut chain, 1).len(), 1);
        }
    }

    #[test]
    fn the_refused_request_tells_how_many_were_accepted() {
        let mut chain = Chain::<ibv_recv_wr>::new();
        let first = chain.as_mut_ptr();
        for (offset, expected) in [(0, 0), (2, 2), (3, 0)] {
            assert_eq!(chain.accepted(first.wrapping_add(offset), 3), expected);
        }
        assert_eq!(chain.accepted(first.wrapping_sub(1), 3), 0);
        assert_eq!(chain.accepted(ptr::null_mut(), 3), 0);
    }
}
