//! Counters of a runtime, put together.

use std::collections::BTreeSet;

use netchannel_verbs::SourcePort;

use crate::engine::control::ChannelReport;
use crate::local::RuntimeInner;
use crate::shared::GroupShared;
use crate::stats::{BulkStats, ChannelStats, Stats};

impl RuntimeInner {
    /// The counters of all engines and threads.
    pub(crate) fn stats(&self) -> Stats {
        let mut all = Stats::default();
        // A session has a part in some groups, not in all.
        let mut sessions = BTreeSet::new();
        for group in &self.groups {
            let (channels, (streams, numbers)) = group.with_engine_quietly(|engine| {
                let control = engine.control();
                (control.channels(), control.census())
            });
            add(&mut all, &group.shared, channels);
            all.groups.push(group.stats());
            all.streams += streams;
            sessions.extend(numbers);
        }
        all.sessions = sessions.len();
        let counters = &self.shared.counters;
        all.copied_bytes += counters.application_copied.value();
        all.wakeups = counters.wakeups.value();
        all.failover_gaps = self.shared.gaps.list();
        (all.cores, all.moves) = self.core_stats();
        all.bulk = self.shared.budget.get().map(|budget| {
            let (budget, outstanding, dry) = budget.figures();
            BulkStats { budget, outstanding, dry }
        });
        all.channels.sort_by_key(|channel| (channel.session, channel.id));
        all
    }
}

/// Adds the counters of a group.
fn add(all: &mut Stats, group: &GroupShared, channels: Vec<ChannelReport>) {
    all.channels.extend(channels.into_iter().map(|report| ChannelStats {
        session: report.session,
        id: report.id.0,
        class: Some(group.class),
        queue_pair: report.queue_pair,
        source_port: report.source_port.map(SourcePort::get),
        bytes_sent: report.payload.confirmed,
        bytes_received: report.payload.received,
        // What the peer has acknowledged has left, though no completion was asked for to say so.
        bytes_completed: report.stats.bytes_completed.max(report.stats.bytes_confirmed),
        messages_sent: report.stats.messages_posted,
        messages_received: report.stats.messages_received,
        completion_time: report.completion_time,
        rate: report.rate,
    }));
    let counters = &group.counters;
    all.copied_bytes += counters.engine_copied.value();
    all.moved_by_posting += counters.moved_by_posting.value();
    all.placed_bytes += counters.placed_bytes.value();
    all.placed_out_of_order += counters.placed_out_of_order.value();
    all.refused += counters.refused.value();
    all.polls += counters.polls.value();
    all.failovers += counters.failovers.value();
    all.replayed_bytes += counters.replayed_bytes.value();
}
