//! The gates of libmlx5, with a table of functions that behave as asked. A device pointer is
//! never looked into by them, so a dangling one does.

use std::ffi::c_int;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use super::super::bindings::{
    self as sys, Mlx5, ibv_context, ibv_device, ibv_qp, mlx5dv_clock_info, mlx5dv_context,
};
use super::{Answers, Functions, LIBRARY, capabilities};
use crate::device::{Offer, WhyNot};
use crate::source_port::SourcePort;

const EINVAL: c_int = 22;
const EOPNOTSUPP: c_int = 95;

unsafe extern "C" fn yes(_: *mut ibv_device) -> bool {
    true
}

unsafe extern "C" fn no(_: *mut ibv_device) -> bool {
    false
}

/// Answers what was asked for, but for lag ports, as libmlx5 without a bond; and one field more, as
/// a library that takes the mask for its own would.
unsafe extern "C" fn query(_: *mut ibv_context, out: *mut mlx5dv_context) -> c_int {
    // SAFETY: the caller of a query passes a place for the answer.
    let out = unsafe { &mut *out };
    assert_eq!((out.flags, out.max_dynamic_bfregs), (0, 0), "the answer starts empty");
    out.comp_mask &= !u64::from(sys::MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS);
    out.comp_mask |= u64::from(sys::MLX5DV_CONTEXT_MASK_CRYPTO_OFFLOAD) | 1 << 40;
    out.cqe_comp_caps.max_num = 8;
    out.max_dynamic_bfregs = 512;
    0
}

unsafe extern "C" fn query_fails(_: *mut ibv_context, out: *mut mlx5dv_context) -> c_int {
    // SAFETY: as above. A failed query leaves anything behind.
    unsafe { (*out).max_dynamic_bfregs = 77 };
    EOPNOTSUPP
}

/// The older way to fail: -1, and `errno` set.
unsafe extern "C" fn query_fails_with_errno(_: *mut ibv_context, _: *mut mlx5dv_context) -> c_int {
    // SAFETY: closing no descriptor has one effect: errno is EBADF.
    unsafe { close(-1) }
}

unsafe extern "C" {
    fn close(descriptor: c_int) -> c_int;
}

unsafe extern "C" fn clock(_: *mut ibv_context, out: *mut mlx5dv_clock_info) -> c_int {
    // SAFETY: as above.
    unsafe { (*out).mult = 1 << 20 };
    // SAFETY: as above.
    unsafe { (*out).shift = 20 };
    // SAFETY: as above.
    unsafe { (*out).mask = u64::MAX };
    0
}

unsafe extern "C" fn no_clock(_: *mut ibv_context, _: *mut mlx5dv_clock_info) -> c_int {
    EINVAL
}

static PORT_SET: AtomicU16 = AtomicU16::new(0);

unsafe extern "C" fn set_port(_: *mut ibv_qp, port: u16) -> c_int {
    PORT_SET.store(port, Ordering::Relaxed);
    0
}

unsafe extern "C" fn refuse_port(_: *mut ibv_qp, _: u16) -> c_int {
    EOPNOTSUPP
}

unsafe extern "C" fn second_of_two(_: *mut ibv_qp, own: *mut u8, active: *mut u8) -> c_int {
    // SAFETY: the caller of a query passes places for the answer.
    unsafe { *own = 2 };
    // SAFETY: as above.
    unsafe { *active = 1 };
    0
}

fn working() -> Functions {
    Functions {
        is_supported: Ok(yes),
        query_device: Ok(query),
        clock_info: Ok(clock),
        modify_source_port: Ok(set_port),
        query_lag_port: Ok(second_of_two),
        _library: None,
    }
}

fn absent<F>(function: &'static str) -> Offer<F> {
    Err(WhyNot::NoFunction { library: LIBRARY, function, since: "99" })
}

fn ask(functions: &Functions) -> Offer<Answers> {
    // SAFETY: the functions above do not look into the device.
    unsafe { functions.ask(NonNull::dangling().as_ptr(), NonNull::dangling().as_ptr()) }
}

fn why(functions: &Functions) -> WhyNot {
    ask(functions).err().expect("a gate is closed")
}

#[test]
fn open_gates_lead_to_answers() {
    let answers = ask(&working()).unwrap();
    let found = capabilities(&answers);
    assert_eq!(found.dynamic_doorbells, Ok(512));
    assert_eq!(found.completion_compression.unwrap().max, 8);
    assert_eq!(found.clock.unwrap().hertz, 1_000_000_000);
    assert_eq!(found.source_port, Ok(()));
    let field = "MLX5DV_CONTEXT_MASK_NUM_LAG_PORTS";
    assert_eq!(found.lag_ports, Err(WhyNot::NotAnswered { field }));
    // Answered, with nothing in it.
    assert!(matches!(found.striding_receive, Err(WhyNot::Declined(_))));
    let foreign = u64::from(sys::MLX5DV_CONTEXT_MASK_CRYPTO_OFFLOAD) | 1 << 40;
    assert_eq!(answers.device.comp_mask & foreign, 0, "nothing that was not asked for is read");
}

