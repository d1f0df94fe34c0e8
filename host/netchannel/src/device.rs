//! Which device, and why.

use netchannel_verbs::device::{DeviceAttributes, Provider};
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
    let open_soft = |reason: String| {
        let options = soft::SoftOptions { name: SOFT.into(), ..config.soft.clone() };
        Ok(Opened::Soft(soft::Context::open(options)?, reason))
    };
    match &config.device {
        DeviceChoice::Named(name) if name == SOFT => open_soft("asked for by name".into()),
        DeviceChoice::Named(name) => match rdma::Context::open(name, &config.rdma) {
            Ok(context) => Ok(Opened::Rdma(context, "asked for by name".into())),
            Err(VerbsError::UnknownDevice { name, known }) => {
                Err(VerbsError::UnknownDevice { name, known: format!("{known}, {SOFT}") }.into())
            }
            Err(VerbsError::NoDevice { reason }) => Err(VerbsError::UnknownDevice {
                name: name.clone(),
                known: format!("{SOFT} (no RDMA devices: {reason})"),
            }
            .into()),
            Err(error) => Err(error.into()),
        },
        DeviceChoice::Auto => match rdma::devices() {
            Ok(devices) => match devices.iter().find(|d| d.port.active) {
                Some(device) => {
                    let context = rdma::Context::open(&device.name, &config.rdma)?;
                    let reason = format!(
                        "automatic: the first RDMA device with an active port ({})",
                        context.attributes().port.reason
                    );
                    Ok(Opened::Rdma(context, reason))
                }
                None => open_soft(format!(
                    "automatic: none of {} RDMA devices has an active port",
                    devices.len()
                )),
            },
            Err(error) => open_soft(format!("automatic: {error}")),
        },
    }
}
