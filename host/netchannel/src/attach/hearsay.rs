//! How an attached application hears of its streams without waiting for them: descriptors and ready
//! lists.

use std::collections::BTreeSet;
use std::sync::Arc;

use netchannel_attach::{Answer, Failure, Means};
use netchannel_units::GroupId;

use crate::attach::convert::to_failure;
use crate::attach::guest::{Guest, Passed};
use crate::attach::operations::{Answered, too_many, unknown};
use crate::boundary::StreamKey;
use crate::boundary::ready::{Direction, EngineList, Target, Watch};
use crate::boundary::signal::Signal;
use crate::error::Error;
use crate::local::RuntimeInner;
use crate::shared::Command;

/// Descriptors of a stream: one for each direction.
const MAX_SIGNALS: usize = 2;
/// Streams of an application that have descriptors: the engine has a descriptor for each, too. More
/// streams than that are what ready lists are for.
const MAX_SIGNALLED: usize = 1_024;
/// Ready lists of an application: one per thread.
const MAX_LISTS: usize = 256;

fn failed(error: Error) -> Failure {
    to_failure(&error)
}

impl Guest {
    pub(super) fn add_signal(&mut self, stream: u64) -> Answered {
        if !self.streams.contains_key(&stream) {
            return Err(unknown("stream"));
        }
        if self.signals.len() >= MAX_SIGNALLED && !self.signals.contains_key(&stream) {
            return Err(too_many("streams with descriptors", MAX_SIGNALLED));
        }
        let signals = self.signals.entry(stream).or_default();
        if signals.len() >= MAX_SIGNALS {
            return Err(too_many("descriptors of one stream", MAX_SIGNALS));
        }
        let making = Error::shared_memory("making a descriptor to wait on");
        let (signal, ends) = Signal::attached().map_err(|error| failed(making(error)))?;
        let number = signals.len() as u8;
        signals.push(Arc::new(signal));
        Ok((Answer::Descriptor(number), ends.map(Passed::Own).into()))
    }

    pub(super) fn add_list(&mut self, inner: &RuntimeInner) -> Answered {
        if self.lists.len() >= MAX_LISTS {
            return Err(too_many("ready lists", MAX_LISTS));
        }
        let number = inner.take_list_number().map_err(failed)?;
        self.lists.insert(number, BTreeSet::new());
        Ok((Answer::List(number), Vec::new()))
    }

    pub(super) fn add_list_ring(&mut self, inner: &RuntimeInner, list: u32, group: u8) -> Answered {
        let groups = self.lists.get_mut(&list).ok_or_else(|| unknown("ready list"))?;
        if usize::from(group) >= inner.engines() || !groups.insert(group) {
            return Err(unknown("group without a ring to this ready list"));
        }
        let (end, memory) = EngineList::new(list, self.application.id).map_err(failed)?;
        inner.add_list(GroupId(group), end);
        Ok((Answer::ListRing, vec![Passed::Own(memory.into_fd())]))
    }

    pub(super) fn close_list(&mut self, inner: &RuntimeInner, list: u32) {
        let Some(groups) = self.lists.remove(&list) else { return };
        for group in groups {
            inner.remove_list(self.application.id, list, GroupId(group));
        }
        inner.give_list_number(list);
    }

    /// Numbers that it does not have make nobody tell it anything.
    pub(super) fn watch(&mut self, inner: &RuntimeInner, stream: u64, writing: bool, by: Means) {
        let target = match by {
            Means::Descriptor(number) => {
                let signals = self.signals.get(&stream);
                signals
                    .and_then(|all| all.get(usize::from(number)))
                    .cloned()
                    .map(Target::Descriptor)
            }
            Means::List(list, name) => {
                self.lists.contains_key(&list).then_some(Target::List { list, name })
            }
        };
        let direction = if writing { Direction::Write } else { Direction::Read };
        let Some(target) = target else { return };
        let watch = |stream: StreamKey| Command::Watch(Watch { stream, direction, target });
        self.command(inner, stream, watch);
    }
}
