//! Which port, GID and MTU of a device connections use.

use std::fs;
use std::mem::{offset_of, size_of};
use std::net::IpAddr;

use netchannel_units::Bandwidth;

use super::bindings::{self as sys, ibv_gid_entry, ibv_port_attr, verbs_context};
use super::context::OpenOptions;
use super::device::OpenDevice;
use super::endpoint::{ETHERNET, INFINIBAND, PathMtu};
use super::library;
use crate::device::{Gid, LinkLayer, PortAttributes};
use crate::error::Error;

/// `ibv_port_attr::flags`: packets need a global route header on this port, InfiniBand or not.
const GRH_REQUIRED: u8 = 1;

/// What a port says about itself.
#[derive(Clone, Debug)]
pub(super) struct PortFacts {
    pub(super) number: u8,
    pub(super) active: bool,
    /// As the device numbers it.
    pub(super) link_layer: u8,
    pub(super) lid: u16,
    pub(super) mtu: PathMtu,
    pub(super) rate: Bandwidth,
    pub(super) max_message: u32,
    pub(super) global_route: bool,
    pub(super) gids: Vec<GidFacts>,
}

/// A valid entry of a port's GID table.
#[derive(Clone, Debug)]
pub(super) struct GidFacts {
    pub(super) index: u8,
    pub(super) value: [u8; 16],
    /// As the device numbers it (`IBV_GID_TYPE_*`).
    pub(super) kind: u32,
}

/// What connections use.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    pub(super) port: PortFacts,
    pub(super) gid: Option<GidFacts>,
    pub(super) mtu: PathMtu,
    pub(super) reason: String,
}

/// Asks the device about all its ports.
pub(super) fn query(device: &OpenDevice, ports: u8) -> Result<Vec<PortFacts>, Error> {
    let mut facts = Vec::with_capacity(ports.into());
    let mut table_len = 0;
    for number in 1..=ports {
        let attr = query_port(device, number)?;
        table_len += usize::try_from(attr.gid_tbl_len).unwrap_or(0);
        facts.push(PortFacts {
            number,
            active: attr.state == sys::IBV_PORT_ACTIVE,
            link_layer: attr.link_layer,
            lid: attr.lid,
            mtu: PathMtu::from_code(attr.active_mtu).unwrap_or(PathMtu::DEFAULT),
            rate: rate(attr.active_width, attr.active_speed),
            max_message: attr.max_msg_sz,
            global_route: attr.link_layer == ETHERNET
                || attr.lid == 0
                || attr.flags & GRH_REQUIRED != 0,
            gids: Vec::new(),
        });
    }
    for entry in gid_table(device, table_len)? {
        let port = facts.iter_mut().find(|port| u32::from(port.number) == entry.port_num);
        // Connections name a GID by 8 bits (`ibv_global_route::sgid_index`).
        if let (Some(port), Ok(index)) = (port, u8::try_from(entry.gid_index)) {
            // SAFETY: every bit pattern is a valid array of bytes.
            let value = unsafe { entry.gid.raw };
            port.gids.push(GidFacts { index, value, kind: entry.gid_type });
        }
    }
    Ok(facts)
}

/// `ibv_query_port`, an inline function in C.
fn query_port(device: &OpenDevice, number: u8) -> Result<ibv_port_attr, Error> {
    let mut attr = ibv_port_attr::default();
    let context = device.raw.as_ptr();
    let query = device
        .extended(offset_of!(verbs_context, query_port))
        // SAFETY: `extended` gives the live structure around the context, with this field.
        .and_then(|extended| unsafe { (*extended).query_port });
    let answer = match query {
        // SAFETY: the device is open, and the size says how much of `attr` there is.
        Some(query) => unsafe { query(context, number, &mut attr, size_of::<ibv_port_attr>()) },
        // SAFETY: the same; this older function fills the first fields of `attr` only.
        None => unsafe { device.verbs.ibv_query_port(context, number, (&raw mut attr).cast()) },
    };
    library::check("ibv_query_port", answer)?;
    Ok(attr)
}

