//! Connecting without waiting, to devices that do not answer.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use netchannel_verbs::context::AsyncEvent;
use netchannel_verbs::queue_pair::{
    ConnectOptions, Endpoint, QueuePairInit, QueuePairState, Service,
};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices, Status};
use netchannel_verbs::{
    CompletionQueue as _, Context as _, Error, QueuePair as _, ReceiveRequest, SendRequest,
    WorkCompletion,
};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

/// Far above what anything here takes.
const LIMIT: Duration = Duration::from_secs(60);

fn queue_pair(context: &soft::Context, queue: &soft::CompletionQueue) -> soft::QueuePair {
    let made = context.create_queue_pair(&QueuePairInit {
        service: Service::ReliableConnection,
        send_queue: queue,
        receive_queue: queue,
        shared_receive_queue: None,
        send_capacity: 16,
        receive_capacity: 16,
        inline_bytes: 0,
    });
    made.unwrap()
}

fn send(queue_pair: &mut soft::QueuePair, id: u64) {
    let (operation, local) = (SendOperation::Send, Slices::default());
    let request =
        SendRequest { id, operation, local, signaled: true, inline: false, solicited: false };
    // SAFETY: there are no slices.
    unsafe { queue_pair.post_send(&[request]) }.unwrap();
}

fn receive(queue_pair: &mut soft::QueuePair, id: u64) {
    // SAFETY: there are no slices.
    unsafe { queue_pair.post_receive(&[ReceiveRequest { id, local: Slices::default() }]) }.unwrap();
}

/// The completion of request `id`.
fn wait(queue: &mut soft::CompletionQueue, id: u64) -> WorkCompletion {
    let end = Instant::now() + LIMIT;
    loop {
        let mut one = [WorkCompletion::default()];
        if queue.poll(&mut one).unwrap() > 0 && one[0].id == id {
            return one[0];
        }
        assert!(Instant::now() < end, "request {id} does not complete");
        std::thread::yield_now();
    }
}

/// Something that listens where a device of this name would, and says nothing; an endpoint there.
fn mute(good: &Endpoint, name: &str) -> (OwnedFd, Endpoint) {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC, None).unwrap();
    let name = format!("netchannel-test-{}-{name}", std::process::id());
    let address = SocketAddrUnix::new_abstract_name(name.as_bytes()).unwrap();
    rustix::net::bind(&socket, &address).unwrap();
    rustix::net::listen(&socket, 8).unwrap();
    (socket, at(good, &name))
}

/// The endpoint, at a device of another name.
fn at(good: &Endpoint, name: &str) -> Endpoint {
    // Provider and version, number and token: 4, 4 and 16 bytes; then the name.
    let mut bytes = good.0[..24].to_vec();
    bytes.extend(name.as_bytes());
    Endpoint(bytes)
}

#[test]
fn a_device_that_says_nothing_holds_up_nobody() {
    let context = soft::Context::open(SoftOptions::default()).unwrap();
    let mut queue = context.create_completion_queue(64).unwrap();
    let [mut stuck, mut other, mut first, mut second] =
        [(); 4].map(|()| queue_pair(&context, &queue));
    let options = ConnectOptions::default();
    let (_mute, nowhere) = mute(&stuck.endpoint(), "mute");
    stuck.start_connect(&nowhere, &options).unwrap();
    other.start_connect(&nowhere, &options).unwrap();
    send(&mut stuck, 1);
    send(&mut other, 2);
    // Whoever shares the thread goes on, connects too, and has not to wait for those.
    first.start_connect(&second.endpoint(), &options).unwrap();
    second.start_connect(&first.endpoint(), &options).unwrap();
    for id in 10..30 {
        receive(&mut second, id);
        send(&mut first, 100);
        assert_eq!(wait(&mut queue, id).status, Status::Success);
    }
    assert_eq!(stuck.state().unwrap(), QueuePairState::ReadyToSend, "it is still being met");
    for (id, queue_pair) in [(1, stuck), (2, other)] {
        assert_eq!(wait(&mut queue, id).status, Status::RetryExceeded);
        assert_eq!(queue_pair.state().unwrap(), QueuePairState::Error);
        let event = context.poll_event().unwrap();
        assert_eq!(event, Some(AsyncEvent::QueuePairFatal(queue_pair.number())));
    }
    assert_eq!(first.state().unwrap(), QueuePairState::ReadyToSend);
}

#[test]
fn who_hangs_up_or_is_not_there_is_an_error() {
    let context = soft::Context::open(SoftOptions::default()).unwrap();
    let mut queue = context.create_completion_queue(64).unwrap();
    let [mut stuck, mut lost, mut peer, mut third] = [(); 4].map(|()| queue_pair(&context, &queue));
    let options = ConnectOptions::default();
    let (listener, rude) = mute(&stuck.endpoint(), "rude");
    stuck.start_connect(&rude, &options).unwrap();
    send(&mut stuck, 1);
    drop(rustix::net::accept(&listener).unwrap());
    assert_eq!(wait(&mut queue, 1).status, Status::RetryExceeded);

    let error = lost.start_connect(&at(&lost.endpoint(), "nobody"), &options).unwrap_err();
    assert!(matches!(error, Error::BadEndpoint { .. }), "{error}");
    assert_eq!(lost.state().unwrap(), QueuePairState::Error);

    // Its device answers, and refuses: it has a peer already.
    let options = ConnectOptions::default();
    peer.start_connect(&third.endpoint(), &options).unwrap();
    third.start_connect(&peer.endpoint(), &options).unwrap();
    receive(&mut third, 20);
    send(&mut peer, 2);
    assert_eq!(wait(&mut queue, 20).status, Status::Success);
    let mut late = queue_pair(&context, &queue);
    late.start_connect(&peer.endpoint(), &options).unwrap();
    send(&mut late, 3);
    assert_eq!(wait(&mut queue, 3).status, Status::RetryExceeded);
}
