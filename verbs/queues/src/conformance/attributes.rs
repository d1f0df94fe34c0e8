//! The device says sane things about itself.

use super::Check;
use super::bench::ensure;
use crate::Context;

pub(super) fn checks<C: Context>() -> Vec<(&'static str, Check<C>)> {
    vec![("attributes are sane", sane)]
}

fn sane<C: Context>(a: &C, b: &C) -> Result<(), String> {
    for attributes in [a.attributes(), b.attributes()] {
        ensure!(!attributes.name.is_empty(), "the device has no name");
        ensure!(attributes.max_queue_pairs >= 2, "too few queue pairs: {attributes:?}");
        ensure!(attributes.max_work_requests >= 64, "too few requests: {attributes:?}");
        ensure!(attributes.max_completions >= 256, "too few completions: {attributes:?}");
        ensure!(attributes.max_slices >= 1, "no slices: {attributes:?}");
        ensure!(attributes.max_message >= 1 << 20, "messages too small: {attributes:?}");
        ensure!(attributes.max_region >= 1 << 23, "regions too small: {attributes:?}");
        ensure!(attributes.port.mtu >= 256, "MTU too small: {attributes:?}");
        ensure!(attributes.port.active, "the port is down: {attributes:?}");
        ensure!(!attributes.port.reason.is_empty(), "no reason for the choice of the port");
        let srq = attributes.capabilities.shared_receive_queue;
        ensure!(srq == (attributes.max_shared_receives > 0), "shared receives: {attributes:?}");
    }
    Ok(())
}