fn gid_table(device: &OpenDevice, len: usize) -> Result<Vec<ibv_gid_entry>, Error> {
    let mut entries = vec![ibv_gid_entry::default(); len];
    // SAFETY: the device is open, and there are `len` entries of the size that is passed.
    let found = unsafe {
        device.verbs._ibv_query_gid_table(
            device.raw.as_ptr(),
            entries.as_mut_ptr(),
            len,
            0,
            size_of::<ibv_gid_entry>(),
        )
    };
    match usize::try_from(found) {
        Ok(found) => {
            entries.truncate(found);
            Ok(entries)
        }
        Err(_) => {
            let errno = i32::try_from(found.unsigned_abs()).unwrap_or(i32::MAX);
            Err(Error::errno("ibv_query_gid_table", errno))
        }
    }
}

/// Chooses port, GID and MTU; `options` come first.
pub(super) fn choose(mut ports: Vec<PortFacts>, options: &OpenOptions) -> Result<Choice, Error> {
    let count = ports.len();
    let invalid = |reason: String| Error::Invalid { operation: "rdma::Context::open", reason };
    let (at, why_port) = match options.port {
        Some(number) => {
            let at = ports.iter().position(|port| port.number == number);
            let none = || invalid(format!("port is {number}, the device has {count} of them"));
            (at.ok_or_else(none)?, "as asked")
        }
        None => best_port(&ports, options.address)
            .ok_or_else(|| invalid("the device has no port".into()))?,
    };
    let port = ports.swap_remove(at);

    let (gid, why_gid) = match options.gid_index {
        Some(index) => {
            let asked = port.gids.iter().find(|gid| u32::from(gid.index) == index).cloned();
            (Some(asked.ok_or_else(|| invalid(no_such_gid(index, &port)))?), "as asked")
        }
        None => best_gid(&port, options.address),
    };

    let (mtu, why_mtu) = match options.mtu {
        Some(bytes) => match PathMtu::from_bytes(bytes) {
            Some(mtu) if mtu <= port.mtu => (mtu, "as asked"),
            Some(_) => {
                let limit = port.mtu.bytes();
                return Err(invalid(format!("mtu is {bytes}, port {} is at {limit}", port.number)));
            }
            None => {
                let reason = format!("mtu is {bytes}, must be 256, 512, 1024, 2048 or 4096");
                return Err(invalid(reason));
            }
        },
        None => (port.mtu, "the active one"),
    };

    let gid_name = gid.as_ref().map_or("no GID".into(), |gid| format!("GID {}", gid.index));
    let reason = format!(
        "port {} of {count} ({why_port}), {gid_name} ({why_gid}), MTU {} ({why_mtu})",
        port.number,
        mtu.bytes(),
    );
    Ok(Choice { port, gid, mtu, reason })
}

fn no_such_gid(index: u32, port: &PortFacts) -> String {
    let known: Vec<_> = port.gids.iter().map(|gid| gid.index.to_string()).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    format!("gid_index is {index}, port {} has {known}", port.number)
}

fn best_port(ports: &[PortFacts], address: Option<IpAddr>) -> Option<(usize, &'static str)> {
    let usable =
        |port: &PortFacts| best_gid(port, None).0.is_some() || port.link_layer == INFINIBAND;
    let has = |port: &PortFacts| port.gids.iter().any(|gid| is_at(port, gid, address));
    let first = |wanted: &dyn Fn(&PortFacts) -> bool| ports.iter().position(wanted);
    first(&|port| port.active && has(port))
        .map(|at| (at, "has the address"))
        .or_else(|| first(&|port| port.active && usable(port)).map(|at| (at, "first active")))
        .or_else(|| first(&|port| port.active).map(|at| (at, "first active, without address")))
        .or_else(|| first(&usable).map(|at| (at, "none is active")))
        .or_else(|| first(&|_| true).map(|at| (at, "none is active")))
}

/// Whether the GID is this address over RoCE v2.
fn is_at(port: &PortFacts, gid: &GidFacts, address: Option<IpAddr>) -> bool {
    let roce = port.link_layer == ETHERNET && gid.kind == sys::IBV_GID_TYPE_ROCE_V2;
    roce && address.is_some_and(|address| IpAddr::from(gid.value).to_canonical() == address)
}

