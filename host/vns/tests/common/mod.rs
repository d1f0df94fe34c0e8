//! What the tests of streams share.
#![allow(dead_code, reason = "each test file uses a part of it")]

use netchannel_vns::streams::Control;
use netchannel_vns::{Role, StreamsConfig};
use netchannel_wire::Frame;

/// 64 KiB without a window, and windows of up to 2 MiB.
pub(crate) fn config(role: Role) -> StreamsConfig {
    StreamsConfig {
        role,
        eager_credit: 65_536,
        peer_eager_credit: 65_536,
        window_log2: 21,
        eager_chunk: 4_096,
        bulk_min: 4_096,
        credits_per_window: 4,
    }
}

/// The frame as an engine sends it, whose slabs' names are their keys and stand in addresses.
pub(crate) fn frame_of(control: &Control) -> Frame<'static> {
    match *control {
        Control::Frame(frame) => frame,
        Control::Window { stream, grant, lease, from, limit } => Frame::Window {
            stream,
            grant,
            log2_size: lease.log2,
            address: (u64::from(lease.slab.0) << 32) | u64::from(lease.offset),
            key: lease.slab.0,
            from,
            limit,
        },
    }
}
