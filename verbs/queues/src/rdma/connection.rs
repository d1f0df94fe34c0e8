//! What connecting and activating need: timers in the device's code, and the attributes of the state changes.

use std::time::Duration;

use super::attributes::Limits;
use super::bindings::{self as sys, ibv_qp_attr};
use super::endpoint::{ETHERNET, RcEndpoint};
use crate::error::Error;
use crate::queue_pair::ConnectOptions;
use crate::source_port::{Flow, SourcePort};

/// Routers between the hosts, at most; the usual default of IP.
const HOP_LIMIT: u8 = 64;

/// `min_rnr_timer` codes in order of their times, in units of 10 us (InfiniBand Architecture
/// Specification, volume 1, 9.7.5.2.8): code 1 is the shortest, 31 the last but one, 0 the longest.
const RECEIVER_NOT_READY_10_US: [u32; 32] = [
    1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048,
    3072, 4096, 6144, 8192, 12288, 16384, 24576, 32768, 49152, 65536,
];

/// [`ConnectOptions`] in the device's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Timers {
    ack_timeout: u8,
    retries: u8,
    receiver_not_ready_timer: u8,
    receiver_not_ready_retries: u8,
}

impl Timers {
    pub(super) fn new(options: &ConnectOptions) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Invalid { operation: "connect", reason };
        if options.retries > 6 {
            return Err(invalid(format!("{} retries; 0 to 6 are allowed", options.retries)));
        }
        if options.receiver_not_ready_retries > 7 {
            let retries = options.receiver_not_ready_retries;
            return Err(invalid(format!(
                "{retries} receiver-not-ready retries; 0 to 7 are allowed"
            )));
        }
        if options.service_level > 15 {
            return Err(invalid(format!("service level {} is above 15", options.service_level)));
        }
        let too_long = |what, time: Duration| invalid(format!("{what} {time:?} is too long"));
        Ok(Self {
            ack_timeout: ack_timeout(options.ack_timeout)
                .ok_or_else(|| too_long("ack_timeout", options.ack_timeout))?,
            retries: options.retries,
            receiver_not_ready_timer: receiver_not_ready(options.receiver_not_ready_timer)
                .ok_or_else(|| {
                    too_long("receiver_not_ready_timer", options.receiver_not_ready_timer)
                })?,
            receiver_not_ready_retries: options.receiver_not_ready_retries,
        })
    }
}

/// The code n for at least `time`, in steps of 4.096 us x 2^n taken as whole microseconds, so that
/// 67109 us is still step 14 (67108.864 us). Never 0, which means no timeout at all.
fn ack_timeout(time: Duration) -> Option<u8> {
    let micros = time.as_nanos().div_ceil(1000);
    (1..=31u8).find(|&n| micros <= (4096u128 << n).div_ceil(1000))
}

fn receiver_not_ready(time: Duration) -> Option<u8> {
    let wanted = time.as_nanos().div_ceil(10_000);
    let at = RECEIVER_NOT_READY_10_US.iter().position(|&step| wanted <= u128::from(step))?;
    u8::try_from((at + 1) % 32).ok()
}

/// An UD queue pair: init to ready-to-receive.
pub(super) fn ready_for_datagrams(queue_key: u32) -> (ibv_qp_attr, sys::ibv_qp_attr_mask) {
    let attr =
        ibv_qp_attr { qp_state: sys::IBV_QPS_RTR, qkey: queue_key, ..ibv_qp_attr::default() };
    (attr, sys::IBV_QP_STATE | sys::IBV_QP_QKEY)
}

/// An UD queue pair: ready-to-receive to ready-to-send.
pub(super) fn ready_to_send_datagrams(own_psn: u32) -> (ibv_qp_attr, sys::ibv_qp_attr_mask) {
    let attr =
        ibv_qp_attr { qp_state: sys::IBV_QPS_RTS, sq_psn: own_psn, ..ibv_qp_attr::default() };
    (attr, sys::IBV_QP_STATE | sys::IBV_QP_SQ_PSN)
}

