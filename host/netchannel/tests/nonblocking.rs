//! Calls that never wait.

mod common;

use std::io::{ErrorKind, Read, Write};
use std::time::Duration;

use common::waiting::{settings, would_block};
use common::{ANY_PORT, LIMIT, Pair, Random, check, config, fill, start, within};
use netchannel::{Error, Stream, StreamOptions};

/// One thread, both ends, no call that waits: whatever waited would wait for ever.
#[test]
fn one_thread_drives_both_ends() {
    for config in settings() {
        within(LIMIT, &format!("{} {}", config.poller, config.idle), move || {
            let Pair { server, client, listener } = Pair::of(config.clone(), config);
            assert!(would_block(listener.try_accept()));
            let options = StreamOptions::default();
            let mut connecting = client.start_connect(listener.local_addr(), &options).unwrap();
            let (mut ours, mut theirs) = (None, None);
            while ours.is_none() || theirs.is_none() {
                match connecting.try_finish() {
                    Ok(stream) => ours = Some(stream),
                    Err(Error::WouldBlock | Error::Closed) => {}
                    Err(error) => panic!("{error}"),
                }
                match listener.try_accept() {
                    Ok(stream) => theirs = Some(stream),
                    Err(error) => assert!(would_block(Err::<(), _>(error))),
                }
            }
            let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
            assert!(would_block(theirs.receive_half().try_read(&mut [0; 1])));
            assert!(would_block(theirs.receive_half().try_borrow()));
            try_both(&mut ours, &mut theirs, 3 << 20);
            drop(server);
        });
    }
}

fn try_both(ours: &mut Stream, theirs: &mut Stream, total: u64) {
    let mut random = Random(1);
    let (mut sent, mut received) = (0, 0);
    let mut refused = 0;
    let mut bytes = vec![0; 200_000];
    while received < total {
        // Until there is no room at all.
        while sent < total {
            let len = random.size(200_000).min((total - sent) as usize);
            fill(1, sent, &mut bytes[..len]);
            let taken = if random.below(2) == 0 {
                ours.send_half().try_write(&bytes[..len])
            } else {
                ours.send_half().try_reserve(len).and_then(|mut space| {
                    let len = space.len();
                    space.put(0, &bytes[..len]);
                    space.commit(len).map(|()| len)
                })
            };
            match taken {
                Ok(taken) => sent += taken as u64,
                Err(Error::WouldBlock) => {
                    refused += 1;
                    break;
                }
                Err(error) => panic!("{error}"),
            }
        }
        if sent == total {
            ours.finish();
        }
        loop {
            let len = random.size(200_000);
            match theirs.receive_half().try_read(&mut bytes[..len]) {
                Ok(0) => break,
                Ok(count) => {
                    check(1, received, &bytes[..count]);
                    received += count as u64;
                }
                Err(Error::WouldBlock) => break,
                Err(error) => panic!("{error}"),
            }
        }
    }
    assert!(refused > 0, "the buffer was never full");
}

#[test]
fn nonblocking_streams_answer_would_block_from_every_call() {
    within(LIMIT, "set_nonblocking", || {
        let pair = Pair::new();
        let (mut ours, mut theirs) = pair.stream();
        theirs.set_nonblocking(true);
        assert_eq!(theirs.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::WouldBlock);
        assert!(would_block(theirs.receive_half().borrow()));
        let error = loop {
            if let Err(error) = theirs.write(&[1; 100_000]) {
                break error;
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(would_block(theirs.send_half().reserve(100_000)));
        theirs.set_nonblocking(false);
        ours.write_all(&[1]).unwrap();
        assert_eq!(theirs.read(&mut [0; 1]).unwrap(), 1);
    });
}

#[test]
fn connecting_takes_no_longer_than_told() {
    within(LIMIT, "connect_timeout", || {
        let client = start(config());
        // Takes connections and says nothing.
        let silent = std::net::TcpListener::bind(std::net::SocketAddr::from(ANY_PORT)).unwrap();
        let address = silent.local_addr().unwrap();
        let options = StreamOptions::default();
        let timeout = Duration::from_millis(50);
        let error = client.connect_timeout(address, &options, timeout).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error}");
        let pair = Pair::new();
        let address = pair.listener.local_addr();
        assert!(pair.client.connect_timeout(address, &options, LIMIT).is_ok());
        drop(pair.listener);
        let mut refused = pair.client.start_connect(address, &options).unwrap();
        let error = loop {
            match refused.try_finish() {
                Err(Error::WouldBlock) => {}
                other => break other.err().unwrap(),
            }
        };
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{error}");
    });
}
