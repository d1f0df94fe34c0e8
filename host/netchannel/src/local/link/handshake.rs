//! From two hosts that can talk to a session: what each offers, and whose Channels meet.

use std::io;
use std::sync::Arc;

use netchannel_vns::streams::Role;
use netchannel_wire::control::{ChannelOffer, Configuration, Features, Reason};

use crate::clock::now;
use crate::engine::settings::EAGER_CREDIT;
use crate::engine::terms::SessionTerms;
use crate::error::Error;
use crate::local::RuntimeInner;
use crate::local::link::{Link, Stage};
use crate::local::parts::{self, Made, assign, drop_channels, make_channels};
use crate::shared::SessionShared;

/// What this side says of itself.
pub(super) fn configuration(inner: &RuntimeInner) -> Configuration {
    let provider = inner.device.provider.to_string();
    let mut configuration = Configuration::new(&provider, &inner.device.name);
    configuration.parameters.keepalive = inner.config.keepalive.interval;
    configuration.parameters.death_timeout = inner.config.keepalive.timeout;
    // A peer that may be silent for longer later may be so now, too.
    configuration.handshake_timeout =
        configuration.handshake_timeout.max(inner.config.keepalive.timeout);
    configuration.outage_timeout = inner.config.keepalive.outage;
    configuration.parameters.initial_credit = EAGER_CREDIT;
    configuration.parameters.process = Some(std::process::id());
    let sizes = netchannel_driver::GroupConfig::default();
    configuration.parameters.slots = sizes.receive_slots;
    configuration.parameters.slot_bytes = sizes.slot_bytes;
    configuration
}

impl Link {
    /// Server: makes and connects Channels, and takes the session.
    pub(super) fn on_hello(&mut self, inner: &RuntimeInner, theirs: &[ChannelOffer]) {
        let outcome = self.take_session(inner, theirs);
        if let Err(error) = outcome {
            tracing::warn!(peer = %self.peer, %error, "refusing a session");
            self.drop_channels(inner);
            let words = self.words(&error);
            let _ = self.connection.refuse(Reason::Resources, &words);
        }
    }

    fn take_session(&mut self, inner: &RuntimeInner, theirs: &[ChannelOffer]) -> Result<(), Error> {
        if theirs.is_empty() {
            return Err(Error::Config { reason: "the peer offered no Channels".into() });
        }
        let terms = self.terms(Role::Server)?;
        for (number, group) in assign(inner, theirs)? {
            let offers: Vec<_> = theirs.iter().filter(|their| their.group == number).collect();
            let made = make_channels(inner, group, offers.len() as u16, terms.peer_slots)?;
            // The answer names the same Channels.
            self.channels.extend(made.into_iter().zip(offers).map(|((key, endpoint), their)| {
                Made { group, key, offer: ChannelOffer { endpoint: endpoint.0, ..their.clone() } }
            }));
        }
        let ours = self.channels.iter().map(|made| made.offer.clone()).collect();
        self.start_session(inner, theirs, terms)?;
        self.connection
            .accept(ours)
            .map_err(|e| self.fault(io::ErrorKind::InvalidData, e.to_string()))
    }

    /// Client: connects the Channels to the server's, drops those that it did not take.
    pub(super) fn on_accepted(
        &mut self,
        inner: &RuntimeInner,
        theirs: &[ChannelOffer],
    ) -> Result<(), Error> {
        if theirs.is_empty() {
            return Err(self.fault(
                io::ErrorKind::ConnectionRefused,
                "the peer took none of the offered Channels",
            ));
        }
        let terms = self.terms(Role::Client)?;
        let taken = |made: &Made| theirs.iter().any(|their| their.index == made.offer.index);
        let (keep, spare) = std::mem::take(&mut self.channels).into_iter().partition(taken);
        self.channels = keep;
        drop_channels(inner, &spare);
        self.start_session(inner, theirs, terms)?;
        self.connection
            .ready(now())
            .map_err(|e| self.fault(io::ErrorKind::InvalidData, e.to_string()))
    }

    fn terms(&self, role: Role) -> Result<SessionTerms, Error> {
        let negotiated = self.connection.negotiated().ok_or_else(|| {
            self.fault(io::ErrorKind::InvalidData, "the peer said nothing of itself")
        })?;
        Ok(SessionTerms {
            role,
            peer_slots: negotiated.peer.slots,
            peer_slot_bytes: negotiated.peer.slot_bytes,
            peer_eager_credit: negotiated.peer.initial_credit,
            failover: negotiated.features.contains(Features::FAILOVER),
            group: 0,
        })
    }

    /// Connects the Channels and makes a part of the session in every engine that has some.
    fn start_session(
        &mut self,
        inner: &RuntimeInner,
        theirs: &[ChannelOffer],
        terms: SessionTerms,
    ) -> Result<(), Error> {
        let session = SessionShared::new(inner.shared.next_session(), self.peer);
        let channels = std::mem::take(&mut self.channels);
        session.set_parts(parts::start(inner, &session, &channels, theirs, terms)?);
        for reply in self.replies.drain(..) {
            reply.answer(Ok(Arc::clone(&session)));
        }
        self.stage = Stage::Up { session };
        Ok(())
    }
}
