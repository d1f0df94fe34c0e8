//! Which device, and why.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

use netchannel_verbs::device::{DeviceAttributes, LinkLayer, Provider};
use netchannel_verbs::{Context, Error as VerbsError, rdma, soft};

use crate::config::{Config, DeviceChoice};
use crate::error::Error;

/// Name of the NIC in memory.
pub(crate) const SOFT: &str = "soft";

/// An opened device and why it was chosen.
pub(crate) enum Opened {
    Soft(soft::Context, String),
    Rdma(rdma::Context, String),
}

impl Opened {
    pub(crate) fn attributes(&self) -> &DeviceAttributes {
        match self {
            Self::Soft(context, _) => context.attributes(),
            Self::Rdma(context, _) => context.attributes(),
        }
    }

    pub(crate) fn reason(&self) -> &str {
        match self {
            Self::Soft(_, reason) | Self::Rdma(_, reason) => reason,
        }
    }
}

/// Devices of all providers, and why some providers have none.
#[derive(Debug)]
pub struct DeviceList {
    /// The devices.
    pub devices: Vec<DeviceAttributes>,
    /// Providers without devices, and why.
    pub unavailable: Vec<(Provider, String)>,
}

/// Lists the devices of all providers. RDMA devices come first.
pub fn devices() -> DeviceList {
    let mut list = DeviceList { devices: Vec::new(), unavailable: Vec::new() };
    match rdma::devices() {
        Ok(devices) => list.devices = devices,
        Err(error) => list.unavailable.push((Provider::Rdma, error.to_string())),
    }
    list.devices.push(soft::attributes());
    list
}

pub(crate) fn open(config: &Config) -> Result<Opened, Error> {
    let own = config.address.and_then(own_address);
    match &config.device {
        DeviceChoice::Named(name) if name == SOFT => open_soft(config, "asked for by name".into()),
        DeviceChoice::Named(name) => match open_rdma(config, name, own) {
            Ok(context) => Ok(Opened::Rdma(context, "asked for by name".into())),
            Err(VerbsError::UnknownDevice { name, known }) => {
                Err(VerbsError::UnknownDevice { name, known: format!("{known}, {SOFT}") }.into())
            }
            Err(VerbsError::NoDevice { reason }) => Err(VerbsError::UnknownDevice {
                name: name.clone(),
                known: format!("{SOFT} (no RDMA devices: {reason})"),
            }
            .into()),
            Err(error) => Err(refused(name, error)),
        },
        DeviceChoice::Auto => open_best(config, own),
    }
}

fn open_soft(config: &Config, reason: String) -> Result<Opened, Error> {
    let options = soft::SoftOptions { name: SOFT.into(), ..config.soft.clone() };
    Ok(Opened::Soft(soft::Context::open(options)?, reason))
}

fn open_rdma(
    config: &Config,
    name: &str,
    address: Option<IpAddr>,
) -> Result<rdma::Context, VerbsError> {
    rdma::Context::open(name, &rdma::OpenOptions { address, ..config.rdma })
}

/// What of `[rdma]` does not fit the device is a wrong setting.
fn refused(device: &str, error: VerbsError) -> Error {
    match error {
        VerbsError::Invalid { reason, .. } => {
            Error::Config { reason: format!("rdma.{reason} (device {device})") }
        }
        other => other.into(),
    }
}

fn open_best(config: &Config, own: Option<IpAddr>) -> Result<Opened, Error> {
    let devices = match rdma::devices_at(own) {
        Ok(devices) => devices,
        Err(error) => return open_soft(config, format!("automatic: {error}")),
    };
    match choose(&devices, own) {
        Err(reason) => open_soft(config, format!("automatic: {reason}")),
        Ok((device, reason)) => {
            let name = &device.name;
            let opened = open_rdma(config, name, own).map_err(|error| refused(name, error))?;
            let port = &opened.attributes().port.reason;
            let reason = format!("automatic: {reason} ({port})");
            Ok(Opened::Rdma(opened, reason))
        }
    }
}