#[test]
fn each_closed_gate_is_a_reason() {
    let function = "mlx5dv_is_supported";
    let lacks = Functions { is_supported: absent(function), ..working() };
    assert!(why(&lacks).to_string().contains("lacks mlx5dv_is_supported"), "{}", why(&lacks));
    let other = Functions { is_supported: Ok(no), ..working() };
    assert_eq!(why(&other), WhyNot::NotSupported { function });

    let function = "mlx5dv_query_device";
    let lacks = Functions { query_device: absent(function), ..working() };
    assert!(matches!(why(&lacks), WhyNot::NoFunction { .. }));
    let fails = Functions { query_device: Ok(query_fails), ..working() };
    assert_eq!(why(&fails), WhyNot::Failed { function, errno: EOPNOTSUPP });
    let fails = Functions { query_device: Ok(query_fails_with_errno), ..working() };
    assert_eq!(why(&fails), WhyNot::Failed { function, errno: 9 });
}

#[test]
fn what_is_optional_is_missing_alone() {
    let function = "mlx5dv_get_clock_info";
    let fails = Functions { clock_info: Ok(no_clock), ..working() };
    let found = capabilities(&ask(&fails).unwrap());
    assert_eq!(found.clock, Err(WhyNot::Failed { function, errno: EINVAL }));
    assert_eq!(found.dynamic_doorbells, Ok(512));

    let lacks = Functions {
        clock_info: absent(function),
        modify_source_port: absent("mlx5dv_modify_qp_udp_sport"),
        ..working()
    };
    let found = capabilities(&ask(&lacks).unwrap());
    assert!(matches!(found.clock, Err(WhyNot::NoFunction { .. })));
    assert!(matches!(found.source_port, Err(WhyNot::NoFunction { .. })));
    assert_eq!(found.dynamic_doorbells, Ok(512));
}

#[test]
fn a_clock_that_makes_no_sense_is_declined() {
    let mut answers = ask(&working()).unwrap();
    for (mult, shift, mask) in
        [(0, 20, 1), (1, 20, 0), (1, 64, 1), (1, u32::MAX, 1), (u32::MAX, 0, 1)]
    {
        let clock = mlx5dv_clock_info { mult, shift, mask, ..mlx5dv_clock_info::default() };
        answers.clock = Ok(clock);
        let found = capabilities(&answers).clock;
        assert!(matches!(found, Err(WhyNot::Declined(_))), "{mult} {shift} {mask}: {found:?}");
    }
}

#[test]
fn a_queue_pair_is_told_its_port_or_refused() {
    let port = SourcePort::new(0xd123).unwrap();
    // SAFETY: the functions above do not look into the queue pair.
    let set = |functions: &Functions| unsafe {
        functions.set_source_port(NonNull::dangling().as_ptr(), port)
    };
    assert_eq!(set(&working()), Ok(()));
    assert_eq!(PORT_SET.load(Ordering::Relaxed), 0xd123);
    let function = "mlx5dv_modify_qp_udp_sport";
    let refuses = Functions { modify_source_port: Ok(refuse_port), ..working() };
    assert_eq!(set(&refuses), Err(WhyNot::Failed { function, errno: EOPNOTSUPP }));
    let lacks = Functions { modify_source_port: absent(function), ..working() };
    assert!(matches!(set(&lacks), Err(WhyNot::NoFunction { .. })));
}

#[test]
fn a_queue_pair_tells_its_lag_port() {
    // SAFETY: as above.
    let ask = |functions: &Functions| unsafe { functions.lag_port(NonNull::dangling().as_ptr()) };
    assert_eq!(ask(&working()), Ok((2, 1)));
    let lacks = Functions { query_lag_port: absent("mlx5dv_query_qp_lag_port"), ..working() };
    assert!(matches!(ask(&lacks), Err(WhyNot::NoFunction { .. })));
}

/// A library that is no libmlx5: every symbol is looked up by itself, none is found, none called.
#[test]
fn a_library_without_the_functions_closes_every_gate() {
    // SAFETY: it is open already; opening it again does nothing.
    let library = unsafe { Mlx5::new("libc.so.6") }.unwrap();
    let functions = Functions::from(library);
    let missing = |offer: Option<WhyNot>, name: &str| match offer {
        Some(WhyNot::NoFunction { function, .. }) => assert_eq!(function, name),
        other => panic!("{name}: {other:?}"),
    };
    missing(functions.is_supported.clone().err(), "mlx5dv_is_supported");
    missing(functions.query_device.clone().err(), "mlx5dv_query_device");
    missing(functions.clock_info.clone().err(), "mlx5dv_get_clock_info");
    missing(functions.modify_source_port.clone().err(), "mlx5dv_modify_qp_udp_sport");
    missing(functions.query_lag_port.clone().err(), "mlx5dv_query_qp_lag_port");
    missing(Some(why(&functions)), "mlx5dv_is_supported");
}
