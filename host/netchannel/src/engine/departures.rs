//! Applications come and go. One that is gone loses its streams at once; its memory follows when
//! nobody can write into it any more, and no other application notices.

use std::sync::Arc;

use netchannel_verbs::Context;
use netchannel_wire::StreamId;
use netchannel_wire::frame::reset;

use crate::boundary::application::{Application, ApplicationId};
use crate::engine::Engine;
use crate::engine::session::Session;
use crate::engine::slabs::WindowSlab;

impl<C: Context> Engine<C> {
    pub(super) fn admit(&mut self, application: Arc<Application>) {
        self.tenants.add(application);
    }

    /// The process of an application is gone: its peers learn that at once.
    pub(super) fn dismiss(&mut self, id: ApplicationId) {
        for session in self.sessions.iter_mut().flatten() {
            session.abandon(id);
        }
        for port in self.ports.extract_if(.., |port| port.application() == id) {
            self.doorbells.remove(&port);
        }
        for list in &mut self.lists {
            list.take_if(|list| list.application() == id);
        }
        self.tenants.end(id);
        self.see_off();
    }

    /// Lets go of what is left of applications that are gone, as far as nothing is on its way to
    /// or from it.
    pub(super) fn see_off(&mut self) {
        if !self.tenants.has_gone() || super::awaits_completion(&self.sessions, &self.group) {
            return;
        }
        for id in self.tenants.gone() {
            for session in self.sessions.iter_mut().flatten() {
                for slab in session.evict(id) {
                    self.shared.runtime.discard(Box::new(slab));
                }
            }
        }
        let sessions = &self.sessions;
        let stays = |id| sessions.iter().flatten().any(|s| s.streams.pool(id).is_some());
        for tenant in self.tenants.take_leavers(stays) {
            tracing::debug!(application = tenant.application.id.0, "its memory is free");
            self.shared.runtime.discard(Box::new(tenant));
        }
    }

    /// Streams that an application let go and whose bytes are not all confirmed.
    pub(super) fn unfinished_of(&self, id: ApplicationId) -> usize {
        let alive = self.sessions.iter().flatten().filter(|session| !session.over);
        let streams = alive.flat_map(|session| session.table.values());
        streams.filter(|stream| stream.application == id && stream.released).count()
    }
}

impl<C: Context> Session<C> {
    /// Gives up the streams of an application.
    fn abandon(&mut self, application: ApplicationId) {
        let mut left = Vec::new();
        for (number, stream) in self.table.iter_mut() {
            if stream.application == application && !stream.released {
                stream.let_go();
                left.push(StreamId(number));
            }
        }
        self.attached -= left.len();
        self.attention = true;
        if self.over {
            return;
        }
        for id in left {
            self.streams.reset(id, reset::CANCELLED);
            self.streams.release(id, reset::CANCELLED);
        }
    }

    /// The slabs of an application whose streams are all gone from this session.
    fn evict(&mut self, application: ApplicationId) -> Vec<WindowSlab<C>> {
        if !self.streams.close_application(application) {
            return Vec::new();
        }
        let theirs = |slab: &&mut Option<WindowSlab<C>>| {
            slab.as_ref().is_some_and(|slab| slab.application.id == application)
        };
        self.slabs.iter_mut().filter(theirs).filter_map(Option::take).collect()
    }
}
