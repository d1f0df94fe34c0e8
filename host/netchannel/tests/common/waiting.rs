//! Streams whose application waits elsewhere.

use std::os::fd::AsFd;
use std::time::Duration;

use netchannel::{Error, Pollable, Stream};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

pub(crate) fn is_readable(pollable: &Pollable, within: Duration) -> bool {
    let mut fds = [PollFd::new(pollable, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::try_from(within).unwrap())).unwrap() > 0
}

pub(crate) fn would_block<T>(result: Result<T, Error>) -> bool {
    matches!(result, Err(Error::WouldBlock))
}

/// Sends back what comes, to the end, and waits on the descriptor alone; returns how much it was.
pub(crate) fn echo(stream: &mut Stream, pollable: &Pollable, edge: bool) -> u64 {
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let flags = if edge { epoll::EventFlags::ET } else { epoll::EventFlags::empty() };
    let data = epoll::EventData::new_u64(1);
    epoll::add(&set, pollable.as_fd(), data, flags | epoll::EventFlags::IN).unwrap();
    let mut waiting: Vec<u8> = Vec::new();
    let mut echoed = 0;
    let mut ended = false;
    loop {
        // Everything until both directions say `WouldBlock`.
        loop {
            if !waiting.is_empty() {
                match stream.send_half().try_write(&waiting) {
                    Ok(count) => {
                        echoed += count as u64;
                        waiting.drain(..count);
                        continue;
                    }
                    Err(Error::WouldBlock) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            if ended {
                stream.finish();
                return echoed;
            }
            let mut bytes = [0; 50_000];
            match stream.receive_half().try_read(&mut bytes) {
                Ok(0) => ended = true,
                Ok(count) => waiting.extend_from_slice(&bytes[..count]),
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
        }
        let mut events = [epoll::Event { flags, data }; 1];
        let limit = Timespec { tv_sec: 20, tv_nsec: 0 };
        let found = epoll::wait(&set, &mut events, Some(&limit)).unwrap();
        assert_eq!(found, 1, "nobody signalled; {echoed} echoed, {} wait", waiting.len());
    }
}
