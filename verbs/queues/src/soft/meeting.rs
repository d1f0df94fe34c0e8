//! Introductions: a queue pair gives the peer's device its ring, and learns its memory. The device's
//! service thread answers within microseconds, unless its process is stopped or about to end; so who must
//! not wait has a thread wait for it, one for each device that is being met.

use std::collections::{HashMap, VecDeque};
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex};

use super::connection::{Remote, Shared};
use super::device::locked;
use super::peer::{self, Peer};
use super::protocol::{Address, Request};
use super::service::Service;
use crate::error::Error;

/// Introductions that are to be made, by the name of the peer's device. A name that is there has a thread.
#[derive(Debug, Default)]
pub(super) struct Meetings(Mutex<HashMap<Vec<u8>, VecDeque<Meeting>>>);

#[derive(Debug)]
struct Meeting {
    queue_pair: Arc<Shared>,
    address: Address,
}

/// Introduces a queue pair, which waits for the device's answer; `None` if the device refuses it.
pub(super) fn introduce(
    queue_pair: &Shared,
    device: &Arc<Peer>,
    address: &Address,
) -> Result<Option<Remote>, Error> {
    let mut fds: Vec<BorrowedFd<'_>> = vec![queue_pair.ring.fd()];
    for queue in [&queue_pair.receive_queue, &queue_pair.send_queue] {
        fds.extend([queue.alarm.word_fd(), queue.alarm.fd()]);
    }
    if Arc::ptr_eq(&queue_pair.receive_queue, &queue_pair.send_queue) {
        fds.truncate(3);
    }
    let Address { number, token, .. } = *address;
    let (reply, _) = device.ask(&Request::Attach { number, token }, &fds)?;
    Ok((reply.refused == 0).then(|| Remote { peer: device.clone(), number, token }))
}

/// Has a queue pair introduced without waiting for it. A device that is not there is an error at once.
pub(super) fn arrange(
    service: &Arc<Service>,
    queue_pair: &Arc<Shared>,
    address: Address,
) -> Result<(), Error> {
    let name = address.name.clone();
    let meeting = Meeting { queue_pair: queue_pair.clone(), address };
    let mut meetings = locked(&service.meetings.0);
    if let Some(waiting) = meetings.get_mut(&name) {
        waiting.push_back(meeting);
        return Ok(());
    }
    if !service.knows(&name) {
        peer::find(&name)?;
    }
    let (at, of) = (service.clone(), name.clone());
    std::thread::Builder::new()
        .name("soft-meet".into())
        .spawn(move || hold(&at, &of))
        .map_err(|source| Error::Os { operation: "starting a thread", source, hint: "" })?;
    meetings.insert(name, VecDeque::from([meeting]));
    Ok(())
}

/// Makes all introductions to one device.
fn hold(service: &Service, name: &[u8]) {
    loop {
        let next = {
            let mut meetings = locked(&service.meetings.0);
            let next = meetings.get_mut(name).and_then(VecDeque::pop_front);
            if next.is_none() {
                meetings.remove(name);
            }
            next
        };
        let Some(Meeting { queue_pair, address }) = next else { return };
        let device = service.peer(name);
        match device.and_then(|device| introduce(&queue_pair, &device, &address)) {
            Ok(Some(remote)) => queue_pair.on_met(remote),
            Ok(None) => queue_pair.on_not_met(),
            Err(error) => {
                tracing::debug!(%error, "the peer's device was not met");
                queue_pair.on_not_met();
                // Who does not answer one does not answer the others.
                let others = locked(&service.meetings.0).remove(name).unwrap_or_default();
                others.iter().for_each(|meeting| meeting.queue_pair.on_not_met());
                return;
            }
        }
    }
}