fn best_gid(port: &PortFacts, address: Option<IpAddr>) -> (Option<GidFacts>, &'static str) {
    if port.link_layer != ETHERNET {
        return (port.gids.first().cloned(), "the first");
    }
    if let Some(gid) = port.gids.iter().find(|gid| is_at(port, gid, address)) {
        return (Some(gid.clone()), "RoCE v2 of the address");
    }
    let ranked = port.gids.iter().filter_map(|gid| Some((rank(gid)?, gid)));
    match ranked.min_by_key(|((rank, _), _)| *rank) {
        Some(((_, why), gid)) => (Some(gid.clone()), why),
        None => (None, "none is RoCE v2; give the interface an address"),
    }
}

/// How good an Ethernet GID is, and why; lower is better.
fn rank(gid: &GidFacts) -> Option<(u8, &'static str)> {
    if gid.kind != sys::IBV_GID_TYPE_ROCE_V2 {
        return None;
    }
    Some(if is_ipv4(&gid.value) {
        (0, "first RoCE v2 with an IPv4 address")
    } else if !is_link_local(&gid.value) {
        (1, "first RoCE v2, IPv6; no IPv4 address")
    } else {
        (2, "first RoCE v2, link-local; no other address")
    })
}

fn is_ipv4(gid: &[u8; 16]) -> bool {
    gid[..10] == [0; 10] && gid[10..12] == [0xff, 0xff]
}

fn is_link_local(gid: &[u8; 16]) -> bool {
    gid[0] == 0xfe && gid[1] & 0xc0 == 0x80
}

/// Rate from the codes of lane count and lane speed; zero for codes without a name.
fn rate(width: u8, speed: u8) -> Bandwidth {
    let lanes: u64 = match width {
        1 => 1,
        2 => 4,
        4 => 8,
        8 => 12,
        16 => 2,
        _ => 0,
    };
    // SDR, DDR, QDR, FDR10, FDR, EDR, HDR, NDR: data rate of one lane.
    let megabits: u64 = match speed {
        1 => 2_500,
        2 => 5_000,
        4 | 8 => 10_000,
        16 => 14_000,
        32 => 25_000,
        64 => 50_000,
        128 => 100_000,
        _ => 0,
    };
    Bandwidth::from_bits_per_second(lanes * megabits * 1_000_000)
}

impl Choice {
    /// For people and the layers above. `device` names the folder in sysfs.
    pub(super) fn attributes(&self, device: &str) -> PortAttributes {
        let port = &self.port;
        PortAttributes {
            number: port.number,
            active: port.active,
            mtu: self.mtu.bytes(),
            rate: port.rate,
            link_layer: match port.link_layer {
                INFINIBAND => LinkLayer::InfiniBand,
                ETHERNET => LinkLayer::Ethernet,
                other => LinkLayer::Unknown(other.into()),
            },
            gid: self.gid.as_ref().map(|gid| Gid { index: gid.index.into(), value: gid.value }),
            reason: self.reason.clone(),
            interface: self.gid.as_ref().and_then(|gid| interface(device, port.number, gid.index)),
        }
    }
}

