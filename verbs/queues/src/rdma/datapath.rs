//! Posting: what runs per batch of work requests.

use std::ffi::c_int;
use std::io;

use super::work::{BATCH, Chain, DriverRequest, Request, RequestLimits};
use crate::error::{PostError, PostFailure};

const ENOMEM: i32 = 12;

/// `post_send`, `post_recv` or `post_srq_recv` of a driver: queue, chain, first refused.
type Post<Q, W> = unsafe extern "C" fn(*mut Q, *mut W, *mut *mut W) -> c_int;

/// A queue of the driver that takes chains: its function, what it takes, and the memory in which
/// chains are written.
pub(super) struct Poster<Q, W> {
    post: Post<Q, W>,
    limits: RequestLimits,
    chain: Chain<W>,
}

impl<Q, W: DriverRequest> Poster<Q, W> {
    pub(super) fn new(post: Post<Q, W>, limits: RequestLimits) -> Self {
        Self { post, limits, chain: Chain::new() }
    }

    pub(super) fn limits(&self) -> RequestLimits {
        self.limits
    }

    /// Posts all, or up to the first that the queue does not take.
    ///
    /// # Safety
    /// `queue` is alive, and the memory in `requests` is the device's until they complete.
    pub(super) unsafe fn post<R: Request<W>>(
        &mut self,
        queue: *mut Q,
        requests: &[R],
    ) -> Result<(), PostError> {
        let mut posted = 0;
        for batch in requests.chunks(BATCH) {
            let filled = self.chain.fill(batch, self.limits);
            if filled.len > 0 {
                let mut bad = std::ptr::null_mut();
                // SAFETY: `queue` is alive, the chain was just filled and ends within itself; the
                // driver copies it, and the caller answers for the memory that it names.
                let answer = unsafe { (self.post)(queue, self.chain.as_mut_ptr(), &mut bad) };
                if answer != 0 {
                    posted += self.chain.accepted(bad, filled.len);
                    return Err(PostError { posted, reason: failure(answer) });
                }
                posted += filled.len;
            }
            if let Some(reason) = filled.invalid {
                return Err(PostError { posted, reason: PostFailure::Invalid(reason) });
            }
        }
        Ok(())
    }
}

/// Drivers answer an errno, some its negative, a few -1 with `errno` set.
#[cold]
fn failure(answer: c_int) -> PostFailure {
    let error = match answer {
        -1 => io::Error::last_os_error(),
        errno => io::Error::from_raw_os_error(errno.abs()),
    };
    match error.raw_os_error() {
        Some(ENOMEM) => PostFailure::QueueFull,
        _ => PostFailure::Os(error),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::rdma::bindings::ibv_recv_wr;
    use crate::work::{ReceiveRequest, Slices};

    /// A queue with room for `room` requests.
    struct Queue {
        room: usize,
        taken: RefCell<Vec<u64>>,
    }

    unsafe extern "C" fn take(
        queue: *mut Queue,
        mut next: *mut ibv_recv_wr,
        bad: *mut *mut ibv_recv_wr,
    ) -> c_int {
        // SAFETY: the test passes a queue that lives for the call.
        let queue = unsafe { &*queue };
        while !next.is_null() {
            // SAFETY: the chain holds valid pointers up to a null one.
            let request = unsafe { &*next };
            if queue.taken.borrow().len() == queue.room {
                // SAFETY: `bad` is a valid place.
                unsafe { *bad = next };
                return ENOMEM;
            }
            queue.taken.borrow_mut().push(request.wr_id);
            next = request.next;
        }
        0
    }

    fn post(room: usize, wanted: u64) -> (Vec<u64>, Result<(), PostError>) {
        let mut queue = Queue { room, taken: RefCell::default() };
        let limits = RequestLimits { max_inline: 0, max_message: 0, max_slices: 1 };
        let mut poster = Poster::<Queue, ibv_recv_wr>::new(take, limits);
        let requests: Vec<_> =
            (0..wanted).map(|id| ReceiveRequest { id, local: Slices::default() }).collect();
        // SAFETY: the queue lives, the requests name no memory.
        let result = unsafe { poster.post(&mut queue, &requests) };
        (queue.taken.into_inner(), result)
    }

    #[test]
    fn long_lists_go_in_batches_and_in_order() {
        let (taken, result) = post(1000, 100);
        assert!(result.is_ok());
        assert_eq!(taken, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_queue_tells_how_many_it_took() {
        for room in [0, 1, 31, 32, 33, 64, 99] {
            let (taken, result) = post(room, 100);
            let error = result.unwrap_err();
            assert_eq!((taken.len(), error.posted), (room, room));
            assert!(matches!(error.reason, PostFailure::QueueFull));
        }
    }

    #[test]
    fn other_answers_are_the_drivers() {
        assert!(matches!(failure(-12), PostFailure::QueueFull));
        assert!(matches!(failure(22), PostFailure::Os(error) if error.raw_os_error() == Some(22)));
    }
}
