//! What an opened device is and can do.

use std::ffi::{CStr, c_int};
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::ptr;

use super::bindings::{
    self as sys, ibv_device_attr, ibv_device_attr_ex, mlx5dv_context, verbs_context,
};
use super::context::OpenOptions;
use super::device::{OpenDevice, ProtectionDomain};
use super::device_list::ListedDevice;
use super::endpoint::PathMtu;
use super::{library, port, queue_pair};
use crate::device::{Capabilities, DeviceAttributes, Provider};
use crate::error::Error;
use crate::work::MAX_SLICES;

/// PCI vendor of the NICs that libmlx5 drives.
const VENDOR_MELLANOX: u32 = 0x02c9;

/// READs in flight per queue pair and direction: enough for 400 Gb/s over 10 us in 32 KiB pieces,
/// and what most NICs have.
const READS: c_int = 16;

/// What making objects needs beside [`DeviceAttributes`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// As the device numbers it.
    pub(super) link_layer: u8,
    pub(super) lid: u16,
    pub(super) global_route: bool,
    pub(super) gid_index: Option<u8>,
    pub(super) mtu: PathMtu,
    /// READs that a queue pair executes for its peer at a time.
    pub(super) reads_served: u8,
    /// READs that a queue pair has outstanding.
    pub(super) reads_issued: u8,
    /// Slices per request of a shared receive queue.
    pub(super) shared_slices: u32,
}

/// Asks for everything.
pub(super) fn query(
    domain: &ProtectionDomain,
    listed: ListedDevice<'_>,
    options: &OpenOptions,
) -> Result<(DeviceAttributes, Limits), Error> {
    let device = &domain.device;
    let name = listed.name();
    let mut basic = ibv_device_attr::default();
    // SAFETY: the device is open, and `basic` is a valid place for the answer.
    let answer = unsafe { device.verbs.ibv_query_device(device.raw.as_ptr(), &mut basic) };
    library::check("ibv_query_device", answer)?;
    let extended = query_extended(device);
    let direct_verbs = basic.vendor_id == VENDOR_MELLANOX && has_direct_verbs(device, listed);

    let choice = port::choose(port::query(device, basic.phys_port_cnt)?, options)?;
    let count = |value: c_int| u32::try_from(value).unwrap_or(0);
    let reads = |value: c_int| u8::try_from(value.clamp(0, READS)).unwrap_or(0);
    let limits = Limits {
        link_layer: choice.port.link_layer,
        lid: choice.port.lid,
        global_route: choice.port.global_route,
        gid_index: choice.gid.as_ref().map(|gid| gid.index),
        mtu: choice.mtu,
        reads_served: reads(basic.max_qp_rd_atom),
        reads_issued: reads(basic.max_qp_init_rd_atom),
        shared_slices: count(basic.max_srq_sge).min(MAX_SLICES as u32),
    };
    let attributes = DeviceAttributes {
        description: describe(&name, &basic),
        port: choice.attributes(&name),
        name,
        provider: Provider::Rdma,
        max_queue_pairs: count(basic.max_qp),
        max_work_requests: count(basic.max_qp_wr),
        max_completions: count(basic.max_cqe),
        max_shared_receives: if basic.max_srq > 0 { count(basic.max_srq_wr) } else { 0 },
        max_slices: count(basic.max_sge),
        max_region: basic.max_mr_size,
        max_message: choice.port.max_message,
        max_inline: queue_pair::probe_inline(domain),
        capabilities: Capabilities {
            shared_receive_queue: basic.max_srq > 0,
            // UD queue pairs are not offered through this interface yet.
            unreliable_datagram: false,
            atomics: basic.atomic_cap != sys::IBV_ATOMIC_NONE,
            on_demand_paging: extended.odp_caps.general_caps & u64::from(sys::IBV_ODP_SUPPORT) != 0,
            completion_timestamps: extended.completion_timestamp_mask != 0,
            rate_limit: extended.packet_pacing_caps.qp_rate_limit_max != 0,
            // There is no query for it; libibverbs and the kernel drop the flag where it means
            // nothing. mlx5 is the driver that is known to act on it.
            relaxed_ordering: direct_verbs,
            mlx5_direct_verbs: direct_verbs,
            // Type 2 windows exist on many devices, but rxe does not check their bounds, and
            // nothing asks for them yet.
            memory_windows: false,
        },
    };
    Ok((attributes, limits))
}

/// `ibv_query_device_ex`, an inline function in C. All zero from a driver that lacks it.
fn query_extended(device: &OpenDevice) -> ibv_device_attr_ex {
    let mut attr = ibv_device_attr_ex::default();
    let Some(extended) = device.extended(offset_of!(verbs_context, query_device_ex)) else {
        return attr;
    };
    // SAFETY: `extended` gives the live structure around the context, with this field.
    let Some(query) = (unsafe { (*extended).query_device_ex }) else { return attr };
    // SAFETY: the device is open; no input means no option, and the size says how much of `attr`
    // there is.
    let answer = unsafe {
        query(device.raw.as_ptr(), ptr::null(), &mut attr, size_of::<ibv_device_attr_ex>())
    };
    if answer == 0 { attr } else { ibv_device_attr_ex::default() }
}

fn has_direct_verbs(device: &OpenDevice, listed: ListedDevice<'_>) -> bool {
    let Some(mlx5) = library::mlx5() else { return false };
    // SAFETY: the list that the device comes from is alive.
    if !unsafe { mlx5.mlx5dv_is_supported(listed.as_ptr()) } {
        return false;
    }
    let mut attr = mlx5dv_context::default();
    // SAFETY: the device is open and one of mlx5; `comp_mask` zero asks for the basic fields only.
    unsafe { mlx5.mlx5dv_query_device(device.raw.as_ptr(), &mut attr) == 0 }
}

fn describe(name: &str, basic: &ibv_device_attr) -> String {
    let folder = Path::new("/sys/class/infiniband").join(name);
    let driver = fs::read_link(folder.join("device/driver"))
        .ok()
        .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    // Only rxe has this file: the interface it sits on.
    let parent = fs::read_to_string(folder.join("parent")).ok();
    let kind = match (driver, parent) {
        (_, Some(parent)) => format!("SoftRoCE (rxe) on {}", parent.trim()),
        (Some(driver), None) => driver,
        (None, None) => "unknown driver".into(),
    };
    let mut text = format!("{kind}, {:04x}:{:04x}", basic.vendor_id, basic.vendor_part_id);
    let bytes = basic.fw_ver.map(|c| c.to_ne_bytes()[0]);
    if let Ok(firmware) = CStr::from_bytes_until_nul(&bytes)
        && !firmware.is_empty()
    {
        text.push_str(&format!(", firmware {}", firmware.to_string_lossy()));
    }
    text
}
