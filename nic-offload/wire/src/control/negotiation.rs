//! What the two sides agree on: each judges what the other said.

use netchannel_units::{Class, Duration};

use super::error::ControlError;
use super::event::Negotiated;
use super::message::{Accept, ChannelOffer, Hello};
use super::parameters::{Features, Parameters, VersionRange};
use super::reason::Reason;

/// What a side brings to every session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Versions that it speaks.
    pub versions: VersionRange,
    /// What it can do.
    pub features: Features,
    /// What it says of itself.
    pub parameters: Parameters,
    /// From the start of the connection until the session is up: queue pairs are made and
    /// connected in it.
    pub handshake_timeout: Duration,
    /// A silent peer to which the path is out is not dead before this; see
    /// [`Path`](super::Path). Below the death timeout it is without effect.
    pub outage_timeout: Duration,
}

impl Configuration {
    /// This version of the protocol, with the timing of [`Parameters::default`].
    pub fn new(provider: &str, device: &str) -> Self {
        let (provider, device) = (provider.to_owned(), device.to_owned());
        Self {
            versions: VersionRange::CURRENT,
            features: Features::CURRENT,
            parameters: Parameters { provider, device, ..Default::default() },
            handshake_timeout: Duration::from_secs(2),
            // Operators replug a cable, switches restart a port and spanning trees settle in a few
            // seconds; who waits for a host that lost its power waits as long.
            outage_timeout: Duration::from_secs(10),
        }
    }
}

impl Configuration {
    /// With a peer of these parameters.
    fn agree(&self, version: u16, features: Features, peer: &Parameters) -> Negotiated {
        let keepalive = self.parameters.keepalive.min(peer.keepalive);
        Negotiated { version, features, keepalive, peer: peer.clone() }
    }
}

/// Server: everything about a Hello that needs no decision of the caller.
pub(super) fn judge_hello(ours: &Configuration, hello: &Hello) -> Result<Negotiated, ControlError> {
    let refused = |reason, text| Err(ControlError::Refused { reason, text });
    let (mine, peers) = (ours.versions, hello.versions());
    let Some(version) = mine.highest_common(peers) else {
        let text = format!("no common version: the server speaks {mine}, the client {peers}");
        return refused(Reason::Version, text);
    };
    if hello.authentication.is_some() {
        let text = "authentication is not supported in this version";
        return refused(Reason::Authentication, text.to_owned());
    }
    hello.parameters.check()?;
    ChannelOffer::check(&hello.channels)?;
    check_provider(&hello.parameters, &ours.parameters)?;
    let features = ours.features.intersection(hello.features);
    Ok(ours.agree(version, features, &hello.parameters))
}

/// Client: the server may only take what was offered.
pub(super) fn judge_accept(
    ours: &Configuration,
    offered: &[(u16, u8, Class)],
    accept: &Accept,
) -> Result<Negotiated, ControlError> {
    let Accept { version, features, parameters, channels } = accept;
    if !(ours.versions.min..=ours.versions.max).contains(version) {
        return Err(ControlError::NotOffered { what: "version", value: u64::from(*version) });
    }
    if !ours.features.contains(*features) {
        return Err(ControlError::NotOffered { what: "features", value: features.0 });
    }
    parameters.check()?;
    check_provider(&ours.parameters, parameters)?;
    check_answer(offered, channels)?;
    Ok(ours.agree(*version, *features, parameters))
}

/// Who reads the text is not who writes it: it names both by what they are in the session.
fn check_provider(client: &Parameters, server: &Parameters) -> Result<(), ControlError> {
    let (client, server) = (&client.provider, &server.provider);
    if client == server {
        return Ok(());
    }
    let text = format!("the client's queue pairs are {client:?}, the server's {server:?}");
    Err(ControlError::Refused { reason: Reason::Provider, text })
}

/// Each Channel of an answer must be one that was offered, in its group and class.
pub(super) fn check_answer(
    offered: &[(u16, u8, Class)],
    answer: &[ChannelOffer],
) -> Result<(), ControlError> {
    ChannelOffer::check(answer)?;
    match answer.iter().find(|offer| !offered.contains(&offer.name())) {
        Some(offer) => {
            Err(ControlError::NotOffered { what: "channel", value: u64::from(offer.index) })
        }
        None => Ok(()),
    }
}

/// What of an offer the answer is held against.
pub(super) fn names(channels: &[ChannelOffer]) -> Vec<(u16, u8, Class)> {
    channels.iter().map(ChannelOffer::name).collect()
}
