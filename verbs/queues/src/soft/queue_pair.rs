//! Handles of queue pairs: of connections and of those for datagrams.

use std::sync::Arc;

use super::completion_queue::Completions;
use super::connected::ConnectedPair;
use super::datagram::{AddressHandle, DatagramPair, DatagramStatistics};
use super::link::{LinkModel, LinkStatistics};
use super::service::Service;
use super::shared_receive::SharedReceives;
#[cfg(test)]
use super::wire_ring::Ring;
use crate::datagram::{self, Datagram, DatagramOptions};
use crate::error::{Error, PostError, PostFailure};
use crate::queue_pair::{ConnectOptions, Endpoint, QueuePairState, Service as TransportService};
use crate::work::{ReceiveRequest, SendRequest};

/// A queue pair of a NIC in memory.
#[derive(Debug)]
pub struct QueuePair {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Connected(ConnectedPair),
    Datagrams(DatagramPair),
}

/// What a queue pair is made of.
pub(super) struct Parts {
    pub(super) send_queue: Arc<Completions>,
    pub(super) receive_queue: Arc<Completions>,
    pub(super) shared_receives: Option<Arc<SharedReceives>>,
    pub(super) send_capacity: u32,
    pub(super) receive_capacity: u32,
}

impl QueuePair {
    pub(super) fn new(
        service: &Arc<Service>,
        transport: TransportService,
        parts: Parts,
    ) -> Result<Self, Error> {
        let kind = match transport {
            TransportService::ReliableConnection => {
                Kind::Connected(ConnectedPair::new(service, parts)?)
            }
            TransportService::UnreliableDatagram => {
                Kind::Datagrams(DatagramPair::new(service, parts))
            }
        };
        Ok(Self { kind })
    }

    /// Puts a link of its own before this queue pair's sends, instead of the port's.
    pub fn set_link(&mut self, model: LinkModel) {
        match &mut self.kind {
            Kind::Connected(pair) => pair.set_link(model),
            Kind::Datagrams(pair) => pair.set_link(model),
        }
    }

    /// What the link before this queue pair has done, if there is a link model.
    pub fn link_statistics(&self) -> Option<LinkStatistics> {
        match &self.kind {
            Kind::Connected(pair) => pair.link_statistics(),
            Kind::Datagrams(pair) => pair.link_statistics(),
        }
    }

    /// What became of lost datagrams; nothing for a connection.
    pub fn datagram_statistics(&self) -> Option<DatagramStatistics> {
        match &self.kind {
            Kind::Connected(_) => None,
            Kind::Datagrams(pair) => Some(pair.statistics()),
        }
    }

    #[cfg(test)]
    pub(super) fn incoming(&self) -> &Ring {
        self.connected().incoming()
    }

    #[cfg(test)]
    pub(super) fn outgoing(&self) -> Option<&Ring> {
        self.connected().outgoing()
    }

    #[cfg(test)]
    fn connected(&self) -> &ConnectedPair {
        match &self.kind {
            Kind::Connected(pair) => pair,
            Kind::Datagrams(_) => panic!("the test made a connection"),
        }
    }

    /// The rings that its datagrams go into.
    #[cfg(test)]
    pub(super) fn with_datagram_rings(&self, look: impl FnMut(&Ring)) {
        if let Kind::Datagrams(pair) = &self.kind {
            pair.with_rings(look);
        }
    }
}

fn wrong_service<T>(operation: &'static str, reason: &str) -> Result<T, Error> {
    Err(Error::Invalid { operation, reason: reason.into() })
}

fn refused<T>(reason: PostFailure) -> Result<T, PostError> {
    Err(PostError { posted: 0, reason })
}

impl crate::QueuePair for QueuePair {
    type AddressHandle = AddressHandle;

    fn number(&self) -> u32 {
        match &self.kind {
            Kind::Connected(pair) => pair.number(),
            Kind::Datagrams(pair) => pair.number(),
        }
    }

    fn endpoint(&self) -> Endpoint {
        match &self.kind {
            Kind::Connected(pair) => pair.endpoint(),
            Kind::Datagrams(pair) => pair.endpoint(),
        }
    }

    fn connect(&mut self, peer: &Endpoint, options: &ConnectOptions) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Connected(pair) => pair.connect(peer, options),
            Kind::Datagrams(_) => {
                wrong_service("connect", "a queue pair for datagrams has no peer: activate it")
            }
        }
    }

    fn start_connect(&mut self, peer: &Endpoint, options: &ConnectOptions) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Connected(pair) => pair.start_connect(peer, options),
            Kind::Datagrams(_) => self.connect(peer, options),
        }
    }

    fn activate(&mut self, options: &DatagramOptions) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Connected(_) => {
                wrong_service("activate", "a connection needs a peer: connect it")
            }
            Kind::Datagrams(pair) => pair.activate(options),
        }
    }

    fn state(&self) -> Result<QueuePairState, Error> {
        Ok(match &self.kind {
            Kind::Connected(pair) => pair.state(),
            Kind::Datagrams(pair) => pair.state(),
        })
    }

    fn fail(&mut self) -> Result<(), Error> {
        match &mut self.kind {
            Kind::Connected(pair) => pair.fail(),
            Kind::Datagrams(pair) => pair.fail(),
        }
        Ok(())
    }

    fn is_drained(&self) -> Option<bool> {
        match &self.kind {
            Kind::Connected(pair) => Some(pair.is_drained()),
            Kind::Datagrams(_) => None,
        }
    }

    fn max_inline(&self) -> u32 {
        match &self.kind {
            Kind::Connected(pair) => pair.inline_limit(),
            Kind::Datagrams(pair) => pair.inline_limit(),
        }
    }

    #[inline]
    unsafe fn post_send(&mut self, requests: &[SendRequest]) -> Result<(), PostError> {
        match &mut self.kind {
            // SAFETY: the caller's word.
            Kind::Connected(pair) => unsafe { pair.post_send(requests) },
            Kind::Datagrams(_) => refused(datagram::NEEDS_ADDRESS),
        }
    }

    #[inline]
    unsafe fn post_datagrams(
        &mut self,
        datagrams: &[Datagram<'_, AddressHandle>],
    ) -> Result<(), PostError> {
        match &mut self.kind {
            Kind::Connected(_) => refused(datagram::NEEDS_NO_ADDRESS),
            // SAFETY: the caller's word.
            Kind::Datagrams(pair) => unsafe { pair.post_datagrams(datagrams) },
        }
    }

    #[inline]
    unsafe fn post_receive(&mut self, requests: &[ReceiveRequest]) -> Result<(), PostError> {
        match &mut self.kind {
            Kind::Connected(pair) => pair.post_receive(requests),
            Kind::Datagrams(pair) => pair.post_receive(requests),
        }
    }

    fn close(self) -> Result<(), Error> {
        Ok(())
    }
}
