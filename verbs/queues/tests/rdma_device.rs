//! What only a device can show, beyond the conformance suite. Needs one RDMA device:
//!
//! ```text
//! scripts/softroce-vm -- TEST_PROGRAM --ignored --test-threads 1
//! ```
//!
//! `NETCHANNEL_RDMA_DEVICE` names the device; otherwise the first one is taken.

#[path = "rdma_device/datagrams.rs"]
mod datagrams;
#[path = "rdma_device/paths.rs"]
mod paths;
#[path = "rdma_device/side.rs"]
mod side;

use std::process::Command;
use std::time::{Duration, Instant};

use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::error::PostFailure;
use netchannel_verbs::queue_pair::{ConnectOptions, QueuePairInit, QueuePairState, Service};
use netchannel_verbs::rdma::{self, OpenOptions};
use netchannel_verbs::work::{Opcode, SendOperation, Slices, Status};
use netchannel_verbs::{
    Access, Context, Endpoint, Error, LocalSlice, MemoryRegion, QueuePair, ReceiveRequest,
    RemoteKey, SendRequest, SharedReceiveQueue,
};

use side::{PATIENCE, Side, connect, connected, open};

#[test]
#[ignore = "needs an RDMA device"]
fn attributes_are_plausible() {
    for device in rdma::devices().unwrap() {
        println!("{device:#?}");
        assert!(device.max_inline >= 64 && device.max_slices >= 4);
        assert!(device.port.active && device.port.mtu >= 1024 && device.port.gid.is_some());
        assert!(device.port.interface.is_some());
    }
    let error = rdma::Context::open("no such", &OpenOptions::default()).unwrap_err();
    assert!(matches!(error, Error::UnknownDevice { .. }), "{error}");
    let odd = OpenOptions { gid_index: Some(100), ..OpenOptions::default() };
    let name = open().attributes().name.clone();
    assert!(matches!(rdma::Context::open(&name, &odd), Err(Error::Invalid { .. })));
}

