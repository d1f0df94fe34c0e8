//! The parts of a session: each engine keeps its own Channels, streams and windows of it.
//!
//! The client offers Channels of all its groups. The server gives each of the client's groups to
//! one of its own engines of the same class; two groups of the client may meet the same engine,
//! which keeps them apart as two parts.

use std::sync::Arc;
use std::time::Duration;

use netchannel_driver::ChannelKey;
use netchannel_units::{ChannelId, Class, GroupId};
use netchannel_verbs::Endpoint;
use netchannel_wire::control::{ChannelMessage, ChannelOffer};

use crate::boundary::application::ApplicationId;
use crate::clock::now;
use crate::engine::terms::SessionTerms;
use crate::error::Error;
use crate::local::RuntimeInner;
use crate::shared::{SessionPart, SessionShared};

/// A Channel made and not yet given to a session.
pub(super) struct Made {
    /// This side's group.
    pub(super) group: GroupId,
    pub(super) key: ChannelKey,
    pub(super) offer: ChannelOffer,
}

pub(super) fn make_channels(
    inner: &RuntimeInner,
    group: GroupId,
    count: u16,
    peer_slots: u32,
) -> Result<Vec<(ChannelKey, Endpoint)>, Error> {
    inner.group(group).with_engine_quietly(|e| e.control().make_channels(count, peer_slots))
}

pub(super) fn drop_channels(inner: &RuntimeInner, channels: &[Made]) {
    for made in channels {
        let group = inner.group(made.group);
        group.with_engine_quietly(|e| e.control().drop_channels(&[made.key]));
    }
}

/// Client: the Channels of every group, as the configuration asks for them.
pub(super) fn make_all(inner: &RuntimeInner, slots: u32) -> Result<Vec<Made>, Error> {
    let mut all: Vec<Made> = Vec::new();
    for group in &inner.groups {
        let (id, class) = (group.id(), group.shared.class);
        let made = match make_channels(inner, id, inner.config.channels_of(id), slots) {
            Ok(made) => made,
            Err(error) => {
                drop_channels(inner, &all);
                return Err(error);
            }
        };
        for (key, endpoint) in made {
            let index = all.len() as u16;
            let offer = ChannelOffer { index, class, endpoint: endpoint.0, group: id.0 };
            all.push(Made { group: id, key, offer });
        }
    }
    Ok(all)
}

/// Channels of a session in one group, as `Config::check` allows them.
const MAX_CHANNELS: usize = 64;
/// Groups of a session, as `Config::check` allows them: each has memory of its own.
const MAX_GROUPS: usize = 17;

/// Server: an engine for each group of the client, the least loaded of its class.
pub(super) fn assign(
    inner: &RuntimeInner,
    theirs: &[ChannelOffer],
) -> Result<Vec<(u8, GroupId)>, Error> {
    let mut assigned: Vec<(u8, GroupId)> = Vec::new();
    for their in theirs {
        if assigned.iter().any(|(number, _)| *number == their.group) {
            continue;
        }
        let count = theirs.iter().filter(|other| other.group == their.group).count();
        if count > MAX_CHANNELS {
            let number = their.group;
            return Err(Error::Config {
                reason: format!(
                    "the peer offers {count} Channels in group {number}; at most {MAX_CHANNELS} are \
                     taken"
                ),
            });
        }
        if assigned.len() == MAX_GROUPS {
            let reason = format!("the peer offers more than {MAX_GROUPS} groups of Channels");
            return Err(Error::Config { reason });
        }
        let load = |id: GroupId| {
            let counters = &inner.group(id).shared.counters;
            let new = assigned.iter().filter(|(_, group)| *group == id).count() as u64;
            (counters.sessions.value() + new, counters.streams.value())
        };
        let matching = inner.groups.iter().filter(|group| group.shared.class == their.class);
        let found = matching.map(|group| group.id()).min_by_key(|id| load(*id));
        assigned.extend(found.map(|group| (their.group, group)));
    }
    Ok(assigned)
}

