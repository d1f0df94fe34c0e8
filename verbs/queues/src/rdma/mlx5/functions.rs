//! The functions of libmlx5, each behind its gates.

use std::ffi::c_int;
use std::io;

use super::super::bindings::{
    self as sys, Mlx5, ibv_context, ibv_device, ibv_qp, mlx5dv_clock_info, mlx5dv_context,
};
use crate::device::{Offer, WhyNot};
use crate::source_port::SourcePort;

pub(in crate::rdma) const LIBRARY: &str = "libmlx5.so.1";

/// Fields to ask for. The library writes no others, so one that is newer than these bindings, with
/// a longer structure, writes nothing behind ours.
const WANTED: u64 = (sys::MLX5DV_CONTEXT_MASK_CQE_COMPRESION
    | sys::MLX5DV_CONTEXT_MASK_STRIDING_RQ
    | sys::MLX5DV_CONTEXT_MASK_DYN_BFREGS
    | sys::MLX5DV_CONTEXT_MASK_CLOCK_INFO_UPDATE
    | sys::MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS
    | sys::MLX5DV_CONTEXT_MASK_DCI_STREAMS) as u64;

type IsSupported = unsafe extern "C" fn(*mut ibv_device) -> bool;
type QueryDevice = unsafe extern "C" fn(*mut ibv_context, *mut mlx5dv_context) -> c_int;
type ClockInfo = unsafe extern "C" fn(*mut ibv_context, *mut mlx5dv_clock_info) -> c_int;
type ModifySourcePort = unsafe extern "C" fn(*mut ibv_qp, u16) -> c_int;
type QueryLagPort = unsafe extern "C" fn(*mut ibv_qp, *mut u8, *mut u8) -> c_int;

/// What of the library there is.
pub(in crate::rdma) struct Functions {
    pub(super) is_supported: Offer<IsSupported>,
    pub(super) query_device: Offer<QueryDevice>,
    pub(super) clock_info: Offer<ClockInfo>,
    pub(super) modify_source_port: Offer<ModifySourcePort>,
    pub(super) query_lag_port: Offer<QueryLagPort>,
    /// Keeps the functions loaded; absent where they are part of this program.
    pub(super) _library: Option<Mlx5>,
}

/// What was asked of one device, as it was answered.
#[derive(Clone)]
pub(in crate::rdma) struct Answers {
    pub(in crate::rdma) device: mlx5dv_context,
    pub(in crate::rdma) clock: Offer<mlx5dv_clock_info>,
    /// Whether the library has `mlx5dv_modify_qp_udp_sport`.
    pub(in crate::rdma) source_port: Offer<()>,
}

impl From<Mlx5> for Functions {
    fn from(library: Mlx5) -> Self {
        fn found<F: Copy, E>(
            symbol: &Result<F, E>,
            function: &'static str,
            since: &'static str,
        ) -> Offer<F> {
            let missing = |_: &E| WhyNot::NoFunction { library: LIBRARY, function, since };
            symbol.as_ref().copied().map_err(missing)
        }
        // The releases are those of debian/ibverbs-providers.symbols in rdma-core.
        Self {
            is_supported: found(&library.mlx5dv_is_supported, "mlx5dv_is_supported", "22"),
            query_device: found(&library.mlx5dv_query_device, "mlx5dv_query_device", "13"),
            clock_info: found(&library.mlx5dv_get_clock_info, "mlx5dv_get_clock_info", "17"),
            modify_source_port: found(
                &library.mlx5dv_modify_qp_udp_sport,
                "mlx5dv_modify_qp_udp_sport",
                "33",
            ),
            query_lag_port: found(
                &library.mlx5dv_query_qp_lag_port,
                "mlx5dv_query_qp_lag_port",
                "30",
            ),
            _library: Some(library),
        }
    }
}

impl Functions {
    /// Asks about one device.
    ///
    /// # Safety
    /// `listed` and `context` name the same live device of libibverbs.
    pub(in crate::rdma) unsafe fn ask(
        &self,
        listed: *mut ibv_device,
        context: *mut ibv_context,
    ) -> Offer<Answers> {
        let is_supported = self.is_supported.clone()?;
        // SAFETY: the caller keeps the device alive.
        if !unsafe { is_supported(listed) } {
            return Err(WhyNot::NotSupported { function: "mlx5dv_is_supported" });
        }
        let query_device = self.query_device.clone()?;
        let mut device = mlx5dv_context { comp_mask: WANTED, ..mlx5dv_context::default() };
        // SAFETY: the context is open and, as was just answered, of mlx5; the mask names fields of
        // `device` only.
        let answer = unsafe { query_device(context, &mut device) };
        check("mlx5dv_query_device", answer)?;
        // Any other bit would name a field that was not asked for, and so not written.
        device.comp_mask &= WANTED;
        Ok(Answers {
            device,
            // SAFETY: as above.
            clock: unsafe { self.clock(context) },
            source_port: self.modify_source_port.clone().map(drop),
        })
    }

    /// # Safety
    /// `context` is a live context of mlx5.
    unsafe fn clock(&self, context: *mut ibv_context) -> Offer<mlx5dv_clock_info> {
        let clock_info = self.clock_info.clone()?;
        let mut clock = mlx5dv_clock_info::default();
        // SAFETY: the caller keeps the context open; `clock` is a valid place.
        let answer = unsafe { clock_info(context, &mut clock) };
        check("mlx5dv_get_clock_info", answer)?;
        Ok(clock)
    }

    /// Sets the UDP source port of a connected queue pair.
    ///
    /// # Safety
    /// `pair` is a live queue pair of mlx5.
    pub(in crate::rdma) unsafe fn set_source_port(
        &self,
        pair: *mut ibv_qp,
        port: SourcePort,
    ) -> Offer<()> {
        let modify = self.modify_source_port.clone()?;
        // SAFETY: the caller keeps the queue pair alive.
        let answer = unsafe { modify(pair, port.get()) };
        check("mlx5dv_modify_qp_udp_sport", answer)
    }

    /// The physical port, from 1, that a queue pair is assigned to, and the one it uses now.
    ///
    /// # Safety
    /// `pair` is a live queue pair of mlx5.
    pub(in crate::rdma) unsafe fn lag_port(&self, pair: *mut ibv_qp) -> Offer<(u8, u8)> {
        let query = self.query_lag_port.clone()?;
        let (mut assigned, mut active) = (0, 0);
        // SAFETY: the caller keeps the queue pair alive; both are valid places.
        let answer = unsafe { query(pair, &mut assigned, &mut active) };
        check("mlx5dv_query_qp_lag_port", answer)?;
        Ok((assigned, active))
    }
}

/// These functions answer 0 or an errno; some paths within them -1 with `errno` set, or -errno.
fn check(function: &'static str, answer: c_int) -> Offer<()> {
    let errno = match answer {
        0 => return Ok(()),
        -1 => io::Error::last_os_error().raw_os_error().unwrap_or(0),
        errno => errno.saturating_abs(),
    };
    Err(WhyNot::Failed { function, errno })
}
