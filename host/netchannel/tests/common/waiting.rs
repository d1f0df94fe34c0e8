//! Streams whose application waits elsewhere.

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use netchannel::{
    Config, Error, Idle, Interest, Listener, Pollable, Poller, ReadyList, Runtime, Stream,
    StreamOptions,
};
use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};

use super::{LIMIT, Random, check, config, fill};

/// Every poller and idleness.
pub(crate) fn settings() -> impl Iterator<Item = Config> {
    let pollers = [Poller::Inline, Poller::Dedicated].into_iter();
    pollers.flat_map(|poller| {
        [Idle::Spin, Idle::Sleep].map(|idle| Config { poller, idle, ..config() })
    })
}

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

/// The most bytes of a listed stream.
const MOST: u64 = 3_000;

/// Bytes of the listed stream of this number.
fn amount(number: u64) -> u64 {
    Random(number).below(MOST) + 1
}

/// Streams for a list: each sends its number, and later its bytes.
pub(crate) fn write_listed(client: &Runtime, address: SocketAddr, count: u64) {
    let connect = |number: u64| {
        let mut stream = client.connect(address, &StreamOptions::default()).unwrap();
        stream.write_all(&number.to_le_bytes()).unwrap();
        stream
    };
    let mut streams: Vec<_> = (0..count).map(connect).collect();
    let mut bytes = [0; MOST as usize];
    for (number, stream) in (0..).zip(&mut streams) {
        let len = amount(number) as usize;
        fill(number, 0, &mut bytes[..len]);
        stream.write_all(&bytes[..len]).unwrap();
    }
    streams.into_iter().for_each(|stream| stream.close().unwrap());
}

/// One thread reads all of those streams.
pub(crate) fn serve_list(runtime: &Runtime, listener: &Listener, count: u64) {
    let mut list = ReadyList::new(runtime).unwrap();
    list.register_listener(listener, u64::MAX);
    let mut streams: HashMap<u64, (Stream, Vec<u8>)> = HashMap::new();
    let (mut accepted, mut over) = (0, 0);
    while over < count {
        let events = list.wait(Some(LIMIT)).unwrap().to_vec();
        assert!(!events.is_empty(), "nobody told; {accepted} accepted, {over} over");
        for event in events {
            if event.token == u64::MAX {
                while let Ok(stream) = listener.try_accept() {
                    list.register(&stream, accepted, Interest::READ).unwrap();
                    streams.insert(accepted, (stream, Vec::new()));
                    accepted += 1;
                }
                continue;
            }
            assert!(event.is_readable && !event.is_writable);
            let Some((stream, read)) = streams.get_mut(&event.token) else { continue };
            let mut bytes = [0; 700];
            match stream.receive_half().try_read(&mut bytes) {
                Ok(0) => {
                    let number = u64::from_le_bytes(read[..8].try_into().unwrap());
                    assert_eq!(read.len() as u64 - 8, amount(number));
                    check(number, 0, &read[8..]);
                    over += 1;
                    // It leaves the list by itself.
                    streams.remove(&event.token);
                }
                Ok(count) => read.extend_from_slice(&bytes[..count]),
                Err(Error::WouldBlock) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
}
