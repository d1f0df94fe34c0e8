//! Queue pairs: making, connecting, failing and closing them. Posting is in `datapath`.

use std::ffi::c_int;
use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use super::address_handle::AddressHandle;
use super::bindings::{
    self as sys, ibv_qp, ibv_qp_attr, ibv_qp_attr_mask, ibv_qp_cap, ibv_qp_init_attr, ibv_recv_wr,
    ibv_send_wr,
};
use super::completion_queue::OwnedQueue;
use super::connection::{self, Timers};
use super::context::Context;
use super::creation::{check_sizes, create};
use super::datapath::Poster;
use super::device::{Device, warn_if_failed};
use super::endpoint::{MAX_24_BITS, RcEndpoint};
use super::library;
use super::shared_receive_queue::OwnedSharedQueue;
use super::work::RequestLimits;
use crate::datagram::{self, Datagram, DatagramEndpoint, DatagramOptions};
use crate::error::{Error, PostError, PostFailure};
use crate::queue_pair::{ConnectOptions, Endpoint, QueuePairInit, QueuePairState, Service};
use crate::source_port::SourcePort;
use crate::work::{MAX_SLICES, ReceiveRequest, SendRequest};

/// `ibv_modify_qp` answers these when the peer's address leads nowhere.
const UNREACHABLE: [i32; 5] = [
    99,  // EADDRNOTAVAIL
    101, // ENETUNREACH
    110, // ETIMEDOUT
    112, // EHOSTDOWN
    113, // EHOSTUNREACH
];

/// `ibv_qp`, destroyed on drop, before what it uses.
struct OwnedPair {
    raw: Option<NonNull<ibv_qp>>,
    device: Arc<Device>,
    _send_queue: Arc<OwnedQueue>,
    _receive_queue: Arc<OwnedQueue>,
    shared_receives: Option<Arc<OwnedSharedQueue>>,
}

/// A reliable connection, or a queue pair for datagrams; see [`crate::QueuePair`].
pub struct QueuePair {
    owner: OwnedPair,
    raw: NonNull<ibv_qp>,
    number: u32,
    psn: u32,
    service: Service,
    /// Of an UD queue pair, once it is activated.
    queue_key: u32,
    phase: Phase,
    source_port: Option<SourcePort>,
    sends: Poster<ibv_qp, ibv_send_wr>,
    receives: Poster<ibv_qp, ibv_recv_wr>,
}

/// What was asked of a queue pair; the device may have failed it since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Made,
    Connected,
    Failed,
}

// SAFETY: the pointers name objects of libibverbs, which may be called from any thread, and
// memory that the queue pair owns.
unsafe impl Send for QueuePair {}

impl QueuePair {
    pub(super) fn new(
        device: &Arc<Device>,
        init: &QueuePairInit<'_, Context>,
    ) -> Result<Self, Error> {
        check_sizes(device, init)?;
        // SAFETY: the context is open; drivers fill its table once, before that.
        let (post_send, post_receive) = unsafe {
            let ops = &raw const (*device.context()).ops;
            ((*ops).post_send, (*ops).post_recv)
        };
        let (Some(post_send), Some(post_receive)) = (post_send, post_receive) else {
            return Err(device.unsupported("post work requests"));
        };

        let slices = device.attributes.max_slices.min(MAX_SLICES as u32);
        let shared_receives = init.shared_receive_queue.map(|queue| Arc::clone(queue.owner()));
        let own_receives = shared_receives.is_none();
        let mut attr = ibv_qp_init_attr {
            send_cq: init.send_queue.owner().raw.as_ptr(),
            recv_cq: init.receive_queue.owner().raw.as_ptr(),
            srq: shared_receives.as_ref().map_or(ptr::null_mut(), |queue| queue.as_ptr()),
            cap: ibv_qp_cap {
                max_send_wr: init.send_capacity,
                max_recv_wr: if own_receives { init.receive_capacity } else { 0 },
                max_send_sge: slices,
                max_recv_sge: if own_receives { slices } else { 0 },
                max_inline_data: init.inline_bytes,
            },
            qp_type: match init.service {
                Service::ReliableConnection => sys::IBV_QPT_RC,
                Service::UnreliableDatagram => sys::IBV_QPT_UD,
            },
            sq_sig_all: 0,
            ..ibv_qp_init_attr::default()
        };
        let raw = create(&device.domain, &mut attr)?;
        let owner = OwnedPair {
            raw: Some(raw),
            device: Arc::clone(device),
            _send_queue: Arc::clone(init.send_queue.owner()),
            _receive_queue: Arc::clone(init.receive_queue.owner()),
            shared_receives,
        };
        let limits = RequestLimits {
            max_inline: attr.cap.max_inline_data,
            max_message: match init.service {
                Service::ReliableConnection => device.attributes.max_message,
                Service::UnreliableDatagram => device.attributes.port.mtu,
            },
            max_slices: slices,
        };
        let pair = Self {
            // SAFETY: the queue pair is alive.
            number: unsafe { (*raw.as_ptr()).qp_num },
            psn: random_psn(),
            service: init.service,
            queue_key: 0,
            owner,
            raw,
            phase: Phase::Made,
            source_port: None,
            sends: Poster::new(post_send, limits),
            receives: Poster::new(post_receive, limits),
        };
        pair.initialise()?;
        Ok(pair)
    }