/// Name of the network interface whose address the GID is.
fn interface(device: &str, port: u8, gid: u8) -> Option<String> {
    let path = format!("/sys/class/infiniband/{device}/ports/{port}/gid_attrs/ndevs/{gid}");
    let name = fs::read_to_string(path).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAPPED: [u8; 16] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
    const LOCAL: [u8; 16] = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0xff, 0xfe, 0, 0, 1];
    const GLOBAL: [u8; 16] = [0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

    fn port(number: u8, active: bool, gids: &[(u32, [u8; 16])]) -> PortFacts {
        PortFacts {
            number,
            active,
            link_layer: ETHERNET,
            lid: 0,
            mtu: PathMtu::from_bytes(2048).unwrap(),
            rate: Bandwidth::ZERO,
            max_message: 1 << 30,
            global_route: true,
            gids: (0..)
                .zip(gids)
                .map(|(index, &(kind, value))| GidFacts { index, value, kind })
                .collect(),
        }
    }

    fn choice(ports: Vec<PortFacts>) -> (u8, Option<u32>, String) {
        let choice = choose(ports, &OpenOptions::default()).unwrap();
        (choice.port.number, choice.gid.map(|gid| gid.index.into()), choice.reason)
    }

    #[test]
    fn ipv4_over_roce_v2_comes_first() {
        let gids = [(1, LOCAL), (2, LOCAL), (1, MAPPED), (2, GLOBAL), (2, MAPPED)];
        let (number, gid, reason) = choice(vec![port(1, false, &gids), port(2, true, &gids)]);
        assert_eq!((number, gid), (2, Some(4)));
        assert_eq!(
            reason,
            "port 2 of 2 (first active), GID 4 (first RoCE v2 with an IPv4 address), MTU 2048 (the \
             active one)"
        );
        assert_eq!(choice(vec![port(1, true, &gids[..4])]).1, Some(3));
        assert_eq!(choice(vec![port(1, true, &gids[..3])]).1, Some(1));
        assert_eq!(choice(vec![port(1, true, &gids[..1])]).1, None);
    }

    #[test]
    fn a_port_with_an_address_is_preferred() {
        let ports = vec![port(1, true, &[]), port(2, true, &[(2, MAPPED)])];
        assert_eq!(choice(ports).0, 2);
        let ports = vec![port(1, false, &[]), port(2, false, &[(2, MAPPED)])];
        assert_eq!(choice(ports).0, 2);
    }

    #[test]
    fn an_address_chooses_port_and_gid() {
        let two = [&[(2, MAPPED)][..], &[(1, GLOBAL), (2, LOCAL), (2, GLOBAL)]];
        let ports = |active| vec![port(1, true, two[0]), port(2, active, two[1])];
        let at = |active, address: &str| {
            let address = Some(address.parse().unwrap());
            let options = OpenOptions { address, ..OpenOptions::default() };
            let choice = choose(ports(active), &options).unwrap();
            (choice.port.number, choice.gid.unwrap().index, choice.reason)
        };
        let (number, gid, reason) = at(true, "2001:db8::1");
        assert_eq!((number, gid), (2, 2));
        assert!(reason.contains("port 2 of 2 (has the address), GID 2 (RoCE v2 of the address)"));
        assert_eq!((at(true, "10.0.0.1").0, at(true, "10.0.0.9").0, at(false, "::1").0), (1, 1, 1));
        assert_eq!(at(false, "2001:db8::1").0, 1, "a port that is down serves nobody");
    }

    #[test]
    fn infiniband_takes_the_first_gid() {
        let mut infiniband = port(1, true, &[(0, LOCAL)]);
        infiniband.link_layer = INFINIBAND;
        assert_eq!(choice(vec![infiniband]).1, Some(0));
    }

    #[test]
    fn what_is_asked_is_taken_or_refused() {
        let ports = || vec![port(1, true, &[(1, MAPPED), (2, MAPPED)])];
        let asked = OpenOptions {
            port: Some(1),
            gid_index: Some(0),
            mtu: Some(1024),
            ..OpenOptions::default()
        };
        let choice = choose(ports(), &asked).unwrap();
        assert_eq!((choice.gid.unwrap().index, choice.mtu.bytes()), (0, 1024));

        let none = OpenOptions::default();
        for (refused, says) in [
            (OpenOptions { port: Some(2), ..none }, "port is 2, the device has 1 of them"),
            (OpenOptions { gid_index: Some(2), ..none }, "gid_index is 2, port 1 has 0, 1"),
            (OpenOptions { mtu: Some(4096), ..none }, "mtu is 4096, port 1 is at 2048"),
            (OpenOptions { mtu: Some(1500), ..none }, "mtu is 1500, must be 256, 512"),
        ] {
            let error = choose(ports(), &refused).unwrap_err();
            let Error::Invalid { reason, .. } = error else { panic!("{refused:?}: {error}") };
            assert!(reason.contains(says), "{reason}");
        }
    }

    #[test]
    fn rates() {
        assert_eq!(rate(2, 32), Bandwidth::from_gbps(100));
        assert_eq!(rate(2, 128), Bandwidth::from_gbps(400));
        assert_eq!(rate(0, 32), Bandwidth::ZERO);
        assert_eq!(rate(2, 0), Bandwidth::ZERO);
    }
}
