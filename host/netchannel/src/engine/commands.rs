//! What applications ask for beside reading and writing.

use netchannel_verbs::Context;
use netchannel_wire::frame::reset;

use crate::boundary::application::ApplicationId;
use crate::boundary::port;
use crate::boundary::ready::EngineList;
use crate::engine::Engine;
use crate::shared::Command;

/// Ready lists of a runtime at once: one per application thread, as a rule.
pub(crate) const MAX_LISTS: usize = 4_096;

impl<C: Context> Engine<C> {
    pub(super) fn take_inbox(&mut self) -> bool {
        let commands = self.shared.inbox.take();
        let any = !commands.is_empty();
        for (application, command) in commands {
            self.on_command(application, command);
        }
        self.drop_closed_ports();
        any
    }

    /// Ports of threads that are gone. Their last doorbells may not have been heard yet.
    pub(super) fn drop_closed_ports(&mut self) {
        let mut index = 0;
        while let Some(port) = self.ports.get(index) {
            if !port.is_closed() {
                index += 1;
                continue;
            }
            let mut port = self.ports.swap_remove(index);
            self.doorbells.remove(&port);
            for _ in 0..port::CAPACITY {
                let Some(doorbell) = port.pop() else { break };
                self.on_doorbell(port.application(), doorbell);
            }
        }
    }

    fn add_list(&mut self, list: EngineList) {
        let index = list.number as usize;
        if index >= MAX_LISTS {
            tracing::warn!(index, "no more ready lists");
            return;
        }
        if self.lists.len() <= index {
            self.lists.resize_with(index + 1, || None);
        }
        self.lists[index] = Some(list);
    }

    fn remove_list(&mut self, application: ApplicationId, number: u32) {
        if let Some(list) = self.lists.get_mut(number as usize)
            && list.as_ref().is_some_and(|list| list.application() == application)
        {
            *list = None;
        }
    }

    fn on_command(&mut self, application: ApplicationId, command: Command) {
        let key = match command {
            Command::Port(port) => {
                if !self.tenants.is_here(port.application()) {
                    return;
                }
                // Its thread may have noted itself somewhere already: a wake-up meant for it found
                // no port until now, so it looks once more.
                if let Err(error) = port.shared.wake.notify() {
                    tracing::warn!(%error, "cannot wake an application thread");
                }
                self.doorbells.add(&port);
                self.ports.push(*port);
                return;
            }
            Command::List(list) => return self.add_list(*list),
            Command::Unlist(number) => return self.remove_list(application, number),
            Command::Watch(ref watch) => watch.stream,
            Command::Finish(key)
            | Command::Reset(key, _)
            | Command::Stop(key, _)
            | Command::Release(key) => key,
        };
        let Some(Some(session)) = self.sessions.get_mut(key.session() as usize) else { return };
        let id = key.stream();
        if !session.belongs_to(id, application) {
            return;
        }
        session.attention = true;
        match command {
            Command::Port(_) | Command::List(_) | Command::Unlist(_) => {}
            Command::Watch(watch) => {
                if let Some(entry) = session.table.get_mut(id.0) {
                    let watchers = entry.watchers.get_or_insert_default();
                    watchers.set(watch.direction, watch.target);
                    super::publish::tell(&self.ports, &mut self.lists, entry);
                }
            }
            Command::Finish(_) => {
                // The last bytes may not have rung yet.
                session.on_written(self.last_poll, id, &mut self.tenants);
                session.streams.finish(id);
            }
            Command::Reset(_, code) => session.streams.reset(id, code),
            Command::Stop(_, code) => session.streams.stop(id, code),
            Command::Release(_) => {
                session.attached -= 1;
                if let Some(entry) = session.table.get_mut(id.0) {
                    entry.let_go();
                }
                if session.over {
                    return;
                }
                session.on_written(self.last_poll, id, &mut self.tenants);
                session.streams.release(id, reset::CANCELLED);
            }
        }
    }
}