#[test]
#[ignore = "needs an RDMA device"]
fn long_lists_arrive_in_order() {
    let context = open();
    let (mut left, mut right) = connected(&context);
    right.receive(0..60);
    let requests: Vec<_> = (0..60)
        .map(|id| {
            let request = left.send(id, SendOperation::SendWithImmediate(id as u32), 100);
            SendRequest { signaled: id == 59, inline: id % 2 == 1, ..request }
        })
        .map(|request| {
            if request.inline {
                SendRequest { local: left.slice(0, 64), ..request }
            } else {
                request
            }
        })
        .collect();
    left.post(&requests).unwrap();
    let arrived = right.reap(60);
    for (id, done) in (0..).zip(arrived) {
        let bytes = if id % 2 == 1 { 64 } else { 100 };
        assert_eq!((done.id, done.immediate, done.bytes), (id, Some(id as u32), bytes));
        assert_eq!(done.queue_pair, right.pair.number());
    }
    let done = left.reap(1);
    assert_eq!((done[0].id, done[0].opcode, done[0].immediate), (59, Opcode::Send, None));
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_full_queue_is_backpressure() {
    let context = open();
    let (mut left, mut right) = connected(&context);
    // Nobody receives: nothing completes.
    let requests: Vec<_> = (0..1000).map(|id| left.send(id, SendOperation::Send, 1)).collect();
    let error = left.post(&requests).unwrap_err();
    assert!(matches!(error.reason, PostFailure::QueueFull), "{error}");
    assert!((64..1000).contains(&error.posted), "{error}");
    let mut posted = error.posted;
    let mut received = 0;
    while received < 300 {
        right.receive(0..20);
        received += 20;
        assert!(right.reap(20).iter().all(|done| done.status.is_success()));
        left.reap(20);
        posted += match left.post(&requests[posted..]) {
            Ok(()) => requests.len() - posted,
            Err(error) => error.posted,
        };
        assert!(posted >= received);
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn posting_before_connecting_is_refused() {
    let context = open();
    let mut side = Side::new(&context, None);
    assert_eq!(side.pair.state().unwrap(), QueuePairState::Init);
    side.receive(0..1);
    let request = side.send(0, SendOperation::Send, 1);
    let error = side.post(&[request]).unwrap_err();
    assert!(matches!(error.reason, PostFailure::WrongState), "{error}");
}

#[test]
#[ignore = "needs an RDMA device"]
fn failing_flushes_everything_and_refuses_the_peer() {
    let context = open();
    let (mut left, mut right) = connected(&context);
    left.receive(100..103);
    let requests: Vec<_> = (0..3).map(|id| left.send(id, SendOperation::Send, 1)).collect();
    left.post(&requests).unwrap();
    assert_eq!(left.pair.state().unwrap(), QueuePairState::ReadyToSend);
    left.pair.fail().unwrap();
    assert_eq!(left.pair.state().unwrap(), QueuePairState::Error);
    let mut flushed = left.reap_statuses(6);
    flushed.sort_by_key(|done| done.0);
    let expected: Vec<_> =
        [0, 1, 2, 100, 101, 102].into_iter().map(|id| (id, Status::Flushed)).collect();
    assert_eq!(flushed, expected);

    let error = left.post(&requests).unwrap_err();
    assert!(matches!(error.reason, PostFailure::WrongState), "{error}");

    let start = Instant::now();
    let request = right.send(7, SendOperation::Send, 1);
    right.post(&[request]).unwrap();
    assert_eq!(right.reap_statuses(1), [(7, Status::RetryExceeded)]);
    println!("retry exceeded after {:?}", start.elapsed());

    // Posted to a queue pair that failed by itself: flushed at the latest when it is failed again.
    right.receive(8..10);
    right.pair.fail().unwrap();
    assert_eq!(right.reap_statuses(2), [(8, Status::Flushed), (9, Status::Flushed)]);
}

#[test]
#[ignore = "needs an RDMA device"]
fn wrong_keys_and_lengths_are_errors() {
    let context = open();
    let key = |side: &Side| side.memory.remote_key();

    let (mut left, right) = connected(&context);
    let address = right.memory.remote_address();
    let wrong = RemoteKey(key(&right).0 ^ 0x00ff_ff00);
    let write = left.send(1, SendOperation::Write { address, key: wrong }, 8);
    left.post(&[write]).unwrap();
    assert_eq!(left.reap_statuses(1), [(1, Status::RemoteAccess)]);
    assert_eq!(left.pair.state().unwrap(), QueuePairState::Error);

    let (mut left, right) = connected(&context);
    let beyond = right.memory.remote_address() + right.memory.len() as u64 - 4;
    let read = left.send(2, SendOperation::Read { address: beyond, key: key(&right) }, 8);
    left.post(&[read]).unwrap();
    assert_eq!(left.reap_statuses(1), [(2, Status::RemoteAccess)]);

    let (mut left, mut right) = connected(&context);
    right.receive(9..10);
    let long = left.send(3, SendOperation::Send, 40_000);
    left.post(&[long]).unwrap();
    // Of two that are allowed, rxe answers the second, here and below.
    let status = left.reap(1)[0].status;
    assert!(matches!(status, Status::RemoteInvalidRequest | Status::RemoteOperation), "{status:?}");
    let status = right.reap(1)[0].status;
    assert!(matches!(status, Status::LocalLength | Status::LocalOperation), "{status:?}");

    let (mut left, _right) = connected(&context);
    let mut request = left.send(4, SendOperation::Send, 8);
    request.local = Slices::one(LocalSlice { local_key: 1, ..request.local.as_slice()[0] });
    left.post(&[request]).unwrap();
    let status = left.reap(1)[0].status;
    assert!(matches!(status, Status::LocalProtection | Status::LocalOperation), "{status:?}");
}

#[test]
#[ignore = "needs an RDMA device"]
fn receiver_not_ready_ends_when_asked_to() {
    let context = open();
    let (mut left, mut right) = (Side::new(&context, None), Side::new(&context, None));
    let options = ConnectOptions { receiver_not_ready_retries: 2, ..ConnectOptions::default() };
    connect(&mut left, &mut right, &options);
    let request = left.send(5, SendOperation::Send, 8);
    left.post(&[request]).unwrap();
    assert_eq!(left.reap_statuses(1), [(5, Status::ReceiverNotReady)]);
}

#[test]
#[ignore = "needs an RDMA device"]
fn a_shared_receive_queue_serves_several() {
    let context = open();
    let mut shared = context.create_shared_receive_queue(64).unwrap();
    let (mut a, mut b) = (Side::new(&context, Some(&shared)), Side::new(&context, Some(&shared)));
    let (mut left, mut right) = (Side::new(&context, None), Side::new(&context, None));
    connect(&mut left, &mut a, &ConnectOptions::default());
    connect(&mut right, &mut b, &ConnectOptions::default());
    let refused = ReceiveRequest { id: 0, local: a.slice(0, 8) };
    // SAFETY: refused, so nothing is written.
    let error = unsafe { a.pair.post_receive(&[refused]) }.unwrap_err();
    assert!(matches!(error.reason, PostFailure::Invalid(_)), "{error}");

    let local = a.slice(0, 64);
    let requests: Vec<_> = (0..40).map(|id| ReceiveRequest { id, local }).collect();
    // SAFETY: the slices lie in the memory of `a`, which nobody looks at.
    unsafe { shared.post_receive(&requests) }.unwrap();
    shared.arm_limit(30).unwrap();
    for side in [&mut left, &mut right] {
        let requests: Vec<_> = (0..8).map(|id| side.send(id, SendOperation::Send, 8)).collect();
        side.post(&requests).unwrap();
        side.reap(8);
    }
    let mut ids: Vec<_> = a.reap(8).iter().chain(&b.reap(8)).map(|done| done.id).collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..16).collect::<Vec<_>>());
    assert_eq!(wait_event(&context), AsyncEvent::ReceiveQueueLimit);

    let error = shared.close().unwrap_err();
    assert!(matches!(error, Error::Os { .. }), "{error}");
}

fn wait_event(context: &rdma::Context) -> AsyncEvent {
    let start = Instant::now();
    loop {
        if let Some(event) = context.poll_event().unwrap() {
            return event;
        }
        assert!(start.elapsed() < PATIENCE, "no event");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
#[ignore = "needs an RDMA device"]
fn unusable_endpoints_are_refused() {
    let context = open();
    let (mut left, right) = (Side::new(&context, None), Side::new(&context, None));
    let options = ConnectOptions::default();
    let good = right.pair.endpoint();
    let mut unreachable = good.clone();
    // The network for documentation, 192.0.2.0/24: no route leads there.
    unreachable.0[32..].copy_from_slice(&[192, 0, 2, 1]);
    let mut infiniband = good.clone();
    infiniband.0[5] = 1;
    for bad in [Endpoint(vec![]), Endpoint(vec![9; 300]), infiniband, unreachable] {
        let error = left.pair.connect(&bad, &options).unwrap_err();
        assert!(matches!(error, Error::BadEndpoint { .. }), "{error}");
        println!("{error}");
    }
    let endless = ConnectOptions { retries: 7, ..options };
    assert!(matches!(left.pair.connect(&good, &endless), Err(Error::Invalid { .. })));
    left.pair.connect(&good, &options).unwrap();
    assert!(matches!(left.pair.connect(&good, &options), Err(Error::Invalid { .. })));
}

#[test]
#[ignore = "needs an RDMA device"]
fn limits_are_checked() {
    let context = open();
    let attributes = context.attributes();
    let invalid = |result: Result<(), Error>| {
        assert!(matches!(result, Err(Error::Invalid { .. })), "{result:?}");
    };
    invalid(context.create_completion_queue(attributes.max_completions + 1).map(drop));
    invalid(context.create_completion_queue(0).map(drop));
    invalid(context.create_shared_receive_queue(attributes.max_shared_receives + 1).map(drop));
    invalid(context.alloc(0, Access::empty()).map(drop));
    invalid(context.alloc(4096, Access::REMOTE_WRITE).map(drop));
    let queue = context.create_completion_queue(1).unwrap();
    let fine = QueuePairInit {
        service: Service::ReliableConnection,
        send_queue: &queue,
        receive_queue: &queue,
        shared_receive_queue: None,
        send_capacity: 1,
        receive_capacity: 1,
        inline_bytes: attributes.max_inline,
    };
    let pair = context.create_queue_pair(&fine).unwrap();
    assert!(pair.max_inline() >= attributes.max_inline);
    let too_deep = QueuePairInit { send_capacity: attributes.max_work_requests + 1, ..fine };
    invalid(context.create_queue_pair(&too_deep).map(drop));
    let too_long = QueuePairInit { inline_bytes: attributes.max_inline + 1, ..fine };
    invalid(context.create_queue_pair(&too_long).map(drop));
    let datagram = QueuePairInit { service: Service::UnreliableDatagram, ..fine };
    let made = context.create_queue_pair(&datagram);
    assert_eq!(made.is_ok(), attributes.capabilities.unreliable_datagram, "{made:?}");
}

#[test]
#[ignore = "needs an RDMA device"]
fn objects_may_be_dropped_in_any_order() {
    let context = open();
    let (left, right) = connected(&context);
    let Side { queue, memory, pair } = left;
    drop(queue);
    drop(context);
    drop(memory);
    assert_eq!(pair.state().unwrap(), QueuePairState::ReadyToSend);
    pair.close().unwrap();
    right.memory.close().unwrap();
}

#[test]
#[ignore = "needs an RDMA device whose interface may be taken down"]
fn the_port_reports_its_state() {
    let context = open();
    let interface = context.attributes().port.interface.clone().unwrap();
    let set = |state: &str| {
        let status = Command::new("ip").args(["link", "set", &interface, state]).status();
        assert!(status.unwrap().success());
    };
    while context.poll_event().unwrap().is_some() {}
    set("down");
    let down = wait_port(&context);
    set("up");
    let up = wait_port(&context);
    assert_eq!((down, up), (AsyncEvent::PortDown, AsyncEvent::PortActive));
    // GIDs come back only some time after the link.
    std::thread::sleep(Duration::from_secs(2));
}

fn wait_port(context: &rdma::Context) -> AsyncEvent {
    loop {
        let event = wait_event(context);
        println!("{event:?}");
        if matches!(event, AsyncEvent::PortDown | AsyncEvent::PortActive) {
            return event;
        }
    }
}
