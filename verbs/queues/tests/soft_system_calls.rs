//! The NIC in memory is memory and no socket: once all is set up, 1 GiB moves without a system call.
//!
//! The thread that posts and polls for both ends gives up the right to any: the kernel ends the process at
//! the first. So it runs in a process of its own, which is this binary once more.

#![cfg(target_os = "linux")]

use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use netchannel_verbs::queue_pair::{ConnectOptions, QueuePairInit, Service};
use netchannel_verbs::soft::{self, SoftOptions};
use netchannel_verbs::work::{SendOperation, Slices};
use netchannel_verbs::{
    Access, CompletionQueue as _, Context as _, LocalSlice, MemoryRegion as _, QueuePair as _,
    ReceiveRequest, SendRequest, WorkCompletion,
};

const TASK: &str = "NETCHANNEL_TEST_WITHOUT_CALLS";
const TOTAL: usize = 1 << 30;
/// A WRITE and the SEND that announces it, as the stack above posts them.
const CHUNK: usize = 1 << 20;
const MESSAGE: usize = 64;
/// Both forms in turn: bytes inside of a SEND.
const EAGER: usize = 8 << 10;
const DEPTH: u32 = 16;

/// One end of a connection.
struct End {
    queue_pair: soft::QueuePair,
    queue: soft::CompletionQueue,
    memory: soft::MemoryRegion,
}

impl End {
    fn new(context: &soft::Context) -> Self {
        let queue = context.create_completion_queue(64).unwrap();
        let queue_pair = context
            .create_queue_pair(&QueuePairInit {
                service: Service::ReliableConnection,
                send_queue: &queue,
                receive_queue: &queue,
                shared_receive_queue: None,
                send_capacity: DEPTH,
                receive_capacity: DEPTH,
                inline_bytes: 0,
            })
            .unwrap();
        let access = Access::LOCAL_WRITE | Access::REMOTE_WRITE;
        let memory = context.alloc(2 * CHUNK, access).unwrap();
        // Touched: pages that are not there are not the NIC's business.
        for offset in (0..2 * CHUNK).step_by(4096) {
            // SAFETY: in bounds; nobody else uses the memory yet.
            unsafe { memory.as_ptr().as_ptr().add(offset).write_volatile(1) };
        }
        Self { queue_pair, queue, memory }
    }

    fn slice(&self, offset: usize, length: usize) -> Slices {
        let address = self.memory.as_ptr().as_ptr() as u64 + offset as u64;
        let local_key = self.memory.local_key();
        Slices::one(LocalSlice { address, length: length as u32, local_key })
    }

    fn receive(&mut self) {
        let request = ReceiveRequest { id: 1, local: self.slice(CHUNK, EAGER) };
        // SAFETY: the memory outlives the queue pair's requests; nobody looks at the bytes.
        let posted = unsafe { self.queue_pair.post_receive(&[request]) };
        assert!(posted.is_ok());
    }

    /// Polls until so many requests have completed.
    fn wait(&mut self, count: usize) {
        let mut batch = [WorkCompletion::default(); 16];
        let mut found = 0;
        while found < count {
            let new = self.queue.poll(&mut batch).unwrap_or(0);
            assert!(batch[..new].iter().all(|completion| completion.status.is_success()));
            found += new;
        }
    }
}

/// One chunk as a WRITE with its announcement, or as many bytes inside of SENDs.
fn move_chunk(a: &mut End, b: &mut End, eager: bool) {
    let target =
        SendOperation::Write { address: b.memory.remote_address(), key: b.memory.remote_key() };
    let request = |operation, local, signaled| SendRequest {
        id: 2,
        operation,
        local,
        signaled,
        inline: false,
        solicited: false,
    };
    let bulk = [
        request(target, a.slice(0, CHUNK), false),
        request(SendOperation::Send, a.slice(CHUNK, MESSAGE), true),
    ];
    let small = [request(SendOperation::Send, a.slice(0, EAGER), true)];
    let (requests, times) = if eager { (&small[..], CHUNK / EAGER) } else { (&bulk[..], 1) };
    for _ in 0..times {
        b.receive();
        // SAFETY: the memory outlives the queue pair's requests, and nobody writes to it meanwhile.
        let posted = unsafe { a.queue_pair.post_send(requests) };
        assert!(posted.is_ok());
        b.wait(1);
        a.wait(1);
    }
}

