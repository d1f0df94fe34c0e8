//! Errors and counters on their way between the engine and an application.

use std::io;
use std::sync::Arc;

use netchannel_attach::event::{ChannelCounters, Statistics};
use netchannel_attach::{Failure, FailureKind};
use netchannel_units::{Bandwidth, Class};

use crate::error::Error;
use crate::stats::{ChannelStats, Stats};

/// In the engine's process.
pub(super) fn to_failure(error: &Error) -> Failure {
    let kind = match error {
        Error::Connect { .. } => FailureKind::Connect,
        Error::Session { .. } => FailureKind::Session,
        Error::NoMemory { .. } => FailureKind::Limit,
        Error::Closed => FailureKind::Closed,
        _ => FailureKind::System,
    };
    match error {
        Error::Connect { peer, reason, kind: io } | Error::Session { peer, reason, kind: io } => {
            Failure::new(kind, *io, reason).with_peer(*peer)
        }
        other => Failure::new(kind, other.kind(), &other.to_string()),
    }
}

/// In the application's process.
pub(super) fn to_error(failure: Failure) -> Error {
    let (kind, reason) = (failure.error_kind(), failure.text);
    match (failure.kind, failure.peer) {
        (FailureKind::Connect, Some(peer)) => Error::Connect { peer, reason, kind },
        (FailureKind::Session, Some(peer)) => Error::Session { peer, reason, kind },
        (FailureKind::Closed, _) => Error::Closed,
        _ => Error::System {
            what: "the engine".into(),
            source: Arc::new(io::Error::new(kind, reason)),
        },
    }
}

pub(super) fn to_statistics(stats: &Stats) -> Statistics {
    let channels = stats.channels.iter().take(netchannel_attach::event::MAX_CHANNELS);
    let counters = |channel: &ChannelStats| ChannelCounters {
        session: channel.session,
        id: channel.id,
        class: channel.class.map(Class::to_wire),
        queue_pair: channel.queue_pair,
        source_port: channel.source_port,
        bytes_sent: channel.bytes_sent,
        bytes_received: channel.bytes_received,
        bytes_completed: channel.bytes_completed,
        messages_sent: channel.messages_sent,
        messages_received: channel.messages_received,
        completion_time: channel.completion_time.map(|time| time.as_nanos() as u64),
        rate: channel.rate.bits_per_second(),
    };
    Statistics {
        channels: channels.map(counters).collect(),
        copied_bytes: stats.copied_bytes,
        moved_by_posting: stats.moved_by_posting,
        placed_bytes: stats.placed_bytes,
        placed_out_of_order: stats.placed_out_of_order,
        refused: stats.refused,
        wakeups: stats.wakeups,
        polls: stats.polls,
        streams: stats.streams as u64,
        sessions: stats.sessions as u64,
        failovers: stats.failovers,
        replayed_bytes: stats.replayed_bytes,
        failover_gaps: stats.failover_gaps.iter().map(|gap| gap.as_nanos() as u64).collect(),
    }
}

pub(super) fn to_stats(statistics: Statistics) -> Stats {
    let channel = |counters: ChannelCounters| ChannelStats {
        session: counters.session,
        id: counters.id,
        class: counters.class.and_then(Class::from_wire),
        queue_pair: counters.queue_pair,
        source_port: counters.source_port,
        bytes_sent: counters.bytes_sent,
        bytes_received: counters.bytes_received,
        bytes_completed: counters.bytes_completed,
        messages_sent: counters.messages_sent,
        messages_received: counters.messages_received,
        completion_time: counters.completion_time.map(std::time::Duration::from_nanos),
        rate: Bandwidth::from_bits_per_second(counters.rate),
    };
    let gaps = statistics.failover_gaps.into_iter();
    Stats {
        channels: statistics.channels.into_iter().map(channel).collect(),
        copied_bytes: statistics.copied_bytes,
        moved_by_posting: statistics.moved_by_posting,
        placed_bytes: statistics.placed_bytes,
        placed_out_of_order: statistics.placed_out_of_order,
        refused: statistics.refused,
        wakeups: statistics.wakeups,
        polls: statistics.polls,
        streams: statistics.streams as usize,
        sessions: statistics.sessions as usize,
        failovers: statistics.failovers,
        replayed_bytes: statistics.replayed_bytes,
        failover_gaps: gaps.map(std::time::Duration::from_nanos).collect(),
        // Who polls is the business of the engine's process.
        groups: Vec::new(),
        cores: Vec::new(),
        moves: 0,
        bulk: None,
    }
}