/// Init to ready-to-receive.
pub(super) fn ready_to_receive(
    peer: &RcEndpoint,
    limits: &Limits,
    port: u8,
    timers: Timers,
    options: &ConnectOptions,
    source_port: Option<SourcePort>,
) -> (ibv_qp_attr, sys::ibv_qp_attr_mask) {
    let mut attr = ibv_qp_attr {
        qp_state: sys::IBV_QPS_RTR,
        path_mtu: peer.mtu.min(limits.mtu).code(),
        dest_qp_num: peer.number,
        rq_psn: peer.psn,
        max_dest_rd_atomic: limits.reads_served,
        min_rnr_timer: timers.receiver_not_ready_timer,
        ..ibv_qp_attr::default()
    };
    let path = &mut attr.ah_attr;
    path.dlid = peer.lid;
    path.sl = options.service_level;
    path.port_num = port;
    if let Some(gid_index) = limits.gid_index
        && (limits.global_route || peer.lid == 0)
    {
        path.is_global = 1;
        path.grh.dgid.raw = peer.gid;
        path.grh.sgid_index = gid_index;
        path.grh.hop_limit = HOP_LIMIT;
        path.grh.flow_label = source_port.map_or(0, SourcePort::flow_label);
        path.grh.traffic_class = options.traffic_class;
    }
    let mask = sys::IBV_QP_STATE
        | sys::IBV_QP_AV
        | sys::IBV_QP_PATH_MTU
        | sys::IBV_QP_DEST_QPN
        | sys::IBV_QP_RQ_PSN
        | sys::IBV_QP_MAX_DEST_RD_ATOMIC
        | sys::IBV_QP_MIN_RNR_TIMER;
    (attr, mask)
}

/// Ready-to-receive to ready-to-send.
pub(super) fn ready_to_send(
    own_psn: u32,
    peer: &RcEndpoint,
    limits: &Limits,
    timers: Timers,
) -> (ibv_qp_attr, sys::ibv_qp_attr_mask) {
    let attr = ibv_qp_attr {
        qp_state: sys::IBV_QPS_RTS,
        sq_psn: own_psn,
        timeout: timers.ack_timeout,
        retry_cnt: timers.retries,
        rnr_retry: timers.receiver_not_ready_retries,
        max_rd_atomic: limits.reads_issued.min(peer.reads),
        ..ibv_qp_attr::default()
    };
    let mask = sys::IBV_QP_STATE
        | sys::IBV_QP_SQ_PSN
        | sys::IBV_QP_TIMEOUT
        | sys::IBV_QP_RETRY_CNT
        | sys::IBV_QP_RNR_RETRY
        | sys::IBV_QP_MAX_QP_RD_ATOMIC;
    (attr, mask)
}

/// The UDP source port of a connection, which only RoCE v2 has.
pub(super) fn source_port(
    queue_pair: u32,
    gid: Option<[u8; 16]>,
    peer: &RcEndpoint,
    options: &ConnectOptions,
) -> Option<SourcePort> {
    let local = gid.filter(|_| peer.link_layer == ETHERNET)?;
    let flow = Flow { local, remote: peer.gid, queue_pair };
    Some(options.source_port.unwrap_or_else(|| SourcePort::of_flow(&flow)))
}

/// Whether a port with these limits can reach the peer at all.
pub(super) fn check_reachable(peer: &RcEndpoint, limits: &Limits) -> Result<(), Error> {
    if peer.link_layer == limits.link_layer {
        return Ok(());
    }
    let name = |layer| if layer == ETHERNET { "Ethernet" } else { "InfiniBand" };
    let (theirs, ours) = (name(peer.link_layer), name(limits.link_layer));
    Err(Error::BadEndpoint { reason: format!("it is on {theirs}, this device is on {ours}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ack_timeouts_round_up() {
        for (micros, code) in
            [(0, 1), (8, 1), (9, 1), (10, 2), (67_108, 14), (67_109, 14), (67_110, 15)]
        {
            assert_eq!(ack_timeout(Duration::from_micros(micros)), Some(code), "{micros} us");
        }
        assert_eq!(ack_timeout(Duration::from_secs(8796)), Some(31));
        assert_eq!(ack_timeout(Duration::from_secs(8797)), None);
        assert_eq!(ack_timeout(Duration::MAX), None);
    }

    #[test]
    fn receiver_not_ready_timers_round_up() {
        for (micros, code) in
            [(0, 1), (10, 1), (11, 2), (640, 12), (641, 13), (491_520, 31), (491_521, 0)]
        {
            let time = Duration::from_micros(micros);
            assert_eq!(receiver_not_ready(time), Some(code), "{micros} us");
        }
        assert_eq!(receiver_not_ready(Duration::from_micros(655_361)), None);
    }

    #[test]
    fn the_default_is_half_a_second() {
        let timers = Timers::new(&ConnectOptions::default()).unwrap();
        assert_eq!(
            timers,
            Timers {
                ack_timeout: 14,
                retries: 6,
                receiver_not_ready_timer: 12,
                receiver_not_ready_retries: 7
            }
        );
    }

    #[test]
    fn what_devices_take_as_endless_is_refused() {
        let fine = ConnectOptions::default();
        for options in [
            ConnectOptions { retries: 7, ..fine },
            ConnectOptions { receiver_not_ready_retries: 8, ..fine },
            ConnectOptions { service_level: 16, ..fine },
            ConnectOptions { ack_timeout: Duration::MAX, ..fine },
            ConnectOptions { receiver_not_ready_timer: Duration::from_secs(1), ..fine },
        ] {
            assert!(matches!(Timers::new(&options), Err(Error::Invalid { .. })), "{options:?}");
        }
    }
}