/// Whoever makes a system call from now on, but to end the process, is ended by the kernel.
fn give_up_system_calls() {
    use std::ffi::{c_int, c_ulong, c_void};
    const PR_SET_SECCOMP: c_int = 22;
    const PR_SET_NO_NEW_PRIVS: c_int = 38;
    const SECCOMP_MODE_FILTER: c_ulong = 2;
    const EXIT_GROUP: u32 = if cfg!(target_arch = "x86_64") { 231 } else { 94 };
    /// `struct sock_filter` and `struct sock_fprog` of linux/filter.h.
    #[repr(C)]
    struct Instruction(u16, u8, u8, u32);
    #[repr(C)]
    struct Program {
        len: u16,
        filter: *const c_void,
    }
    unsafe extern "C" {
        fn prctl(option: c_int, a: c_ulong, b: c_ulong, c: c_ulong, d: c_ulong) -> c_int;
    }
    let filter = [
        // Load the number; if it is exit_group's allow it, else end the process.
        Instruction(0x20, 0, 0, 0),
        Instruction(0x15, 0, 1, EXIT_GROUP),
        Instruction(0x06, 0, 0, 0x7fff_0000),
        Instruction(0x06, 0, 0, 0x8000_0000),
    ];
    let program = Program { len: filter.len() as u16, filter: filter.as_ptr().cast() };
    // SAFETY: no pointers are passed.
    assert_eq!(unsafe { prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }, 0);
    let program = &raw const program as c_ulong;
    // SAFETY: the program is valid during the call, which copies it.
    assert_eq!(unsafe { prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) }, 0);
}

/// Ends the process without a word: whatever is said at the end of one is a system call.
fn leave(code: i32) -> ! {
    unsafe extern "C" {
        fn _exit(code: i32) -> !;
    }
    // SAFETY: nothing is left to be done in this process.
    unsafe { _exit(code) }
}

/// Does nothing in the test itself. In a process of its own it moves the bytes, and then calls, if it is to.
#[test]
fn without_calls() {
    let Some(task) = std::env::var_os(TASK) else { return };
    let contexts = [(); 2].map(|()| soft::Context::open(SoftOptions::default()).unwrap());
    let (mut a, mut b) = (End::new(&contexts[0]), End::new(&contexts[1]));
    let options = ConnectOptions::default();
    a.queue_pair.connect(&b.queue_pair.endpoint(), &options).unwrap();
    b.queue_pair.connect(&a.queue_pair.endpoint(), &options).unwrap();
    // What is set up at the first use: the mapping of the peer's memory, capacities of lists.
    for eager in [false, true] {
        move_chunk(&mut a, &mut b, eager);
    }
    give_up_system_calls();
    for number in 0..TOTAL / CHUNK {
        move_chunk(&mut a, &mut b, number % 2 == 1);
    }
    if task == "call" {
        std::thread::yield_now();
    }
    leave(7);
}

fn run(task: &str) -> std::process::ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "without_calls", "--nocapture", "--test-threads=1"]).env(TASK, task);
    command.stdout(std::process::Stdio::null()).status().unwrap()
}

#[test]
fn a_gibibyte_moves_without_a_system_call() {
    const SIGSYS: i32 = 31;
    assert_eq!(run("move").code(), Some(7), "it made a system call, or failed");
    // Or else nothing was tested.
    assert_eq!(run("call").signal(), Some(SIGSYS));
}
