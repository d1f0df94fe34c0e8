//! Sessions without control connections: for benchmarks and tests that hold both engines.

use std::sync::Arc;

use netchannel_driver::ChannelKey;
use netchannel_units::ChannelId;
use netchannel_verbs::{Context, Endpoint};
use netchannel_vns::streams::Role;

use crate::engine::Engine;
use crate::engine::control::EngineControl;
use crate::engine::settings::EAGER_CREDIT;
use crate::engine::terms::SessionTerms;
use crate::shared::SessionShared;

/// Receive slots of each Channel.
pub(crate) const SLOTS: u32 = 64;

/// Unconnected Channels.
pub(crate) type Made = Vec<(ChannelKey, Endpoint)>;

/// Makes `count` unconnected Channels.
pub(crate) fn make_channels<C: Context>(engine: &mut Engine<C>, count: u16) -> Made {
    engine.make_channels(count, SLOTS).expect("Channels")
}

/// Connects the Channels that an engine has made to the peer's, in order, and makes group `group`
/// of a session of them; returns its slot.
pub(crate) fn start_session<C: Context>(
    engine: &mut Engine<C>,
    session: &Arc<SessionShared>,
    role: Role,
    group: u8,
    ours: &Made,
    theirs: &Made,
) -> u32 {
    let endpoints = theirs.iter().map(|(_, endpoint)| endpoint.clone());
    let pairs: Vec<_> = ours.iter().map(|(key, _)| *key).zip(endpoints).collect();
    engine.connect_channels(&pairs, SLOTS).expect("connected Channels");
    let terms = SessionTerms {
        role,
        peer_slots: SLOTS,
        peer_slot_bytes: 8_192,
        peer_eager_credit: EAGER_CREDIT,
        failover: true,
        group,
    };
    let channels = ours.iter().map(|(key, _)| *key).zip((0..).map(ChannelId)).collect();
    engine.add_session(Arc::clone(session), terms, channels).expect("a session")
}
