//! The plans of recorded devices, from their raw answers on.

use netchannel_verbs::DeviceAttributes;
use netchannel_verbs::rdma::recorded;

use super::{PlanRow, Worker, offload_plan};

fn find<'a>(plan: &'a [PlanRow], function: &str) -> &'a PlanRow {
    plan.iter().find(|row| row.function == function).unwrap()
}

fn recorded(model: &str) -> DeviceAttributes {
    recorded::devices().into_iter().find(|(name, _)| *name == model).unwrap().1
}

fn text(device: &DeviceAttributes) -> String {
    let mut text = String::new();
    for PlanRow { function, by, query, value, reason } in offload_plan(device) {
        text += &format!("{function} | {by:?} | {value} | {reason} ({query})\n");
    }
    text
}

#[test]
fn plans_of_recorded_devices() {
    for (model, device) in recorded::devices() {
        insta::assert_snapshot!(model.replace(' ', "-"), text(&device));
    }
    insta::assert_snapshot!("ConnectX-5-without-libmlx5", text(&recorded::without_direct_verbs()));
    insta::assert_snapshot!("ConnectX-6-Dx-rdma-core-22", text(&recorded::with_an_old_library()));
}

#[test]
fn every_row_has_a_query_and_a_reason() {
    for (model, device) in recorded::devices() {
        let plan = offload_plan(&device);
        for row in &plan {
            assert!(!row.query.is_empty() && !row.reason.is_empty(), "{model}: {row:?}");
        }
        let mut functions: Vec<_> = plan.iter().map(|row| row.function).collect();
        functions.sort_unstable();
        functions.dedup();
        assert_eq!(functions.len(), plan.len(), "{model}: each function once");
    }
}

#[test]
fn a_closed_gate_is_named_where_it_matters() {
    let plan = offload_plan(&recorded("ConnectX-6 Dx"));
    assert_eq!(find(&plan, "path entropy").query, "mlx5dv_modify_qp_udp_sport");

    let plan = offload_plan(&recorded::with_an_old_library());
    let row = find(&plan, "path entropy");
    assert_eq!((row.by, row.query), (Worker::Nic, "ibv_modify_qp: flow label"));
    assert!(row.reason.contains("lacks mlx5dv_modify_qp_udp_sport"), "{}", row.reason);

    let plan = offload_plan(&recorded::without_direct_verbs());
    assert!(find(&plan, "path entropy").reason.contains("libmlx5.so.1 cannot be used"));
    assert!(find(&plan, "direct verbs").reason.contains("libmlx5.so.1 cannot be used"));
}

#[test]
fn sizes_that_no_device_has_are_no_panic() {
    let mut device = recorded("ConnectX-7");
    let mlx5 = device.mlx5.as_mut().unwrap();
    mlx5.striding_receive.as_mut().unwrap().stride_log = (64, u32::MAX);
    mlx5.clock.as_mut().unwrap().hertz = u64::MAX;
    let plan = offload_plan(&device);
    assert!(find(&plan, "striding receive").value.contains("2^64 to 2^4294967295 B"));
}