    /// Reset to init: receives may be posted from then on.
    fn initialise(&self) -> Result<(), Error> {
        // What peers may really do is decided by the access rights of each region.
        let attr = ibv_qp_attr {
            qp_state: sys::IBV_QPS_INIT,
            pkey_index: 0,
            port_num: self.device().attributes.port.number,
            qp_access_flags: sys::IBV_ACCESS_LOCAL_WRITE
                | sys::IBV_ACCESS_REMOTE_WRITE
                | sys::IBV_ACCESS_REMOTE_READ,
            ..ibv_qp_attr::default()
        };
        let mask = sys::IBV_QP_STATE | sys::IBV_QP_PKEY_INDEX | sys::IBV_QP_PORT;
        let of_service = match self.service {
            Service::ReliableConnection => sys::IBV_QP_ACCESS_FLAGS,
            // Zero until it is activated; nothing is received before that.
            Service::UnreliableDatagram => sys::IBV_QP_QKEY,
        };
        self.modify("ibv_modify_qp (init)", attr, mask | of_service)
    }

    fn device(&self) -> &Device {
        &self.owner.device
    }

    /// Tells mlx5 the source port directly, which drivers before Linux 5.8 need. A device that
    /// refuses goes on with the port of the flow label.
    fn set_path(&self) {
        let (Some(mlx5), Some(port)) = (self.device().mlx5, self.source_port) else { return };
        // SAFETY: the queue pair is alive, and its device answered to libmlx5.
        let set = unsafe { mlx5.set_source_port(self.raw.as_ptr(), port) };
        // SAFETY: the same.
        let lag = unsafe { mlx5.lag_port(self.raw.as_ptr()) };
        tracing::debug!(queue_pair = self.number, port = port.get(), ?lag, "path");
        if let Err(why) = set {
            tracing::info!(queue_pair = self.number, %why, "source port by flow label alone");
        }
    }

    fn check_new(&self, operation: &'static str, service: Service) -> Result<(), Error> {
        if self.service != service {
            let reason = format!("the queue pair's service is {:?}, not {service:?}", self.service);
            return Err(Error::Invalid { operation, reason });
        }
        if self.phase != Phase::Made {
            let reason = "the queue pair was connected or failed before".into();
            return Err(Error::Invalid { operation, reason });
        }
        Ok(())
    }

    fn modify(
        &self,
        operation: &'static str,
        mut attr: ibv_qp_attr,
        mask: ibv_qp_attr_mask,
    ) -> Result<(), Error> {
        // SAFETY: the queue pair is alive; `mask` names fields of `attr`.
        let answer = unsafe {
            self.device().verbs().ibv_modify_qp(self.raw.as_ptr(), &mut attr, mask as c_int)
        };
        library::check(operation, answer)
    }
}

impl crate::QueuePair for QueuePair {
    type AddressHandle = AddressHandle;

    fn number(&self) -> u32 {
        self.number
    }

    fn endpoint(&self) -> Endpoint {
        let device = self.device();
        let (number, lid) = (self.number, device.limits.lid);
        let gid = device.attributes.port.gid.map_or([0; 16], |gid| gid.value);
        match self.service {
            Service::ReliableConnection => RcEndpoint {
                link_layer: device.limits.link_layer,
                number,
                psn: self.psn,
                lid,
                mtu: device.limits.mtu,
                reads: device.limits.reads_served,
                gid,
            }
            .encode(),
            Service::UnreliableDatagram => {
                DatagramEndpoint { number, queue_key: self.queue_key, lid, gid }.encode()
            }
        }
    }

    fn connect(&mut self, peer: &Endpoint, options: &ConnectOptions) -> Result<(), Error> {
        self.check_new("connect", Service::ReliableConnection)?;
        let timers = Timers::new(options)?;
        let peer = RcEndpoint::parse(peer)?;
        let device = &self.owner.device;
        connection::check_reachable(&peer, &device.limits)?;

        let own = &device.attributes.port;
        let gid = own.gid.map(|gid| gid.value);
        let source_port = connection::source_port(self.number, gid, &peer, options);
        let (attr, mask) = connection::ready_to_receive(
            &peer,
            &device.limits,
            own.number,
            timers,
            options,
            source_port,
        );
        self.modify("ibv_modify_qp (ready to receive)", attr, mask).map_err(unreachable_peer)?;
        let (attr, mask) = connection::ready_to_send(self.psn, &peer, &device.limits, timers);
        self.modify("ibv_modify_qp (ready to send)", attr, mask)?;
        self.phase = Phase::Connected;
        self.source_port = source_port;
        self.set_path();
        Ok(())
    }

    fn source_port(&self) -> Option<SourcePort> {
        self.source_port
    }

