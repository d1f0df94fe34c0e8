//! What an opened device is and can do.

use std::ffi::{CStr, c_int};
use std::fs;
use std::mem::{offset_of, size_of};
use std::path::Path;
use std::ptr;

use netchannel_units::Bandwidth;

use super::bindings::{self as sys, ibv_device_attr, ibv_device_attr_ex, verbs_context};
use super::context::OpenOptions;
use super::device::{OpenDevice, ProtectionDomain};
use super::device_list::ListedDevice;
use super::endpoint::{ETHERNET, PathMtu};
use super::port::PortFacts;
use super::{creation, library, mlx5, port};
use crate::device::{
    Capabilities, DeviceAttributes, Mover, Offer, PathEntropy, Provider, RateLimit, WhyNot,
};
use crate::error::Error;
use crate::work::MAX_SLICES;

/// Kernel driver of the NICs that libmlx5 drives. (Not their vendor: boards of other makers carry
/// those makers' numbers.)
const MLX5_DRIVER: &str = "mlx5_core";

/// Drivers of the network card under the device that are known to take the UDP source port from the
/// flow label (`rdma_get_udp_sport` in Linux): mlx5, irdma, mana, ionic. And rxe.
const FLOW_LABEL_DRIVERS: [&str; 4] = [MLX5_DRIVER, "ice", "mana", "ionic"];

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

/// What was asked of a device, as it was answered.
#[derive(Clone)]
pub(super) struct Answers {
    pub(super) name: String,
    pub(super) driver: Driver,
    pub(super) basic: ibv_device_attr,
    pub(super) extended: ibv_device_attr_ex,
    pub(super) ports: Vec<PortFacts>,
    pub(super) max_inline: u32,
    pub(super) mlx5: Offer<mlx5::Answers>,
}

/// What sysfs says about the kernel driver.
#[derive(Clone, Debug, Default)]
pub(super) struct Driver {
    /// Of the network card.
    pub(super) name: Option<String>,
    /// The interface that rxe sits on; only rxe says that.
    pub(super) rxe_parent: Option<String>,
}

/// Asks for everything.
pub(super) fn query(domain: &ProtectionDomain, listed: ListedDevice<'_>) -> Result<Answers, Error> {
    let device = &domain.device;
    let name = listed.name();
    let mut basic = ibv_device_attr::default();
    // SAFETY: the device is open, and `basic` is a valid place for the answer.
    let answer = unsafe { device.verbs.ibv_query_device(device.raw.as_ptr(), &mut basic) };
    library::check("ibv_query_device", answer)?;
    let driver = Driver::of(&name);
    Ok(Answers {
        basic,
        extended: query_extended(device),
        ports: port::query(device, basic.phys_port_cnt)?,
        max_inline: creation::probe_inline(domain),
        mlx5: query_mlx5(device, listed, &driver),
        driver,
        name,
    })
}

impl Answers {
    /// From answers to attributes; `options` choose the port.
    pub(super) fn interpret(
        self,
        options: &OpenOptions,
    ) -> Result<(DeviceAttributes, Limits), Error> {
        let Self { basic, extended, .. } = &self;
        let choice = port::choose(self.ports.clone(), options)?;
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
            description: describe(&self.driver, basic),
            port: choice.attributes(&self.name),
            provider: Provider::Rdma,
            max_queue_pairs: count(basic.max_qp),
            max_work_requests: count(basic.max_qp_wr),
            max_completions: count(basic.max_cqe),
            max_shared_receives: if basic.max_srq > 0 { count(basic.max_srq_wr) } else { 0 },
            max_slices: count(basic.max_sge),
            max_region: basic.max_mr_size,
            max_message: choice.port.max_message,
            max_inline: self.max_inline,
            mover: match self.driver.rxe_parent {
                Some(_) => Mover::Kernel,
                None => Mover::Nic,
            },
            capabilities: capabilities(basic, extended, self.mlx5.is_ok()),
            rate_limit: rate_limit(extended),
            path_entropy: path_entropy(choice.port.link_layer, &self.driver),
            mlx5: self.mlx5.as_ref().map(mlx5::capabilities).map_err(WhyNot::clone),
            name: self.name,
        };
        Ok((attributes, limits))
    }
}

fn capabilities(
    basic: &ibv_device_attr,
    extended: &ibv_device_attr_ex,
    direct_verbs: bool,
) -> Capabilities {
    Capabilities {
        shared_receive_queue: basic.max_srq > 0,
        // By the specification every host channel adapter has them.
        unreliable_datagram: true,
        atomics: basic.atomic_cap != sys::IBV_ATOMIC_NONE,
        on_demand_paging: extended.odp_caps.general_caps & u64::from(sys::IBV_ODP_SUPPORT) != 0,
        completion_timestamps: extended.completion_timestamp_mask != 0,
        // There is no query for it; libibverbs and the kernel drop the flag where it means
        // nothing. mlx5 is the driver that is known to act on it.
        relaxed_ordering: direct_verbs,
        // Type 2 windows exist on many devices, but rxe does not check their bounds, and
        // nothing asks for them yet.
        memory_windows: false,
    }
}

fn rate_limit(extended: &ibv_device_attr_ex) -> Offer<RateLimit> {
    let caps = extended.packet_pacing_caps;
    let kilobits = |n: u32| Bandwidth::from_bits_per_second(u64::from(n) * 1000);
    let declined = |why: &str| Err(WhyNot::Declined(format!("packet_pacing_caps: {why}")));
    if caps.qp_rate_limit_max == 0 {
        declined("none")
    } else if caps.supported_qpts & 1 << sys::IBV_QPT_RC == 0 {
        declined("not for reliable connections")
    } else {
        let (min, max) = (kilobits(caps.qp_rate_limit_min), kilobits(caps.qp_rate_limit_max));
        Ok(RateLimit { min, max })
    }
}

fn path_entropy(link_layer: u8, driver: &Driver) -> PathEntropy {
    let name = driver.name.as_deref().unwrap_or_default();
    if link_layer != ETHERNET {
        PathEntropy::NoUdp
    } else if driver.rxe_parent.is_some() || FLOW_LABEL_DRIVERS.contains(&name) {
        PathEntropy::FlowLabel
    } else {
        PathEntropy::Unknown
    }
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

fn query_mlx5(
    device: &OpenDevice,
    listed: ListedDevice<'_>,
    driver: &Driver,
) -> Offer<mlx5::Answers> {
    if driver.name.as_deref() != Some(MLX5_DRIVER) {
        return Err(WhyNot::OtherDevice("the kernel driver is not mlx5_core"));
    }
    let mlx5 = library::mlx5()?;
    // SAFETY: the list that the device comes from is alive, and it was opened from there.
    unsafe { mlx5.ask(listed.as_ptr(), device.raw.as_ptr()) }
}

impl Driver {
    fn of(device: &str) -> Self {
        let folder = Path::new("/sys/class/infiniband").join(device);
        let name = fs::read_link(folder.join("device/driver"))
            .ok()
            .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let rxe_parent =
            fs::read_to_string(folder.join("parent")).ok().map(|parent| parent.trim().to_owned());
        Self { name, rxe_parent }
    }
}

fn describe(driver: &Driver, basic: &ibv_device_attr) -> String {
    let kind = match (&driver.name, &driver.rxe_parent) {
        (_, Some(parent)) => format!("SoftRoCE (rxe) on {parent}"),
        (Some(driver), None) => driver.clone(),
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
