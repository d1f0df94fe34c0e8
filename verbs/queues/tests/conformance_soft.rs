//! The conformance suite on the NIC in memory.

use std::time::Duration;

use netchannel_units::Bandwidth;
use netchannel_verbs::conformance;
use netchannel_verbs::soft::{Context, LinkModel, SoftOptions};

fn check(options: &SoftOptions) {
    let open = |seed| Context::open(SoftOptions { seed, ..options.clone() }).unwrap();
    let (a, b) = (open(options.seed), open(options.seed + 1));
    let report = conformance::run(&a, &b, |outcome| println!("{outcome}"));
    assert!(report.passed(), "{report}");
    assert_eq!(a.reuse_violations() + b.reuse_violations(), 0);
}

#[test]
fn at_once() {
    check(&SoftOptions::default());
}

#[test]
fn deferred() {
    for seed in [1, 20, 300] {
        check(&SoftOptions { deferred: true, seed, ..SoftOptions::default() });
    }
}

#[test]
fn over_a_bad_link() {
    let link = LinkModel {
        rate: Bandwidth::from_gbps(100),
        delay: Duration::from_micros(20),
        loss: 0.001,
        reorder: 0.01,
        ..LinkModel::default()
    };
    check(&SoftOptions { link: Some(link), ..SoftOptions::default() });
}
