//! What is known of a stream beside its bytes.

use std::net::SocketAddr;

use netchannel_units::{Class, Weight};
use netchannel_verbs::device::Provider;

use crate::config::Policy;

/// How a stream travels, and why.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// The peer's control address.
    pub peer: SocketAddr,
    /// The device.
    pub device: String,
    /// Who drives it.
    pub provider: Provider,
    /// Channels that its bytes may take: those of its group of the session.
    pub channels: u16,
    /// The stream's class.
    pub class: Class,
    /// Its part of what the class gets beside other streams.
    pub weight: Weight,
    /// How it is spread over Channels.
    pub policy: Policy,
    /// Why this device.
    pub reason: String,
}