/// Makes the parts of a session. On an error nothing is left of it.
pub(super) fn start(
    inner: &RuntimeInner,
    session: &Arc<SessionShared>,
    channels: &[Made],
    theirs: &[ChannelOffer],
    terms: SessionTerms,
) -> Result<Vec<SessionPart>, Error> {
    let mut parts: Vec<SessionPart> = Vec::new();
    let mut numbers: Vec<u8> = channels.iter().map(|made| made.offer.group).collect();
    numbers.dedup();
    for (at, number) in numbers.iter().enumerate() {
        let own: Vec<_> = channels.iter().filter(|made| made.offer.group == *number).collect();
        match start_part(inner, session, &own, theirs, terms) {
            Ok(part) => parts.push(part),
            Err(error) => {
                end(inner, session, &parts, &error);
                let rest = channels.iter().filter(|made| numbers[at..].contains(&made.offer.group));
                for made in rest {
                    drop_channels(inner, std::slice::from_ref(made));
                }
                return Err(error);
            }
        }
    }
    parts.sort_by_key(|part| (part.class, part.group));
    // The first of each class gets memory at once, the others when bytes come.
    for class in Class::ALL {
        if let Some(part) = parts.iter().find(|part| part.class == class) {
            // Memory is made off the polling cores.
            let slab = inner.make_slab(&inner.shared.local, session.first_slab_room());
            inner.group(part.group).add_slab(part.slot, ApplicationId::LOCAL, slab);
        }
    }
    Ok(parts)
}

fn start_part(
    inner: &RuntimeInner,
    session: &Arc<SessionShared>,
    own: &[&Made],
    theirs: &[ChannelOffer],
    terms: SessionTerms,
) -> Result<SessionPart, Error> {
    let [first, ..] = own else {
        return Err(Error::Config { reason: "a group without Channels".into() });
    };
    let endpoint_of = |made: &&Made| {
        let their = theirs.iter().find(|their| their.index == made.offer.index)?;
        Some((made.key, Endpoint(their.endpoint.clone())))
    };
    let pairs: Vec<_> = own.iter().filter_map(endpoint_of).collect();
    let channels = own.iter().map(|made| (made.key, ChannelId(made.offer.index))).collect();
    let terms = SessionTerms { group: first.offer.group, ..terms };
    let slot = inner.group(first.group).with_engine_quietly(|engine| {
        let control = engine.control();
        control.connect_channels(&pairs, terms.peer_slots)?;
        control.add_session(Arc::clone(session), terms, channels)
    })?;
    Ok(SessionPart {
        group: first.group,
        slot,
        class: first.offer.class,
        channels: own.len() as u16,
    })
}

/// What a peer confirms before it says goodbye takes another way than the goodbye, and may come after
/// it: by this much at most where the network is well.
const LAST_WORDS: Duration = Duration::from_millis(20);

/// The peer said goodbye: takes what it sent before, for a short while, as long as streams wait for
/// the confirmation of their end.
pub(super) fn take_last_words(inner: &RuntimeInner, session: &Arc<SessionShared>) {
    let deadline = now() + LAST_WORDS;
    loop {
        let waiting = session.parts().iter().any(|part| {
            inner.group(part.group).with_engine_quietly(|engine| {
                engine.poll(now());
                engine.control().is_finishing(part.slot, session)
            })
        });
        if !waiting || now() >= deadline {
            return;
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Ends parts of a session.
pub(super) fn end(
    inner: &RuntimeInner,
    session: &Arc<SessionShared>,
    parts: &[SessionPart],
    error: &Error,
) {
    for part in parts {
        inner.group(part.group).with_engine_quietly(|engine| {
            engine.control().end_session(part.slot, session, error.clone());
        });
    }
}

/// Gives an engine what the peer said of one of its Channels. False if no part has it.
pub(super) fn on_channel_news(
    inner: &RuntimeInner,
    session: &Arc<SessionShared>,
    message: &ChannelMessage,
) -> bool {
    session.parts().iter().any(|part| {
        inner.with_engine(inner.group(part.group), |engine| {
            engine.control().on_channel_news(now(), part.slot, session, message)
        })
    })
}