    fn activate(&mut self, options: &DatagramOptions) -> Result<(), Error> {
        self.check_new("activate", Service::UnreliableDatagram)?;
        options.check()?;
        let (attr, mask) = connection::ready_for_datagrams(options.queue_key);
        self.modify("ibv_modify_qp (ready to receive)", attr, mask)?;
        let (attr, mask) = connection::ready_to_send_datagrams(self.psn);
        self.modify("ibv_modify_qp (ready to send)", attr, mask)?;
        self.queue_key = options.queue_key;
        self.phase = Phase::Connected;
        Ok(())
    }

    fn state(&self) -> Result<QueuePairState, Error> {
        let (mut attr, mut init) = (ibv_qp_attr::default(), ibv_qp_init_attr::default());
        // SAFETY: the queue pair is alive, both structures are valid places.
        let answer = unsafe {
            self.device().verbs().ibv_query_qp(
                self.raw.as_ptr(),
                &mut attr,
                sys::IBV_QP_STATE as c_int,
                &mut init,
            )
        };
        library::check("ibv_query_qp", answer)?;
        Ok(match attr.qp_state {
            sys::IBV_QPS_INIT => QueuePairState::Init,
            sys::IBV_QPS_RTS => QueuePairState::ReadyToSend,
            sys::IBV_QPS_ERR => QueuePairState::Error,
            other => QueuePairState::Unknown(other),
        })
    }

    fn fail(&mut self) -> Result<(), Error> {
        let attr = ibv_qp_attr { qp_state: sys::IBV_QPS_ERR, ..ibv_qp_attr::default() };
        // Also when it is in error already: rxe flushes a receive that was posted after the failure
        // only on such a call.
        self.modify("ibv_modify_qp (error)", attr, sys::IBV_QP_STATE)?;
        self.phase = Phase::Failed;
        Ok(())
    }

    fn max_inline(&self) -> u32 {
        self.sends.limits().max_inline
    }

    unsafe fn post_send(&mut self, requests: &[SendRequest]) -> Result<(), PostError> {
        if self.service != Service::ReliableConnection {
            return Err(PostError { posted: 0, reason: datagram::NEEDS_ADDRESS });
        }
        if self.phase != Phase::Connected {
            return Err(PostError { posted: 0, reason: PostFailure::WrongState });
        }
        // SAFETY: the queue pair is alive; the caller keeps the memory until completion.
        unsafe { self.sends.post(self.raw.as_ptr(), requests) }
    }

    unsafe fn post_datagrams(
        &mut self,
        datagrams: &[Datagram<'_, AddressHandle>],
    ) -> Result<(), PostError> {
        if self.service != Service::UnreliableDatagram {
            return Err(PostError { posted: 0, reason: datagram::NEEDS_NO_ADDRESS });
        }
        if self.phase != Phase::Connected {
            return Err(PostError { posted: 0, reason: PostFailure::WrongState });
        }
        // A handle of another protection domain would be the driver's memory in a foreign hand.
        let device = &self.owner.device;
        let own = datagrams.iter().take_while(|datagram| datagram.handle.is_of(device)).count();
        // SAFETY: the queue pair is alive; the caller keeps memory and handles until completion.
        unsafe { self.sends.post(self.raw.as_ptr(), &datagrams[..own]) }?;
        if own < datagrams.len() {
            return Err(PostError { posted: own, reason: datagram::FOREIGN_HANDLE });
        }
        Ok(())
    }

    unsafe fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
        if self.owner.shared_receives.is_some() {
            let reason = PostFailure::Invalid("the queue pair takes from a shared receive queue");
            return Err(PostError { posted: 0, reason });
        }
        if self.phase == Phase::Failed {
            return Err(PostError { posted: 0, reason: PostFailure::WrongState });
        }
        // SAFETY: the queue pair is alive; the caller keeps the memory until completion.
        unsafe { self.receives.post(self.raw.as_ptr(), requests) }
    }

    fn close(mut self) -> Result<(), Error> {
        self.owner.destroy()
    }
}

impl OwnedPair {
    fn destroy(&mut self) -> Result<(), Error> {
        let Some(raw) = self.raw.take() else { return Ok(()) };
        // SAFETY: created in `QueuePair::new` and, having been taken out, destroyed once; nobody
        // posts to it any more.
        let answer = unsafe { self.device.verbs().ibv_destroy_qp(raw.as_ptr()) };
        library::check("ibv_destroy_qp", answer)
    }
}

impl Drop for OwnedPair {
    fn drop(&mut self) {
        warn_if_failed(self.destroy());
    }
}

impl fmt::Debug for QueuePair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("rdma::QueuePair")
            .field("number", &self.number)
            .field("phase", &self.phase)
            .finish_non_exhaustive()
    }
}

/// Late packets of an earlier connection with the same numbers must not fit into this one. (The
/// standard library seeds `RandomState` from the operating system.)
fn random_psn() -> u32 {
    RandomState::new().build_hasher().finish() as u32 & MAX_24_BITS
}

fn unreachable_peer(error: Error) -> Error {
    match error.raw_os_error() {
        Some(errno) if UNREACHABLE.contains(&errno) => {
            Error::BadEndpoint { reason: format!("no path to it: {error}") }
        }
        _ => error,
    }
}