/// Which of the RDMA devices to take for an address of this host, and why; or why none of them.
fn choose(
    devices: &[DeviceAttributes],
    own: Option<IpAddr>,
) -> Result<(&DeviceAttributes, String), String> {
    let mut active = devices.iter().filter(|device| device.port.active);
    let Some(own) = own else {
        let none = || format!("none of {} RDMA devices has an active port", devices.len());
        let first = active.next().ok_or_else(none)?;
        return Ok((first, "the first RDMA device with an active port".into()));
    };
    if own.is_loopback() {
        return Err(format!("{own} is reached from this host alone"));
    }
    let address = |device: &DeviceAttributes| device.port.gid.map(|gid| gid.address());
    if let Some(device) = active.clone().find(|device| address(device) == Some(own)) {
        return Ok((device, format!("the first active RDMA device with the address {own}")));
    }
    // The addresses of an InfiniBand port are no IP addresses: whether it serves one cannot be told.
    let mut infiniband = active.filter(|device| device.port.link_layer == LinkLayer::InfiniBand);
    if let Some(device) = infiniband.next() {
        return Ok((device, "the first InfiniBand device with an active port".into()));
    }
    let known: Vec<_> = devices
        .iter()
        .map(|device| match address(device) {
            _ if !device.port.active => format!("{} is down", device.name),
            Some(address) => format!("{} has {address}", device.name),
            None => format!("{} has none", device.name),
        })
        .collect();
    Err(format!("no RDMA device has the address {own} ({})", known.join(", ")))
}

/// The address of this host that packets to or from `address` have: itself, if it is one of this host's.
fn own_address(address: IpAddr) -> Option<IpAddr> {
    let address = address.to_canonical();
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    if address == any {
        return None;
    }
    // Nothing is sent. Where there is no way, connecting or listening tells.
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect((address, DISCARD)).ok()?;
    Some(socket.local_addr().ok()?.ip().to_canonical())
}

/// A port, since the system wants one; the way to all of them is the same.
const DISCARD: u16 = 9;

#[cfg(test)]
mod tests {
    use netchannel_verbs::device::Gid;
    use netchannel_verbs::rdma::recorded;

    use super::*;

    fn device(name: &str, address: &str, active: bool) -> DeviceAttributes {
        let mut device = recorded::devices().remove(0).1;
        device.name = name.into();
        device.port.active = active;
        device.port.link_layer = LinkLayer::Ethernet;
        let value = match address.parse().unwrap() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        device.port.gid = Some(Gid { index: 3, value });
        device
    }

    #[test]
    fn the_address_chooses_the_device() {
        let devices = [
            device("down", "10.0.0.3", false),
            device("one", "10.0.0.1", true),
            device("two", "fd00::2", true),
        ];
        let chosen = |own: Option<&str>| {
            choose(&devices, own.map(|own| own.parse().unwrap())).map(|(device, _)| &*device.name)
        };
        assert_eq!(chosen(None), Ok("one"));
        assert_eq!(chosen(Some("10.0.0.1")), Ok("one"));
        assert_eq!(chosen(Some("fd00::2")), Ok("two"));
        for (own, says) in [
            ("127.0.0.1", "127.0.0.1 is reached from this host alone"),
            ("::1", "this host alone"),
            ("192.0.2.7", "192.0.2.7 (down is down, one has 10.0.0.1, two has fd00::2)"),
            ("10.0.0.3", "no RDMA device has the address 10.0.0.3"),
        ] {
            let reason = chosen(Some(own)).unwrap_err();
            assert!(reason.contains(says), "{reason}");
        }
        assert_eq!(
            choose(&devices[..1], None).unwrap_err(),
            "none of 1 RDMA devices has an active port"
        );
        let mut infiniband = device("ib", "fd00::5", true);
        infiniband.port.link_layer = LinkLayer::InfiniBand;
        let own = Some("192.0.2.7".parse().unwrap());
        assert_eq!(choose(&[infiniband], own).unwrap().0.name, "ib");
    }

    #[test]
    fn the_way_to_an_address_has_an_address() {
        let own = |address: &str| own_address(address.parse().unwrap());
        assert_eq!(own("127.0.0.1"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!(own("::ffff:127.0.0.1"), Some("127.0.0.1".parse().unwrap()));
        assert_eq!((own("0.0.0.0"), own("::")), (None, None));
    }

    #[test]
    fn what_does_not_fit_the_device_is_a_setting() {
        let (operation, reason) = ("opening", "port is 9, the device has 1 of them".to_owned());
        let error = refused("rxe_1", VerbsError::Invalid { operation, reason });
        assert_eq!(
            error.to_string(),
            "invalid setting: rdma.port is 9, the device has 1 of them (device rxe_1)"
        );
    }
}
